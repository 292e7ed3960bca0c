"""S3 gives wrong answers: a reader never gets content that was not written, and gets content that is correct."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import zstandard

from paquebot.blobs import BadPack, BlobStore, BlobsUnavailable, PackWriter, new_ulid
from paquebot.blobs.pack import Frame, compress, decode_entry, is_checked
from paquebot.blobs.ranged import WrongAnswer
from paquebot.blobs.ranges import plan_ranges
from paquebot.blobs.stored import StoredEntries, StoredEntry
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.settings import Seconds
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from tests.support.counted import value
from tests.support.lying_s3 import Lie, LyingS3

MESSAGES = [
    b"Subject: %d\r\n\r\n" % n + b"".join(b"line %d of %d\r\n" % (i * i, n) for i in range(99)) for n in range(9)
]
LIES_OF_READING = [Lie.FLIP, Lie.CUT, Lie.SHORT, Lie.LONG, Lie.OTHER_RANGE, Lie.SHIFTED, Lie.WHOLE]


@pytest.fixture
async def store(lying_s3: LyingS3, s3_settings: S3Settings, blobs: BlobStore) -> AsyncIterator[BlobStore]:
    """The bucket of `blobs`, through the lying proxy."""
    opened = BlobStore(replace(s3_settings, endpoint=lying_s3.endpoint))
    yield opened
    lying_s3.set_lie(Lie.NONE)
    await opened.close()


def unchecked(raw: bytes) -> Frame:
    """Return frames as older versions wrote them."""
    frame = compress(raw)
    return replace(frame, content=zstandard.ZstdCompressor(level=1, write_checksum=False).compress(raw))


async def written(blobs: BlobStore, frames: list[Frame]) -> list[BlobRef]:
    """References to messages of a new pack, as mailbox rows keep them."""
    writer = PackWriter(new_ulid())
    refs = [writer.add(Envelope(queue_id=new_ulid()), frame) for frame in frames]
    await blobs.put(writer.pack, writer.finish(1))
    for ref in refs:
        ref.ClearField("sha256")
    return refs


def frames(*, checked: bool) -> list[Frame]:
    return [compress(raw) if checked else unchecked(raw) for raw in MESSAGES]


@pytest.mark.parametrize("checked", [True, False], ids=["frames with a checksum", "frames of older programs"])
@pytest.mark.parametrize("lie", LIES_OF_READING)
async def test_a_damaged_message_is_never_returned(
    lying_s3: LyingS3, store: BlobStore, blobs: BlobStore, lie: Lie, *, checked: bool
) -> None:
    refs = await written(blobs, frames(checked=checked))
    lying_s3.set_lie(lie)
    outcomes = [*await store.read_each(refs), *[(await store.read_each([ref]))[0] for ref in refs]]
    assert lying_s3.lies >= 2
    for outcome, raw in zip(outcomes, MESSAGES * 2, strict=True):
        assert isinstance(outcome, BadPack | BlobsUnavailable) or outcome == raw
    assert any(isinstance(outcome, Exception) for outcome in outcomes)
    lying_s3.set_lie(Lie.NONE)
    assert await store.read_many(refs) == MESSAGES  # no wrong content was cached


@pytest.mark.parametrize("checked", [True, False], ids=["frames with a checksum", "frames of older programs"])
@pytest.mark.parametrize("lie", LIES_OF_READING)
async def test_one_wrong_answer_is_retried(
    lying_s3: LyingS3, store: BlobStore, blobs: BlobStore, lie: Lie, *, checked: bool
) -> None:
    refs = await written(blobs, frames(checked=checked))
    lying_s3.set_lie(lie, times=1)
    assert await store.read_many(refs) == MESSAGES
    assert lying_s3.lies == 1


@pytest.mark.parametrize("checked", [True, False], ids=["frames with a checksum", "frames of older programs"])
async def test_every_flipped_bit_is_detected(
    lying_s3: LyingS3, store: BlobStore, blobs: BlobStore, *, checked: bool
) -> None:
    """A frame of an older version alone does not reveal most flipped bits."""
    (ref,) = await written(blobs, [compress(MESSAGES[0]) if checked else unchecked(MESSAGES[0])])
    seen = 0
    lying_s3.set_lie(Lie.FLIP)
    for lying_s3.seed in range(100):
        (outcome,) = await store.read_each([ref])
        seen += isinstance(outcome, BadPack)
        assert isinstance(outcome, BadPack) or outcome == MESSAGES[0]  # one bit of a frame has no meaning
    assert seen >= 95


async def test_a_damaged_message_does_not_affect_its_neighbours(store: BlobStore, blobs: BlobStore) -> None:
    damaged = compress(MESSAGES[1])
    flipped = bytearray(damaged.content)
    flipped[len(flipped) // 2] ^= 1
    damaged = replace(damaged, content=bytes(flipped))
    refs = await written(blobs, [compress(MESSAGES[0]), damaged, compress(MESSAGES[2])])
    before = value("paquebot_s3_unreadable_total", kind="message") or 0.0
    first, second, third = await store.read_each(refs)
    assert (first, third) == (MESSAGES[0], MESSAGES[2])
    assert isinstance(second, BadPack)
    (outcome,) = await store.read_ranges(plan_ranges(refs))
    assert isinstance(outcome, list)
    assert [isinstance(message, bytes) for message in outcome] == [True, False, True]
    assert value("paquebot_s3_unreadable_total", kind="message") == before + 2


async def test_the_sha256_of_a_job_is_compared(blobs: BlobStore) -> None:
    """Another message of the same length in its place, with a valid checksum, is rejected."""
    writer = PackWriter(new_ulid())
    ref = writer.add(Envelope(), compress(MESSAGES[1]))
    other = compress(MESSAGES[1].replace(b"Subject: 1", b"Subject: 2"))
    assert len(other.content) == ref.length
    overwritten = PackWriter(writer.pack)
    place = overwritten.add(Envelope(), other)
    await blobs.put(writer.pack, overwritten.finish(1))
    assert await blobs.read(place) != MESSAGES[1]
    with pytest.raises(BadPack):
        await blobs.read(ref)


async def test_no_more_is_read_than_requested(lying_s3: LyingS3, store: BlobStore, blobs: BlobStore) -> None:
    pack = new_ulid()
    await blobs.put(pack, b"x" * 100_000)
    lying_s3.set_lie(Lie.WHOLE)
    with pytest.raises(WrongAnswer, match="not the requested range"):
        await store.read_range(pack, 10, 10)
    lying_s3.set_lie(Lie.LONG)
    with pytest.raises(WrongAnswer, match="a body of 33 bytes instead of 10"):
        await store.read_range(pack, 10, 10)
    lying_s3.set_lie(Lie.NONE)
    with pytest.raises(BadPack, match="ends before"):
        await store.read_range(pack, 99_999, 10)
    assert await store.read_start(pack, 2**20) == (b"x" * 100_000, 100_000)


async def test_a_declared_size_is_compared_before_anything_is_decompressed() -> None:
    frame = compress(bytes(50_000_000))
    assert len(frame.content) < 10_000
    ref = PackWriter(new_ulid()).add(Envelope(), frame)
    with pytest.raises(BadPack, match="the frame has another size than its reference"):
        decode_entry(BlobRef(length=ref.length, size=1000, compression=ref.compression), frame.content)


async def test_a_pack_is_never_overwritten(blobs: BlobStore) -> None:
    pack = new_ulid()
    await blobs.put(pack, b"first")
    with pytest.raises(BlobsUnavailable, match="exists already"):
        await blobs.put(pack, b"other")
    assert await blobs.read_range(pack, 0, 5) == b"first"


async def test_a_pack_whose_acknowledgement_was_lost_is_recognised(lying_s3: LyingS3, store: BlobStore) -> None:
    """S3 stored the object at the first try, and answers the second with the error that it exists."""
    pack = new_ulid()
    lying_s3.set_lie(Lie.LOST_ANSWER, times=1)
    await store.put(pack, b"mine")
    assert len(lying_s3.writes) == 2
    assert await store.read_range(pack, 0, 4) == b"mine"


async def test_a_pack_that_an_earlier_try_wrote_is_not_reported_as_absent(lying_s3: LyingS3, store: BlobStore) -> None:
    """S3 refuses the last try with certainty, but the result of the first is unknown."""
    pack = new_ulid()
    lying_s3.set_lie(Lie.LOST_ANSWER, times=1, then=Lie.FORBIDDEN)
    with pytest.raises(BlobsUnavailable) as refused:
        await store.put(pack, b"mine")
    assert len(lying_s3.writes) == 2
    assert await store.read_range(pack, 0, 4) == b"mine"
    assert not refused.value.nothing_done


async def test_a_store_without_conditional_writes_gets_plain_ones(lying_s3: LyingS3, store: BlobStore) -> None:
    lying_s3.set_lie(Lie.UNCONDITIONAL)
    for _ in range(2):
        pack = new_ulid()
        await store.put(pack, b"pack")
        assert await store.read_range(pack, 0, 4) == b"pack"
    assert lying_s3.lies == 1  # remembered


@pytest.mark.parametrize("lie", [Lie.FORBIDDEN, Lie.FULL])
async def test_readiness_to_write_is_probed_by_a_write(lying_s3: LyingS3, store: BlobStore, lie: Lie) -> None:
    await store.probe_writes()
    probes = len(lying_s3.writes)
    await store.probe_writes()
    assert len(lying_s3.writes) == probes  # it was just written
    lying_s3.set_lie(lie)
    with pytest.raises(BlobsUnavailable):
        await store.put(new_ulid(), b"x")
    for _ in range(2):
        with pytest.raises(BlobsUnavailable):
            await store.probe_writes()
    await store.probe()  # reading still works
    lying_s3.set_lie(Lie.NONE)
    await store.probe_writes()
    await store.put(new_ulid(), b"x")


async def test_a_write_without_an_answer_is_probed_by_one_write(lying_s3: LyingS3, s3_settings: S3Settings) -> None:
    store = BlobStore(replace(s3_settings, endpoint=lying_s3.endpoint, timeout=Seconds(30.0)))
    lying_s3.set_lie(Lie.NO_ANSWER)
    for _ in range(2):
        with pytest.raises(BlobsUnavailable, match="a write takes longer"):
            await store.probe_writes()
    assert len(lying_s3.writes) == 1
    lying_s3.set_lie(Lie.NONE)
    await store.close()


@pytest.mark.parametrize("checked", [True, False], ids=["frames with a checksum", "frames of older programs"])
async def test_nothing_damaged_is_copied_into_another_pack(
    lying_s3: LyingS3, store: BlobStore, blobs: BlobStore, *, checked: bool
) -> None:
    refs = await written(blobs, frames(checked=checked))
    for times in (1, 2, 3, 2**62):
        lying_s3.set_lie(Lie.FLIP, times)
        outcomes = await StoredEntries(store).read_each(refs)
        lying_s3.set_lie(Lie.NONE)
        entries = [outcome for outcome in outcomes if isinstance(outcome, StoredEntry)]
        for entry in entries:
            content = MESSAGES[refs.index(entry.ref)]
            place = PackWriter(new_ulid()).add(entry.envelope, entry.frame)
            assert decode_entry(place, entry.frame.content) == content
            assert is_checked(entry.ref, entry.frame.content)  # a frame of an older version gets a checksum
        if times == 1:
            assert len(entries) == len(refs)


@pytest.mark.parametrize("times", [1, 2**62])
async def test_an_index_must_match_its_checksum(
    lying_s3: LyingS3, store: BlobStore, blobs: BlobStore, times: int
) -> None:
    (ref, *_) = await written(blobs, frames(checked=True))
    info = await blobs.stat(ref.pack)
    right = await blobs.read_index(info)
    for lying_s3.seed in range(50):
        lying_s3.set_lie(Lie.FLIP, times)
        try:
            assert await store.read_index(info) == right
        except BadPack:
            assert times > 1
