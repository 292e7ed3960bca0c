"""A hop between the load client and a server that falsifies one answer, to show that the client notices."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from tests.bench.imap_client import Login

Lie = Callable[[bytes], bytes]
"""Given a line of the server's, or bytes of a literal; what the client gets instead."""


@asynccontextmanager
async def tampered(login: Login, lie: Lie) -> AsyncIterator[Login]:
    """The same login through a hop that applies `lie` to every line; the client's side is in the clear."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            there = await asyncio.open_connection(login.host, login.port, ssl=login.tls, server_hostname=login.host)
            with contextlib.closing(there[1]), contextlib.closing(writer):
                upward = asyncio.create_task(_copy(reader, there[1], lambda line: line))
                await _copy(there[0], writer, lie)
                upward.cancel()
                await asyncio.wait((upward,))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    async with server:
        yield replace(login, port=server.sockets[0].getsockname()[1], tls=None)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Lie) -> None:
    """Line by line to the end; a literal that does not end in a line end is passed on with the line behind it."""
    while line := await reader.readline():
        writer.write(change(line))
        await writer.drain()
