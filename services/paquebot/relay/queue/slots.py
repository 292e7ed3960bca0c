"""The attempts under way: begun while there are slots, watched, and counted."""

import asyncio
import time
from collections.abc import Callable, Iterable

from paquebot.observability.log import Log
from paquebot.relay import metrics
from paquebot.relay.attempt import RelayAttempt
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.metrics import SlotKind
from paquebot.relay.queue.destinations import AttemptSlot, Destinations
from paquebot.relay.settings import RelayLoadSettings
from paquebot.relay.worker import RelayWorker

_log = Log("paquebot.relay")
_MEASURE_SECONDS = 5.0
_WATCH_SECONDS = 0.25
_CUT_SECONDS = 3.0


class Slots:
    """`slow`: an attempt that lasts more seconds than this leaves its slot to others."""

    def __init__(
        self,
        worker: RelayWorker,
        destinations: Destinations[RelayAttempt],
        labels: DestinationLabels,
        load: RelayLoadSettings,
        slow: float,
    ) -> None:
        self._worker = worker
        self._destinations = destinations
        self._labels = labels
        self._load = load
        self._slow = slow
        self._on_end: Callable[[RelayAttempt], None] = lambda _attempt: None
        self._draining = False
        self.tasks: dict[asyncio.Task[None], AttemptSlot[RelayAttempt]] = {}
        limits = ((SlotKind.ALL, load.attempts), (SlotKind.UNPROVEN, load.unproven), (SlotKind.SLOW, load.slow))
        for kind, limit in limits:
            metrics.SLOTS.labels(kind.value).set(limit)

    def on_end(self, call: Callable[[RelayAttempt], None]) -> None:
        """Call `call` when an attempt has ended, before its slot is used again."""
        self._on_end = call

    def fill(self) -> None:
        """Begin attempts while there are slots, and no drain."""
        while not self._draining and (slot := self._destinations.next()) is not None:
            slot.attempt.started_at = time.monotonic()
            task = asyncio.create_task(self._worker.work(slot.attempt))
            self.tasks[task] = slot
            task.add_done_callback(self._done)
        self._measure()

    def _done(self, task: asyncio.Task[None]) -> None:
        slot = self.tasks.pop(task)
        self._destinations.done(slot)
        if not task.cancelled() and (error := task.exception()) is not None:  # the job is delivered again
            _log.error("attempt_failed", queue_id=slot.attempt.job.queue_id, reason=type(error).__name__)
        self._on_end(slot.attempt)
        self.fill()

    def begin_drain(self) -> None:
        """From now on no attempt begins."""
        self._draining = True

    async def watch_forever(self) -> None:
        """Slow attempts leave their slots."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self._free_slots(time.monotonic())
            self.fill()

    def _free_slots(self, now: float) -> None:
        """Where there are too many slow attempts, as many of them end as newer ones need their places."""
        slots = list(self.tasks.values())
        new = [slot for slot in slots if not slot.slow and now - slot.attempt.started_at >= self._slow]
        left = sum(not self._destinations.slowed(slot) for slot in new)
        if not left:
            return
        slow = [slot for slot in slots if slot.slow and now - slot.attempt.started_at >= self._load.slow_min]
        slow.sort(key=lambda slot: (not slot.unproven, slot.attempt.started_at))
        for slot in slow:
            if left and slot.attempt.progress.cut():
                metrics.DISPLACED.inc()
                left -= 1

    async def drain(self, seconds: float) -> None:
        """Attempts have `seconds` to end. Then those not in doubt are cancelled; the others have to the last moment."""
        await _wait_for(self.tasks, max(0.0, seconds - _CUT_SECONDS))
        for task, slot in list(self.tasks.items()):
            if not slot.attempt.progress.in_doubt:
                task.cancel()
        await _wait_for(self.tasks, _CUT_SECONDS)

    def _measure(self) -> None:
        destinations = self._destinations
        metrics.RUNNING.set(destinations.running + destinations.slow)
        metrics.SLOTS_USED.labels(SlotKind.ALL.value).set(destinations.running)
        metrics.SLOTS_USED.labels(SlotKind.UNPROVEN.value).set(destinations.unproven_running)
        metrics.SLOTS_USED.labels(SlotKind.SLOW.value).set(destinations.slow)
        metrics.WAITING.set(destinations.waiting)

    async def measure_forever(self) -> None:
        """The gauges by destination, which cost too much to set at each step."""
        while True:
            for state, count in self._destinations.counts().items():
                metrics.DESTINATIONS.labels(state).set(count)
            self._labels.measure(self._destinations.waiting_by_key(), self._destinations.resting_keys())
            await asyncio.sleep(_MEASURE_SECONDS)


async def _wait_for(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    under_way = list(tasks)
    if under_way:
        await asyncio.wait(under_way, timeout=seconds)
