"""A client that sends and reads bytes, for tests of what client libraries hide (order, timing, not reading)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from tests.dialogues.dialogue import client_tls
from tests.support.imap_world import PASSWORD, Reader

DEADLINE = 30.0
_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")


class WireClient:
    """One connection; a response is a list of lines, with literals inside their line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._tag = 0

    async def line(self) -> bytes:
        """The next response, literals included. Raises EOFError."""
        async with asyncio.timeout(DEADLINE):
            whole = b""
            while True:
                line = await self.reader.readuntil(b"\r\n")
                whole += line
                match = _LITERAL.search(line)
                if match is None:
                    return whole
                whole += await self.reader.readexactly(int(match[1]))

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def run(self, command: str) -> list[bytes]:
        """Send a command and return its response lines; the last line is the completion."""
        self._tag += 1
        tag = b"t%d " % self._tag
        await self.say(tag + command.encode() + b"\r\n")
        lines = [await self.line()]
        while not lines[-1].startswith(tag):
            lines.append(await self.line())
        return [line.removeprefix(tag) for line in lines]

    async def ok(self, command: str) -> list[bytes]:
        """`run` a command that must succeed, and return the untagged lines."""
        lines = await self.run(command)
        assert lines[-1].startswith(b"OK"), lines[-1]
        return lines[:-1]


@contextlib.asynccontextmanager
async def connected(port: int, reader: Reader | None = None, *, limit: int = 2**20) -> AsyncIterator[WireClient]:
    """A connection to an IMAPS port on loopback, logged in as `reader` when given."""
    streams = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls(), limit=limit)
    client = WireClient(*streams)
    try:
        await client.line()
        if reader is not None:
            await client.ok(f'LOGIN {reader.address} "{PASSWORD}"')
        yield client
    finally:
        client.writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            await client.writer.wait_closed()
