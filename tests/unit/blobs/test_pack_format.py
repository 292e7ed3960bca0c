"""The pack format: version 1 stays readable, what goes in comes out, and damage is told."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.blobs.pack import (
    MAGIC,
    TRAILER,
    BadPack,
    Frame,
    PackWriter,
    compress,
    decode_entry,
    entry_ref,
    pack_key,
    parse_index,
)
from paquebot.runtime.ulid import new_ulid
from paquebot.v1.mail_pb2 import COMPRESSION_NONE, BlobRef, Envelope, LocalRecipient, PackIndex, RemoteRecipient

GOLDEN = """
KLUv/SBcpQIAwgUUGZCnbVC00k+LTYjI1mT2GFOlyGvlaHY9owN25UcTyStMZDM2L4SFIxPyQGDY2RmOnE3Q9HGCroBd87v06tchU6Fo1rBL1J
afhBLxItGgVYAAU3ViamVjdDogcGxhaW4NCg0KU3RvcmVkIGFzIGl0IGlzLg0KCAESGjAxS0FSMEc5VzBHMDFERU5QQUNLMDAwMDAxGPvQ37Sr
MyKiAQp4ChowMUtBUjBHOVcwMDAwMDAwMDAwMDAwMDAwMRINYUBleGFtcGxlLm9yZxomCAcSD2JAcGFxdWVib3QudGVzdBoRYit4QHBhcXVlYm
90LnRlc3QiHAoNY0BleGFtcGxlLm5ldBILZXhhbXBsZS5uZXRIgNDftKszGF0gXCogKLOOHdXnZNoREelqAz9z2bShZdHeAT8BsvBZgf0Gdqcw
ASJGChwKGjAxS0FSMEc5VzAwMDAwMDAwMDAwMDAwMDAyEF0YJCAkKiAsFyEcjDv4+EURMaH9zTKAgf2Q82rsiYZVRuNHPAiF5hIBAABeju176q
bHfFBBUVVFQlQx
"""
"""A pack of format version 1, as first written. It must stay readable for ever: never make it anew."""

REWRITTEN = """
KLUv/SBcpQIAwgUUGZCnbVC00k+LTYjI1mT2GFOlyGvlaHY9owN25UcTyStMZDM2L4SFIxPyQGDY2RmOnE3Q9HGCroBd87v06tchU6Fo1rBL1JafhBL
xItGgVYAAU3ViamVjdDogcGxhaW4NCg0KU3RvcmVkIGFzIGl0IGlzLg0KCAISGjAxS0FSMEc5VzBHMDFERU5QQUNLMDAwMDAyGMjT37SrMyKEAQpaCh
owMUtBUjBHOVcwMDAwMDAwMDAwMDAwMDAwMRINYUBleGFtcGxlLm9yZxomCAcSD2JAcGFxdWVib3QudGVzdBoRYit4QHBhcXVlYm90LnRlc3RIgNDft
KszGF0gXCogKLOOHdXnZNoREelqAz9z2bShZdHeAT8BsvBZgf0GdqcwASJGChwKGjAxS0FSMEc5VzAwMDAwMDAwMDAwMDAwMDAyEF0YJCAkKiAsFyEc
jDv4+EURMaH9zTKAgf2Q82rsiYZVRuNHPAiF5igH9gAAAAga64tRDE50UEFRVUVCVDE=
"""
"""A pack of format version 2, as first written: the same messages, written again for account 7."""

FIRST = b"From: a@example.org\r\nTo: b@paquebot.test\r\nSubject: golden\r\n\r\nThis pack must stay readable.\r\n"
SECOND = b"Subject: plain\r\n\r\nStored as it is.\r\n"


def read(pack: bytes) -> list[bytes]:
    """Every message of a pack. Raises BadPack."""
    index = parse_index(pack)
    refs = [entry_ref(index.pack, entry) for entry in index.entries]
    return [decode_entry(ref, pack[ref.offset : ref.offset + ref.length]) for ref in refs]


def test_version_1_stays_readable() -> None:
    pack = base64.b64decode(GOLDEN)
    index = parse_index(pack)
    assert (index.version, index.pack, index.written_at_ms) == (1, "01KAR0G9W0G01DENPACK000001", 1764000000123)
    first, second = index.entries
    assert first.envelope == Envelope(
        queue_id="01KAR0G9W00000000000000001",
        reverse_path="a@example.org",
        accepted_at_ms=1764000000000,
        local=[LocalRecipient(account_id=7, address="b@paquebot.test", forward_path="b+x@paquebot.test")],
        remote=[RemoteRecipient(forward_path="c@example.net", domain="example.net")],
    )
    assert second.envelope == Envelope(queue_id="01KAR0G9W00000000000000002")
    assert read(pack) == [FIRST, SECOND]
    assert [entry.sha256 for entry in index.entries] == [hashlib.sha256(raw).digest() for raw in (FIRST, SECOND)]


def test_version_2_stays_readable() -> None:
    pack = base64.b64decode(REWRITTEN)
    index = parse_index(pack)
    assert (index.version, index.pack, index.account_id) == (2, "01KAR0G9W0G01DENPACK000002", 7)
    assert [entry.envelope.queue_id[-1] for entry in index.entries] == ["1", "2"]
    assert [recipient.account_id for recipient in index.entries[0].envelope.local] == [7]
    assert read(pack) == [FIRST, SECOND]


def test_a_pack_as_accepted_is_still_written_as_version_1() -> None:
    """Byte for byte: the golden pack's stored messages, put into a new one, give the golden pack."""
    pack = base64.b64decode(GOLDEN)
    index = parse_index(pack)
    writer = PackWriter(index.pack)
    for entry in index.entries:
        stored = pack[entry.offset : entry.offset + entry.length]
        writer.add(entry.envelope, Frame(stored, entry.size, entry.sha256, entry.compression))
    assert writer.finish(index.written_at_ms) == pack


@given(st.lists(st.binary(max_size=2000), max_size=8), st.integers(0, 2**48))
def test_a_pack_returns_its_messages(messages: list[bytes], now_ms: int) -> None:
    writer = PackWriter(new_ulid())
    refs = [writer.add(Envelope(queue_id=str(n)), compress(raw)) for n, raw in enumerate(messages)]
    pack = writer.finish(now_ms)
    index = parse_index(pack)
    assert [entry_ref(index.pack, entry) for entry in index.entries] == refs
    assert [entry.envelope.queue_id for entry in index.entries] == [str(n) for n in range(len(messages))]
    assert index.written_at_ms == now_ms
    assert read(pack) == messages


@given(st.integers(0, len(base64.b64decode(GOLDEN)) - 1))
def test_a_pack_cut_off_is_bad(length: int) -> None:
    with pytest.raises(BadPack):
        parse_index(base64.b64decode(GOLDEN)[:length])


@given(st.data())
def test_any_damage_to_index_or_trailer_is_bad(data: st.DataObject) -> None:
    pack = bytearray(base64.b64decode(GOLDEN))
    entries = parse_index(bytes(pack)).entries
    at = data.draw(st.integers(entries[1].offset + entries[1].length, len(pack) - 1))
    pack[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadPack):
        parse_index(bytes(pack))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_bad(chunk: bytes) -> None:
    with pytest.raises(BadPack):
        parse_index(chunk)
    with pytest.raises(BadPack):
        parse_index(chunk + TRAILER.pack(len(chunk), hashlib.sha256(chunk).digest()[:8], MAGIC))


def test_another_version_is_not_read() -> None:
    """Nor one whose index does not tell what its version promises."""
    for version, account_id in ((3, 0), (0, 0), (2, 0), (1, 7)):
        index = PackIndex(version=version, account_id=account_id).SerializeToString()
        with pytest.raises(BadPack, match=f"format version {version}"):
            parse_index(index + TRAILER.pack(len(index), hashlib.sha256(index).digest()[:8], MAGIC))


def written(raw: bytes) -> tuple[BlobRef, bytes]:
    frame = compress(raw)
    return PackWriter(new_ulid()).add(Envelope(), frame), frame.content


def test_an_entry_that_does_not_match_its_reference_is_bad() -> None:
    ref, stored = written(b"hello " * 100)
    changes: list[dict[str, int]] = [{"size": 599}, {"size": 601}, {"compression": 9}, {"encryption": 1}]
    for change in changes:
        with pytest.raises(BadPack):
            decode_entry(BlobRef(**{**{f.name: v for f, v in ref.ListFields()}, **change}), stored)
    for damaged in (stored[:-1], stored + b"x", b"\0" * len(stored)):
        with pytest.raises(BadPack):
            decode_entry(ref, damaged)
    plain = PackWriter(new_ulid()).add(Envelope(), Frame(b"abc", 4, b"", COMPRESSION_NONE))
    with pytest.raises(BadPack):
        decode_entry(plain, b"abc")


def test_threads_may_compress_at_once() -> None:
    """One zstd object used by two threads at once gives damaged frames."""

    def round_trip(number: int) -> bool:
        raw = hashlib.sha256(b"%d" % number).digest() * 4000 + b"%d" % number
        ref, stored = written(raw)
        return decode_entry(ref, stored) == raw

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(round_trip, range(400)))


def test_the_key_follows_from_the_time_in_the_id() -> None:
    assert pack_key("01KAR0G9W0G01DENPACK000001") == "packs/2025/11/23/01KAR0G9W0G01DENPACK000001"
    with pytest.raises(ValueError, match="is not a ULID"):
        pack_key("../../../etc/passwd")
