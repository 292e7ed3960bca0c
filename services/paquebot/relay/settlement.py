"""The steps after an attempt, in the order that loses nothing wherever a crash ends them (invariants 3 and 4).

1. Delivered recipients are recorded, immediately after the host's reply: the only window in which a crash doubles a
   message (RFC 1047) is from that reply to the commit. A crash: the stream delivers the job again, and they are
   skipped. During an outage of PostgreSQL the stream keeps the record, in a job (`hand_over`).
2. The spool accepts notifications of failures. A crash: the job is delivered again, fails again, and makes the same
   notification under the same queue id.
3. Failed recipients are recorded. A crash: the job is delivered again for the deferred ones alone.
4. A job with the deferred recipients is stored for its time, under a name made from the job and the attempt. A
   crash: the job is delivered again, and the stream keeps one of the two; should it keep both, each attempt reads the
   records of 1 and 3 first.
5. The old job is acknowledged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from paquebot.message import Action
from paquebot.observability.log import Log
from paquebot.queue import Publication, domain_token, relay_later, relay_ready
from paquebot.relay import metrics
from paquebot.relay.ledger import Ledger
from paquebot.relay.message import OutgoingMessage
from paquebot.relay.outcome import EXPIRED, Outcomes, RelayOutcome, RelayResult
from paquebot.relay.queue.publisher import JobPublisher
from paquebot.relay.reports import RecipientOutcomes, RelayReporter, due, reported
from paquebot.relay.retry import RetrySchedule, accepted_at
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.spool.outcomes import RecipientOutcome
from paquebot.v1.mail_pb2 import RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob

_log = Log("paquebot.relay")
_RECORD_LATER_SECONDS = 5.0
_MIN_REST_SECONDS = 30.0
_MAX_LAST_REPLY = 500  # characters


class DeliveryNotRecorded(Exception):
    """A host has taken a message, and that could not be recorded in PostgreSQL."""


@dataclass(frozen=True, slots=True)
class _Sorted:
    delivered: RecipientOutcomes
    failed: RecipientOutcomes
    deferred: RecipientOutcomes


class RelaySettlement:
    """One for a process. `clock`: Unix seconds."""

    def __init__(
        self,
        ledger: Ledger,
        publisher: JobPublisher,
        reporter: RelayReporter,
        schedule: RetrySchedule,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._reporter = reporter
        self._schedule = schedule
        self._clock = clock

    async def open_recipients(self, job: RelayJob) -> list[RemoteRecipient]:
        """The recipients without a recorded outcome. Records first what an earlier attempt could not record. Raises
        PostgresUnavailable."""
        if job.relayed:
            await self._ledger.record([(job.queue_id, path, RecipientOutcome.RELAYED) for path in job.relayed])
        done = await self._ledger.done(job.queue_id)
        return [recipient for recipient in job.recipients if recipient.forward_path not in done]

    async def record_delivered(self, job: RelayJob, outcomes: Outcomes) -> None:
        """Step 1. Raises DeliveryNotRecorded during an outage of PostgreSQL: then only `hand_over` may follow, for what
        a host has taken must not be sent again."""
        now = self._clock()
        rows = [(job.queue_id, path, RecipientOutcome.RELAYED) for path in outcomes]
        try:
            await self._ledger.record(rows)
        except PostgresUnavailable:
            _log.warning("delivery_not_recorded", queue_id=job.queue_id)
            raise DeliveryNotRecorded from None
        metrics.LATENCY_SECONDS.observe(max(0.0, now - accepted_at(job)))

    async def hand_over(self, job: RelayJob, delivered: Iterable[str], sequence: int) -> None:
        """Instead of step 1, during an outage of PostgreSQL: the stream keeps what is delivered, in a job for the other
        recipients, and the old job is then acknowledged. So neither a restart nor a crash sends again what a host has
        taken. `sequence`: of the old job. Raises QueueUnavailable."""
        rest = RelayJob()
        rest.CopyFrom(job)
        paths = frozenset(delivered)
        del rest.recipients[:]
        rest.recipients.extend(recipient for recipient in job.recipients if recipient.forward_path not in paths)
        rest.relayed.extend(sorted(paths.difference(job.relayed)))
        await self._publisher.publish(later(rest, self._clock() + _RECORD_LATER_SECONDS, unique=f"-relayed-{sequence}"))
        _log.info("relay_record_deferred", queue_id=job.queue_id, recipients=len(paths))

    async def settle(
        self,
        job: RelayJob,
        recipients: Sequence[RemoteRecipient],
        outcomes: Outcomes,
        message: OutgoingMessage,
        not_before: float,
    ) -> bool:
        """Steps 2 to 4; the caller acknowledges. True: some recipients were deferred.

        `recipients` were part of the attempt, and each has an outcome; `not_before`: the end of the destination's
        rest. The message is read when a notification is due. Raises SpoolUnavailable, DirectoryUnavailable,
        SenderUncertain, PostgresUnavailable, QueueUnavailable, and the errors of reading: the stream must then deliver
        the job again.
        """
        now = self._clock()
        at = self._schedule.next_attempt(job, now, not_before=not_before)
        sorted_ = _sorted([(recipient, outcomes[recipient.forward_path]) for recipient in recipients], at)
        _count(sorted_)
        await self._reporter.report(job, Action.RELAYED, due(job, sorted_.delivered, Action.RELAYED), message, now)
        await self._fail(job, sorted_.failed, message, now)
        if sorted_.deferred and at is not None:
            await self._defer(job, sorted_.deferred, message, now, at)
        return bool(sorted_.deferred)

    async def _fail(self, job: RelayJob, failed: RecipientOutcomes, message: OutgoingMessage, now: float) -> None:
        """Steps 2 and 3."""
        if not failed:
            return
        if job.reverse_path:
            await self._reporter.report(job, Action.FAILED, due(job, failed, Action.FAILED), message, now)
        else:
            await self._reporter.double_bounce(job, [reported(*entry) for entry in failed], message, now)
        end = RecipientOutcome.BOUNCED if job.reverse_path else RecipientOutcome.DROPPED
        await self._ledger.record([(job.queue_id, r.forward_path, end) for r, _ in failed])
        _log.info("recipients_bounced", queue_id=job.queue_id, domain=job.domain, **_summary(failed))

    async def _defer(
        self, job: RelayJob, deferred: RecipientOutcomes, message: OutgoingMessage, now: float, at: float
    ) -> None:
        """Step 4."""
        warned = self._schedule.warns(job, now)
        if warned:
            recipients = due(job, deferred, Action.DELAYED)
            until = self._schedule.expires(job)
            await self._reporter.report(job, Action.DELAYED, recipients, message, now, retry_until=until)
        again = _next(job, at, deferred[-1][1].text)
        del again.recipients[:]
        again.recipients.extend(recipient for recipient, _ in deferred)
        del again.relayed[:]
        again.delay_reported = job.delay_reported or warned
        await self._publisher.publish(later(again, at))
        _log.info(
            "recipients_deferred",
            queue_id=job.queue_id,
            domain=job.domain,
            attempt=again.attempt,
            at=int(at),
            **_summary(deferred),
        )

    def age(self, job: RelayJob) -> float:
        """Seconds since the message was accepted."""
        return self._clock() - accepted_at(job)

    def may_wait(self, job: RelayJob, until: float) -> float | None:
        """Seconds that a job may wait without an attempt while its destination rests; None: a notification to its
        sender is due now, which is part of an attempt."""
        now = self._clock()
        at = self._schedule.next_attempt(job, now)
        if at is None or self._schedule.warns(job, now):
            return None
        return min(max(until - now, _MIN_REST_SECONDS), at - now)

    async def store_later(self, job: RelayJob, at: float, sequence: int, *, failures: int = 0) -> None:
        """The same attempt, later, in its own job. `sequence`: of the job in the stream; `failures`: tries
        that failed for no known reason. Raises QueueUnavailable."""
        again = RelayJob()
        again.CopyFrom(job)
        again.failures = failures or job.failures
        await self._publisher.publish(later(again, at, unique=f"-{sequence}"))


def _next(job: RelayJob, at: float, reply: str) -> RelayJob:
    """The job of the next attempt."""
    again = RelayJob()
    again.CopyFrom(job)
    again.attempt = job.attempt + 1
    again.failures = 0
    again.last_reply = reply[:_MAX_LAST_REPLY]
    again.not_before_ms = int(at * 1000)
    return again


def later(job: RelayJob, at: float, *, unique: str = "") -> Publication:
    """The job for its time. Its name is the same when the same attempt is settled twice."""
    name = f"{job.queue_id}-{domain_token(job.domain)}-{job.attempt}{unique}"
    return Publication(
        subject=relay_ready(job.domain),
        payload=job.SerializeToString(),
        message_id=name,
        later_subject=relay_later(name),
        at=at,
    )


def _sorted(entries: RecipientOutcomes, at: float | None) -> _Sorted:
    """By outcome; without a next attempt the deferred ones have failed."""
    delivered = [entry for entry in entries if entry[1].result is RelayResult.DELIVERED]
    failed = [entry for entry in entries if entry[1].result is RelayResult.FAILED]
    deferred = [entry for entry in entries if entry[1].result is RelayResult.DEFERRED]
    if at is None:
        failed += [(recipient, _expired(outcome)) for recipient, outcome in deferred]
        deferred = []
    return _Sorted(delivered, failed, deferred)


def _expired(outcome: RelayOutcome) -> RelayOutcome:
    """RFC 3463 §3.5: the last reason stays as the text; the status reports that the lifetime ended."""
    return replace(outcome, result=RelayResult.FAILED, status=EXPIRED)


def _count(sorted_: _Sorted) -> None:
    for entries in (sorted_.delivered, sorted_.failed, sorted_.deferred):
        for _, outcome in entries:
            metrics.RECIPIENTS.labels(outcome.result.value, metrics.status_class(outcome.status)).inc()


def _summary(entries: RecipientOutcomes) -> dict[str, object]:
    last = entries[-1][1]
    return {"recipients": len(entries), "status": last.status, "host": last.host, "reply": last.text[:200]}
