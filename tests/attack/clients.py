"""Ordinary clients: each works without a pause, one conversation after another, and notes how long each took."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.attack.field import DOMAIN, HOST, SECRET, Field

DEADLINE_SECONDS = 30.0
_NOOP_PAUSE, _RELAY_PAUSE = 0.02, 0.05
_numbers = itertools.count()


@dataclass(slots=True)
class Ordinary:
    """One client's tries: seconds of each that succeeded, and what became of the others."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def quantile(self, part: float) -> float:
        if len(self.seconds) < 2:
            return self.seconds[0] if self.seconds else float("inf")
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[round(part * 100) - 1]


class Conversation:
    """A line at a time; anything unexpected is a failure."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def expect(self, start: bytes, *, until: bytes = b"") -> None:
        """A line that begins so; with `until`, everything to a line that begins so."""
        line = await self._reader.readline()
        while until and not line.startswith(until):
            if not line:
                raise EOFError("closed")
            line = await self._reader.readline()
        if not line.startswith(start):
            raise EOFError(line.decode("utf-8", "replace").strip())

    async def say(self, data: bytes, start: bytes, *, until: bytes = b"") -> None:
        self._writer.write(data)
        await self.expect(start, until=until)


Work = Callable[[Field], Awaitable[None]]


@contextlib.asynccontextmanager
async def talk(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Conversation]:
    name = "localhost" if tls is not None else None
    reader, writer = await asyncio.open_connection(HOST, port, ssl=tls, server_hostname=name)
    with contextlib.closing(writer):
        yield Conversation(reader, writer)


def plain(address: str, password: str = SECRET) -> bytes:
    """AUTH PLAIN's message."""
    return base64.b64encode(f"\0{address}\0{password}".encode())


async def smtp(place: Field) -> None:
    """Another host's mail, from connect to 250."""
    async with talk(place.ports.smtp) as it:
        await it.expect(b"220")
        await it.say(b"HELO ordinary.test\r\n", b"250")
        await it.say(b"MAIL FROM:<someone@ordinary.test>\r\n", b"250")
        await it.say(f"RCPT TO:<bob@{DOMAIN}>\r\n".encode(), b"250")
        await it.say(b"DATA\r\n", b"354")
        await it.say(b"Subject: ordinary\r\n\r\nHello\r\n.\r\n", b"250")


async def submit(place: Field, forward_path: str, subject: str, *, sender: str = "") -> None:
    """Raises EOFError: it was refused."""
    sender = sender or place.oscar
    async with talk(place.ports.submissions, place.tls) as it:
        await it.expect(b"220")
        await it.say(b"EHLO ordinary.test\r\n", b"250 ", until=b"250 ")
        await it.say(b"AUTH PLAIN " + plain(sender) + b"\r\n", b"235")
        await it.say(f"MAIL FROM:<{sender}>\r\n".encode(), b"250")
        await it.say(f"RCPT TO:<{forward_path}>\r\n".encode(), b"250")
        await it.say(b"DATA\r\n", b"354")
        await it.say(f"From: <{sender}>\r\nSubject: {subject}\r\n\r\nHello\r\n.\r\n".encode(), b"250")


async def submission(place: Field) -> None:
    """With TLS and login, from connect to 250."""
    await submit(place, f"bob@{DOMAIN}", "ordinary")


async def imap(place: Field) -> None:
    """With TLS, from connect over login, SELECT and FETCH to LOGOUT."""
    async with talk(place.ports.imaps, place.tls) as it:
        await it.expect(b"* OK")
        await it.say(f'a LOGIN {place.oscar} "{SECRET}"\r\n'.encode(), b"a OK", until=b"a ")
        await it.say(b"b SELECT INBOX\r\n", b"b OK", until=b"b ")
        await it.say(b"c FETCH 1 (FLAGS BODY.PEEK[])\r\n", b"c OK", until=b"c ")
        await it.say(b"d LOGOUT\r\n", b"d OK", until=b"d ")


async def pop3(place: Field) -> None:
    """With TLS, from connect to QUIT."""
    async with talk(place.ports.pop3s, place.tls) as it:
        await it.expect(b"+OK")
        await it.say(f"USER {place.oscar}\r\n".encode(), b"+OK")
        await it.say(f"PASS {SECRET}\r\n".encode(), b"+OK")
        await it.say(b"STAT\r\n", b"+OK")
        await it.say(b"QUIT\r\n", b"+OK")


async def relay(place: Field) -> None:
    """From the submission of a message for another domain until its host has it."""
    subject = f"relayed {next(_numbers)}"
    line = f"Subject: {subject}\r\n".encode()
    await submit(place, "someone@good.test", subject)
    await place.good.until(lambda: any(line in taken.content for taken in place.good.messages), DEADLINE_SECONDS)
    place.good.messages.clear()
    await asyncio.sleep(_RELAY_PAUSE)


async def noops(place: Field, seen: Ordinary, end: asyncio.Event) -> None:
    """NOOP after NOOP in one session that is logged in."""
    while not end.is_set():
        with _noted(seen):
            async with talk(place.ports.imaps, place.tls) as it:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await it.expect(b"* OK")
                    await it.say(f'a LOGIN {place.oscar} "{SECRET}"\r\n'.encode(), b"a OK", until=b"a ")
                while not end.is_set():
                    began = time.perf_counter()
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        await it.say(b"b NOOP\r\n", b"b OK", until=b"b ")
                    seen.seconds.append(time.perf_counter() - began)
                    await asyncio.sleep(_NOOP_PAUSE)


async def work(place: Field, one: Work, seen: Ordinary, end: asyncio.Event) -> None:
    while not end.is_set():
        began = time.perf_counter()
        with _noted(seen):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await one(place)
            seen.seconds.append(time.perf_counter() - began)


@contextlib.contextmanager
def _noted(seen: Ordinary):  # type: ignore[no-untyped-def]
    try:
        yield
    except (OSError, EOFError) as error:  # TimeoutError is an OSError
        seen.failures.append(f"{type(error).__name__}: {error}")


KINDS: dict[str, Work] = {"SMTP": smtp, "submission": submission, "IMAP": imap, "POP3": pop3, "relay": relay}
NOOP = "NOOP"


@contextlib.asynccontextmanager
async def working(place: Field) -> AsyncIterator[dict[str, Ordinary]]:
    """One client of each kind works for the time of the block; what each saw is whole when the block has ended."""
    seen = {name: Ordinary() for name in (*KINDS, NOOP)}
    end = asyncio.Event()
    tasks = [asyncio.create_task(work(place, one, seen[name], end)) for name, one in KINDS.items()]
    tasks.append(asyncio.create_task(noops(place, seen[NOOP], end)))
    try:
        yield seen
    finally:
        end.set()
        await asyncio.gather(*tasks)
