"""Clients that send without end, and what became of their mail."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import smtplib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from tests.e2e.platforms import Platform, until

PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class Sender:
    """A client in a thread of its own: sends one message after another, each attempt with a name of its own.

    An attempt without a reply may or may not have been kept (RFC 1047), so only those with 250 count.
    """

    platform: Platform
    recipient: str
    mark: str
    accepted: list[str] = field(default_factory=list)
    refused: collections.Counter[int] = field(default_factory=collections.Counter)
    broken: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        names = (f"{self.mark}-{number}" for number in itertools.count())
        while not self.stop.is_set():
            try:
                self._session(names)
            except smtplib.SMTPResponseException as error:
                self.refused[error.smtp_code] += 1
                self.stop.wait(PAUSE_SECONDS)
            except (OSError, smtplib.SMTPException):
                self.broken += 1
                self.stop.wait(PAUSE_SECONDS)

    def _session(self, names: Iterator[str]) -> None:
        """Messages over one connection until something breaks."""
        with self.platform.submission("alice") as client:
            while not self.stop.is_set():
                name = next(names)
                client.sendmail(
                    self.platform.address("alice"),
                    [self.recipient],
                    f"From: {self.platform.address('alice')}\r\nSubject: {name}\r\n\r\nHello\r\n".encode(),
                )
                self.accepted.append(name)

    def count(self) -> int:
        return len(self.accepted)


@contextlib.asynccontextmanager
async def sending(*senders: Sender) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(asyncio.to_thread(sender.run)) for sender in senders]
    try:
        yield
    finally:
        for sender in senders:
            sender.stop.set()
        await asyncio.gather(*tasks)


async def arrivals(platform: Platform, name: str, sender: Sender) -> collections.Counter[str]:
    """How often each accepted message is in the mailbox, once all are there."""

    def look() -> collections.Counter[str] | None:
        try:
            subjects = platform.subjects(name)
        except ConnectionError:  # started again, and not listening yet
            return None
        found = collections.Counter(s for s in subjects if s.startswith(sender.mark))
        return found if all(found[mark] for mark in sender.accepted) else None

    found = await until(look, f"every accepted message in the mailbox of {name}", timeout=120)
    return collections.Counter({mark: found[mark] for mark in sender.accepted})
