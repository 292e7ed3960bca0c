"""A damaged row does not hide the other messages of the maildrop, and a lost message is a permanent failure."""

from __future__ import annotations

import asyncio
import contextlib
import poplib
from collections.abc import AsyncIterator, Callable

import pytest

from paquebot.pop3 import transaction
from tests.support.bad_rows import spoil
from tests.support.counted import value
from tests.support.pop3_world import PREFIX, Pop3Stack, Reader, poplib_client


def mail(number: int) -> bytes:
    return b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number)


@contextlib.asynccontextmanager
async def three_messages(stack: Pop3Stack, change: str) -> AsyncIterator[tuple[Reader, poplib.POP3_SSL]]:
    """Three messages with a bad second row; the account is removed at the end."""
    reader = await stack.reader()
    await stack.deliver(reader, *map(mail, (1, 2, 3)))
    try:
        await spoil(stack.postgres, reader.account_id, 2, change)
        async with stack.serving() as server:
            client = await asyncio.to_thread(poplib_client, server, reader)
            yield reader, client
            await asyncio.to_thread(client.close)
    finally:
        await stack.mailstore.accounts.delete(reader.account_id)


@pytest.mark.parametrize(
    "change",
    [
        "internal_date = '-infinity'",
        "save_date = 'infinity'",
        "internal_date = '200000-01-01 00:00:00+00'",
        "flags = -1",
        "mod_seq = -4",
        "summary = '\\xffffffff'",
        "keywords = E'{\"a b\"}'",
    ],
)
async def test_a_row_that_can_be_repaired_is_served(pop3_stack: Pop3Stack, change: str) -> None:
    async with three_messages(pop3_stack, change) as (_, client):

        def download() -> list[bytes]:
            assert len(client.list()[1]) == len(client.uidl()[1]) == 3
            got = [b"\r\n".join(client.retr(number)[1]) + b"\r\n" for number in (1, 2, 3)]
            client.dele(3)
            client.quit()
            return got

        assert await asyncio.to_thread(download) == [PREFIX + mail(number) for number in (1, 2, 3)]


@pytest.mark.parametrize("change", ["blob_offset = -9", "pack = 'no pack at all'", "blob_length = -1"])
async def test_a_lost_message_fails_and_the_others_are_served(pop3_stack: Pop3Stack, change: str) -> None:
    async with three_messages(pop3_stack, change) as (reader, client):

        def download() -> list[bytes]:
            with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\]"):
                client.retr(2)
            got = [b"\r\n".join(client.retr(number)[1]) + b"\r\n" for number in (1, 3)]
            client.dele(1)
            client.quit()
            return got

        assert await asyncio.to_thread(download) == [PREFIX + mail(number) for number in (1, 3)]
        assert await pop3_stack.uids(reader) == [2, 3]


async def test_a_negative_size_and_an_invalid_uid(pop3_stack: Pop3Stack) -> None:
    async with three_messages(pop3_stack, "uid = 2, size = -3") as (_, client):
        assert len((await asyncio.to_thread(client.list))[1]) == 3
        await asyncio.to_thread(client.quit)


async def test_a_fault_of_the_code_is_a_permanent_failure(
    pop3_stack: Pop3Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> Callable[[], None]:
        raise KeyError("the secret of the engine")

    async with three_messages(pop3_stack, "flags = 0") as (_, client):
        monkeypatch.setattr(transaction, "answer", broken)
        failed = value("paquebot_pop3_unexpected_errors_total") or 0.0

        def ask() -> None:
            with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\] The server failed") as caught:
                client.stat()
            assert "secret" not in str(caught.value)

        await asyncio.to_thread(ask)
        assert value("paquebot_pop3_unexpected_errors_total") == failed + 1
