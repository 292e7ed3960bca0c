"""Many bodies: the number of requests, the memory that a slow reader reserves, and the effect of a damaged message."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from paquebot.blobs import BlobStore, new_ulid
from paquebot.imap.bodies.body_cache import BodyCache
from paquebot.imap.bodies.windows import LoadedMessages, read_bodies
from paquebot.mailstore import StoredMessage
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.settings import load
from paquebot.runtime.shares import account_shares
from paquebot.runtime.shares.account_shares import AccountShares
from paquebot.v1.mail_pb2 import BlobRef
from tests.support.counted import value
from tests.support.imap_packs import delivered, packed
from tests.support.imap_wire import connected
from tests.support.imap_world import ImapStack


def message(number: int, size: int = 0) -> bytes:
    noise = random.Random(number).randbytes(size // 2).hex().encode()
    return b"Subject: number %d\r\n\r\nbody %d\r\n%b\r\n" % (number, number, noise)


def gets() -> float:
    return value("paquebot_s3_requests_total", call="get") or 0.0


def bytes_read() -> float:
    return value("paquebot_s3_read_bytes_total") or 0.0


@pytest.fixture
async def store(imap_stack: ImapStack) -> AsyncIterator[BlobStore]:
    blobs = BlobStore(load(S3Settings, imap_stack.environ))
    yield blobs
    await blobs.close()


async def test_messages_of_one_pack_share_requests_in_any_order(imap_stack: ImapStack, store: BlobStore) -> None:
    """400 messages alternate between four packs: one request for each pack and window, not for each message."""
    reader = await imap_stack.reader()
    messages = [message(number) for number in range(400)]
    refs: list[BlobRef] = [BlobRef()] * 400
    for turn in range(4):
        refs[turn::4] = await packed(store, messages[turn::4])
    await delivered(imap_stack, reader, list(zip(refs, messages, strict=True)))
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        before = gets()
        lines = await client.ok("FETCH 1:* BODY.PEEK[]")
        assert gets() - before == 12  # windows of 64, 128 and 208 messages
        for number, line in enumerate(lines):
            assert line.startswith(b"* %d FETCH (BODY[] {" % (number + 1))
            assert line.endswith(messages[number] + b")\r\n")
        assert len(lines) == 400


async def test_a_damaged_or_missing_message_is_the_only_one_left_out(imap_stack: ImapStack, store: BlobStore) -> None:
    reader = await imap_stack.reader()
    messages = [message(number) for number in range(12)]
    good = await packed(store, messages[:4])
    damaged = await packed(store, messages[4:8], damaged=[1])
    gone = await packed(store, messages[8:10])
    behind = await packed(store, messages[10:])
    behind[1].offset += 1_000_000  # a row that refers to an offset behind the end of its pack
    await store.delete([gone[0].pack])
    refs = [*good, *damaged, *gone, *behind]
    await delivered(imap_stack, reader, list(zip(refs, messages, strict=True)))
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        *lines, completion = await client.run("FETCH 1:* BODY.PEEK[]")
        warnings = [line for line in lines if line.startswith(b"* NO ")]
        lines = [line for line in lines if line not in warnings]
        assert [int(line.split()[1]) for line in lines] == [1, 2, 3, 4, 5, 7, 8, 11]
        assert completion == b"OK FETCH completed\r\n"  # after a NO clients would discard the data of the response
        assert all(line.endswith(messages[int(line.split()[1]) - 1] + b")\r\n") for line in lines)
        assert warnings == [
            b"* NO [UNAVAILABLE] Message 6 (UID 6) is damaged, please report it\r\n",
            b"* NO [CORRUPTION] Message 9 (UID 9) is lost, please report it\r\n",
            b"* NO [CORRUPTION] Message 10 (UID 10) is lost, please report it\r\n",
            b"* NO [UNAVAILABLE] Message 12 (UID 12) is damaged, please report it\r\n",
        ]
        # Items of the row are returned for them too, a search skips them, and a FETCH of them alone fails.
        assert len(await client.ok("FETCH 6:12 (ENVELOPE RFC822.SIZE)")) == 7
        found = await client.ok("SEARCH BODY body")
        assert found[:-1] == warnings
        assert found[-1] == b"* SEARCH 1 2 3 4 5 7 8 11\r\n"
        assert (await client.run("FETCH 9:10 BODY.PEEK[]"))[-1].startswith(b"NO [CORRUPTION]")
        assert (await client.run("FETCH 6 BODY.PEEK[]"))[-1].startswith(b"NO [UNAVAILABLE]")
        assert (await client.ok("COPY 1:12 Archive"))[-1:] == []


async def test_a_message_that_is_lost_does_not_end_every_later_search(imap_stack: ImapStack, store: BlobStore) -> None:
    reader = await imap_stack.reader()
    messages = [message(number) for number in range(3)]
    there, gone = await packed(store, messages[:2]), await packed(store, messages[2:])
    await store.delete([gone[0].pack])
    await delivered(imap_stack, reader, list(zip([*there, *gone], messages, strict=True)))
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        lost, found = await client.ok('SEARCH OR BODY "" SUBJECT nothing NOT BODY "in no message"')
        assert lost.startswith(b"* NO [CORRUPTION] ")
        assert found == b"* SEARCH 1 2\r\n"


async def test_a_damaged_first_message_keeps_no_other_from_becoming_seen(
    imap_stack: ImapStack, store: BlobStore
) -> None:
    reader = await imap_stack.reader()
    messages = [message(number, 60_000) for number in range(3)]
    refs = [*await packed(store, messages[:1], damaged=[0]), *await packed(store, messages[1:])]
    await delivered(imap_stack, reader, list(zip(refs, messages, strict=True)))
    async with imap_stack.serving() as server, connected(server.port("imaps"), reader) as client:
        await client.ok("SELECT INBOX")
        assert (await client.ok("FETCH 1:* BODY[]"))[0].startswith(b"* NO [UNAVAILABLE] Message 1 ")
        assert await client.ok("SEARCH 2:3 SEEN") == [b"* SEARCH 2 3\r\n"]


async def test_slow_readers_reserve_no_more_than_their_share(imap_stack: ImapStack, store: BlobStore) -> None:
    """Eight readers of 6 MB each read one window and then stop: the server read only reserved bytes."""
    reader = await imap_stack.reader()
    messages = [message(number, 100_000) for number in range(60)]
    await delivered(imap_stack, reader, list(zip(await packed(store, messages), messages, strict=True)))
    inbox = await imap_stack.mailstore.mailboxes.find(reader.account_id, "INBOX")

    def rows(uids: list[int]) -> AsyncIterator[StoredMessage]:
        return imap_stack.mailstore.mailbox_reader.messages(
            reader.account_id, inbox.mailbox_id, uids, with_summary=False
        )

    limit = 1_000_000
    shares = AccountShares(limit, limit)
    share = shares.of(reader.account_id)
    before = bytes_read()
    # Each reader has its own Bodies: they share the limit, but no read and no cache.
    all_bodies = [BodyCache(store, cache_bytes=0) for _ in range(8)]
    readers = [read_bodies(bodies, share, rows(list(range(1, 61))), rows) for bodies in all_bodies]
    async with contextlib.AsyncExitStack() as stack:
        firsts = [asyncio.create_task(_first(stack, groups)) for groups in readers]
        done, waiting = await asyncio.wait(firsts, return_when=asyncio.FIRST_COMPLETED)
        for bodies in all_bodies:
            await bodies.close()
        assert 0 < shares.used <= limit
        assert bytes_read() - before <= limit
        assert done and waiting  # the others wait for readers that have stopped
        for task in waiting:
            task.cancel()
        await asyncio.gather(*firsts, return_exceptions=True)
    assert shares.used == 0


async def test_a_client_that_does_not_read_a_long_message_makes_room_for_another(
    imap_stack: ImapStack, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message needs most of the memory; the other client's short message needs none of it."""
    for name, seconds in (("_GRACE_SECONDS", 0.0), ("_RATE", 1e12), ("_REVOKE_SECONDS", 0.0)):
        monkeypatch.setattr(account_shares, name, seconds)
    long = b"Subject: long\r\n\r\n" + b"an ordinary line of words\r\n" * 800_000
    readers = [await imap_stack.reader() for _ in range(2)]
    for reader in readers:
        messages = [long, message(1)]
        await delivered(imap_stack, reader, list(zip(await packed(store, messages), messages, strict=True)))
    room = {"PAQUEBOT_IMAP_READING": "32MiB", "PAQUEBOT_IMAP_READING_PER_ACCOUNT": "32MiB"}
    async with (
        imap_stack.serving(**room) as server,
        connected(server.port("imaps"), readers[0], limit=2**10) as silent,
        connected(server.port("imaps"), readers[1]) as client,
    ):
        await silent.ok("EXAMINE INBOX")
        await silent.say(b"a FETCH 1 BODY.PEEK[]\r\n")
        await silent.reader.readexactly(10)
        await client.ok("EXAMINE INBOX")
        (line,) = await client.ok("FETCH 2 BODY.PEEK[]")
        assert line.endswith(message(1) + b")\r\n")
        (line,) = await client.ok("FETCH 1 BODY.PEEK[]")
        assert line.endswith(long + b")\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            await silent.reader.readexactly(len(long))


async def _first(stack: contextlib.AsyncExitStack, groups: AsyncGenerator[LoadedMessages, None]) -> LoadedMessages:
    opened = await stack.enter_async_context(contextlib.aclosing(groups))
    return await anext(opened)


async def test_s3_that_is_away_is_not_asked_for_every_message(imap_stack: ImapStack) -> None:
    away = {"PAQUEBOT_S3_ENDPOINT": "http://127.0.0.1:9", "PAQUEBOT_S3_TIMEOUT": "500ms"}
    store = BlobStore(load(S3Settings, {**imap_stack.environ, **away}))
    bodies = BodyCache(store, cache_bytes=0)
    before = gets()
    found = await bodies.load([BlobRef(pack=new_ulid(), offset=0, length=10, size=10) for _ in range(60)])
    assert {type(body).__name__ for body in found} == {"BlobsUnavailable"}
    assert gets() - before < 60
    await bodies.close()
    await store.close()
