"""After the commit: hints, counts, notifications, and later jobs for what cannot be delivered now.

What is done here for a job may be done again when the job comes again, with the same effect.
"""

import time
from collections.abc import Iterable, Sequence

from paquebot.blobs import new_ulid
from paquebot.delivery import metrics
from paquebot.delivery.entries import EntryOutcome, RecipientDelivery, entries_of
from paquebot.delivery.reports import DeliveryReporter, due
from paquebot.delivery.settings import OverQuotaPolicy, QuotaSettings
from paquebot.mailstore import Deliveries, DeliveryResult
from paquebot.observability.log import Log
from paquebot.observability.trace import is_sampled
from paquebot.queue import Publication, Queue, deliver_later, deliver_ready
from paquebot.v1.queue_pb2 import DeliverEntry, DeliverJob

_log = Log("paquebot.delivery")
_IN_MAILBOX = (DeliveryResult.DELIVERED, DeliveryResult.DUPLICATE)


class DeliverySettlement:
    """One for a process."""

    def __init__(self, deliveries: Deliveries, queue: Queue, reporter: DeliveryReporter, quota: QuotaSettings) -> None:
        self._deliveries = deliveries
        self._queue = queue
        self._reporter = reporter
        self._quota = quota

    @property
    def refuse_over_quota(self) -> bool:
        """Whether the first answer "over quota" is final."""
        return self._quota.policy is OverQuotaPolicy.BOUNCE

    async def announce(self, outcomes: Sequence[EntryOutcome]) -> None:
        """Right after the commit: hints for the accounts that changed (invariant 4), counts, log lines.

        A duplicate is hinted too: the process that delivered it may have died before its hint.
        """
        now = time.time()
        traces: dict[int, str] = {}
        for one in outcomes:  # one hint for many messages: the first that is traced stands for them
            if one.outcome.result not in _IN_MAILBOX:
                continue
            account_id, traceparent = one.delivery.recipient.account_id, one.delivery.entry.trace
            if not traces.get(account_id):
                traces[account_id] = traceparent if is_sampled(traceparent) else ""
        await self._queue.hint_mailboxes(traces)
        _count(outcomes, now)

    async def settle(self, job: DeliverJob, outcomes: Sequence[EntryOutcome]) -> None:
        """Notify senders, and defer what may fit later. Raises SenderUncertain and what the engines raise."""
        final: list[EntryOutcome] = []
        deferred: list[RecipientDelivery] = []
        for one in outcomes:
            if self.refuse_over_quota or one.outcome.result is not DeliveryResult.OVER_QUOTA:
                final.append(one)
            elif self._is_expired(one.delivery.entry) or _never_fits(one.delivery):
                await self._refuse(one.delivery)
                final.append(one)
            else:
                deferred.append(one.delivery)
        for entry, action, recipients in due(final):
            await self._reporter.report(entry, action, recipients, time.time())
        if deferred:
            await self._defer(job, deferred)

    def _is_expired(self, entry: DeliverEntry) -> bool:
        return time.time() - entry.accepted_at_ms / 1000 > self._quota.lifetime

    async def _refuse(self, delivery: RecipientDelivery) -> None:
        """Before the sender is notified: from now on room in the mailbox changes nothing."""
        await self._deliveries.deliver([delivery.delivery], refuse_over_quota=True)

    async def _defer(self, job: DeliverJob, deliveries: Sequence[RecipientDelivery]) -> None:
        """The stream itself brings the rest of the job back: no timer and no pending job of ours holds it."""
        entries = entries_of(deliveries)
        oldest = min(entry.accepted_at_ms for entry in entries) / 1000
        age = max(0.0, time.time() - oldest)
        wait = min(max(age / 2, self._quota.retry), self._quota.retry_max)
        await self._store(job, entries, wait, failures=job.failures)
        metrics.DEFERRED_RECIPIENTS.inc(len(deliveries))
        _log.info("recipients_deferred", queue_ids=[entry.queue_id for entry in entries], wait_seconds=round(wait))

    async def try_later(self, job: DeliverJob, entries: Iterable[DeliverEntry], wait: float) -> None:
        """Defer these entries of a job that failed, not its engines, by `wait` seconds, and count the failure in the
        job: the queue's own count of deliveries says more of the engines. Raises QueueUnavailable."""
        await self._store(job, entries, wait, failures=job.failures + 1)

    async def _store(self, job: DeliverJob, entries: Iterable[DeliverEntry], wait: float, *, failures: int) -> None:
        again = DeliverJob(pack=job.pack, domain=job.domain, entries=entries, failures=failures)
        subject, later = deliver_ready(job.domain), deliver_later(new_ulid())
        publication = Publication(subject, again.SerializeToString(), later_subject=later, at=time.time() + wait)
        await self._queue.publish([publication])


def _never_fits(delivery: RecipientDelivery) -> bool:
    """The message is larger than the whole quota."""
    return 0 < delivery.delivery.quota_bytes < delivery.delivery.message.size


def _count(outcomes: Iterable[EntryOutcome], now: float) -> None:
    lines: dict[DeliveryResult, list[dict[str, str | int | float]]] = {}
    for one in outcomes:
        entry, outcome = one.delivery.entry, one.outcome
        seconds = max(0.0, now - entry.accepted_at_ms / 1000)
        if outcome.result is DeliveryResult.DELIVERED:
            metrics.LATENCY_SECONDS.observe(seconds)
        line: dict[str, str | int | float] = {
            "queue_id": entry.queue_id,
            "account_id": one.delivery.recipient.account_id,
            "mailbox_id": outcome.mailbox_id,
            "uid": outcome.uid,
            "seconds": round(seconds, 3),
        }
        lines.setdefault(outcome.result, []).append(line)
    for result, each in lines.items():
        metrics.RECIPIENT[result].inc(len(each))
        _log.info_each(result.value, each)
