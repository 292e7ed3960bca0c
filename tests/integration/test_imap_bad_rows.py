"""An unreadable row does not affect other rows: SELECT, FETCH, SEARCH and other commands work, the response names the
bad message, and a lost message is a permanent failure, not a temporary one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator

import pytest

from tests.support.bad_rows import spoil, spoil_mailbox
from tests.support.counted import value
from tests.support.imap_wire import WireClient, connected
from tests.support.imap_world import ImapStack, Reader

ROWS = "paquebot_mailstore_bad_rows_total"


def message(number: int) -> bytes:
    return f"Subject: number {number}\r\nX-Odd: {number}\r\n\r\nbody {number}\r\n".encode()


def numbers(lines: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the numbers of the messages that a FETCH returned, and of those that it named as lost."""
    given = [match[1] for line in lines if (match := re.match(rb"\* (\d) FETCH", line))]
    lost = [match[1] for line in lines if (match := re.match(rb"\* NO \[CORRUPTION\] Message (\d) ", line))]
    return given, lost


@contextlib.asynccontextmanager
async def three_messages(stack: ImapStack) -> AsyncIterator[tuple[Reader, WireClient]]:
    """An account with three messages; it is removed at the end because its rows stay bad."""
    reader = await stack.reader()
    await stack.deliver(reader, *map(message, (1, 2, 3)))
    try:
        async with stack.serving() as server, connected(server.port("imaps"), reader) as client:
            yield reader, client
    finally:
        await stack.mailstore.accounts.delete(reader.account_id)


@pytest.mark.parametrize(
    ("change", "date"),
    [
        ("internal_date = '-infinity'", " 2-Jan-0001 00:00:00 +0000"),
        ("internal_date = 'infinity'", "30-Dec-9999 23:59:59 +0000"),
        ("internal_date = '0044-03-15 12:00:00+00 BC'", " 2-Jan-0001 00:00:00 +0000"),
        ("internal_date = '200000-01-01 00:00:00+00'", "30-Dec-9999 23:59:59 +0000"),
        ("save_date = '-infinity'", " 1-Mar-2026 12:00:01 +0000"),
    ],
)
async def test_a_date_that_python_cannot_represent(imap_stack: ImapStack, change: str, date: str) -> None:
    async with three_messages(imap_stack) as (reader, client):
        await spoil(imap_stack.postgres, reader.account_id, 2, change)
        mended = value(ROWS, result="substituted") or 0.0
        await client.ok("SELECT INBOX")
        lines = await client.ok("FETCH 1:* (INTERNALDATE SAVEDATE UID)")
        assert len(lines) == 3
        assert f'INTERNALDATE "{date}"'.encode() in lines[1]
        assert (value(ROWS, result="substituted") or 0.0) > mended
        assert [line[:8] for line in await client.ok("FETCH 1:* (ENVELOPE RFC822.SIZE BODY.PEEK[])")] == [
            b"* 1 FETC",
            b"* 2 FETC",
            b"* 3 FETC",
        ]
        for key, found in (("SUBJECT number", b"1 2 3"), ("BODY body", b"1 2 3"), ("HEADER X-Odd 2", b"2")):
            assert (await client.ok(f"UID SEARCH {key}"))[-1] == b"* SEARCH %b\r\n" % found
        since = await client.ok("UID SEARCH SINCE 1-Jan-2020 BEFORE 1-Jan-2030")
        assert since[-1] == (b"* SEARCH 1 2 3\r\n" if "save_date" in change else b"* SEARCH 1 3\r\n")
        await client.ok("UID SEARCH YOUNGER 60")
        await client.ok("UID SEARCH SAVEDSINCE 1-Jan-2020")


async def test_changing_copying_or_moving_a_bad_row_repairs_it(imap_stack: ImapStack) -> None:
    async with three_messages(imap_stack) as (reader, client):
        for uid in (1, 2, 3):
            await spoil(imap_stack.postgres, reader.account_id, uid, "internal_date = '-infinity'")
        await client.ok("SELECT INBOX")
        await client.ok("STORE 1 +FLAGS (\\Flagged)")
        await client.ok("COPY 2 Archive")
        await client.ok("MOVE 3 Archive")
        await client.ok("SELECT Archive")
        lines = await client.ok("FETCH 1:* (INTERNALDATE)")
        assert len(lines) == 2
        assert all(b'" 2-Jan-0001 00:00:00 +0000"' in line for line in lines)
        bad = "SELECT count(*) FROM mailstore.messages WHERE account_id = $1 AND NOT isfinite(internal_date)"
        assert await imap_stack.postgres.fetchval("test", bad, reader.account_id) == 1, (
            "the row that no command changed"
        )


@pytest.mark.parametrize(
    ("sent", "date"),
    [
        ("01-Jan-0001 00:00:00 +0000", " 2-Jan-0001 00:00:00 +0000"),
        ("01-Jan-0001 00:00:00 +0100", " 2-Jan-0001 00:00:00 +0000"),
        ("31-Dec-9999 23:59:59 +0000", "30-Dec-9999 23:59:59 +0000"),
        ("31-Dec-9999 23:59:59 -0100", "30-Dec-9999 23:59:59 +0000"),
    ],
)
async def test_dates_that_programs_send_instead_of_none_are_kept(imap_stack: ImapStack, sent: str, date: str) -> None:
    async with three_messages(imap_stack) as (_, client):
        await client.say(f'a APPEND INBOX "{sent}" {{{len(message(4))}}}\r\n'.encode())
        assert (await client.line()).startswith(b"+")
        await client.say(message(4) + b"\r\n")
        assert b"a OK" in await client.line()
        await client.ok("SELECT INBOX")
        assert f'INTERNALDATE "{date}"'.encode() in (await client.ok("FETCH 4 INTERNALDATE"))[0]
        await client.ok("UID SEARCH SUBJECT number SINCE 1-Jan-2020")
        await client.ok("COPY 4 Archive")


@pytest.mark.parametrize(
    "change", ["flags = -1", "flags = 255", "mod_seq = -7", "size = -5", "keywords = '{a b,\"x\r\ny\"}'"]
)
async def test_an_invalid_number_or_keyword(imap_stack: ImapStack, change: str) -> None:
    async with three_messages(imap_stack) as (reader, client):
        await spoil(imap_stack.postgres, reader.account_id, 2, change)
        await client.ok("SELECT INBOX")
        assert numbers(await client.ok("FETCH 1:* (FLAGS RFC822.SIZE MODSEQ ENVELOPE)")) == ([b"1", b"2", b"3"], [])
        assert (await client.ok("UID SEARCH LARGER 10"))[-1].startswith(b"* SEARCH 1 ")
        await client.ok("STATUS Archive (MESSAGES)")


async def test_a_row_that_cannot_be_repaired_is_reported_as_damaged(imap_stack: ImapStack) -> None:
    async with three_messages(imap_stack) as (reader, client):
        await spoil(imap_stack.postgres, reader.account_id, 2, "blob_compression = -1, blob_offset = -9")
        left_out = value(ROWS, result="omitted") or 0.0
        await client.ok("SELECT INBOX")
        assert numbers(await client.ok("FETCH 1:* (ENVELOPE)")) == ([b"1", b"3"], [b"2"])
        assert value(ROWS, result="omitted") == left_out + 1
        assert numbers(await client.ok("UID FETCH 1:* (BODY.PEEK[])")) == ([b"1", b"3"], [b"2"])
        assert (await client.run("FETCH 2 (ENVELOPE)"))[-1].startswith(b"NO [CORRUPTION]")
        assert (await client.ok("UID SEARCH BODY body"))[-1] == b"* SEARCH 1 3\r\n"
        assert len(await client.ok("FETCH 1:* (FLAGS)")) == 3


async def test_a_broken_summary_is_made_again_from_the_message(imap_stack: ImapStack) -> None:
    async with three_messages(imap_stack) as (reader, client):
        await spoil(imap_stack.postgres, reader.account_id, 2, "summary = '\\xffffffff'")
        await client.ok("SELECT INBOX")
        lines = await client.ok("FETCH 1:* (ENVELOPE BODYSTRUCTURE)")
        assert [b"number %d" % number in line for number, line in enumerate(lines, 1)] == [True] * 3
        assert len(await client.ok("FETCH 1:* (BODY.PEEK[TEXT])")) == 3
        assert (await client.ok("UID SEARCH SUBJECT number"))[-1] == b"* SEARCH 1 2 3\r\n"
        assert (await client.ok("UID SEARCH BODY body"))[-1] == b"* SEARCH 1 2 3\r\n"


@pytest.mark.parametrize("pack", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "no pack at all", "", "ZZZZZZZZZZZZZZZZZZZZZZZZZZ"])
async def test_a_reference_to_nothing_is_a_lost_message(imap_stack: ImapStack, pack: str) -> None:
    async with three_messages(imap_stack) as (reader, client):
        await spoil(imap_stack.postgres, reader.account_id, 2, f"pack = '{pack}'")
        await client.ok("SELECT INBOX")
        assert len(await client.ok("FETCH 1:* (ENVELOPE INTERNALDATE)")) == 3
        assert numbers(await client.ok("FETCH 1:* (BODY.PEEK[])")) == ([b"1", b"3"], [b"2"])
        end = (await client.run("FETCH 2 (BODY.PEEK[])"))[-1]
        assert end.startswith(b"NO [CORRUPTION]"), "a retry cannot help"
        assert (await client.ok("UID SEARCH BODY body"))[-1] == b"* SEARCH 1 3\r\n"


async def test_mailboxes_whose_rows_are_odd_are_listed_and_selected(imap_stack: ImapStack) -> None:
    async with three_messages(imap_stack) as (reader, client):
        await spoil_mailbox(imap_stack.postgres, reader.account_id, "special_use = 'a use of tomorrow'", 3)
        await spoil_mailbox(imap_stack.postgres, reader.account_id, "name = E'od\\x01d\\r\\nname'", 4)
        await spoil_mailbox(imap_stack.postgres, reader.account_id, 'keywords = E\'{"a b","x\\r\\n* BYE",good}\'', 1)
        listed = await client.ok('LIST "" "*"')
        assert len(listed) == 6
        assert all(line.count(b"\r\n") == 1 for line in listed)
        selected = await client.ok("SELECT INBOX")
        assert any(b"good" in line for line in selected if line.startswith(b"* FLAGS"))
        assert not any(b"BYE" in line for line in selected)
        await client.ok("STATUS Sent (MESSAGES)")
        await client.ok('SELECT "od&AAE-d&AA0ACg-name"')
