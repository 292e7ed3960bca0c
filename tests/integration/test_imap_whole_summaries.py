"""ENVELOPE, BODYSTRUCTURE and parts of messages whose stored summary is incomplete; and of older rows."""

from __future__ import annotations

import datetime
import re
from collections.abc import AsyncIterator

import pytest

from paquebot.blobs import BlobStore
from paquebot.mailstore import Delivery, NewMessage
from paquebot.message import WHOLE, MessageSummary, summarise
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.settings import load
from tests.support.counted import value
from tests.support.imap_packs import packed
from tests.support.imap_wire import connected
from tests.support.imap_world import ImapStack

FIRST_OF_MARCH = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


def gets() -> float:
    return value("paquebot_s3_requests_total", call="get") or 0.0


def recipients(count: int) -> bytes:
    lines = [b", ".join(b"u%d@example.org" % number for number in range(start, min(count, start + 50)))
             for start in range(0, count, 50)]  # fmt: skip
    return b"From: Ann <a@example.org>\r\nSubject: many\r\nTo: " + b",\r\n ".join(lines) + b"\r\n\r\nx\r\n"


def forwarded(count: int) -> bytes:
    """A message with `count` attached messages, each with a text and a file."""
    part = (
        b"--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: number %d\r\nFrom: b@example.org\r\n"
        b"Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ntext %d\r\n"
        b"--i\r\nContent-Type: application/pdf\r\n\r\nfile %d\r\n--i--\r\n"
    )
    parts = b"".join(part % (number, number, number) for number in range(1, count + 1))
    return b"Subject: all\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n" + parts + b"--o--\r\n"


def hosts(line: bytes) -> list[bytes]:
    return re.findall(rb'\(NIL NIL "(u\d+)" "example\.org"\)', line)


async def test_envelope_has_all_of_10000_recipients(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    raw = recipients(10_000)
    await imap_stack.deliver(reader, b"Subject: before\r\n\r\nx\r\n", raw, b"Subject: behind\r\n\r\nx\r\n")
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader, limit=2**24) as client:
        await client.ok("SELECT INBOX")
        before, whole, behind = await client.ok("FETCH 1:3 (UID ENVELOPE)")
        assert hosts(whole) == [b"u%d" % number for number in range(10_000)]
        assert b'"before"' in before and b'"behind"' in behind
        (structure,) = await client.ok("FETCH 2 BODYSTRUCTURE")
        assert b'"TEXT" "PLAIN"' in structure


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Subject: " + b"s" * 70_000 + b"\r\n\r\nx\r\n", b"s" * 70_000),
        (b"X: " + b"y" * 300_000 + b"\r\nSubject: behind\r\nTo: u1@example.org\r\n\r\nx\r\n", b'"u1" "example.org"'),
    ],
    ids=["a long subject", "fields behind 300,000 bytes"],
)
async def test_envelope_has_the_omissions_of_the_summary(imap_stack: ImapStack, raw: bytes, expected: bytes) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, raw)
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader, limit=2**24) as client:
        await client.ok("SELECT INBOX")
        (line,) = await client.ok("FETCH 1 ENVELOPE")
        assert expected in line


async def test_structure_and_parts_of_1000_forwarded_messages(imap_stack: ImapStack) -> None:
    """4,001 parts: RFC 3501 numbers them all."""
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, forwarded(1000))
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader, limit=2**24) as client:
        await client.ok("SELECT INBOX")
        (line,) = await client.ok("FETCH 1 BODYSTRUCTURE")
        assert re.findall(rb'"number (\d+)"', line) == [b"%d" % number for number in range(1, 1001)]
        assert line.count(b'"APPLICATION" "PDF"') == 1000
        (line,) = await client.ok(
            "FETCH 1 (BODY.PEEK[1000.1] BODY.PEEK[1000.2] BODY.PEEK[999.HEADER.FIELDS (SUBJECT)])"
        )
        assert b"text 1000" in line and b"file 1000" in line and b"Subject: number 999" in line
        (line,) = await client.ok("FETCH 1 BINARY.SIZE[1000.2]")
        assert b"BINARY.SIZE[1000.2] 9" in line
        assert await client.ok('SEARCH BODY "text 1000"') == [b"* SEARCH 1\r\n"]
        assert await client.ok('SEARCH BODY "number 999"') == [b"* SEARCH 1\r\n"]


async def test_header_fields_of_any_header(imap_stack: ImapStack) -> None:
    """Fields after a megabyte of others; HEADER.FIELDS.NOT is the rest, byte for byte; partials are cut."""
    others = b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(60_000))
    others += b"Date: Wed, 17 Jul 1996 02:23:25 -0700\r\n"
    message = b"Subject: first\r\n" + others + b"To: ann@example.org\r\n"
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, message + b"\r\nx\r\n", message[:-2])
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader, limit=2**24) as client:
        await client.ok("SELECT INBOX")
        (line,) = await client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (TO SUBJECT DELIVERED-TO)]")
        own = b"Delivered-To: reader@imap.test\r\n"
        chosen = own + b"Subject: first\r\nTo: ann@example.org\r\n\r\n"
        assert line.endswith(b"{%d}\r\n%b)\r\n" % (len(chosen), chosen))
        (line,) = await client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (TO SUBJECT DELIVERED-TO)]<40.30>")
        assert line.endswith(b"<40> {30}\r\n%b)\r\n" % chosen[40:70])
        (line,) = await client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS.NOT (TO SUBJECT DELIVERED-TO)]")
        rest = b"Return-Path: <sender@example.org>\r\n" + others + b"\r\n"
        assert line.endswith(b"{%d}\r\n%b)\r\n" % (len(rest), rest))
        # The last line of a message without an empty line may lack its end.
        (line,) = await client.ok("FETCH 2 BODY.PEEK[HEADER.FIELDS (TO)]")
        assert line.endswith(b"{23}\r\nTo: ann@example.org\r\n\r\n)\r\n")
        assert await client.ok("SEARCH TO ann@example.org") == [b"* SEARCH 1 2\r\n"]
        assert await client.ok('SEARCH HEADER X-59999 "59999"') == [b"* SEARCH 1 2\r\n"]
        assert await client.ok('SEARCH TEXT "to: ann@"') == [b"* SEARCH 1 2\r\n"]
        assert await client.ok("SEARCH SENTON 17-Jul-1996") == [b"* SEARCH 1 2\r\n"]
        assert await client.ok("SEARCH SENTSINCE 18-Jul-1996") == [b"* SEARCH\r\n"]


async def test_a_message_beyond_every_bound_is_described_in_part(imap_stack: ImapStack) -> None:
    """A million addresses: the server returns some of them, and a line reports that."""
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, b"Subject: x\r\nTo: " + b"a@b, " * 1_000_000 + b"\r\n\r\nx\r\n")
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader, limit=2**24) as client:
        await client.ok("SELECT INBOX")
        warning, line = await client.ok("FETCH 1 ENVELOPE")
        assert warning == b"* NO [LIMIT] Message 1 (UID 1) is described in part\r\n"
        assert line.count(b'(NIL NIL "a" "b")') == WHOLE.addresses


@pytest.fixture
async def store(imap_stack: ImapStack) -> AsyncIterator[BlobStore]:
    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    yield blobs
    await blobs.close()


def as_before(raw: bytes, keep: int) -> MessageSummary:
    """Summaries of older versions have only the first addresses and do not mark that."""
    summary = summarise(raw)
    del summary.envelope.to[keep:]
    summary.ClearField("envelope_extent")
    summary.ClearField("body_extent")
    return summary


async def test_summaries_of_older_programs_are_checked(imap_stack: ImapStack, store: BlobStore) -> None:
    reader = await imap_stack.reader()
    long, short = recipients(3000), recipients(3)
    refs = await packed(store, [long, short])
    summaries = [as_before(long, 1596), as_before(short, 3)]
    await imap_stack.mailstore.deliveries.deliver(
        [
            Delivery(
                reader.account_id,
                "",
                0,
                NewMessage(
                    email_id=f"before{number}",
                    blob=ref,
                    summary=summary.SerializeToString(),
                    thread_key=b"",
                    internal_date=FIRST_OF_MARCH,
                ),
            )
            for number, (ref, summary) in enumerate(zip(refs, summaries, strict=True))
        ]
    )
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader, limit=2**24) as client:
        await client.ok("SELECT INBOX")
        before = gets()
        (line,) = await client.ok("FETCH 2 (ENVELOPE BODYSTRUCTURE)")
        assert len(hosts(line)) == 3
        assert gets() == before  # the row shows that nothing is missing
        (line,) = await client.ok("FETCH 1 ENVELOPE")
        assert len(hosts(line)) == 3000
