"""Claimed jobs into the mailstore: one transaction per batch, entry by entry when that fails.

The order is commit, hint, settle, acknowledge (invariant 4). A job whose process dies comes again after the queue's
acknowledgement wait, and its deliveries are then duplicates without effect (invariant 3).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from paquebot.blobs import BlobsUnavailable
from paquebot.delivery import metrics
from paquebot.delivery.entries import EntryOutcome, RecipientDelivery, deliveries_of, entries_of
from paquebot.delivery.hold import DeliveryHold
from paquebot.delivery.metrics import DeferReason
from paquebot.delivery.settings import DeliveryLoadSettings
from paquebot.delivery.settlement import DeliverySettlement
from paquebot.mailstore import Deliveries
from paquebot.notification import SenderUncertain
from paquebot.observability import trace
from paquebot.observability.log import Log
from paquebot.queue import ClaimedJob, QueueUnavailable
from paquebot.rpc import DirectoryUnavailable
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.runtime.postgres.pool import PostgresRefused, PostgresTroubled, PostgresUnavailable
from paquebot.spool import SpoolUnavailable
from paquebot.v1.queue_pb2 import DeliverEntry, DeliverJob

_log = Log("paquebot.delivery")

_OUTAGES: dict[type[Exception], DeferReason] = {
    PostgresUnavailable: DeferReason.POSTGRES_UNAVAILABLE,
    QueueUnavailable: DeferReason.QUEUE_UNAVAILABLE,
    SpoolUnavailable: DeferReason.SPOOL_UNAVAILABLE,
    BlobsUnavailable: DeferReason.S3_UNAVAILABLE,
    DirectoryUnavailable: DeferReason.DIRECTORY_UNAVAILABLE,
}

_WAITS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds until a job that failed for the first, second... time comes again."""


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """A claimed job and what it asks for; `entries`: the deliveries of each of its entries."""

    claimed: ClaimedJob
    job: DeliverJob
    entries: Sequence[Sequence[RecipientDelivery]]

    @property
    def deliveries(self) -> list[RecipientDelivery]:
        return [one for entry in self.entries for one in entry]


@dataclass(slots=True)
class _Failures:
    """Recipients that could not be delivered to. `troubled`: PostgreSQL was at fault for some."""

    retried: list[RecipientDelivery] = field(default_factory=list)
    refused: list[RecipientDelivery] = field(default_factory=list)
    reason: str = ""
    troubled: bool = False

    def add(self, delivery: RecipientDelivery, error: Exception) -> None:
        self.troubled = self.troubled or isinstance(error, PostgresTroubled)
        self.reason = _text(error)
        (self.refused if isinstance(error, PostgresRefused) else self.retried).append(delivery)


class DeliveryWorker:
    """Delivers batches of jobs; stateless between them."""

    def __init__(
        self, deliveries: Deliveries, settlement: DeliverySettlement, hold: DeliveryHold, load: DeliveryLoadSettings
    ) -> None:
        self._deliveries = deliveries
        self._settlement = settlement
        self._hold = hold
        self._load = load

    async def work(self, jobs: Sequence[ClaimedJob]) -> None:
        """Returns when each job is acknowledged, deferred or held. Raises PostgresUnavailable, with the jobs deferred,
        during an outage of PostgreSQL: claim no more jobs before it has ended."""
        metrics.BATCH_JOBS.observe(len(jobs))
        async with _kept_claimed(jobs):
            attempts = [attempt for job in jobs if (attempt := await self._parsed(job)) is not None]
            pending = list(self._transactions(attempts))
            while pending:
                try:
                    await self._deliver_jobs(pending[0])
                except PostgresUnavailable:
                    for attempt in (attempt for part in pending for attempt in part):
                        await self._defer(attempt.claimed, DeferReason.POSTGRES_UNAVAILABLE, 1.0)
                    raise
                del pending[0]

    async def _parsed(self, claimed: ClaimedJob) -> DeliveryAttempt | None:
        try:
            job = DeliverJob.FromString(claimed.payload)
            return DeliveryAttempt(claimed, job, [list(deliveries_of(entry)) for entry in job.entries])
        except (DecodeError, ValueError, OverflowError, OSError) as error:  # OSError: a date out of range
            await self._unreadable(claimed, _text(error))
            return None

    def _transactions(self, attempts: Sequence[DeliveryAttempt]) -> Iterator[list[DeliveryAttempt]]:
        part: list[DeliveryAttempt] = []
        recipients = 0
        for attempt in attempts:
            if part and recipients + len(attempt.deliveries) > self._load.recipients:
                yield part
                part, recipients = [], 0
            part.append(attempt)
            recipients += len(attempt.deliveries)
        if part:
            yield part

    async def _deliver_jobs(self, attempts: Sequence[DeliveryAttempt]) -> None:
        try:
            outcomes = iter(await self._deliver([one for attempt in attempts for one in attempt.deliveries]))
        except Exception as error:  # whatever one job does to the batch, the others must be delivered
            if _is_outage(error):
                raise
            _log.exception("batch_failed", jobs=len(attempts))
            for attempt in attempts:
                await self._one_by_one(attempt)
            return
        for attempt in attempts:
            await self._finish(attempt, [next(outcomes) for _ in attempt.deliveries])

    async def _deliver(self, deliveries: Sequence[RecipientDelivery]) -> list[EntryOutcome]:
        """One transaction, and the hints of its commit."""
        metrics.TRANSACTION_RECIPIENTS.observe(len(deliveries))
        with _spans(deliveries):
            with metrics.TRANSACTION_SECONDS.time():
                found = await self._deliveries.deliver(
                    [one.delivery for one in deliveries], refuse_over_quota=self._settlement.refuse_over_quota
                )
            outcomes = [EntryOutcome(*pair) for pair in zip(deliveries, found, strict=True)]
            await self._settlement.announce(outcomes)
        return outcomes

    async def _one_by_one(self, attempt: DeliveryAttempt) -> None:
        """Entry by entry, and one that fails recipient by recipient: a bad recipient does not stop the others."""
        metrics.UNBATCHED.inc()
        outcomes: list[EntryOutcome] = []
        failures = _Failures()
        waiting = [list(deliveries) for deliveries in reversed(attempt.entries) if deliveries]
        while waiting:
            some = waiting.pop()
            try:
                outcomes += await self._deliver(some)
            except Exception as error:  # only these recipients are deferred or held
                if _is_outage(error):
                    raise
                if len(some) > 1:
                    waiting += [[one] for one in reversed(some)]
                    continue
                account_id, queue_id = some[0].recipient.account_id, some[0].entry.queue_id
                _log.exception("recipient_failed", queue_id=queue_id, account_id=account_id)
                failures.add(some[0], error)
        if failures.refused and not await self._held(attempt, failures):
            failures.retried += failures.refused
        await self._finish(attempt, outcomes, failures)

    async def _held(self, attempt: DeliveryAttempt, failures: _Failures) -> bool:
        """Hold what can never be delivered, so that it does not come again with the others."""
        entries = entries_of(failures.refused)
        try:
            await self._hold.hold_entries(attempt.claimed.subject, attempt.job, entries, failures.reason)
        except QueueUnavailable:
            return False
        return True

    async def _finish(
        self, attempt: DeliveryAttempt, outcomes: Sequence[EntryOutcome], failures: _Failures | None = None
    ) -> None:
        """Settle what was committed, then acknowledge. With failures the job is deferred, and held after its last
        try; failures that are PostgreSQL's do not count as tries."""
        try:
            await self._settlement.settle(attempt.job, outcomes)
            if failures is None or not failures.retried:
                await attempt.claimed.ack_soon()
            elif failures.troubled:
                await self._defer(attempt.claimed, DeferReason.POSTGRES_UNAVAILABLE)
            else:
                await self._failed(attempt, entries_of(failures.retried), failures.reason)
        except EngineRefused as error:
            await self._failed(attempt, attempt.job.entries, _text(error))
        except EngineUnavailable as error:
            if _is_outage(error):
                raise
            await self._defer(attempt.claimed, _defer_reason(error))
        except SenderUncertain as error:
            reason = f"the sender cannot be notified: {error}"
            await self._failed(attempt, attempt.job.entries, reason, DeferReason.SENDER_UNCERTAIN)
        except Exception as error:  # noqa: BLE001 - a job at fault must not fail the batch
            _log.exception("settlement_failed", subject=attempt.claimed.subject)
            await self._failed(attempt, attempt.job.entries, _text(error))

    async def _failed(
        self,
        attempt: DeliveryAttempt,
        entries: Sequence[DeliverEntry],
        reason: str,
        defer_reason: DeferReason = DeferReason.FAILED,
    ) -> None:
        """The job itself is at fault: these entries are deferred, and held after the last try. What is done of them
        already has no effect when it is done again."""
        job, failures = attempt.job, attempt.job.failures + 1
        try:
            if failures < self._load.tries:
                await self._settlement.try_later(job, entries, _wait(failures))
                metrics.DEFERRED_JOBS.labels(defer_reason.value).inc()
            else:
                await self._hold.hold_entries(attempt.claimed.subject, job, entries, reason)
            await attempt.claimed.ack_soon()
        except QueueUnavailable:
            await self._defer(attempt.claimed, DeferReason.QUEUE_UNAVAILABLE)

    async def _unreadable(self, claimed: ClaimedJob, reason: str) -> None:
        """A newer program may read it; after the last try it is held."""
        if claimed.deliveries < self._load.tries:
            await self._defer(claimed, DeferReason.FAILED)
            return
        try:
            await self._hold.hold(claimed.subject, claimed.payload, reason)
            await claimed.ack_soon()
        except QueueUnavailable:
            await self._defer(claimed, DeferReason.QUEUE_UNAVAILABLE)

    async def _defer(self, claimed: ClaimedJob, reason: DeferReason, wait: float = 0.0) -> None:
        """Let the queue hand the job out again; when even that fails it does so by itself."""
        metrics.DEFERRED_JOBS.labels(reason.value).inc()
        with contextlib.suppress(QueueUnavailable):
            await claimed.nak(wait or _wait(claimed.deliveries))


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _defer_reason(error: Exception) -> DeferReason:
    return next(_OUTAGES[kind] for kind in type(error).__mro__ if kind in _OUTAGES)


def _wait(tries: int) -> float:
    """Seconds until a job comes again that failed so often."""
    return _WAITS[min(tries, len(_WAITS)) - 1]


def _is_outage(error: Exception) -> bool:
    """Whether no other transaction can succeed now."""
    return isinstance(error, PostgresUnavailable) and not isinstance(error, PostgresTroubled)


@contextlib.contextmanager
def _spans(deliveries: Sequence[RecipientDelivery]) -> Iterator[None]:
    """A span for each entry in its own message's trace, for the one transaction that they share. From now on the
    entry carries it: hints, notifications and a later try are its children."""
    entries = [one.entry for one in deliveries if trace.is_sampled(one.entry.trace)]
    with contextlib.ExitStack() as stack:
        for entry in {id(entry): entry for entry in entries}.values():
            span = trace.span("delivery", entry.trace, kind=trace.Kind.CONSUMER, queue_id=entry.queue_id)
            entry.trace = stack.enter_context(span).traceparent
        yield


@contextlib.asynccontextmanager
async def _kept_claimed(jobs: Sequence[ClaimedJob]) -> AsyncIterator[None]:
    """For the time of the block the queue keeps the jobs claimed."""
    task = asyncio.create_task(_heartbeats(jobs))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _heartbeats(jobs: Sequence[ClaimedJob]) -> None:
    while True:
        await asyncio.sleep(min(job.heartbeat for job in jobs))
        for job in jobs:
            with contextlib.suppress(QueueUnavailable):
                await job.in_progress()
