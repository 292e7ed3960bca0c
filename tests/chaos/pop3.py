"""A POP3 client that reads a maildrop through all faults: what it is given is what was sent, now and the next time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from paquebot.cli.engines.ports import LOOPBACK
from tests.chaos.ledger import Ledger
from tests.chaos.place import Place
from tests.chaos.smtp import Cut

POP3 = "POP3"
"""The way of messages that these clients were given."""
REPLY_SECONDS = 60.0
AGAIN_SECONDS = 0.5
_TEMPORARY = ("[SYS/TEMP]", "[IN-USE]", "[LOGIN-DELAY]")  # RFC 2449 §8.1, RFC 3206 §4
_NEWEST, _SAMPLE = 4, 4


class Negative(Exception):
    """-ERR; the connection goes on."""

    @property
    def temporary(self) -> bool:
        return any(code in str(self) for code in _TEMPORARY)


class Pop3:
    """One connection over TLS. Commands raise Negative, Cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def session(cls, port: int, tls: ssl.SSLContext, user: str) -> AsyncIterator[Pop3]:
        """Logged in; the caller says QUIT, or the connection is cut."""
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                pair = await asyncio.open_connection(LOOPBACK, port, ssl=tls, server_hostname="localhost")
        except (OSError, TimeoutError, EOFError) as error:
            raise Cut(f"connect: {error!r}") from error
        client = cls(*pair)
        try:
            await client._reply("greeting")
            await client.command(f"USER {user}")
            await client.command(f"PASS {DEMO_PASSWORD}", shown="PASS")
            yield client
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                client._writer.transport.abort()

    async def command(self, line: str, *, shown: str = "") -> None:
        await self._write(line)
        await self._reply(shown or line)

    async def lines(self, line: str) -> list[bytes]:
        """The multi-line response, its dots unstuffed (RFC 1939 §3), each line with its CRLF."""
        await self.command(line)
        found: list[bytes] = []
        while (one := await self._until(b"\r\n")) != b".\r\n":
            found.append(one.removeprefix(b"."))
        return found

    async def _reply(self, shown: str) -> None:
        line = (await self._until(b"\r\n")).decode("utf-8", "replace").strip()
        if not line.startswith("+OK"):
            raise Negative(f"{shown}: {line}")

    async def _until(self, end: bytes) -> bytes:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                return await self._reader.readuntil(end)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            raise Cut(f"{error!r}") from error

    async def _write(self, line: str) -> None:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                self._writer.write(line.encode() + b"\r\n")
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise Cut(f"{error!r}") from error


@dataclass(slots=True)
class Retriever:
    """One account's: it comes again and again, and deletes nothing."""

    account: str
    place: Place
    ledger: Ledger
    chance: random.Random
    digests: dict[str, bytes] = field(default_factory=dict)
    """By unique-id, of what was retrieved once."""
    cuts: int = 0
    refusals: int = 0
    stopping: bool = False

    async def run(self) -> None:
        """Until `stopping`."""
        while not self.stopping:
            try:
                async with Pop3.session(self.place.ports.services.pop3s, self.place.tls(), self.account) as client:
                    await self._look(client)
                    await client.command("QUIT")
            except Cut:
                self.cuts += 1
            except Negative as reply:
                self._refused(reply)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _look(self, client: Pop3) -> None:
        """Retrieve some of the newest messages, and some of all."""
        listed = dict(line.decode().split() for line in await client.lines("UIDL"))
        gone = self.digests.keys() - set(listed.values())
        if gone:
            self.ledger.find(f"{self.account} over POP3: {sorted(gone)} are gone")
        numbers = list(listed)
        wanted = {*numbers[-_NEWEST:], *self.chance.sample(numbers, min(_SAMPLE, len(numbers)))}
        for number in sorted(wanted, key=int):
            try:
                self._compare(listed[number], b"".join(await client.lines(f"RETR {number}")))
            except Negative as reply:
                self._refused(reply)

    def _compare(self, unique: str, content: bytes) -> None:
        where = f"{self.account} over POP3, {unique}"
        self.ledger.compare(POP3, where, content)
        digest = hashlib.sha256(content).digest()
        if self.digests.setdefault(unique, digest) != digest:
            self.ledger.find(f"{where}: other bytes than before")

    def _refused(self, reply: Negative) -> None:
        self.refusals += 1
        if not reply.temporary:
            self.ledger.find(f"{self.account} over POP3: a permanent refusal: {reply}")
