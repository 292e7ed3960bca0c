"""One run: mail flows, faults come and go, all is healed, and the promise is judged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from paquebot.janitor.recovery.recover import RecoveryResult
from paquebot.queue import Queue
from paquebot.queue.stream import counts
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.settings import load
from tests.chaos.clients import Sender
from tests.chaos.faults import do, recover_lost
from tests.chaos.filer import Filer
from tests.chaos.imap import Imap
from tests.chaos.judgement import Verdict, judge, read
from tests.chaos.ledger import Ledger
from tests.chaos.logs import faults_of_the_program
from tests.chaos.place import PROCESSES, Place, running
from tests.chaos.plans import DETAILED
from tests.chaos.pop3 import Retriever
from tests.chaos.probes import Asked
from tests.chaos.schedule import Fault, Kind
from tests.chaos.target import Mood, Target
from tests.chaos.watchers import Watcher, last_look, watching

FLOW_SECONDS = 90.0
DRAIN_SECONDS = 240.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. `seconds`: no further fault begins after so long."""

    seed: str
    data: Path
    seconds: float
    faults: Iterable[tuple[float, Fault]]
    disks: bool
    pace: float = 1.0


@dataclass(slots=True)
class Figures:
    """What came out."""

    faults: list[tuple[str, str, float]] = field(default_factory=list)
    """(kind, fault, seconds from its end until all mail flowed again)."""
    seconds: float = 0.0
    recovered: RecoveryResult | None = None
    verdict: Verdict = field(default_factory=Verdict)
    messages_in_mailboxes: int = 0
    lies: int = 0
    """Answers of S3 that were made wrong, late or refusals."""
    asked: list[Asked] = field(default_factory=list)
    verify: str = ""


@dataclass(slots=True)
class Run:
    """`await Run(order, say).run()`; then `ledger.findings` says what is wrong, and `figures` the rest."""

    order: Order
    say: Say
    ledger: Ledger = field(default_factory=Ledger)
    figures: Figures = field(default_factory=Figures)
    watchers: list[Watcher] = field(default_factory=list)
    filers: list[Filer] = field(default_factory=list)
    retrievers: list[Retriever] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        target = Target(self.ledger, random.Random(f"{self.order.seed} target"))
        async with running(self.order.data, target, disks=self.order.disks) as place:
            self._say(f"{len(PROCESSES)} service processes and 3 engines run; data in {self.order.data}")
            await _make_mailboxes(place)
            await self._disturb(place)
            self.figures.lies, self.figures.asked = place.s3.lies, place.asked
            await self._settle(place)
            await self._judge(place)
        self.figures.seconds = time.monotonic() - self._began

    async def _disturb(self, place: Place) -> None:
        senders = list(self._senders(place))
        self.watchers = list(self._watchers(place))
        self.filers = [
            Filer(place.cast.address(name), place, self.ledger, self._chance(name)) for name in ("alice", "bob")
        ]
        self.retrievers = [
            Retriever(place.cast.address(name), place, self.ledger, self._chance(f"{name} POP3"))
            for name in ("carol", "dave")
        ]
        async with watching([*self.watchers, *self.filers, *self.retrievers]), _sending(senders, place):
            await self._flowing(place, None, time.monotonic())
            for number, (pause, fault) in enumerate(self.order.faults, 1):
                if time.monotonic() - self._began > self.order.seconds:
                    break
                await asyncio.sleep(pause)
                await self._one(place, number, fault)
            place.target.mood = Mood.FAIR

    async def _one(self, place: Place, number: int, fault: Fault) -> None:
        before = len(self.ledger.in_order)
        note = await do(place, fault, self._chance(f"fault {number}"))
        again, last = await self._flowing(place, fault, time.monotonic())
        self.figures.faults.append((fault.kind.value, str(fault), again))
        self._say(
            f"{number:3}  {fault!s:44} mail again after {again:4.1f} s{last}; accepted {len(self.ledger.in_order):6} "
            f"(+{len(self.ledger.in_order) - before}){'; ' + note if note else ''}"
        )

    async def _flowing(self, place: Place, fault: Fault | None, healed: float) -> tuple[float, str]:
        """Seconds until new mail goes every way again, and which way was the last."""
        missing = [""]

        def flows() -> bool:
            missing.append(self.ledger.flows_since(healed))
            return not missing[-1]

        if not await self.ledger.until(flows, FLOW_SECONDS):
            what = f"after {fault}" if fault else "at the start"
            self.ledger.find(f"{what}: no flow of {self.ledger.flows_since(healed)} within {FLOW_SECONDS:g} s")
        took = time.monotonic() - healed
        unready = await place.all_unready()
        while unready and time.monotonic() - healed < FLOW_SECONDS:
            await asyncio.sleep(0.1)
            unready = await place.all_unready()
        if unready:
            self.ledger.find(f"after {fault}: not ready: {unready}")
            if fault is not None and fault.kind is Kind.FULL_DISK:
                await place.stack.supervisor.pause(fault.target)
                await place.stack.supervisor.resume(fault.target)
        return took, f" ({missing[-2]})" if took > 3 else ""

    def _senders(self, place: Place) -> Iterable[Sender]:
        for number, name in enumerate(("", "", "", "alice", "bob", "carol")):
            account = place.cast.address(name) if name else ""
            yield Sender(name or f"mx{number}", place, self.ledger, self.order.seed, self.order.pace, account)

    def _watchers(self, place: Place) -> Iterable[Watcher]:
        for name in place.cast.names:
            for mailbox in ("INBOX", DETAILED) if name in ("alice", "frank") else ("INBOX",):
                account = place.cast.address(name)
                yield Watcher(account, mailbox, place, self.ledger, self._chance(f"{name} {mailbox}"))

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self.order.seed} {what}")

    async def _settle(self, place: Place) -> None:
        """All that was kept arrives, with the help of `recover` for packs whose jobs were never acknowledged."""
        self._say("senders have ended; waiting until the queue is empty")
        self.figures.recovered = await recover_lost(place, before=time.time())
        async with _queue(place) as queue:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    while waiting := (await counts(queue)).by_subject:
                        if all(subject.startswith("hold.") for subject in waiting):
                            break
                        await asyncio.sleep(0.2)
            except TimeoutError:
                self.ledger.find(f"the queue is not empty after {DRAIN_SECONDS:g} s: {waiting}")
            for subject, number in (await counts(queue)).by_subject.items():
                if subject.startswith("hold."):
                    self.ledger.find(f"{number} jobs are held: {subject}")
        left = await recover_lost(place, before=time.time())
        if left.recipients:
            self.ledger.find(f"with an empty queue {left.recipients} recipients were not served")

    async def _judge(self, place: Place) -> None:
        self._say("comparing every mailbox with what was sent")
        for watcher in self.watchers:
            await last_look(watcher)
        held = await read(place, self.ledger)
        self.figures.messages_in_mailboxes = held.messages
        self.figures.verdict = judge(self.ledger, held, place.target.arrivals)
        code, said = await place.command("verify")
        self.figures.verify = said.strip()
        if code:
            self.ledger.find(f"paquebot verify ended with {code}: {said}")
        for fault in faults_of_the_program(place.plan.layout.logs, PROCESSES):
            self.ledger.find(fault)

    def _say(self, text: str) -> None:
        self.say(f"{time.monotonic() - self._began:6.1f} s  {text}")


@contextlib.asynccontextmanager
async def _sending(senders: list[Sender], place: Place) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    try:
        yield
    except BaseException:
        place.ending = True
        raise
    finally:
        for sender in senders:
            sender.stopping = True
        _, late = await asyncio.wait(tasks, timeout=FLOW_SECONDS)
        place.ending = True
        if late:
            await asyncio.wait(late)
        for task in tasks:
            task.result()


@contextlib.asynccontextmanager
async def _queue(place: Place) -> AsyncIterator[Queue]:
    queue = await Queue.open(load(NatsSettings, place.plan.client_environment()), "chaos")
    try:
        yield queue
    finally:
        await queue.close()


async def _make_mailboxes(place: Place) -> None:
    for name in place.cast.names:
        async with Imap.session(place.ports.services.imaps, place.tls(), place.cast.address(name)) as client:
            await client.command(f"CREATE {DETAILED}")
