"""Counts what is visible over IMAP, with as few commands as will do: one connection for each account, logged in before
the load begins, no mailbox selected, and STATUS only from when all of an account's messages have been sent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.rows import LOOPBACK, Side

_PAUSE_SECONDS = 0.02
_LOGINS_AT_ONCE = 8
_LIMIT = 2**24  # bytes of one answer


class WatchError(Exception):
    """The server gave an unexpected answer."""


@dataclass(slots=True)
class Reader:
    """A client that is logged in as one account; one command at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _number: int = 0

    @classmethod
    async def open(cls, side: Side, account: int) -> Reader:
        """Over TLS, where the server asks for that."""
        port, tls = side.plain_imap_port, None
        if port is None:
            port, tls = side.imaps_port, side.tls()
        client = cls(*await asyncio.open_connection(LOOPBACK, port, ssl=tls, limit=_LIMIT))
        await client.reader.readline()
        await client.ask(f'LOGIN {side.address(account)} "{side.password}"')
        return client

    async def ask(self, command: str) -> list[bytes]:
        """The lines of the answer but for the tagged one; literals are lines too. Raises WatchError unless it is OK."""
        self._number += 1
        tag = f"a{self._number}".encode()
        self.writer.write(tag + b" " + command.encode() + b"\r\n")
        lines = []
        while not (line := await self.reader.readline()).startswith(tag + b" "):
            if not line:
                raise WatchError(f"the connection was closed after {command.split()[0]}")
            lines.append(line)
        if not line.startswith(tag + b" OK"):
            raise WatchError(f"{command.split()[0]}: {line.decode('utf-8', 'replace').strip()}")
        return lines

    async def count(self) -> int:
        """Messages in INBOX (STATUS: RFC 3501 §6.3.10)."""
        for line in await self.ask("STATUS INBOX (MESSAGES)"):
            if line.startswith(b"* STATUS"):
                return int(line.rpartition(b"MESSAGES ")[2].rstrip(b")\r\n"))
        raise WatchError("STATUS without an answer")

    async def close(self) -> None:
        with contextlib.suppress(OSError, WatchError):
            await self.ask("LOGOUT")
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@dataclass(slots=True)
class Watch:
    """One reader for each of the first accounts of a side, and the counts of the last `counts`."""

    readers: list[Reader]
    last: list[int] = field(default_factory=list)

    async def counts(self) -> list[int]:
        """Of all accounts now."""
        self.last = [await reader.count() for reader in self.readers]
        return self.last

    async def arrival(self, account: int, wanted: int) -> float:
        """Wait until an account has at least `wanted` messages; time.perf_counter() of the answer that said so."""
        while await self.readers[account].count() < wanted:
            await asyncio.sleep(_PAUSE_SECONDS)
        return time.perf_counter()


@asynccontextmanager
async def watching(side: Side, accounts: int) -> AsyncIterator[Watch]:
    """Readers of the first `accounts` accounts of a side."""
    turns = asyncio.Semaphore(_LOGINS_AT_ONCE)

    async def open_one(account: int) -> Reader:
        async with turns:
            return await Reader.open(side, account)

    readers = await asyncio.gather(*(open_one(account) for account in range(accounts)))
    watch = Watch(list(readers))
    await watch.counts()
    try:
        yield watch
    finally:
        await asyncio.gather(*(reader.close() for reader in watch.readers))
