"""Sections that are too long to copy: each byte is in its place; and rows with long summaries."""

from __future__ import annotations

import base64
import contextlib
import random
import re
import ssl
from collections.abc import Iterator, Sequence

import pytest

from paquebot.imap.fetch import long_sections, sections
from paquebot.imap.fetch.sections import LongBytes
from paquebot.mailstore import StoredMessage
from paquebot.mailstore.blob_rows import Record
from paquebot.message import decoded_pieces, summarise
from paquebot.runtime.postgres.pool import Postgres
from paquebot.wire.imap import ast
from paquebot.wire.imap.ast import Partial
from tests.support.imap_wire import connected
from tests.support.imap_world import PREFIX, ImapStack

_DATA = random.Random(3).randbytes(300_000)
_PART = base64.encodebytes(_DATA).replace(b"\n", b"\r\n")
_QP = b"=C3=A9 and more =\r\n" * 20_000
_RAW = (
    b"Subject: long\r\nX-Odd: \0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + _PART
    + b"\r\n--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    + _QP
    + b"\r\n--b--\r\n"
)
_SEEN = (PREFIX + _RAW).replace(b"\0", b"\x80")  # as a literal contains it
_TEXT = _RAW[_RAW.index(b"\r\n\r\n") + 4 :]
_TEXT_OF_2 = "é and more ".encode() * 20_000


def literal(line: bytes) -> bytes:
    """The bytes of a FETCH response's one section."""
    head, _, rest = line.partition(b"\r\n")
    match = re.search(rb"\{(\d+)\}$", head)
    assert match is not None and len(rest) == int(match[1]) + len(b")\r\n")
    return rest[: int(match[1])]


@pytest.mark.parametrize(
    ("item", "data"),
    [
        ("BODY.PEEK[]", _SEEN),
        ("RFC822", _SEEN),
        ("BODY.PEEK[]<0.70000>", _SEEN[:70_000]),
        ("BODY.PEEK[]<30.400000>", _SEEN[30:400_030]),
        ("BODY.PEEK[]<400000.9999999>", _SEEN[400_000:]),
        ("BODY.PEEK[]<99999999.5>", b""),
        ("BODY.PEEK[TEXT]", _TEXT),
        ("BODY.PEEK[1]", _PART.removesuffix(b"\r\n") + b"\r\n"),
        ("BODY.PEEK[1]<5.100000>", _PART[5:100_005]),
        ("BINARY.PEEK[1]", _DATA),
        ("BINARY.PEEK[1]<0.10>", _DATA[:10]),
        ("BINARY.PEEK[1]<70000.200000>", _DATA[70_000:270_000]),
        ("BINARY.PEEK[1]<299999.200000>", _DATA[299_999:]),
        ("BINARY.PEEK[1]<300000.2>", b""),
        ("BINARY.PEEK[2]", _TEXT_OF_2),
        ("BINARY.PEEK[]", PREFIX + _RAW),
        ("BODY.PEEK[HEADER.FIELDS.NOT (Subject)]<0.20>", _SEEN[:20]),
    ],
)
async def test_each_byte_is_in_its_place(imap_stack: ImapStack, item: str, data: bytes) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, _RAW)
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("EXAMINE INBOX")
        (line,) = await client.ok(f"FETCH 1 {item}")
        assert literal(line) == data


async def test_many_items_in_one_response(imap_stack: ImapStack) -> None:
    """Long and short items, decoded sizes, an item that occurs twice, then the flags."""
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, _RAW)
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        await client.say(
            b"a FETCH 1 (BINARY.SIZE[1] BODY[1]<0.90000> UID BINARY.SIZE[2] BODY[1]<0.90000> RFC822.SIZE)\r\n"
        )
        assert await client.reader.readuntil(b"}\r\n") == (
            b"* 1 FETCH (UID 1 BINARY.SIZE[1] 300000 BODY[1]<0> {90000}\r\n"
        )
        assert await client.reader.readexactly(90_000) == _PART[:90_000]
        rest = b" BINARY.SIZE[2] %d RFC822.SIZE %d)\r\n" % (len(_TEXT_OF_2), len(_SEEN))
        assert await client.reader.readexactly(len(rest)) == rest
        assert b"FLAGS (\\Seen" in await client.line()
        assert (await client.line()).startswith(b"a OK")


async def test_a_part_that_cannot_be_decoded_is_refused_before_anything_is_sent(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, b"Content-Transfer-Encoding: x-rot\r\n\r\n" + bytes(200_000))
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("EXAMINE INBOX")
        (completion,) = await client.run("FETCH 1 (BODY.PEEK[] BINARY.PEEK[1])")
        assert completion.startswith(b"NO [UNKNOWN-CTE]")


async def test_a_failure_inside_a_literal_ends_the_connection(
    imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client expects the rest of the literal, so the server may send nothing else."""
    passes = 0

    def failing(body: memoryview, encoding: bytes) -> Iterator[bytes]:
        nonlocal passes
        passes += 1
        for data in decoded_pieces(body, encoding):
            yield data
            if passes == 2:
                raise ValueError("a fault of ours")

    monkeypatch.setattr(long_sections, "decoded_pieces", failing)
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, _RAW)
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("EXAMINE INBOX")
        await client.say(b"a FETCH 1 BINARY.PEEK[1]\r\n")
        assert await client.reader.readuntil(b"}\r\n") == b"* 1 FETCH (BINARY[1] ~{300000}\r\n"
        sent = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while b"a NO" not in sent and (data := await client.reader.read(2**16)):
                sent += data
        assert _DATA.startswith(sent) and len(sent) < len(_DATA)


async def test_forty_partials_are_views_of_one_body(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, _RAW)
    inbox = await imap_stack.mailstore.mailboxes.find(reader.account_id, "INBOX")
    rows = imap_stack.mailstore.mailbox_reader.messages(reader.account_id, inbox.mailbox_id, [1], with_summary=False)
    (message,) = [row async for row in rows]
    for start in range(40):
        asked = ast.FetchSection(ast.Section(), partial=Partial(start, 200_000))
        found = sections.section(message, summarise(_RAW), _RAW, asked)
        assert isinstance(found, LongBytes) and len(found) == 200_000
        assert found.parts[-1].obj is _RAW


async def test_rows_come_in_batches_of_few_bytes(imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty summaries of 50 KB, among small ones: no batch from PostgreSQL has many, and each row arrives once."""
    long = b"Subject: " + b"x" * 60_000 + b"\r\n\r\nx\r\n"
    reader = await imap_stack.reader()
    short = [b"Subject: s\r\n\r\nx\r\n"]
    await imap_stack.deliver(reader, *short * 20, *[long] * 40, *short * 60)
    inbox = await imap_stack.mailstore.mailboxes.find(reader.account_id, "INBOX")
    answers: list[int] = []
    fetch = Postgres.fetch

    async def counting(postgres: Postgres, call: str, sql: str, *args: object) -> Sequence[Record]:
        found = await fetch(postgres, call, sql, *args)
        answers.append(sum(len(row["summary"]) for row in found))
        return found

    monkeypatch.setattr(Postgres, "fetch", counting)
    rows = imap_stack.mailstore.mailbox_reader.messages(
        reader.account_id, inbox.mailbox_id, range(1, 130), with_summary=True
    )
    found: list[StoredMessage] = [row async for row in rows]
    assert [row.uid for row in found] == list(range(1, 121))
    assert sum(answers) > 2_000_000
    assert max(answers) < 256 * 1024 + 100_000
