"""The other side of the relay: hosts that hang, cut connections and refuse, and remember what they have taken; and a
host of attackers, which is silent while they are there and wants nothing afterwards."""

from __future__ import annotations

import contextlib
import enum
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.attack.field import SILENT_HOST, SILENT_ZONES
from tests.chaos.ledger import Ledger, number_of
from tests.chaos.plans import GONE, OTHER, REMOTE
from tests.support.dns_server import DnsServer
from tests.support.remote_host import DROP, KEEP_THEN_DROP, SILENT, Answer, RemoteHost, Special, Taken

RELAY = "relay"
"""The way of messages that the remote host was given."""
EVERYDAY_LATER = 0.03
"""The part of commands that get a 4yz on a good day."""
STORM_LATER = 0.6


class Mood(enum.Enum):
    """How the host treats its clients."""

    FAIR = "fair"
    HANGS_AT_GREETING = "hangs at greeting"
    HANGS_AT_RCPT = "hangs at rcpt"
    HANGS_AFTER_MESSAGE = "hangs after message"  # not kept
    CUTS_AFTER_DATA = "cuts after data"
    CUTS_AFTER_MESSAGE = "cuts after message"  # not kept
    KEEPS_AND_CUTS = "keeps and cuts"  # kept, and no reply: the relay must send it again
    STORM = "4yz at random"
    AWAY = "refuses connections"


@dataclass
class Target:
    """One host for all remote domains. `arrivals` counts by (number, forward-path)."""

    ledger: Ledger
    chance: random.Random
    mood: Mood = Mood.FAIR
    attacked: bool = False
    arrivals: Counter[tuple[str, str]] = field(default_factory=Counter)
    host: RemoteHost = field(init=False)
    dns: DnsServer = field(init=False)

    def __post_init__(self) -> None:
        phases = ("CONNECT", "MAIL", "RCPT", "DATA", "MESSAGE")
        answers: dict[str, Answer] = {phase: self._answer(phase) for phase in phases}
        self.host = _Host(answers, self.take)
        self.dns = DnsServer({**dict.fromkeys((REMOTE, OTHER), "@ MX 10 mail\nmail A 127.0.0.1"), **SILENT_ZONES})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Target]:
        async with (
            self.host,
            self.dns,
            RemoteHost(
                {"CONNECT": self._silence, "RCPT": "550 5.1.1 Nobody"}, address=SILENT_HOST, port=self.host.port
            ),
        ):
            yield self

    def _silence(self, _: str) -> str | Special:
        return SILENT if self.attacked else ""

    def take(self, taken: Taken) -> None:
        """The host says 250 to a message."""
        self.ledger.compare(RELAY, f"the remote host, from {taken.mail}", taken.content)
        number = number_of(taken.content)
        if number not in self.ledger.attempts:
            return
        for command in taken.rcpt:
            self.arrivals[number, _path(command)] += 1
        self.ledger.taken.setdefault(number, time.monotonic())
        self.ledger.notify()

    def _answer(self, phase: str) -> Callable[[str], str | Special]:
        def answer(line: str) -> str | Special:
            return self._special(phase, line) or ""

        return answer

    def _special(self, phase: str, line: str) -> str | Special | None:
        if phase == "RCPT" and _path(line).startswith(GONE):
            return "550 5.1.1 Nobody of that name"
        match self.mood, phase:
            case (Mood.AWAY, "CONNECT") | (Mood.CUTS_AFTER_DATA, "DATA") | (Mood.CUTS_AFTER_MESSAGE, "MESSAGE"):
                return DROP
            case (
                (Mood.HANGS_AT_GREETING, "CONNECT")
                | (Mood.HANGS_AT_RCPT, "RCPT")
                | (Mood.HANGS_AFTER_MESSAGE, "MESSAGE")
            ):
                return SILENT
            case (Mood.KEEPS_AND_CUTS, "MESSAGE"):
                return KEEP_THEN_DROP
        later = STORM_LATER if self.mood is Mood.STORM else EVERYDAY_LATER
        if phase != "CONNECT" and self.chance.random() < later:
            return "451 4.3.0 Not now"
        return None


def _path(command: str) -> str:
    """`RCPT TO:<path> ...` → path."""
    return command.partition("<")[2].partition(">")[0]


class _Host(RemoteHost):
    """Hands each message on instead of keeping it."""

    def __init__(self, on: dict[str, Answer], take: Callable[[Taken], None]) -> None:
        super().__init__(on)
        self._take = take

    async def notify(self) -> None:
        while self.messages:
            self._take(self.messages.pop())
        self.connections.clear()
        await super().notify()
