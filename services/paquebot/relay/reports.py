"""Notifications of the outcome of a job's recipients at other hosts: which are due, and to which address they go.

RFC 3461 §4.1 (NOTIFY), §5.2.2 (a next host without DSN: "relayed"), §5.2.5 (delays), §6.1; RFC 5321 §4.5.5: never to
the null reverse-path.
"""

from collections.abc import Collection, Sequence

from paquebot.message import Action
from paquebot.notification import Notifier, Report, ReportedRecipient, is_wanted, queue_id_of
from paquebot.observability.log import Log
from paquebot.relay import metrics
from paquebot.relay.message import OutgoingMessage
from paquebot.relay.outcome import RelayOutcome, RelayResult
from paquebot.v1.mail_pb2 import RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob

_log = Log("paquebot.relay")
RecipientOutcomes = list[tuple[RemoteRecipient, RelayOutcome]]


def due(
    job: RelayJob, outcomes: Collection[tuple[RemoteRecipient, RelayOutcome]], action: Action
) -> list[ReportedRecipient[RemoteRecipient]]:
    """The recipients for which a notification of this action is due, by NOTIFY and by what the next host offers."""
    if not job.reverse_path:
        return []
    return [
        reported(recipient, outcome)
        for recipient, outcome in outcomes
        if is_wanted(recipient.notify, action) and (action is not Action.RELAYED or _is_relayed_without_dsn(outcome))
    ]


def _is_relayed_without_dsn(outcome: RelayOutcome) -> bool:
    """RFC 3461 §5.2.2: a host that has taken over the sender's wishes sends the notification of success itself."""
    return outcome.result is RelayResult.DELIVERED and not outcome.dsn_passed


def reported(recipient: RemoteRecipient, outcome: RelayOutcome) -> ReportedRecipient[RemoteRecipient]:
    return ReportedRecipient(recipient, outcome.status, outcome.text, outcome.host)


class RelayReporter:
    """Sends the notifications of relay. `double_bounce_to`: the address that gets those of failures without a sender;
    empty: they are dropped."""

    def __init__(self, notifier: Notifier, double_bounce_to: str) -> None:
        self._notifier = notifier
        self._double_bounce_to = double_bounce_to

    async def report(
        self,
        job: RelayJob,
        action: Action,
        recipients: Sequence[ReportedRecipient[RemoteRecipient]],
        message: OutgoingMessage,
        now: float,
        *,
        retry_until: float = 0.0,
    ) -> None:
        """To the reverse-path, if there are any recipients; returns when the notification is kept. Raises
        SpoolUnavailable, DirectoryUnavailable, SenderUncertain, and what reading the message raises."""
        if not recipients or (action is Action.RELAYED and not self._notifier.may_report_success(job)):
            return
        queue_id = report_queue_id(job, action, recipients)
        report = Report(job, job.reverse_path, queue_id, action, recipients, now, retry_until)
        await self._notifier.send(report, message.opened)

    async def double_bounce(
        self,
        job: RelayJob,
        recipients: Sequence[ReportedRecipient[RemoteRecipient]],
        message: OutgoingMessage,
        now: float,
    ) -> None:
        """A message with the null reverse-path failed: notify the postmaster if one is set, otherwise no address.
        Raises as `report`."""
        to = self._double_bounce_to
        if not to or any(one.recipient.forward_path == to for one in recipients):
            metrics.DOUBLE_BOUNCES.labels("dropped").inc()
            _log.warning("double_bounce_dropped", queue_id=job.queue_id, domain=job.domain)
            return
        metrics.DOUBLE_BOUNCES.labels("reported").inc()
        queue_id = report_queue_id(job, Action.FAILED, recipients)
        await self._notifier.send(Report(job, to, queue_id, Action.FAILED, recipients, now), message.opened)


def report_queue_id(job: RelayJob, action: Action, recipients: Sequence[ReportedRecipient[RemoteRecipient]]) -> str:
    """The same for the same job, action and recipients, and another one for each attempt."""
    paths = sorted(one.recipient.forward_path for one in recipients)
    return queue_id_of(job, (job.queue_id, job.domain, str(job.attempt), action.value, *paths))
