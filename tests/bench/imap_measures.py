"""What is measured of IMAP on one side of the comparison, as samples by the keys of the table's rows (`imap_rows`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.bench import imap_delivery, imap_idle
from tests.bench.imap_accounts import empty_inbox
from tests.bench.imap_client import Login, log_in
from tests.bench.imap_load import MixedLoad
from tests.bench.imap_sync import Mailbox, Step, Synchronised
from tests.bench.processes import cpu_seconds_of
from tests.bench.rows import LOOPBACK, Side

_MIXED = range(5)
_IDLE = range(5, 10)
_LARGE = range(10, 20)
_LONG_ROUNDS = 10
_SHOWN = 10
_labels = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of each."""

    clients: int = 20
    seconds: float = 8.0
    """Of each mixed load."""
    wakes: int = 60
    """Messages to each idling client, at most."""
    wake_seconds: float = 12.0
    """For all of them, by APPEND and by SMTP each."""
    messages: int = 10_000
    """In the large mailbox."""
    sessions: int = 20
    """SMTP sessions that fill it."""


@dataclass(slots=True)
class Samples:
    """Figures by key; every error and every wrong answer; notes for the reader."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, value: float) -> None:
        """One repetition's figure."""
        self.figures.setdefault(key, []).append(value)

    def blame(self, *, errors: Sequence[str] = (), wrong: Sequence[str]) -> None:
        """What failed and what was wrong; the reader is shown the first of each."""
        self.errors += errors
        self.wrong += wrong
        self.notes += [*errors[:_SHOWN], *wrong[:_SHOWN]]


def logins(side: Side, numbers: Sequence[int]) -> list[Login]:
    """Of accounts of a side, over TLS as clients log in."""
    tls = side.tls()
    return [Login(LOOPBACK, side.imaps_port, side.address(number), side.password, tls) for number in numbers]


async def mixed(side: Side, scale: Scale, samples: Samples) -> None:
    """The mixed load with short sessions, then with long ones. Raises ServerFault when it cannot even begin."""
    load = MixedLoad(logins(side, _MIXED), scale.clients, f"mixed{next(_labels)}")
    await load.fill()
    for key, rounds in (("imap_mixed", 1), ("imap_mixed_long", _LONG_ROUNDS)):
        used = cpu_seconds_of(side)
        result = await load.run(scale.seconds, rounds=rounds)
        used = cpu_seconds_of(side) - used
        total, findings = result.findings.total, result.findings
        samples.add(f"{key}_commands_per_second", result.per_second)
        samples.add(f"{key}_cpu_seconds_per_1000", used * 1000 / total)
        samples.blame(errors=findings.errors, wrong=findings.wrong)
        waits = (f"{name} {findings.seconds[name] * 1000 / count:.1f}" for name, count in findings.commands.items())
        samples.notes.append(
            f"{key}: {total} commands in {result.seconds:.1f} s, {len(findings.errors)} errors, "
            f"{len(findings.wrong)} wrong answers; {result.client_cpu_seconds / result.seconds:.0%} of a core for the "
            f"clients; mean wait in ms: {', '.join(waits)}"
        )
    samples.blame(wrong=await load.check())


async def idle(side: Side, scale: Scale, samples: Samples) -> None:
    """Wake-ups by APPEND and by SMTP. Raises ServerFault."""
    accounts = logins(side, _IDLE)
    async with imap_idle.appending(accounts) as deliver:
        _woken("append", await imap_idle.wakes(accounts, scale.wakes, deliver, longest=scale.wake_seconds), samples)
    async with imap_delivery.delivering(LOOPBACK, side.smtp_port) as deliver:
        _woken("smtp", await imap_idle.wakes(accounts, scale.wakes, deliver, longest=scale.wake_seconds), samples)


def _woken(how: str, wakes: imap_idle.Wakes, samples: Samples) -> None:
    for share in (50, 99):
        samples.add(f"imap_idle_{how}_p{share}_ms", wakes.percentile(share / 100) * 1000)
    samples.blame(wrong=wakes.wrong)


@dataclass(slots=True)
class LargeMailboxes:
    """Accounts whose mail arrives interleaved, so that each one's lies among the others'."""

    side: Side
    count: int
    scale: Scale
    samples: Samples
    boxes: list[Mailbox] = field(default_factory=list)

    async def fill(self) -> None:
        """Through SMTP. Raises ServerFault."""
        accounts, count, label = logins(self.side, _LARGE[: self.count]), self.scale.messages, f"large{next(_labels)}"
        for login in accounts:
            await _emptied(login)
        seconds = await imap_delivery.fill(
            LOOPBACK, self.side.smtp_port, accounts, count, sessions=self.scale.sessions, label=label
        )
        total = count * len(accounts)
        self.samples.notes.append(f"{total} messages for {len(accounts)} accounts in {seconds:.0f} s")
        names = [imap_delivery.message_name(label, number) for number in range(count)]
        self.boxes = [Mailbox(login, names, cpu=partial(cpu_seconds_of, self.side)) for login in accounts]

    async def synchronise(self) -> None:
        """Each mailbox twice: nothing of it was read before the first time. Raises ServerFault."""
        for box in self.boxes:
            self._add("", await box.synchronise())
            self._add("_again", await box.synchronise())

    async def compacted(self) -> None:
        """Bodies only, after the janitor moved them together. Raises ServerFault."""
        for box in self.boxes:
            found = await box.synchronise((Step.BODIES,))
            self.samples.add("imap_bodies_compacted_seconds", found.seconds[Step.BODIES])
            self.samples.blame(wrong=found.wrong)

    def _add(self, suffix: str, found: Synchronised) -> None:
        for step, seconds in found.seconds.items():
            self.samples.add(f"imap_{step.value}{suffix}_seconds", seconds)
        self.samples.add(f"imap_sync{suffix}_cpu_seconds", sum(found.cpu_seconds.values()))
        times = (f"{step.value} {found.seconds[step]:.3f} ({found.cpu_seconds[step]:.2f})" for step in found.seconds)
        self.samples.notes.append(f"seconds, and CPU seconds, {suffix[1:] or 'first'}: {', '.join(times)}")
        self.samples.blame(wrong=found.wrong)


async def _emptied(login: Login) -> None:
    client = await log_in(login)
    try:
        await empty_inbox(client)
    finally:
        client.close()
