"""Takes jobs from the queue and keeps attempts going: fairly between destinations, bounded, and drained in time.

Invariants: a job is acknowledged only when it is settled; every job in our hands is kept alive by heartbeats; what
cannot be finished goes back to the queue; a job that cannot be worked on ends in `hold`, never in the void.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

from google.protobuf.message import DecodeError

from paquebot.blobs import BadPack, BlobMissing
from paquebot.observability.log import Log
from paquebot.queue import Consumer, Job, Publication, Queue, QueueUnavailable, held
from paquebot.queue.observation import observe_for_ever
from paquebot.relay import metrics
from paquebot.relay.destinations import Destinations
from paquebot.relay.metrics import Attempt, Held
from paquebot.relay.retry import Random
from paquebot.relay.routes import Routes
from paquebot.relay.settings import LoadSettings
from paquebot.relay.settlement import Settlement
from paquebot.relay.shown import Shown
from paquebot.relay.worker import AWAY, Work, Worker
from paquebot.runtime.health import Health
from paquebot.runtime.limits import OverBudget
from paquebot.v1.queue_pb2 import HeldJob, RelayJob

_log = Log("paquebot.relay")
_FETCH_SECONDS = 5.0
_AWAY_SECONDS = 1.0
_MAX_SILENCE = 60.0
_MEASURE_SECONDS = 5.0
_AGAIN_MOST_SECONDS = 30.0  # an engine is away, or memory is full: soon at first, then more patiently
_CUT_SECONDS = 3.0  # before the drain's end, for what is handed back


class RelayConsumer:
    """`random`: from 0 to 1; `clock`: Unix seconds."""

    def __init__(
        self,
        queue: Queue,
        consumer: Consumer,
        worker: Worker,
        settlement: Settlement,
        destinations: Destinations[Work],
        shown: Shown,
        routes: Routes,
        load: LoadSettings,
        health: Health,
        random: Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._consumer = consumer
        self._worker = worker
        self._settlement = settlement
        self._destinations = destinations
        self._shown = shown
        self._routes = routes
        self._load = load
        self._health = health
        self._random = random
        self._clock = clock
        self._in_hand: dict[tuple[int, float], Work] = {}  # by `Job.stored`
        self._tasks: dict[asyncio.Task[None], Work] = {}
        self._room = asyncio.Event()

    async def run(self, draining: asyncio.Event, drain_seconds: float) -> None:
        """Until `draining`; then what is under way has `drain_seconds` to end."""
        fetching = asyncio.create_task(self._fetch_for_ever())
        beating = asyncio.create_task(self._beat_for_ever())
        observing = asyncio.create_task(observe_for_ever(self._queue))
        measuring = asyncio.create_task(self._measure_for_ever())
        drain = asyncio.create_task(draining.wait())
        try:
            await asyncio.wait((fetching, beating, observing, measuring, drain), return_when=asyncio.FIRST_COMPLETED)
            await _ended(fetching)
            await self._drain(max(0.0, drain_seconds - _CUT_SECONDS))
        finally:
            for task in (drain, beating, observing, measuring, *self._tasks):
                await _ended(task)
            self._health.silence("relay")

    # --- in ---

    async def _fetch_for_ever(self) -> None:
        while True:
            self._health.beat("relay", max_age=_MAX_SILENCE)
            room = self._load.waiting - self._destinations.waiting
            if room <= 0:
                self._room.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._room.wait(), _FETCH_SECONDS)
                continue
            try:
                jobs = await self._consumer.fetch(min(room, 100), _FETCH_SECONDS)
                for job in jobs:
                    await self._admit(job)
            except QueueUnavailable:
                await asyncio.sleep(_AWAY_SECONDS)
            self._begin()

    async def _admit(self, handle: Job) -> None:
        """Raises QueueUnavailable; the job then comes again."""
        known = self._in_hand.get(handle.stored)
        if known is not None:  # our heartbeats were lost for a while; the work goes on under the new name
            known.handle = handle
            return
        try:
            job = RelayJob.FromString(handle.payload)
        except DecodeError:
            await self._hold(handle, Held.UNREADABLE)
            return
        work = Work(handle, job, self._routes.route(job.domain))
        if self._destinations.add(work.key, work):
            self._in_hand[handle.stored] = work
            return
        # Others must not wait behind a destination with more mail than it takes.
        wait = self._destinations.crowded_for(work.key) * (1 + self._random() / 4)
        await self._settlement.put_back(job, self._clock() + wait)
        await handle.ack()

    def _begin(self) -> None:
        while (found := self._destinations.next()) is not None:
            _, work = found
            task = asyncio.create_task(self._work(work))
            self._tasks[task] = work
            task.add_done_callback(self._done)
        self._measure()

    def _done(self, task: asyncio.Task[None]) -> None:
        work = self._tasks.pop(task)
        self._in_hand.pop(work.handle.stored, None)
        self._destinations.done(work.key)
        self._room.set()
        self._begin()

    def _measure(self) -> None:
        metrics.UNDER_WAY.set(self._destinations.running)
        metrics.WAITING.set(self._destinations.waiting)
        for state, count in self._destinations.counts().items():
            metrics.DESTINATIONS.labels(state).set(count)

    async def _measure_for_ever(self) -> None:
        """What is too much work for each step of the way."""
        while True:
            self._shown.measure(self._destinations.waiting_by_key(), self._destinations.resting_keys())
            await asyncio.sleep(_MEASURE_SECONDS)

    # --- out ---

    async def _work(self, work: Work) -> None:
        """Settle one job, or give it back, or hold it; raises only CancelledError."""
        try:
            await self._worker.work(work)
        except (*AWAY, OverBudget) as error:
            reason = type(error).__name__
            _log.warning("job_again", queue_id=work.job.queue_id, reason=reason)
            metrics.ATTEMPT[Attempt.ENGINE_AWAY].inc()
            await self._give_back(work, self._patience(work))
        except BadPack as error:
            await self._damaged(work, error)
        except BlobMissing:
            _log.exception("message_missing", queue_id=work.job.queue_id)
            await self._again_or_hold(work, Held.BLOB)
        except asyncio.CancelledError:
            await self._give_back(work, 0.0)
            raise
        except Exception:  # noqa: BLE001 - the one place where the unknown ends: logged, tried again, then held
            _log.exception("job_failed", queue_id=work.job.queue_id)
            await self._again_or_hold(work, Held.POISON)

    async def _damaged(self, work: Work, error: BadPack) -> None:
        """S3 may lie for hours and the message be whole: as long as it is not too old to wait, it does."""
        _log.warning("message_damaged", queue_id=work.job.queue_id, reason=str(error))
        if self._clock() - work.job.accepted_at_ms / 1000 > self._load.damaged:
            await self._again_or_hold(work, Held.BLOB)
            return
        metrics.ATTEMPT[Attempt.ENGINE_AWAY].inc()
        await self._give_back(work, self._patience(work))

    async def _again_or_hold(self, work: Work, reason: Held) -> None:
        metrics.ATTEMPT[Attempt.ERROR].inc()
        if work.handle.deliveries < self._load.deliveries:
            await self._give_back(work, self._patience(work))
            return
        try:
            await self._hold(work.handle, reason)
        except QueueUnavailable:
            await self._give_back(work, _AGAIN_MOST_SECONDS)

    def _patience(self, work: Work) -> float:
        wait = min(_AGAIN_MOST_SECONDS, 2.0 ** min(work.handle.deliveries, 16))
        return wait * (1 + self._random()) / 2

    async def _give_back(self, work: Work, delay_seconds: float) -> None:
        with contextlib.suppress(QueueUnavailable):  # then it comes again by itself
            await work.handle.nak(delay_seconds)

    async def _hold(self, handle: Job, reason: Held) -> None:
        """Put the job aside, then acknowledge it. Raises QueueUnavailable."""
        job = HeldJob(
            subject=handle.subject, payload=handle.payload, reason=reason.value, held_at_ms=int(self._clock() * 1000)
        )
        name = f"relay-{handle.sequence}-{int(handle.published_at * 1000)}"
        await self._queue.publish([Publication(held(reason.value, name), job.SerializeToString(), message_id=name)])
        metrics.HELD.labels(reason.value).inc()
        _log.error("job_held", subject=handle.subject, reason=reason.value, deliveries=handle.deliveries)
        await handle.ack()

    # --- meanwhile, and at the end ---

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._queue.settings.ack_wait / 3)
            for work in list(self._in_hand.values()):
                with contextlib.suppress(QueueUnavailable):
                    await work.handle.in_progress()

    async def _drain(self, seconds: float) -> None:
        """What waits goes back at once; what is under way may end; what is then still before the message's first
        octet goes back too. Only what a host may be taking right now stays to the last moment."""
        with contextlib.suppress(QueueUnavailable):
            await self._consumer.close()  # first, or a pull that is still open gets back what we give back
        for work in list(self._destinations.take_waiting()):
            self._in_hand.pop(work.handle.stored, None)
            await self._give_back(work, 0.0)
        await _settled(self._tasks, seconds)
        for task, work in list(self._tasks.items()):
            if not work.progress.exposed:
                task.cancel()
        await _settled(self._tasks, _CUT_SECONDS)


async def _settled(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks that may end by themselves."""
    under_way = list(tasks)
    if under_way:
        await asyncio.wait(under_way, timeout=seconds)


async def _ended(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait for it; its own failure is raised."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
