"""Jobs from the queue into the mailstore: one transaction per batch, entry by entry when that fails.

The order is commit, hint, settle, acknowledge (invariant 4). A job that dies with us comes again after the queue's
acknowledgement wait, and its deliveries are then duplicates without effect (invariant 3).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from paquebot.blobs import BlobsRefused, BlobsUnavailable
from paquebot.delivery import metrics
from paquebot.delivery.entries import EntryResult, RecipientDelivery, addressed_of
from paquebot.delivery.metrics import Again
from paquebot.delivery.settings import DeliveryLoadSettings
from paquebot.delivery.settlement import DeliverySettlement, with_recipients
from paquebot.mailstore import Deliveries
from paquebot.notification import SenderUncertain
from paquebot.observability import trace
from paquebot.observability.log import Log
from paquebot.queue import Job, QueueRefused, QueueTooLarge, QueueUnavailable
from paquebot.rpc import DirectoryUnavailable
from paquebot.runtime.postgres.pool import PostgresRefused, PostgresTroubled, PostgresUnavailable
from paquebot.spool import SpoolUnavailable
from paquebot.v1.queue_pb2 import DeliverEntry, DeliverJob

_log = Log("paquebot.delivery")

_AWAY: dict[type[Exception], Again] = {
    PostgresUnavailable: Again.POSTGRES_AWAY,
    PostgresTroubled: Again.POSTGRES_AWAY,
    QueueUnavailable: Again.QUEUE_AWAY,
    QueueRefused: Again.QUEUE_AWAY,
    SpoolUnavailable: Again.SPOOL_AWAY,
    BlobsUnavailable: Again.S3_AWAY,
    DirectoryUnavailable: Again.DIRECTORY_AWAY,
}
TEMPORARY = tuple(_AWAY)
_NEVER = (QueueTooLarge, BlobsRefused)
"""Of these engines, what trying again does not help with."""

_WAITS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds until a job that failed for the first, second... time comes again."""


@dataclass(frozen=True, slots=True)
class Work:
    """A job in our hands; `entries` are the recipients of each of its entries."""

    handle: Job
    job: DeliverJob
    entries: Sequence[Sequence[RecipientDelivery]]

    @property
    def addressed(self) -> list[RecipientDelivery]:
        return [one for entry in self.entries for one in entry]


class DeliveryWorker:
    """Delivers batches of jobs; stateless between them."""

    def __init__(self, deliveries: Deliveries, settlement: DeliverySettlement, load: DeliveryLoadSettings) -> None:
        self._deliveries = deliveries
        self._settlement = settlement
        self._load = load

    async def work(self, jobs: Sequence[Job]) -> None:
        """Returns when each job is acknowledged, given back, or held. Raises PostgresUnavailable, the jobs given
        back, while PostgreSQL is away: ask for no more before it is there."""
        metrics.BATCH_JOBS.observe(len(jobs))
        async with _kept(jobs):
            works = [work for job in jobs if (work := await self._opened(job)) is not None]
            pending = list(self._transactions(works))
            while pending:
                try:
                    await self._transaction(pending[0])
                except PostgresUnavailable:
                    for work in (work for part in pending for work in part):
                        await self._again(work.handle, Again.POSTGRES_AWAY, 1.0)
                    raise
                del pending[0]

    async def _opened(self, handle: Job) -> Work | None:
        try:
            job = DeliverJob.FromString(handle.payload)
            return Work(handle, job, [list(addressed_of(entry)) for entry in job.entries])
        except (DecodeError, ValueError, OverflowError, OSError) as error:  # OSError: a date out of range
            await self._unreadable(handle, f"{type(error).__name__}: {error}")
            return None

    def _transactions(self, works: Sequence[Work]) -> Iterator[list[Work]]:
        part: list[Work] = []
        recipients = 0
        for work in works:
            if part and recipients + len(work.addressed) > self._load.recipients:
                yield part
                part, recipients = [], 0
            part.append(work)
            recipients += len(work.addressed)
        if part:
            yield part

    async def _transaction(self, works: Sequence[Work]) -> None:
        try:
            results = iter(await self._deliver([one for work in works for one in work.addressed]))
        except Exception as error:  # whatever one of them does to the batch, the others must arrive
            if _is_away(error):
                raise
            _log.exception("batch_failed", jobs=len(works))
            for work in works:
                await self._one_by_one(work)
            return
        for work in works:
            await self._finish(work, [next(results) for _ in work.addressed])

    async def _deliver(self, addressed: Sequence[RecipientDelivery]) -> list[EntryResult]:
        """One transaction, and the hints of its commit."""
        metrics.TRANSACTION_RECIPIENTS.observe(len(addressed))
        with _spans(addressed):
            with metrics.TRANSACTION_SECONDS.time():
                outcomes = await self._deliveries.deliver(
                    [one.delivery for one in addressed], refuse_over_quota=self._settlement.refuse_over_quota
                )
            results = [EntryResult(*pair) for pair in zip(addressed, outcomes, strict=True)]
            await self._settlement.tell(results)
        return results

    async def _one_by_one(self, work: Work) -> None:
        """Entry by entry, and one that fails recipient by recipient: whoever can be served is."""
        metrics.ONE_BY_ONE.inc()
        results: list[EntryResult] = []
        bad: list[RecipientDelivery] = []
        never: list[RecipientDelivery] = []
        reason, troubled = "", False
        waiting = [list(addressed) for addressed in reversed(work.entries) if addressed]
        while waiting:
            some = waiting.pop()
            try:
                results += await self._deliver(some)
            except Exception as error:  # only these recipients are put off or held
                if _is_away(error):
                    raise
                if len(some) > 1:
                    waiting += [[one] for one in reversed(some)]
                    continue
                troubled = troubled or isinstance(error, PostgresTroubled)
                account_id, queue_id = some[0].recipient.account_id, some[0].entry.queue_id
                _log.exception("recipient_failed", queue_id=queue_id, account_id=account_id)
                reason = f"{type(error).__name__}: {error}"
                (never if isinstance(error, PostgresRefused) else bad).extend(some)
        if never and not await self._held(work, with_recipients(never), reason):
            bad += never
        await self._finish(work, results, with_recipients(bad), reason, troubled=troubled)

    async def _held(self, work: Work, entries: Sequence[DeliverEntry], reason: str) -> bool:
        """Put aside what can never be delivered, so that it does not come again with the others."""
        try:
            await self._settlement.hold_entries(work.handle.subject, work.job, entries, reason)
        except QueueUnavailable:
            return False
        return True

    async def _finish(
        self,
        work: Work,
        results: Sequence[EntryResult],
        bad: Sequence[DeliverEntry] = (),
        reason: str = "",
        *,
        troubled: bool = False,
    ) -> None:
        """Settle what was committed, then acknowledge; with bad entries the job comes again, until they are held: not
        while the engine is `troubled`, whose fault it is."""
        try:
            await self._settlement.settle(work.job, results)
            if bad and troubled:
                await self._again(work.handle, Again.POSTGRES_AWAY)
                return
            if bad:
                await self._failed(work, bad, reason)
            else:
                await work.handle.ack_soon()
        except _NEVER as error:
            await self._failed(work, work.job.entries, f"{type(error).__name__}: {error}")
        except TEMPORARY as error:
            if _is_away(error):
                raise
            await self._again(work.handle, _why_away(error))
        except SenderUncertain as error:
            await self._failed(work, work.job.entries, f"nobody can be told: {error}", again=Again.SENDER_UNCERTAIN)
        except Exception as error:  # noqa: BLE001 - a job that fails in our hands is told apart from the others
            _log.exception("settlement_failed", subject=work.handle.subject)
            await self._failed(work, work.job.entries, f"{type(error).__name__}: {error}")

    async def _failed(
        self, work: Work, entries: Sequence[DeliverEntry], reason: str, *, again: Again = Again.FAILED
    ) -> None:
        """These entries failed for their own sake: put off, or put aside after the last try. What is done of them
        already has no effect when it is done again."""
        job, failures = work.job, work.job.failures + 1
        try:
            if failures < self._load.tries:
                await self._settlement.try_later(job, entries, _wait(failures))
                metrics.AGAIN.labels(again.value).inc()
            else:
                await self._settlement.hold_entries(work.handle.subject, job, entries, reason)
            await work.handle.ack_soon()
        except QueueUnavailable:
            await self._again(work.handle, Again.QUEUE_AWAY)

    async def _unreadable(self, handle: Job, reason: str) -> None:
        """A newer program may read it; after the last try it is put aside."""
        if handle.deliveries < self._load.tries:
            await self._again(handle, Again.FAILED)
            return
        try:
            await self._settlement.hold(handle.subject, handle.payload, reason)
            await handle.ack_soon()
        except QueueUnavailable:
            await self._again(handle, Again.QUEUE_AWAY)

    async def _again(self, handle: Job, reason: Again, wait: float = 0.0) -> None:
        """Give the job back; when even that fails the queue takes it back by itself."""
        metrics.AGAIN.labels(reason.value).inc()
        with contextlib.suppress(QueueUnavailable):
            await handle.nak(wait or _wait(handle.deliveries))


def _why_away(error: Exception) -> Again:
    return next(_AWAY[kind] for kind in type(error).__mro__ if kind in _AWAY)


def _wait(tries: int) -> float:
    """Seconds until a job comes again that failed so often."""
    return _WAITS[min(tries, len(_WAITS)) - 1]


def _is_away(error: Exception) -> bool:
    """Whether no other transaction can succeed now."""
    return isinstance(error, PostgresUnavailable) and not isinstance(error, PostgresTroubled)


@contextlib.contextmanager
def _spans(addressed: Sequence[RecipientDelivery]) -> Iterator[None]:
    """A span for each entry in its own message's trace, for the one transaction that they share. From now on the
    entry carries it: hints, notifications and a later try are its children."""
    entries = [one.entry for one in addressed if trace.is_sampled(one.entry.trace)]
    with contextlib.ExitStack() as stack:
        for entry in {id(entry): entry for entry in entries}.values():
            span = trace.span("delivery", entry.trace, kind=trace.Kind.CONSUMER, queue_id=entry.queue_id)
            entry.trace = stack.enter_context(span).traceparent
        yield


@contextlib.asynccontextmanager
async def _kept(jobs: Sequence[Job]) -> AsyncIterator[None]:
    """While the block lasts the queue hears that the jobs are being worked on."""
    task = asyncio.create_task(_beat(jobs))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _beat(jobs: Sequence[Job]) -> None:
    while True:
        await asyncio.sleep(min(job.heartbeat for job in jobs))
        for job in jobs:
            with contextlib.suppress(QueueUnavailable):
                await job.in_progress()
