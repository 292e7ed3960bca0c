"""How long an idling client waits for a message: from the moment another client has sent all of it, by APPEND or by
SMTP, until EXISTS arrives (RFC 2177). Every EXISTS is checked: each message is announced once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.bench import imap_mail
from tests.bench.imap_client import ImapClient, Login, ServerFault, log_in
from tests.bench.imap_response import Response, numbered

_WAIT_SECONDS = 60.0

Deliver = Callable[[Login, bytes], Awaitable[float]]
"""Send a message to an account; the time.perf_counter() at which its last byte was written."""


@dataclass(slots=True)
class Idler:
    """One client that idles, and how many messages were announced to it."""

    login: Login
    exists: int = 0
    wrong: list[str] = field(default_factory=list)
    _told: asyncio.Event = field(default_factory=asyncio.Event)
    _at: float = 0.0

    def announced(self, response: Response) -> None:
        """An untagged response while idling."""
        number = numbered(response)
        if number is None or number[1] != b"EXISTS":
            return
        if number[0] < self.exists:
            self.wrong.append(f"{self.login.user}: {number[0]} EXISTS after {self.exists}")
        if number[0] > self.exists:
            self._at = time.perf_counter()
            self.exists = number[0]
            self._told.set()

    async def next_at(self, before: int) -> float:
        """The time at which the server announced message `before + 1`. Raises ServerFault when it is not."""
        while self.exists <= before:
            self._told.clear()
            try:
                async with asyncio.timeout(_WAIT_SECONDS):
                    await self._told.wait()
            except TimeoutError:
                raise ServerFault(f"no EXISTS within {_WAIT_SECONDS:g} s while idling") from None
        if self.exists != before + 1:
            self.wrong.append(f"{self.login.user}: {self.exists} EXISTS where {before + 1} were due")
        return self._at


@contextlib.asynccontextmanager
async def _idling(login: Login) -> AsyncIterator[Idler]:
    client = await log_in(login)
    try:
        idler = Idler(login)
        idler.exists = (await client.ask(b"SELECT INBOX")).numbers(b"EXISTS")[-1]
        async with client.idling(idler.announced):
            yield idler
        await client.ask(b"LOGOUT")
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class Wakes:
    """Latencies in seconds, in order of their size; and what was wrong."""

    seconds: Sequence[float]
    wrong: Sequence[str]

    def percentile(self, share: float) -> float:
        """The latency that this share of all does not exceed."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


async def wakes(accounts: Sequence[Login], rounds: int, deliver: Deliver, *, longest: float) -> Wakes:
    """A client idles on each account; in each round each of them gets one message, one after another. No round begins
    after `longest` seconds. Raises ServerFault."""
    seconds: list[float] = []
    end = time.perf_counter() + longest
    async with contextlib.AsyncExitStack() as stack:
        idlers = [await stack.enter_async_context(_idling(login)) for login in accounts]
        for number in range(rounds):
            if time.perf_counter() > end:
                break
            for idler in idlers:
                before = idler.exists
                sent = await deliver(idler.login, imap_mail.message(f"idle-{number}"))
                seconds.append(await idler.next_at(before) - sent)
    return Wakes(sorted(seconds), [text for idler in idlers for text in idler.wrong])


@contextlib.asynccontextmanager
async def appending(accounts: Sequence[Login]) -> AsyncIterator[Deliver]:
    """Delivers by APPEND, over one connection to each account. Raises ServerFault."""
    clients: dict[str, ImapClient] = {}

    async def deliver(login: Login, message: bytes) -> float:
        sent = time.perf_counter()
        await clients[login.user].ask(b"APPEND INBOX", message)
        return sent

    try:
        for login in accounts:
            clients[login.user] = await log_in(login)
        yield deliver
    finally:
        for client in clients.values():
            client.close()
