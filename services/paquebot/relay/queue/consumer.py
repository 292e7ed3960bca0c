"""Takes jobs from the queue and keeps attempts going: fairly between destinations, bounded, and drained in time.

Invariants: a job is acknowledged only when it is settled; every job in our hands is kept alive by heartbeats; what
cannot be finished goes back to the queue; a job that cannot be worked on ends in `hold`, never in the void.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from paquebot.blobs import BadPack, BlobMissing
from paquebot.observability.log import Log
from paquebot.queue import ClaimedJob, Consumer, Publication, Queue, QueueUnavailable, held
from paquebot.queue.observation import observe_forever
from paquebot.relay import metrics
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.metrics import AttemptResult, HoldReason, PutBackReason, SlotKind
from paquebot.relay.outcome import RelayResult
from paquebot.relay.queue.ahead import BacklogBypass
from paquebot.relay.queue.destinations import AttemptSlot, Destinations
from paquebot.relay.queue.jobs import UnreadableJob, read_job
from paquebot.relay.retry import Random
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settings import RelayLoadSettings
from paquebot.relay.settlement import DeliveryNotRecorded, RelaySettlement
from paquebot.relay.worker import UNAVAILABLE, HostsBusy, RelayAttempt, RelayWorker
from paquebot.runtime.process.health import Health
from paquebot.runtime.shares.budget import OverBudget
from paquebot.v1.queue_pb2 import HeldJob

_log = Log("paquebot.relay")
_FETCH_SECONDS = 5.0
_FIRST_SECONDS = 0.1
_CROWD_SECONDS = 0.1
_FETCH_JOBS = 256
_AHEAD_JOBS = 64
_AWAY_SECONDS = 1.0
_MAX_SILENCE = 60.0
_MEASURE_SECONDS = 5.0
_WATCH_SECONDS = 0.25
_BUSY_SECONDS = 15.0
_TWICE_SECONDS = 60.0
_AGAIN_MOST_SECONDS = 30.0  # an engine is away, or memory is full: soon at first, then more patiently
_REST_SPREAD = 0.25  # of what was left of a destination's rest
_CANCEL_AGAIN_SECONDS = 1.0
_CUT_SECONDS = 3.0  # before the drain's end, for what is handed back
_REMEMBERED = 10_000


class RelayConsumer:
    """`slow_seconds`: an attempt that lasts longer leaves its slot to others; `random`: from 0 to 1; `clock`: Unix
    seconds. `ahead` is the consumer of what `overtaking` takes ahead of the backlog of `consumer`."""

    def __init__(
        self,
        queue: Queue,
        consumer: Consumer,
        ahead: Consumer,
        overtaking: BacklogBypass[RelayAttempt],
        worker: RelayWorker,
        settlement: RelaySettlement,
        destinations: Destinations[RelayAttempt],
        shown: DestinationLabels,
        routes: Routes,
        load: RelayLoadSettings,
        slow_seconds: float,
        health: Health,
        random: Random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._consumer = consumer
        self._ahead = ahead
        self._overtaking = overtaking
        self._worker = worker
        self._settlement = settlement
        self._destinations = destinations
        self._shown = shown
        self._routes = routes
        self._load = load
        self._slow_seconds = slow_seconds
        self._health = health
        self._random = random
        self._clock = clock
        self._in_hand: dict[tuple[int, float], RelayAttempt] = {}  # by `Job.stored`
        self._names: dict[tuple[str, str], RelayAttempt] = {}  # the same, by queue id and domain
        self._tasks: dict[asyncio.Task[None], AttemptSlot[RelayAttempt]] = {}
        self._spared: OrderedDict[tuple[int, float], int] = OrderedDict()  # times an engine was to blame
        self._room = asyncio.Event()
        self._consumed = asyncio.Event()
        for slots, most in (
            (SlotKind.ALL, load.attempts),
            (SlotKind.UNPROVEN, load.unproven),
            (SlotKind.SLOW, load.slow),
        ):
            metrics.SLOTS.labels(slots.value).set(most)

    async def run(self, draining: asyncio.Event, drain_seconds: float) -> None:
        """Until `draining`; then what is under way has `drain_seconds` to end."""
        fetching = [
            asyncio.create_task(loop)
            for loop in (
                self._fetch_for_ever(),
                self._fetch_ahead_for_ever(),
                self._overtaking.run_for_ever(self._consumed),
            )
        ]
        beside = [
            asyncio.create_task(loop)
            for loop in (
                self._beat_for_ever(),
                self._watch_for_ever(),
                observe_forever(self._queue),
                self._measure_for_ever(),
                draining.wait(),
            )
        ]
        try:
            await asyncio.wait((*fetching, *beside), return_when=asyncio.FIRST_COMPLETED)
            await _ended(fetching)
            await self._drain(max(0.0, drain_seconds - _CUT_SECONDS))
        finally:
            self._health.silence("relay")
            await _ended([*beside, *self._tasks])

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
            if await self._fetch(self._consumer, min(room, _FETCH_JOBS)) > _FETCH_JOBS // 2:
                await asyncio.sleep(_CROWD_SECONDS)  # a backlog that is only put back: attempts need the time more

    async def _fetch_ahead_for_ever(self) -> None:
        """What was taken ahead is worked on beside whatever else waits; nothing is, before somebody is there for it."""
        while True:
            wait = _FETCH_SECONDS if self._consumed.is_set() else _FIRST_SECONDS
            if await self._fetch(self._ahead, _AHEAD_JOBS, wait) >= 0:
                self._consumed.set()

    async def _fetch(self, consumer: Consumer, most: int, wait: float = _FETCH_SECONDS) -> int:
        """How many jobs were put back; -1: the queue is away."""
        try:
            put_back = await self._admit(await consumer.fetch(most, wait), first=consumer is self._ahead)
        except QueueUnavailable:
            await asyncio.sleep(_AWAY_SECONDS)
            return -1
        self._begin()
        return put_back

    async def _admit(self, handles: Sequence[ClaimedJob], *, first: bool) -> int:
        """What cannot be worked on soon goes back for later at once; returns how many. Raises QueueUnavailable; such
        jobs come again by themselves."""
        put_back = 0
        for handle in handles:
            known = self._in_hand.get(handle.stored)
            if known is not None:  # our heartbeats were lost for a while; the work goes on under the new name
                known.handle = handle
                continue
            try:
                job = read_job(handle.payload)
            except UnreadableJob as error:
                _log.error("job_unreadable", subject=handle.subject, reason=str(error))
                await self._put_aside(handle, HoldReason.UNREADABLE)
                await handle.ack()
                continue
            work = RelayAttempt(handle, job, self._routes.route(job.domain))
            reason, seconds = self._obstacle(work, first=first)
            if reason is None:
                self._take(work)
            else:
                await self._put_back(work, reason, seconds)
                put_back += 1
        return put_back

    def _obstacle(self, work: RelayAttempt, *, first: bool) -> tuple[PutBackReason | None, float]:
        """Why a job is not for now, and for how many seconds; None: it waits for its turn here."""
        now = self._clock()
        if (work.job.queue_id, work.job.domain) in self._names:
            return PutBackReason.TWICE, _TWICE_SECONDS
        resting = self._destinations.resting(work.key)
        if resting is not None and (wait := self._settlement.may_wait(work.job, resting[0])) is not None:
            return PutBackReason.RESTING, wait
        busy_until = self._destinations.busy_until(work.key)
        if busy_until:
            return PutBackReason.BUSY, busy_until - now
        if not self._destinations.add(work.key, work.sender, work, first=first):
            # Others must not wait behind a destination or a sender with more mail than it may have here.
            return PutBackReason.CROWDED, self._destinations.crowded_for(work.key)
        return None, 0.0

    def _take(self, work: RelayAttempt) -> None:
        self._in_hand[work.handle.stored] = work
        self._names[work.job.queue_id, work.job.domain] = work

    def _leave(self, work: RelayAttempt) -> None:
        self._in_hand.pop(work.handle.stored, None)
        self._names.pop((work.job.queue_id, work.job.domain), None)

    async def _put_back(self, work: RelayAttempt, reason: PutBackReason, seconds: float) -> None:
        """For later, as it is: nothing was tried. The consumer itself keeps it, which costs the server no disk; only
        where it keeps very many is the job stored anew. Those of one crowd do not come back all at once. Raises
        QueueUnavailable."""
        # After a long rest the host is there again: a crowd is spread over its wait, the rested over a part of theirs.
        seconds *= 1 + self._random() * (_REST_SPREAD if reason is PutBackReason.RESTING else 1.0)
        if self._overtaking.unacknowledged < self._load.parked:
            await work.handle.nak(seconds)
        else:
            await self._settlement.store_later(work.job, self._clock() + seconds, work.handle.sequence)
            await work.handle.ack_soon()
        metrics.PUT_BACKS[reason].inc()

    def _begin(self) -> None:
        while (turn := self._destinations.next()) is not None:
            turn.work.begun = time.monotonic()
            task = asyncio.create_task(self._work(turn.work))
            self._tasks[task] = turn
            task.add_done_callback(self._done)
        self._measure()

    def _done(self, task: asyncio.Task[None]) -> None:
        turn = self._tasks.pop(task)
        self._leave(turn.work)
        self._destinations.done(turn)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("job_left", queue_id=turn.work.job.queue_id, reason=type(error).__name__)  # it comes again
        self._room.set()
        self._begin()

    # --- slots ---

    async def _watch_for_ever(self) -> None:
        """Attempts that last leave their slots."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self._free_slots(time.monotonic())
            self._begin()

    def _free_slots(self, now: float) -> None:
        """Where there are too many slow ones, as many of them end as there are newer ones to take their places."""
        turns = list(self._tasks.values())
        fresh = [turn for turn in turns if not turn.slow and now - turn.work.begun >= self._slow_seconds]
        left = sum(not self._destinations.slowed(turn) for turn in fresh)
        if not left:
            return
        slow = [turn for turn in turns if turn.slow and now - turn.work.begun >= self._load.slow_least]
        slow.sort(key=lambda turn: (not turn.unproven, turn.work.begun))
        for turn in slow:
            if left and turn.work.progress.cut():
                metrics.CUT.inc()
                left -= 1

    def _measure(self) -> None:
        destinations = self._destinations
        metrics.UNDER_WAY.set(destinations.running + destinations.slow)
        metrics.SLOTS_USED.labels(SlotKind.ALL.value).set(destinations.running)
        metrics.SLOTS_USED.labels(SlotKind.UNPROVEN.value).set(destinations.unproven_running)
        metrics.SLOTS_USED.labels(SlotKind.SLOW.value).set(destinations.slow)
        metrics.WAITING.set(destinations.waiting)

    async def _measure_for_ever(self) -> None:
        """What is too much work for each step of the way."""
        while True:
            for state, count in self._destinations.counts().items():
                metrics.DESTINATIONS.labels(state).set(count)
            self._shown.measure(self._destinations.waiting_by_key(), self._destinations.resting_keys())
            await asyncio.sleep(_MEASURE_SECONDS)

    # --- out ---

    async def _work(self, work: RelayAttempt) -> None:
        """Settle one job, or give it back, or hold it; raises only CancelledError."""
        try:
            await self._worker.work(work)
        except HostsBusy:
            self._destinations.busy(work.key, _BUSY_SECONDS)
            with contextlib.suppress(QueueUnavailable):  # then it comes again by itself
                await self._put_back(work, PutBackReason.BUSY, _BUSY_SECONDS)
        except DeliveryNotRecorded:
            await self._finish(work, self._hand_over(work))
        except (*UNAVAILABLE, OverBudget) as error:
            reason = type(error).__name__
            _log.warning("job_again", queue_id=work.job.queue_id, reason=reason)
            metrics.ATTEMPT[AttemptResult.ENGINE_AWAY].inc()
            await self._give_back(work, self._spare(work))
        except BadPack as error:
            await self._damaged(work, error)
        except BlobMissing:
            _log.exception("message_missing", queue_id=work.job.queue_id)
            await self._again_or_hold(work, HoldReason.BLOB)
        except asyncio.CancelledError:
            if work.progress.unrecorded:
                await self._finish(work, self._hand_over(work))
            else:
                await self._give_back(work, 0.0)
            raise
        except Exception:  # noqa: BLE001 - the one place where the unknown ends: logged, tried again, then held
            _log.exception("job_failed", queue_id=work.job.queue_id)
            await self._again_or_hold(work, HoldReason.POISON)

    async def _damaged(self, work: RelayAttempt, error: BadPack) -> None:
        """S3 may lie for hours and the message be whole: as long as it is not too old to wait, it does."""
        _log.warning("message_damaged", queue_id=work.job.queue_id, reason=str(error))
        if self._clock() - work.job.accepted_at_ms / 1000 > self._load.damaged:
            await self._again_or_hold(work, HoldReason.BLOB)
            return
        metrics.ATTEMPT[AttemptResult.ENGINE_AWAY].inc()
        await self._give_back(work, self._spare(work))

    async def _finish(self, work: RelayAttempt, storing: Coroutine[None, None, None]) -> None:
        """Acknowledge the job once `storing` has kept what is left of it."""
        try:
            await storing
            await work.handle.ack()
        except QueueUnavailable:
            await self._give_back(work, _AGAIN_MOST_SECONDS)

    async def _hand_over(self, work: RelayAttempt) -> None:
        """Raises QueueUnavailable."""
        outcomes = work.progress.outcomes
        delivered = [path for path, outcome in outcomes.items() if outcome.result is RelayResult.DELIVERED]
        await self._settlement.hand_over(work.job, delivered, work.handle.sequence)

    def _spare(self, work: RelayAttempt) -> float:
        """An engine was away: the next wait for it is longer, and the job is not to blame."""
        self._spared[work.handle.stored] = self._spared.pop(work.handle.stored, 0) + 1
        while len(self._spared) > _REMEMBERED:
            self._spared.popitem(last=False)
        return _patience(self._spared[work.handle.stored], self._random)

    async def _again_or_hold(self, work: RelayAttempt, reason: HoldReason) -> None:
        """Whatever went wrong may have been chance: tried again some times, then put aside."""
        metrics.ATTEMPT[AttemptResult.ERROR].inc()
        failures = work.job.failures + 1
        try:
            if failures < self._load.tries:
                at = self._clock() + _patience(failures, self._random)
                await self._settlement.store_later(work.job, at, work.handle.sequence, failures=failures)
            else:
                await self._put_aside(work.handle, reason)
            await work.handle.ack()
        except QueueUnavailable:
            await self._give_back(work, _AGAIN_MOST_SECONDS)

    async def _give_back(self, work: RelayAttempt, delay_seconds: float) -> None:
        with contextlib.suppress(QueueUnavailable):  # then it comes again by itself
            await work.handle.nak(delay_seconds)

    async def _put_aside(self, handle: ClaimedJob, reason: HoldReason) -> None:
        """Raises QueueUnavailable."""
        subject = handle.subject.replace("relay.ahead.", "relay.ready.", 1)
        job = HeldJob(
            subject=subject, payload=handle.payload, reason=reason.value, held_at_ms=int(self._clock() * 1000)
        )
        name = f"relay-{handle.sequence}-{int(handle.published_at * 1000)}"
        await self._queue.publish([Publication(held(reason.value, name), job.SerializeToString(), message_id=name)])
        metrics.HELD.labels(reason.value).inc()
        _log.error("job_held", subject=handle.subject, reason=reason.value, deliveries=handle.deliveries)

    # --- meanwhile, and at the end ---

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._queue.settings.ack_wait / 3)
            for work in list(self._in_hand.values()):
                with contextlib.suppress(QueueUnavailable):
                    await work.handle.in_progress()

    async def _drain(self, seconds: float) -> None:
        """What waits goes back at once; what is under way may end; what is then still before the message's first
        byte goes back too. Only what a host may be taking right now stays to the last moment."""
        with contextlib.suppress(QueueUnavailable):
            await self._consumer.close()  # first, or a pull that is still open gets back what we give back
            await self._ahead.close()
        for work in list(self._destinations.take_waiting()):
            self._leave(work)
            await self._give_back(work, 0.0)
        await _settled(self._tasks, seconds)
        for task, turn in list(self._tasks.items()):
            if not turn.work.progress.exposed:
                task.cancel()
        await _settled(self._tasks, _CUT_SECONDS)


def _patience(tries: int, random: Random) -> float:
    """Seconds until the next try."""
    return min(_AGAIN_MOST_SECONDS, 2.0 ** min(tries, 16)) * (1 + random()) / 2


async def _settled(tasks: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Wait for tasks that may end by themselves."""
    under_way = list(tasks)
    if under_way:
        await asyncio.wait(under_way, timeout=seconds)


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
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
