"""kill -9 of each process, one after another, while mail flows: what was answered with 250 arrives, once."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import signal
import smtplib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from platforms import Platform, until

from paquebot.cli.up.layout import SERVICES

ENGINES = ("nats", "s3", "postgres")
ACCEPTED_BETWEEN_KILLS = 10
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


async def kill(platform: Platform, name: str, senders: list[Sender]) -> None:
    """Kill a process in the midst of mail, and wait until mail flows again everywhere."""
    before = [sender.count() for sender in senders]
    for sender, count in zip(senders, before, strict=True):
        await until(lambda: sender.count() > count, f"mail before {name} is killed")  # noqa: B023
    pid = platform.stack.supervisor.pid(name)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: platform.stack.supervisor.pid(name) != pid, f"{name} started again")
    after = [sender.count() + ACCEPTED_BETWEEN_KILLS for sender in senders]
    for sender, count in zip(senders, after, strict=True):
        await until(lambda: sender.count() >= count, f"mail after {name} was killed", timeout=60)  # noqa: B023


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
        found = collections.Counter(s for s in platform.subjects(name) if s.startswith(sender.mark))
        return found if all(found[mark] for mark in sender.accepted) else None

    found = await until(look, f"every accepted message in the mailbox of {name}", timeout=60)
    return collections.Counter({mark: found[mark] for mark in sender.accepted})


async def test_no_kill_loses_or_doubles_a_message(platforms: tuple[Platform, Platform]) -> None:
    here, there = platforms
    local = Sender(here, here.address("bob"), "kill-local")
    remote = Sender(here, there.address("bob"), "kill-remote")
    async with sending(local, remote):
        for name in (*SERVICES, *ENGINES):
            await kill(here, name, [local, remote])
    for sender in (local, remote):
        assert set(sender.refused) <= {421, 451, 454}, "only temporary refusals"

    delivered = await arrivals(here, "bob", local)
    assert set(delivered.values()) == {1}
    relayed = await arrivals(there, "bob", remote)
    # The relay was killed once: what it was sending at that moment may have gone twice (RFC 1047), nothing else.
    doubled = [mark for mark, count in relayed.items() if count > 1]
    assert max(relayed.values()) <= 2
    assert len(doubled) <= 10


async def test_a_killed_platform_keeps_everything(platforms: tuple[Platform, Platform]) -> None:
    """Every process of a platform at once, engines included."""
    _, there = platforms
    local = Sender(there, there.address("alice"), "kill-all")
    async with sending(local):
        await until(lambda: local.count() >= 20, "some mail")
        names = (*SERVICES, *ENGINES)
        before = {name: there.stack.supervisor.pid(name) for name in names}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        count = local.count()
        await until(
            lambda: all(there.stack.supervisor.pid(name) != pid for name, pid in before.items()), "all started again"
        )
        await until(lambda: local.count() > count + 20, "mail flows again", timeout=60)
    found = await arrivals(there, "alice", local)
    assert set(found.values()) == {1}
