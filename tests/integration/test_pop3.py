"""poplib against the real POP3 service on the real engines, with the rights of the service's own role."""

from __future__ import annotations

import asyncio
import poplib

import pytest

from paquebot.mailstore import Flag
from tests.support.bad_rows import spoil
from tests.support.counted import value
from tests.support.pop3_world import PASSWORD, PREFIX, Pop3Stack, poplib_client, until


def mail(number: int, size: int = 500) -> bytes:
    body = (f"{number:04d} .dots\r\n.{number}\r\n".encode() * (size // 18 + 1))[: size // 18 * 18]
    return b"From: a@example.org\r\nSubject: %d\r\n\r\n" % number + body + b"\r\n"


async def test_download_all_and_remove(pop3_stack: Pop3Stack) -> None:
    reader = await pop3_stack.reader()
    sent = [mail(number, size=400_000 if number == 20 else 3000) for number in range(60)]
    await pop3_stack.deliver(reader, *sent)

    def download(port_client: poplib.POP3_SSL) -> tuple[list[bytes], list[int], list[bytes]]:
        sizes = [int(line.split()[1]) for line in port_client.list()[1]]
        got = [b"\r\n".join(port_client.retr(n)[1]) + b"\r\n" for n in range(1, len(sizes) + 1)]
        ids = [line.split()[1] for line in port_client.uidl()[1]]
        for number in range(1, 60):
            port_client.dele(number)
        port_client.quit()
        return got, sizes, ids

    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        got, sizes, ids = await asyncio.to_thread(download, client)
    assert got == [PREFIX + raw for raw in sent]
    assert sizes == [len(raw) for raw in got]
    assert len(set(ids)) == 60
    assert await pop3_stack.uids(reader) == [60]
    assert await pop3_stack.flags(reader) == [Flag.SEEN]
    assert await pop3_stack.leases(reader) == []


async def test_unique_ids_stay_and_two_processes_share_one_lock(pop3_stack: Pop3Stack) -> None:
    reader = await pop3_stack.reader()
    await pop3_stack.deliver(reader, mail(1), mail(2))
    async with pop3_stack.serving() as one, pop3_stack.serving() as other:
        first = await asyncio.to_thread(poplib_client, one, reader)
        ids = (await asyncio.to_thread(first.uidl))[1]
        second = await asyncio.to_thread(poplib_client, other)
        await asyncio.to_thread(second.user, reader.address)
        with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
            await asyncio.to_thread(second.pass_, PASSWORD)
        await asyncio.to_thread(first.dele, 1)
        first.close()  # without QUIT nothing is deleted, and the maildrop is free

        async def free() -> bool:
            return not await pop3_stack.leases(reader)

        await until(free)
        await asyncio.to_thread(second.user, reader.address)
        await asyncio.to_thread(second.pass_, PASSWORD)
        assert (await asyncio.to_thread(second.uidl))[1] == ids
        await asyncio.to_thread(second.quit)


async def test_the_lease_of_a_dead_process_expires(pop3_stack: Pop3Stack) -> None:
    reader = await pop3_stack.reader()
    await pop3_stack.mailstore.maildrops.lock(reader.account_id, "a process that died", 0.3)

    async def free() -> bool:
        return not await pop3_stack.leases(reader)

    await until(free)
    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        await asyncio.to_thread(client.quit)


async def test_hint_after_deletion(pop3_stack: Pop3Stack) -> None:
    reader = await pop3_stack.reader()
    await pop3_stack.deliver(reader, mail(1))
    hints: asyncio.Queue[int] = asyncio.Queue()
    await pop3_stack.queue.subscribe_mailbox(reader.account_id, hints.put_nowait)
    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        await asyncio.to_thread(client.dele, 1)
        await asyncio.to_thread(client.quit)
        assert await asyncio.wait_for(hints.get(), 10.0) == reader.account_id
    assert await pop3_stack.uids(reader) == []


async def test_a_lost_pack_is_reported_and_the_session_continues(pop3_stack: Pop3Stack) -> None:
    reader = await pop3_stack.reader()
    await pop3_stack.deliver(reader, mail(1))
    async for use in pop3_stack.mailstore.pack_uses.of_accounts(reader.account_id, reader.account_id):
        await pop3_stack.blobs.delete([use.blob.pack])
    await pop3_stack.deliver(reader, mail(2))
    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        with pytest.raises(poplib.error_proto, match=r"\[SYS/PERM\]"):
            await asyncio.to_thread(client.retr, 1)
        assert b"\r\n".join((await asyncio.to_thread(client.retr, 2))[1]) + b"\r\n" == PREFIX + mail(2)
        await asyncio.to_thread(client.quit)


async def test_a_message_that_compaction_moved_is_found_again(pop3_stack: Pop3Stack) -> None:
    """The first RETR also reads the place of the second message, which is too large to be read ahead."""
    reader = await pop3_stack.reader()
    large = mail(2, size=1_500_000)
    for content in (mail(1), large):
        await pop3_stack.deliver(reader, content)
    uses = [use async for use in pop3_stack.mailstore.pack_uses.of_accounts(reader.account_id, reader.account_id)]
    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        await asyncio.to_thread(client.retr, 1)
        blob = (await pop3_stack.spool.store(large, account_id=reader.account_id)).blob
        change = f"pack = '{blob.pack}', blob_offset = {blob.offset}, blob_length = {blob.length}"
        await spoil(pop3_stack.postgres, reader.account_id, 2, change)
        await pop3_stack.blobs.delete([use.blob.pack for use in uses if use.uid == 2])
        try:
            assert b"\r\n".join((await asyncio.to_thread(client.retr, 2))[1]) + b"\r\n" == PREFIX + large
        finally:
            await asyncio.to_thread(client.close)


ODD = (
    b"Subject: l\n\none\ntwo\n",
    b"Subject: e\r\n\r\nno end",
    b"",
    b"\r\n",
    b"\n",
    b"Subject: header only\r\n",
    b"Subject: no empty line",
    b"a: b\r\n\r\n.\r\n..\r\n.end",
    b"a: b\r\n\r\ncr\rcr\r\r\n\rend\r",
    b"a: b\r\n\r\n\0nul\0\n\xff\n.",
)


def counted(client: poplib.POP3_SSL) -> tuple[list[int], list[int], tuple[int, int]]:
    """The sizes of LIST, those of RETR without dot-stuffing and the last line, and the reply to STAT."""
    listed = [int(line.split()[1]) for line in client.list()[1]]
    sent = []
    for number in range(1, len(listed) + 1):
        status, lines, _ = client.retr(number)
        assert int(status.split()[1]) == listed[number - 1]
        sent.append(sum(len(line) + 2 for line in lines))
    return listed, sent, client.stat()


async def test_listed_sizes_are_those_sent(pop3_stack: Pop3Stack) -> None:
    """RFC 1939 §11: the sizes of these messages are unknown, so the first login reads them, and later ones do not."""
    reader = await pop3_stack.reader()
    await pop3_stack.deliver(reader, mail(1))
    await pop3_stack.deliver(reader, *ODD, prefix=b"")
    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        listed, sent, stat = await asyncio.to_thread(counted, client)
        await asyncio.to_thread(client.quit)
        assert listed == sent
        assert stat == (len(listed), sum(listed))
        before = value("paquebot_s3_requests_total", call="get")
        client = await asyncio.to_thread(poplib_client, server, reader)
        assert [int(line.split()[1]) for line in (await asyncio.to_thread(client.list))[1]] == listed
        assert value("paquebot_s3_requests_total", call="get") == before
        await asyncio.to_thread(client.quit)


async def test_uncounted_messages_are_read_a_part_at_a_login(pop3_stack: Pop3Stack) -> None:
    """The newest first, and one message whatever its size; a lost message does not stop the others."""
    reader = await pop3_stack.reader()
    for raw in (b"a: b\n\nfirst\n", b"a: b\n\nlost\n", b"a: b\n\nthird\n"):
        await pop3_stack.deliver(reader, raw, prefix=b"")
    uses = [use async for use in pop3_stack.mailstore.pack_uses.of_accounts(reader.account_id, reader.account_id)]
    lost = next(use for use in uses if use.uid == 2)
    await pop3_stack.blobs.delete([lost.blob.pack])

    def sizes(client: poplib.POP3_SSL) -> list[int]:
        listed = [int(line.split()[1]) for line in client.list()[1]]
        client.quit()
        return listed

    async with pop3_stack.serving(PAQUEBOT_POP3_EXACT_SIZE_BYTES="20") as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        assert await asyncio.to_thread(sizes, client) == [12, 11, 15]
    async with pop3_stack.serving() as server:
        client = await asyncio.to_thread(poplib_client, server, reader)
        assert await asyncio.to_thread(sizes, client) == [15, 11, 15]
