"""The loops that claim jobs and run attempts, bounded, until the drain.

Invariants: heartbeats keep every claimed job claimed; unfinished jobs are deferred.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paquebot.queue import Consumer, Queue, QueueUnavailable
from paquebot.queue.observation import observe_forever
from paquebot.relay.attempt import RelayAttempt
from paquebot.relay.queue.admission import Admission
from paquebot.relay.queue.ahead import BacklogBypass
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.queue.slots import Slots
from paquebot.runtime.process.health import Health

_FETCH_SECONDS = 5.0
_FIRST_SECONDS = 0.1
_CROWD_SECONDS = 0.1
_FETCH_JOBS = 256
_AHEAD_JOBS = 64
_OUTAGE_SECONDS = 1.0
_MAX_SILENCE = 60.0
_CANCEL_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class JobSources:
    """`ahead` is the consumer of the jobs that `bypass` moves ahead of the backlog of `main`."""

    main: Consumer
    ahead: Consumer
    bypass: BacklogBypass[RelayAttempt]


class RelayConsumer:
    """`waiting`: the maximum claimed jobs that are not under way."""

    def __init__(
        self,
        queue: Queue,
        sources: JobSources,
        admission: Admission,
        destinations: Destinations[RelayAttempt],
        slots: Slots,
        waiting: int,
        health: Health,
    ) -> None:
        self._queue = queue
        self._sources = sources
        self._admission = admission
        self._destinations = destinations
        self._slots = slots
        self._waiting = waiting
        self._health = health
        self._room = asyncio.Event()
        self._consumed = asyncio.Event()
        slots.on_end(self._ended)

    def _ended(self, attempt: RelayAttempt) -> None:
        self._admission.forget(attempt)
        self._room.set()

    async def run(self, draining: asyncio.Event, drain_seconds: float) -> None:
        """Run until `draining`; then attempts under way have `drain_seconds` to end."""
        claiming = [
            asyncio.create_task(loop)
            for loop in (
                self._claim_forever(),
                self._claim_ahead_forever(),
                self._sources.bypass.run_forever(self._consumed),
            )
        ]
        others = [
            asyncio.create_task(loop)
            for loop in (
                self._heartbeats_forever(),
                self._slots.watch_forever(),
                observe_forever(self._queue),
                self._slots.measure_forever(),
                draining.wait(),
            )
        ]
        try:
            await asyncio.wait((*claiming, *others), return_when=asyncio.FIRST_COMPLETED)
            self._slots.begin_drain()
            await _end(claiming)
            await self._drain(drain_seconds)
        finally:
            self._health.silence("relay")
            await _end([*others, *self._slots.tasks])

    async def _claim_forever(self) -> None:
        while True:
            self._health.beat("relay", max_age=_MAX_SILENCE)
            room = self._waiting - self._destinations.waiting
            if room <= 0:
                self._room.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._room.wait(), _FETCH_SECONDS)
                continue
            if await self._claim(self._sources.main, min(room, _FETCH_JOBS)) > _FETCH_JOBS // 2:
                await asyncio.sleep(_CROWD_SECONDS)  # a backlog that is only put back: attempts need the time more

    async def _claim_ahead_forever(self) -> None:
        """Jobs ahead of the backlog are claimed however many others wait. None is moved ahead before this loop has
        claimed once."""
        while True:
            wait = _FETCH_SECONDS if self._consumed.is_set() else _FIRST_SECONDS
            if await self._claim(self._sources.ahead, _AHEAD_JOBS, wait) >= 0:
                self._consumed.set()

    async def _claim(self, consumer: Consumer, limit: int, wait: float = _FETCH_SECONDS) -> int:
        """Returns how many jobs were put back; -1: the queue has an outage."""
        try:
            jobs = await consumer.fetch(limit, wait)
            put_back = await self._admission.admit(jobs, first=consumer is self._sources.ahead)
        except QueueUnavailable:
            await asyncio.sleep(_OUTAGE_SECONDS)
            return -1
        self._slots.fill()
        return put_back

    async def _heartbeats_forever(self) -> None:
        while True:
            await asyncio.sleep(self._queue.settings.ack_wait / 3)
            for claimed in self._admission:
                with contextlib.suppress(QueueUnavailable):
                    await claimed.in_progress()

    async def _drain(self, seconds: float) -> None:
        """Defer waiting jobs immediately; attempts under way may end."""
        with contextlib.suppress(QueueUnavailable):
            await self._sources.main.close()  # first, or a pull that is still open gets the deferred jobs
            await self._sources.ahead.close()
        await self._admission.defer_waiting()
        await self._slots.drain(seconds)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for all of them; the first failure of their own is raised, none is lost."""
    ending = list(tasks)
    left = ending
    while left := [task for task in left if not task.done()]:
        for task in left:
            task.cancel()
        # Again, for `asyncio.wait_for` of Python 3.11, which the NATS client uses, loses a cancellation that comes at
        # the same moment as what it waits for.
        await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)
    for task in ending:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
