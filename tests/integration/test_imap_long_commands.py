"""Commands of hundreds of kilobytes: the server charges their memory to the account, and answers completely."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Sequence

import pytest

from paquebot.blobs import new_ulid
from paquebot.imap.long_commands import MEMORY_PER_BYTE
from paquebot.imap.search.facts import MessageFacts
from paquebot.imap.search.run import SearchRun
from paquebot.mailstore import Delivery, NewMessage
from paquebot.runtime.shares.in_flight import account
from paquebot.wire.imap import DEFAULT_LIMITS
from tests.support.imap_wire import connected
from tests.support.imap_world import ImapStack, Reader

MESSAGE = b"From: a@example.org\r\nSubject: x\r\n\r\nbody\r\n"
COUNT = 1000
PIECE = 100_000


async def filled(stack: ImapStack, reader: Reader, count: int = COUNT) -> None:
    """`count` messages in INBOX, which share their bytes."""
    stored = await stack.spool.store(MESSAGE, account_id=reader.account_id)
    at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    summary = stored.summary.SerializeToString()
    messages = (NewMessage(new_ulid(), stored.blob, summary, b"", at) for _ in range(count))
    await stack.mailstore.deliveries.deliver([Delivery(reader.account_id, "", 0, message) for message in messages])


def odd(below: int) -> str:
    return ",".join(map(str, range(1, below, 2)))


async def test_sets_of_very_many_single_uids(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await filled(imap_stack, reader)
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("ENABLE QRESYNC")
        await client.ok("SELECT INBOX")
        uids = odd(COUNT)
        beyond = uids + "," + odd(40_000).partition(f"{COUNT - 1},")[2]  # most of these messages are not there
        assert len(await client.ok(f"UID FETCH {beyond} (UID)")) == COUNT // 2
        assert (await client.run(f"UID COPY {beyond} Trash"))[-1].startswith(b"OK [COPYUID ")
        assert len(await client.ok(f"UID FETCH {uids} (UID)")) == COUNT // 2
        (found,) = await client.ok(f"UID SEARCH RETURN (ALL) UID {uids}")
        assert found.endswith(f" ALL {uids}\r\n".encode())
        completion = (await client.run(f"UID COPY {uids} Trash"))[-1]
        assert completion.startswith(b"OK [COPYUID ")
        sources, targets = completion.split()[3:5]
        assert sources == uids.encode()
        assert targets == ",".join(map(str, range(COUNT // 2 + 1, COUNT + 1))).encode() + b"]"
        await client.ok(f"UID STORE {uids} +FLAGS.SILENT (\\Deleted)")
        vanished, recent = await client.ok(f"UID EXPUNGE {uids}")
        assert vanished == f"* VANISHED {uids}\r\n".encode()
        assert recent == b"* %d RECENT\r\n" % (COUNT // 2)


async def test_a_long_line_is_charged_while_it_is_read_and_answered(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        budget = server.context.budget
        await client.ok("SELECT INBOX")
        before = b"a UID SEARCH UID 1"
        await client.say(before)
        for piece in range(1, DEFAULT_LIMITS.line // PIECE + 1):
            await client.say(b",1234567" * (PIECE // 8))
            charged = MEMORY_PER_BYTE * (len(before) + piece * PIECE - DEFAULT_LIMITS.line_free)
            async with asyncio.timeout(30):
                while budget.used_by(account(reader.account_id)) < charged:
                    await asyncio.sleep(0)
        await client.say(b" ALL\r\n")
        assert (await client.line()).startswith(b"a BAD expected at most ")
        assert budget.used == 0
        assert await client.ok("UID SEARCH UID 1" + ",1234567890" * 20_000) == [b"* SEARCH\r\n"]
        assert budget.used == 0


async def test_an_account_without_memory_gets_a_temporary_refusal(imap_stack: ImapStack) -> None:
    greedy, other = await imap_stack.reader(), await imap_stack.reader()
    settings = {
        "PAQUEBOT_IN_FLIGHT": "4000000",
        "PAQUEBOT_IN_FLIGHT_ACCOUNT": "0.3",
        "PAQUEBOT_IMAP_APPEND_LIMIT": "1000",
    }
    async with (
        imap_stack.serving(**settings) as server,
        connected(server.port("imaps"), greedy) as first,
        connected(server.port("imaps"), other) as second,
    ):
        await first.say(b"a NOOP" + b" " * 300_000)
        assert (await first.line()).startswith(b"* BYE [UNAVAILABLE] Too many long commands")
        await second.ok("NOOP" + " " * 100_000)
        assert server.context.budget.used == 0


async def test_a_command_for_many_sections_yields_after_each(
    imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_way = 0

    async def counted() -> None:
        nonlocal given_way
        given_way += 1

    reader = await imap_stack.reader()
    raw = b"a:\r\n" * 4000 + b"\r\n"
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.say(b"x APPEND INBOX {%d+}\r\n%b\r\n" % (len(raw), raw))
        assert (await client.line()).startswith(b"x OK")
        await client.ok("EXAMINE INBOX")
        monkeypatch.setattr("paquebot.imap.commands.fetch.give_way", counted)
        (line,) = await client.ok("FETCH 1 (" + " ".join(f"BODY[HEADER.FIELDS (q{n})]" for n in range(200)) + ")")
        assert line.count(b"{2}") == 200
    assert given_way >= 200


async def test_a_search_of_many_keys_ends_when_its_client_is_gone(
    imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await imap_stack.reader()
    await filled(imap_stack, reader)
    verdicts, ended = 0, asyncio.Event()
    decide, run = SearchRun._decide, SearchRun.run

    def counted(search: SearchRun, facts: MessageFacts) -> bool:
        nonlocal verdicts
        verdicts += 1
        return decide(search, facts)

    async def left_alone(search: SearchRun) -> Sequence[int]:
        client.writer.transport.abort()
        async with asyncio.timeout(30):
            while not search._connection.gone:
                await asyncio.sleep(0.01)
        try:
            return await run(search)
        finally:
            ended.set()

    monkeypatch.setattr(SearchRun, "_decide", counted)
    monkeypatch.setattr(SearchRun, "run", left_alone)
    async with imap_stack.serving() as server:
        async with connected(server.port("imaps"), reader) as client:
            await client.ok("SELECT INBOX")
            await client.say(b"a SEARCH " + b"UNKEYWORD x " * 5000 + b"SEEN\r\n")
            await ended.wait()
    assert verdicts < COUNT // 2


async def test_a_silent_store_of_very_many_messages_yields(
    imap_stack: ImapStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response has no line for these messages, but the server compares each before and after."""
    given_way = {"session": 0, "fairness": 0}

    def counter(module: str) -> Callable[[], Awaitable[None]]:
        async def counted() -> None:
            given_way[module] += 1

        return counted

    reader = await imap_stack.reader()
    await filled(imap_stack, reader, 2000)
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        for module in given_way:
            place = "paquebot.imap.session" if module == "session" else "paquebot.runtime.shares.event_loop"
            monkeypatch.setattr(f"{place}.give_way", counter(module))
        assert await client.ok("STORE 1:* +FLAGS.SILENT (\\Seen)") == []
    assert given_way["session"] >= 2
    assert given_way["fairness"] >= 20
