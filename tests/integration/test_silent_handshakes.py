"""Connections that never finish a TLS handshake occupy slots, and lose them to clients of other networks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from paquebot.smtp_ingress.state import Role
from tests.dialogues.dialogue import client_tls
from tests.support import counted
from tests.support.imap_world import ImapStack
from tests.support.smtp_world import SmtpStack


@contextlib.asynccontextmanager
async def silent(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Open `count` connections of one network that send nothing."""
    streams = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.1.1", 0)) for _ in range(count)]
    try:
        yield [reader for reader, _ in streams]
    finally:
        for _, writer in streams:
            writer.close()


async def _first_line(port: int) -> bytes:
    """Return the greeting of a client of another network, after its handshake."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client_tls(), local_addr=("127.0.2.1", 0), ssl_handshake_timeout=20
    )
    async with asyncio.timeout(20):
        line = await reader.readline()
    writer.close()
    return line


async def _until_ended(readers: list[asyncio.StreamReader], count: int) -> None:
    """Wait until the server has closed `count` of the connections."""
    async with asyncio.timeout(20):
        while sum(reader.at_eof() or reader.exception() is not None for reader in readers) < count:
            await asyncio.sleep(0)


async def test_imap_gives_the_slot_of_a_handshake(imap_stack: ImapStack) -> None:
    settings = {"PAQUEBOT_IMAP_SESSIONS": "3", "PAQUEBOT_IMAP_SESSIONS_RESERVED": "0"}
    async with imap_stack.serving(**settings) as server:
        port = server.port("imaps")
        async with silent(port, 3) as readers:
            while server.slots.used < 3:
                await asyncio.sleep(0)
            assert (await _first_line(port)).startswith(b"* OK ")
            await _until_ended(readers, 1)


async def test_smtp_gives_the_slot_of_a_handshake(smtp_stack: SmtpStack) -> None:
    settings = {"PAQUEBOT_SMTP_CONNECTIONS": "3", "PAQUEBOT_SMTP_CONNECTIONS_RESERVED": "0"}
    async with smtp_stack.serving(**settings) as server:
        (port,) = server.ports(Role.SUBMISSIONS)
        async with silent(port, 3) as readers:
            while server.slots.used < 3:
                await asyncio.sleep(0)
            assert (await _first_line(port)).startswith(b"220 ")
            await _until_ended(readers, 1)


async def test_smtp_counts_no_reply_to_a_client_that_it_cannot_answer(smtp_stack: SmtpStack) -> None:
    """Without a slot there is no handshake, and so no reply."""
    async with smtp_stack.serving(PAQUEBOT_SMTP_CONNECTIONS_PER_CLIENT="1") as server:
        (port,) = server.ports(Role.SUBMISSIONS)
        async with silent(port, 1):
            while not server.slots.used:
                await asyncio.sleep(0)
            before = _refused_and_replies()
            async with silent(port, 1) as (reader,), asyncio.timeout(20):
                assert await reader.read() == b""
            assert _refused_and_replies() == (before[0] + 1, before[1])


def _refused_and_replies() -> tuple[float, float]:
    refused = counted.value("paquebot_smtp_refused_connections_total", listener=Role.SUBMISSIONS.value)
    return refused or 0.0, counted.value("paquebot_smtp_replies_total", **{"class": "4xx"}) or 0.0
