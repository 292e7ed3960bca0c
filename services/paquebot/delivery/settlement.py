"""After the commit: hints, counts, notifications, and new places in the queue for what cannot be delivered now.

What is done here for a job may be done again when the job comes again, with the same effect.
"""

import time
from collections.abc import Iterable, Sequence

from paquebot.blobs import new_ulid
from paquebot.delivery import metrics
from paquebot.delivery.entries import EntryResult, RecipientDelivery
from paquebot.delivery.reports import DeliveryReporter, due
from paquebot.delivery.settings import OverQuotaPolicy, QuotaSettings
from paquebot.mailstore import Deliveries, DeliveryResult
from paquebot.observability.log import Log
from paquebot.observability.trace import is_sampled
from paquebot.queue import Publication, Queue, deliver_later, deliver_ready, held
from paquebot.v1.queue_pb2 import DeliverEntry, DeliverJob, HeldJob

_log = Log("paquebot.delivery")

_MOST_REASON = 1000  # characters: what an error says may be long, and the job must fit into a message of the queue
_THERE = (DeliveryResult.DELIVERED, DeliveryResult.DUPLICATE)


class DeliverySettlement:
    """One for a process."""

    def __init__(self, deliveries: Deliveries, queue: Queue, reporter: DeliveryReporter, quota: QuotaSettings) -> None:
        self._deliveries = deliveries
        self._queue = queue
        self._reporter = reporter
        self._quota = quota

    @property
    def refuse_over_quota(self) -> bool:
        """Whether the first answer "over quota" is the last."""
        return self._quota.policy is OverQuotaPolicy.BOUNCE

    async def tell(self, results: Sequence[EntryResult]) -> None:
        """Right after the commit: hints for the accounts that changed (invariant 4), counts, log lines.

        A duplicate is hinted too: whoever delivered it may have died before its hint.
        """
        now = time.time()
        there = [result for result in results if result.outcome.result in _THERE]
        traces: dict[int, str] = {}
        for result in there:  # one hint for many messages: the first that is traced stands for them
            account_id, traceparent = result.addressed.recipient.account_id, result.addressed.entry.trace
            if not traces.get(account_id):
                traces[account_id] = traceparent if is_sampled(traceparent) else ""
        await self._queue.hint_mailboxes(traces)
        _count(results, now)

    async def settle(self, job: DeliverJob, results: Sequence[EntryResult]) -> None:
        """Notify senders and put off what may fit later. Raises SenderUncertain and what the engines raise."""
        final: list[EntryResult] = []
        later: list[RecipientDelivery] = []
        for result in results:
            if self.refuse_over_quota or result.outcome.result is not DeliveryResult.OVER_QUOTA:
                final.append(result)
            elif self._is_over(result.addressed.entry) or _never_fits(result.addressed):
                await self._refuse(result.addressed)
                final.append(result)
            else:
                later.append(result.addressed)
        for entry, action, told in due(final):
            await self._reporter.report(entry, action, told, time.time())
        if later:
            await self._put_off(job, later)

    def _is_over(self, entry: DeliverEntry) -> bool:
        return time.time() - entry.accepted_at_ms / 1000 > self._quota.lifetime

    async def _refuse(self, addressed: RecipientDelivery) -> None:
        """Before its sender is told: from now on no room can change it."""
        await self._deliveries.deliver([addressed.delivery], refuse_over_quota=True)

    async def _put_off(self, job: DeliverJob, addressed: Sequence[RecipientDelivery]) -> None:
        """The stream itself brings the rest of the job back: no timer and no pending job of ours holds it."""
        entries = with_recipients(addressed)
        oldest = min(entry.accepted_at_ms for entry in entries) / 1000
        age = max(0.0, time.time() - oldest)
        wait = min(max(age / 2, self._quota.retry), self._quota.retry_most)
        again = DeliverJob(pack=job.pack, domain=job.domain, entries=entries, failures=job.failures)
        payload = again.SerializeToString()
        subject, later = deliver_ready(job.domain), deliver_later(new_ulid())
        await self._queue.publish([Publication(subject, payload, later_subject=later, at=time.time() + wait)])
        metrics.DEFERRED.inc(len(addressed))
        _log.info("deferred", queue_ids=[entry.queue_id for entry in entries], wait_seconds=round(wait))

    async def try_later(self, job: DeliverJob, entries: Iterable[DeliverEntry], wait: float) -> None:
        """Put these entries of a job off that failed for its own sake, and count the failure in it: how often the queue
        handed it out says more of the engines. Raises QueueUnavailable."""
        again = DeliverJob(pack=job.pack, domain=job.domain, entries=entries, failures=job.failures + 1)
        subject, later = deliver_ready(job.domain), deliver_later(new_ulid())
        publication = Publication(subject, again.SerializeToString(), later_subject=later, at=time.time() + wait)
        await self._queue.publish([publication])

    async def hold(self, subject: str, payload: bytes, reason: str) -> None:
        """Put a job aside for an operator, with the reason. Raises QueueUnavailable."""
        kept = HeldJob(
            subject=subject, payload=payload, reason=reason[:_MOST_REASON], held_at_ms=time.time_ns() // 1_000_000
        )
        await self._queue.publish([Publication(held("poison", new_ulid()), kept.SerializeToString())])
        metrics.HELD.labels("poison").inc()
        _log.error("held", subject=subject, reason=reason)

    async def hold_entries(self, subject: str, job: DeliverJob, entries: Iterable[DeliverEntry], reason: str) -> None:
        """Put only these entries of the job aside. Raises QueueUnavailable."""
        part = DeliverJob(pack=job.pack, domain=job.domain, entries=entries)
        await self.hold(subject, part.SerializeToString(), reason)


def _never_fits(addressed: RecipientDelivery) -> bool:
    """The whole mailbox is not as large as the message."""
    return 0 < addressed.delivery.quota_bytes < addressed.delivery.message.size


def _count(results: Iterable[EntryResult], now: float) -> None:
    lines: dict[DeliveryResult, list[dict[str, str | int | float]]] = {}
    for result in results:
        entry, outcome = result.addressed.entry, result.outcome
        seconds = max(0.0, now - entry.accepted_at_ms / 1000)
        if outcome.result is DeliveryResult.DELIVERED:
            metrics.DELIVERED_AFTER_SECONDS.observe(seconds)
        line: dict[str, str | int | float] = {
            "queue_id": entry.queue_id,
            "account_id": result.addressed.recipient.account_id,
            "mailbox_id": outcome.mailbox_id,
            "uid": outcome.uid,
            "seconds": round(seconds, 3),
        }
        lines.setdefault(outcome.result, []).append(line)
    for became, each in lines.items():
        metrics.RECIPIENT[became].inc(len(each))
        _log.info_each(became.value, each)


def with_recipients(addressed: Sequence[RecipientDelivery]) -> list[DeliverEntry]:
    """The entries with only the recipients in `addressed`."""
    entries: dict[str, DeliverEntry] = {}
    for one in addressed:
        if one.entry.queue_id not in entries:
            entry = DeliverEntry()
            entry.CopyFrom(one.entry)
            del entry.recipients[:]
            entries[one.entry.queue_id] = entry
        entries[one.entry.queue_id].recipients.append(one.recipient)
    return list(entries.values())
