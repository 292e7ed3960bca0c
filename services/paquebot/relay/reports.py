"""Who is told what: which recipients of a job a notification is due for, and the notification itself.

RFC 3461 §4.1 (NOTIFY), §5.2.2 (a next host without DSN: "relayed"), §5.2.5 (delays), §6.1; RFC 5321 §4.5.5: never to
the null reverse-path.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from paquebot.message import Action, RecipientReport
from paquebot.notification import Notifier, queue_id_of, report_time
from paquebot.observability.log import Log, shown
from paquebot.relay import metrics
from paquebot.relay.message import OutgoingMessage
from paquebot.relay.outcome import RelayOutcome, RelayResult
from paquebot.v1.mail_pb2 import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob
from paquebot.wire.smtp.parameters import print_orcpt

_log = Log("paquebot.relay")


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """One recipient in a notification."""

    recipient: RemoteRecipient
    outcome: RelayOutcome


def wants(recipient: RemoteRecipient, action: Action) -> bool:
    """RFC 3461 §4.1: without NOTIFY, failures and delays are told."""
    notify = recipient.notify
    if NOTIFY_NEVER in notify:
        return False
    match action:
        case Action.FAILED:
            return not notify or NOTIFY_FAILURE in notify
        case Action.DELAYED:
            return not notify or NOTIFY_DELAY in notify
        case Action.RELAYED:
            return NOTIFY_SUCCESS in notify
    return False


def due(
    job: RelayJob, outcomes: Collection[tuple[RemoteRecipient, RelayOutcome]], action: Action
) -> list[ReportedRecipient]:
    """For which of the recipients a notification of this kind is due, by NOTIFY and the next host's word."""
    if not job.reverse_path:
        return []
    told = [ReportedRecipient(recipient, outcome) for recipient, outcome in outcomes if wants(recipient, action)]
    if action is Action.RELAYED:  # RFC 3461 §5.2.2: a host that took over the wishes reports by itself
        return [one for one in told if one.outcome.result is RelayResult.DELIVERED and not one.outcome.dsn_passed]
    return told


class RelayReporter:
    """Tells senders; `double_bounce_to`, if it is not empty, of what failed and has no sender."""

    def __init__(self, notifier: Notifier, double_bounce_to: str) -> None:
        self._notifier = notifier
        self._double_bounce_to = double_bounce_to

    async def report(
        self,
        job: RelayJob,
        action: Action,
        told: Sequence[ReportedRecipient],
        letter: OutgoingMessage,
        now: float,
        *,
        retry_until: float = 0.0,
    ) -> None:
        """To the reverse-path; returns when the notification is kept. Raises SpoolUnavailable,
        DirectoryUnavailable, SenderUncertain."""
        if told and (action is not Action.RELAYED or self._notifier.may_tell_success(job, job.reverse_path)):
            await self._send(job, job.reverse_path, action, told, letter, now, retry_until)

    async def double_bounce(
        self, job: RelayJob, told: Sequence[ReportedRecipient], letter: OutgoingMessage, now: float
    ) -> None:
        """A message with the null reverse-path failed: to the postmaster if one is set, else to nobody.
        Raises as `report`."""
        to = self._double_bounce_to
        if not to or any(one.recipient.forward_path == to for one in told):
            metrics.DOUBLE_BOUNCES.labels("dropped").inc()
            _log.warning("double_bounce_dropped", queue_id=job.queue_id, domain=job.domain)
            return
        metrics.DOUBLE_BOUNCES.labels("reported").inc()
        await self._send(job, to, Action.FAILED, told, letter, now, 0.0)

    async def _send(
        self,
        job: RelayJob,
        to: str,
        action: Action,
        told: Sequence[ReportedRecipient],
        letter: OutgoingMessage,
        now: float,
        retry_until: float,
    ) -> None:
        queue_id = report_queue_id(job, action, told)
        notification = await self._notifier.address(job, to, queue_id)
        if notification is None:
            metrics.REPORTS.labels("undeliverable").inc()
            _log.warning("report_undeliverable", queue_id=job.queue_id, to=shown(to), action=action.value)
            return
        recipients = (_recipient(one, action, now, retry_until) for one in told)
        async with letter.opened() as raw:
            await self._notifier.send(notification, recipients, raw, now)
        metrics.REPORTS.labels(action.value).inc()
        _log.info(
            "reported",
            queue_id=job.queue_id,
            report_queue_id=queue_id,
            action=action.value,
            recipients=len(told),
        )


def _recipient(told: ReportedRecipient, action: Action, now: float, retry_until: float) -> RecipientReport:
    recipient, outcome = told.recipient, told.outcome
    orcpt = recipient.orcpt or (f"rfc822;{recipient.original}" if recipient.original else "")
    return RecipientReport(
        final_recipient=recipient.forward_path,
        action=action,
        status=outcome.status,
        original_recipient=print_orcpt(orcpt) if orcpt else None,
        diagnostic_code=outcome.text or None,
        remote_mta=outcome.host or None,
        last_attempt=report_time(now),
        will_retry_until=report_time(retry_until) if retry_until else None,
    )


def report_queue_id(job: RelayJob, action: Action, told: Sequence[ReportedRecipient]) -> str:
    """The same for the same job, kind and recipients, and another one for each attempt."""
    paths = sorted(one.recipient.forward_path for one in told)
    return queue_id_of(job, (job.queue_id, job.domain, str(job.attempt), action.value, *paths))
