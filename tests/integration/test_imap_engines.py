"""The calls of IMAP to the engines, their sizes, and what a client sees while an engine is away."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from paquebot.blobs import BlobMissing, BlobStore
from paquebot.imap.bodies.body_cache import BodyCache
from paquebot.imap.bodies.windows import read_bodies
from paquebot.imap.mailbox_view.feed import Feed, HintPublisher, MailboxChange
from paquebot.imap.service import open_server
from paquebot.imap.settings import ImapSettings
from paquebot.mailstore import Changes, StoredMessage
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import load
from paquebot.runtime.shares.account_shares import AccountShares
from tests.support.counted import value
from tests.support.imap_wire import WireClient, connected
from tests.support.imap_world import ImapStack, Reader


def message(number: int, *, size: int = 0, extra: str = "") -> bytes:
    return (
        f"From: a@example.org\r\nTo: b@example.org\r\nSubject: number {number}\r\n{extra}"
        f"Date: Mon, 2 Mar 2026 10:00:00 +0000\r\nMessage-ID: <n{number}@example.org>\r\n\r\nbody {number}\r\n"
    ).encode() + b"0123456789abcde\n" * (size // 16)


def calls(engine: str, call: str) -> float:
    """Return how often this process has called the engine."""
    labels = {"engine": engine, "call": call}
    return REGISTRY.get_sample_value("paquebot_engine_call_seconds_count", labels) or 0.0


@contextlib.asynccontextmanager
async def selected(stack: ImapStack, reader: Reader, **environ: str) -> AsyncIterator[WireClient]:
    async with stack.serving(**environ) as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        yield client


class Wire:
    """A TCP proxy to an engine; a test can interrupt and restore it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._whole = True
        self.port = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, host: str, port: int) -> AsyncIterator[Wire]:
        wire = cls(host, port)
        server = await asyncio.start_server(wire._relay, "127.0.0.1", 0)
        wire.port = server.sockets[0].getsockname()[1]
        async with server:
            yield wire
            wire.cut()

    def cut(self) -> None:
        """Close every connection, and each new one."""
        self._whole = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        to_reader, to_writer = await asyncio.open_connection(*self._target)
        pair = {writer, to_writer}
        self._open |= pair
        try:
            await asyncio.gather(_pump(reader, to_writer), _pump(to_reader, writer))
        finally:
            self._open -= pair
            for end in pair:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def test_lists_of_messages_never_touch_s3(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(30)))
    before = calls("s3", "get")
    async with selected(imap_stack, reader) as client:
        await client.ok("FETCH 1:* (FLAGS UID INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY)")
        await client.ok("FETCH 1:* BODY.PEEK[HEADER.FIELDS (DATE FROM TO CC SUBJECT REFERENCES LIST-ID)]")
        await client.ok("UID FETCH 1:* (EMAILID THREADID SAVEDATE MODSEQ)")
        await client.ok('SEARCH OR FROM "a@" SUBJECT "number" SENTSINCE 1-Jan-2026 LARGER 10 UNSEEN')
        await client.ok("UID SEARCH HEADER MESSAGE-ID n7@example.org")
    assert calls("s3", "get") == before


async def test_bodies_come_in_few_requests_and_are_kept(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(64)))
    before = calls("s3", "get")
    async with selected(imap_stack, reader) as client:
        lines = await client.ok("FETCH 1:* BODY.PEEK[TEXT]")
        assert len(lines) == 64
        assert b"body 63" in lines[63]
        once = calls("s3", "get")
        # 64 messages lie in a few packs, and neighbours share a request.
        assert 0 < once - before <= 16
        await client.ok("FETCH 1:* BODY.PEEK[]")
        await client.ok("SEARCH BODY nothing")
        assert calls("s3", "get") == once


async def test_header_field_outside_the_summary_is_read_from_the_body(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, message(1, extra="X-Rare: found\r\n"), message(2))
    async with selected(imap_stack, reader) as client:
        lines = await client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (X-Rare Subject)]")
        assert b"Subject: number 1\r\nX-Rare: found\r\n\r\n" in lines[0]
        assert await client.ok("SEARCH HEADER X-Rare FOUND") == [b"* SEARCH 1\r\n"]


async def test_two_thousand_messages(imap_stack: ImapStack) -> None:
    """A first sync: all flags, all envelopes, all bodies; \\Seen for all of them in one statement."""
    reader = await imap_stack.reader()
    await imap_stack.deliver_many([(reader, message(number)) for number in range(2000)])
    async with selected(imap_stack, reader) as client:
        assert len(await client.ok("UID FETCH 1:* (FLAGS)")) == 2000
        envelopes = await client.ok("FETCH 1:* (UID ENVELOPE RFC822.SIZE)")
        assert len(envelopes) == 2000
        assert envelopes[1999].startswith(b"* 2000 FETCH (UID 2000 ENVELOPE ")
        stores = calls("postgres", "store_flags")
        lines = await client.ok("FETCH 1:* (BODY[TEXT] FLAGS)")
        assert len(lines) == 2000
        assert all(b"\\Seen" in line for line in lines)
        assert calls("postgres", "store_flags") - stores == 1
        assert len((await client.ok("SEARCH SEEN"))[0].split()) == 2002
        assert await client.ok("UID SEARCH SUBJECT 1234") == [b"* SEARCH 1235\r\n"]


async def test_slow_reader_is_dropped_and_others_continue(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *(message(number, size=2_000_000) for number in range(6)))
    async with imap_stack.serving(PAQUEBOT_IMAP_WRITE_TIMEOUT="500ms") as server:
        port = server.port("imaps")
        async with connected(port, reader, limit=1024) as slow, connected(port, reader) as quick:
            await slow.ok("SELECT INBOX")
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await slow.say(b"x FETCH 1:* BODY.PEEK[]\r\n" * 5)  # 60 MB: more than sockets buffer
            await quick.ok("SELECT INBOX")
            assert len((await quick.ok("FETCH 1 BODY.PEEK[]"))[0]) > 2_000_000
            async with asyncio.timeout(20):
                while len(server.sessions) > 1:
                    await quick.ok("NOOP")
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            rest = b""
            with contextlib.suppress(ConnectionError):
                rest = await asyncio.wait_for(slow.reader.read(), 20)
            assert len(rest) < 60_000_000  # the connection was closed in the middle


async def test_s3_away_refuses_bodies_and_keeps_the_session(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, message(1))
    nowhere = {"PAQUEBOT_S3_ENDPOINT": "http://127.0.0.1:9", "PAQUEBOT_S3_TIMEOUT": "500ms"}
    async with selected(imap_stack, reader, **nowhere) as client:
        assert (await client.run("FETCH 1 BODY[]"))[-1].startswith(b"NO [UNAVAILABLE]")
        (flags,) = await client.ok("FETCH 1 FLAGS")
        assert b"\\Seen" not in flags
        assert (await client.run("SEARCH BODY x"))[-1].startswith(b"NO [UNAVAILABLE]")
        await client.say(b"x APPEND INBOX {11+}\r\nX: y\r\n\r\nabc\r\n")
        assert (await client.line()).startswith(b"x NO [UNAVAILABLE]")
        await client.ok("FETCH 1 ENVELOPE")
        await client.ok("NOOP")


async def test_postgres_away_refuses_and_recovers(imap_stack: ImapStack) -> None:
    """While the proxy is interrupted, the server refuses commands; afterwards the same session continues."""
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, message(1))
    parts = urlsplit(imap_stack.environ["PAQUEBOT_POSTGRES_DSN"])
    assert parts.hostname is not None and parts.port is not None
    async with Wire.to(parts.hostname, parts.port) as wire:
        credentials = parts.netloc.rpartition("@")[0]
        dsn = parts._replace(netloc=f"{credentials}@127.0.0.1:{wire.port}").geturl()
        async with selected(imap_stack, reader, PAQUEBOT_POSTGRES_DSN=dsn) as client:
            wire.cut()
            refused = await client.run("FETCH 1 ENVELOPE")
            assert refused[-1].startswith(b"NO [UNAVAILABLE] Temporary failure")
            assert b"127.0.0.1" not in refused[-1]
            assert (await client.run("SELECT INBOX"))[-1].startswith(b"NO [UNAVAILABLE]")
            await client.ok("NOOP")
            wire.mend()
            await client.ok("SELECT INBOX")
            await client.ok("FETCH 1 ENVELOPE")


async def test_directory_away_refuses_login_temporarily(imap_stack: ImapStack) -> None:
    environ = {"PAQUEBOT_RECIPIENT_VALIDATION": "127.0.0.1:9", "PAQUEBOT_RECIPIENT_VALIDATION_TIMEOUT": "500ms"}
    async with imap_stack.serving(**environ) as server, connected(server.port("imaps")) as client:
        assert (await client.run("LOGIN a@b.example secret"))[-1].startswith(b"NO [UNAVAILABLE]")
        await client.ok("CAPABILITY")


async def test_passwords_are_in_no_log_line(imap_stack: ImapStack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with imap_stack.serving() as server, connected(server.port("imaps")) as client:
        await client.run('LOGIN someone@imap.test "hunter2-in-quotes"')
        await client.run("AUTHENTICATE PLAIN AGEAaHVudGVyMi1zYXNs")
        await client.run("LOGIN too many hunter2-words")
    text = "\n".join(str(record.__dict__) for record in caplog.records if record.name.startswith("paquebot"))
    assert "hunter2" not in text
    assert "aHVudGVy" not in text


async def test_it_is_ready_only_while_clients_can_log_in(imap_stack: ImapStack, tmp_path: Path) -> None:
    """As in pop3 and smtp_ingress: a load balancer must not send clients to a process that cannot authenticate them."""
    settings = load(ImapSettings, imap_stack.environ)
    async with open_server(settings, health := Health(started=True)):
        assert await health.unready() == []
    unreachable = {**imap_stack.environ, "PAQUEBOT_RECIPIENT_VALIDATION": f"unix:{tmp_path / 'nobody'}"}
    async with open_server(load(ImapSettings, unreachable), health := Health(started=True)):
        assert [reason.partition(":")[0] for reason in await health.unready()] == ["recipient_validation"]


async def test_one_read_serves_all_sessions_that_ask_together(imap_stack: ImapStack) -> None:
    stored = [await imap_stack.spool.store(message(number), account_id=1) for number in range(4)]
    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    bodies = BodyCache(blobs, cache_bytes=2**20)
    refs = [one.blob for one in stored]
    before = calls("s3", "get")
    results = await asyncio.gather(*(bodies.load(refs) for _ in range(10)))
    assert all(result == [message(number) for number in range(4)] for result in results)
    assert calls("s3", "get") - before <= len({ref.pack for ref in refs})
    await bodies.close()
    await blobs.close()


async def test_one_bad_entry_does_not_hide_its_neighbours(imap_stack: ImapStack) -> None:
    async def store(number: int) -> bytes:
        return (await imap_stack.spool.store(message(number), account_id=1)).blob.SerializeToString()

    good = await imap_stack.spool.store(message(1), account_id=1)
    bad = type(good.blob).FromString(await store(2))
    bad.size += 1
    missing = type(good.blob)(pack="01ARZ3NDEKTSV4RRFFQ69G5FAV", offset=0, length=10, size=10)
    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    bodies = BodyCache(blobs, cache_bytes=0)
    found = await bodies.load([good.blob, bad, missing])
    assert found[0] == message(1)
    assert [type(item).__name__ for item in found[1:]] == ["BadPack", "BlobMissing"]
    await bodies.close()
    await blobs.close()


async def test_moved_message_is_found_at_its_new_place(imap_stack: ImapStack) -> None:
    """Compaction moves the message between the reads of row and body: the session reads the row once more."""
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, message(1), message(2))
    inbox = await imap_stack.mailstore.mailboxes.find(reader.account_id, "INBOX")

    def rows(uids: list[int]) -> AsyncIterator[StoredMessage]:
        return imap_stack.mailstore.mailbox_reader.messages(
            reader.account_id, inbox.mailbox_id, uids, with_summary=False
        )

    async def stale(uids: list[int]) -> AsyncIterator[StoredMessage]:
        async for found in rows(uids):
            missing = type(found.blob)(pack="01ARZ3NDEKTSV4RRFFQ69G5FAV", offset=found.uid, length=10, size=10)
            yield dataclasses.replace(found, blob=missing) if found.uid == 1 else found

    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    shares = AccountShares(2**20, 2**20)
    share = shares.of(reader.account_id)
    bodies = BodyCache(blobs, cache_bytes=0)
    found = [body async for group in read_bodies(bodies, share, stale([1, 2]), rows) for _, body in group]
    assert found == [message(1), message(2)]
    found = [body async for group in read_bodies(bodies, share, stale([1, 2]), stale) for _, body in group]
    assert isinstance(found[0], BlobMissing)
    assert found[1] == message(2)
    assert shares.used == 0
    await bodies.close()
    await blobs.close()


async def test_cache_stays_within_its_bound(imap_stack: ImapStack) -> None:
    stored = [await imap_stack.spool.store(message(n, size=1000), account_id=1) for n in range(20)]
    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    bodies = BodyCache(blobs, cache_bytes=10_000)
    for one in stored:  # in this order, whichever request finishes first
        await bodies.load([one.blob])
    assert 0 < (REGISTRY.get_sample_value("paquebot_imap_body_cache_bytes") or 0) <= 10_000
    before = calls("s3", "get")
    assert await bodies.load([stored[-1].blob]) == [message(19, size=1000)]
    assert calls("s3", "get") == before
    assert await bodies.load([stored[0].blob]) == [message(0, size=1000)]
    assert calls("s3", "get") == before + 1
    await bodies.close()
    await blobs.close()


def _looks() -> float:
    """Return how often idling sessions have refreshed."""
    sources = [value("paquebot_imap_refreshes_total", source=source) for source in ("hint", "shared")]
    return sum(count or 0.0 for count in sources)


async def test_sessions_that_idle_share_one_query(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    async with imap_stack.serving() as server, contextlib.AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(connected(server.port("imaps"), reader)) for _ in range(12)]
        looked = _looks()
        for client in clients:
            await client.ok("SELECT INBOX")
            await client.say(b"i IDLE\r\n")
            assert await client.line() == b"+ idling\r\n"
        async with asyncio.timeout(10):  # each session refreshes once when it begins to idle
            while _looks() < looked + 12:
                await asyncio.sleep(0)
        await imap_stack.deliver(reader, message(1))
        before = calls("postgres", "changes")
        for client in clients:
            assert await client.line() == b"* 1 EXISTS\r\n"
            assert (await client.line()).endswith(b" RECENT\r\n")
        assert calls("postgres", "changes") - before <= 2
        for client in clients:
            await client.say(b"DONE\r\n")
            assert (await client.line()).startswith(b"i OK")


async def test_an_own_change_needs_no_query(imap_stack: ImapStack) -> None:
    """A process receives its own hint, and ignores it."""
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(3)))
    async with selected(imap_stack, reader) as client:
        for number in (1, 2, 3):
            before, count = calls("postgres", "changes"), value("paquebot_imap_hints_total") or 0.0
            await client.ok(f"STORE {number} +FLAGS.SILENT (\\Seen)")
            async with asyncio.timeout(10):
                while (value("paquebot_imap_hints_total") or 0.0) == count:
                    await client.ok("FETCH 1 RFC822.SIZE")
            await client.ok("FETCH 1 RFC822.SIZE")
            assert calls("postgres", "changes") == before


async def test_expunges_older_than_the_record_are_found_by_comparison(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *map(message, range(5)))
    async with imap_stack.serving(PAQUEBOT_NATS_URL="nats://127.0.0.1:9", PAQUEBOT_NATS_TIMEOUT="100ms") as server:
        port = server.port("imaps")
        async with connected(port, reader) as away, connected(port, reader) as busy:
            await away.ok("SELECT INBOX")
            await busy.ok("SELECT INBOX")
            await busy.ok("STORE 2,4 +FLAGS.SILENT (\\Deleted)")
            await busy.ok("EXPUNGE")
            await imap_stack.mailstore.messages.forget_expunged(
                datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            )
            assert await away.ok("NOOP") == [b"* 4 EXPUNGE\r\n", b"* 2 EXPUNGE\r\n", b"* 3 RECENT\r\n"]


async def test_drain_lets_a_command_finish(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    await imap_stack.deliver(reader, *(message(number, size=500_000) for number in range(8)))
    draining = asyncio.Event()
    async with imap_stack.serving(draining) as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        await client.say(b"x FETCH 1:8 BODY.PEEK[]\r\n")
        first = await client.line()
        assert first.startswith(b"* 1 FETCH")
        draining.set()
        for _ in range(7):
            assert len(await client.line()) > 500_000
        assert (await client.line()).startswith(b"x OK")
        assert (await client.line()).startswith(b"* BYE [UNAVAILABLE]")


async def test_a_query_that_began_before_a_change_is_not_joined_after_it(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    feed = Feed(imap_stack.mailstore.mailbox_reader, imap_stack.queue)
    one, two = [await feed.watch(reader.account_id, lambda: None) for _ in range(2)]
    asking = (reader.account_id, INBOX_ID, 1)

    async def joined() -> tuple[asyncio.Task[Changes], bool]:
        before = value("paquebot_imap_refreshes_total", source="shared") or 0.0
        task = asyncio.create_task(feed.shared_changes(*asking))
        await asyncio.sleep(0)  # it has queried, or joined the query
        return task, (value("paquebot_imap_refreshes_total", source="shared") or 0.0) > before

    first, began = await joined()
    second, shared = await joined()
    feed.announce(one, MailboxChange(INBOX_ID, 2))
    third, again = await joined()
    assert (began, shared, again) == (False, True, False)
    await asyncio.gather(first, second, third)
    for watch in (one, two):
        feed.unwatch(watch)
    await feed.close()


async def test_an_appended_message_is_read_from_memory(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    raw = message(1)
    async with selected(imap_stack, reader) as client:
        await client.ok(f"APPEND INBOX {{{len(raw)}+}}\r\n{raw.decode()}")
        before = calls("s3", "get")
        assert raw in b"".join(await client.ok("FETCH 1 BODY.PEEK[]"))
        assert calls("s3", "get") == before


async def test_all_hints_are_published_before_the_process_exits(imap_stack: ImapStack) -> None:
    accounts = range(2**40, 2**40 + 3)
    received: list[tuple[int, bytes]] = []
    last = asyncio.Event()

    def note(account_id: int) -> None:
        received.append((account_id, imap_stack.queue.hint_source))

    for account_id in accounts:
        await imap_stack.queue.subscribe_mailbox(account_id, note)
    await imap_stack.queue.subscribe_mailbox(accounts.stop, lambda _: last.set())
    hints = HintPublisher(imap_stack.queue, b"us")
    for account_id in (*accounts, *accounts):
        hints.publish(account_id)
    await hints.close()
    await imap_stack.queue.hint_mailbox(accounts.stop)
    async with asyncio.timeout(10):
        await last.wait()
    assert sorted(received) == [(account_id, b"us") for account_id in accounts]
