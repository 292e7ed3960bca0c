"""Notifications of what became of recipients here: failed (over quota, account gone) and, when asked for, delivered.

RFC 3461 §4.1 (NOTIFY), §5.2.6 and §6.2 (the action "delivered"); RFC 5321 §4.5.5: never to the null reverse-path.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.delivery import metrics
from paquebot.delivery.entries import EntryOutcome
from paquebot.mailstore import DeliveryResult
from paquebot.message import Action, RecipientReport
from paquebot.notification import Notifier, queue_id_of, report_time
from paquebot.observability.log import Log, shown
from paquebot.v1.mail_pb2 import NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS, LocalRecipient
from paquebot.v1.queue_pb2 import DeliverEntry
from paquebot.wire.smtp.parameters import print_orcpt

_log = Log("paquebot.delivery")

# RFC 3463 §3.2, §3.3
_MAILBOX_FULL = ("5.2.2", "The mailbox is full")
_NO_MAILBOX = ("5.1.1", "There is no such mailbox any more")
_DELIVERED = ("2.0.0", "")


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """One recipient in a notification."""

    recipient: LocalRecipient
    status: str
    text: str


def due(results: Iterable[EntryOutcome]) -> list[tuple[DeliverEntry, Action, list[ReportedRecipient]]]:
    """The notifications that are due for the results: at most one per message and action."""
    found: dict[tuple[str, Action], tuple[DeliverEntry, Action, list[ReportedRecipient]]] = {}
    for result in results:
        entry, recipient = result.addressed.entry, result.addressed.recipient
        if result.outcome.result is DeliveryResult.DELIVERED and not recipient.notify:
            continue  # most of them
        action, (status, text) = _became(result.outcome.result)
        if not entry.reverse_path or not wants(recipient, action):
            continue
        key = entry.queue_id, action
        found.setdefault(key, (entry, action, []))[2].append(ReportedRecipient(recipient, status, text))
    return list(found.values())


def _became(result: DeliveryResult) -> tuple[Action, tuple[str, str]]:
    match result:
        case DeliveryResult.DELIVERED | DeliveryResult.DUPLICATE:
            return Action.DELIVERED, _DELIVERED
        case DeliveryResult.OVER_QUOTA:
            return Action.FAILED, _MAILBOX_FULL
        case DeliveryResult.NO_ACCOUNT:
            return Action.FAILED, _NO_MAILBOX


def wants(recipient: LocalRecipient, action: Action) -> bool:
    """RFC 3461 §4.1: without NOTIFY failures are told, and nothing else."""
    if NOTIFY_NEVER in recipient.notify:
        return False
    if action is Action.FAILED:
        return not recipient.notify or NOTIFY_FAILURE in recipient.notify
    return NOTIFY_SUCCESS in recipient.notify


class DeliveryReporter:
    """Tells senders."""

    def __init__(self, notifier: Notifier, blobs: BlobStore) -> None:
        self._notifier = notifier
        self._blobs = blobs

    async def report(self, entry: DeliverEntry, action: Action, told: Sequence[ReportedRecipient], now: float) -> None:
        """One notification to the reverse-path of `entry`; returns when it is kept.

        Raises SpoolUnavailable, BlobsUnavailable, DirectoryUnavailable, SenderUncertain.
        """
        if action is Action.DELIVERED and not self._notifier.may_tell_success(entry, entry.reverse_path):
            return
        queue_id = report_queue_id(entry, action, told)
        notification = await self._notifier.address(entry, entry.reverse_path, queue_id)
        if notification is None:
            metrics.REPORTS.labels("undeliverable").inc()
            _log.warning("report_undeliverable", queue_id=entry.queue_id, to=shown(entry.reverse_path))
            return
        original = await self._original(entry)
        await self._notifier.send(notification, (_recipient(one, action, now) for one in told), original, now)
        metrics.REPORTS.labels(action.value).inc()
        _log.info(
            "reported",
            queue_id=entry.queue_id,
            report_queue_id=queue_id,
            action=action.value,
            recipients=len(told),
        )

    async def _original(self, entry: DeliverEntry) -> bytes:
        """The message, or when it is lost the header fields that are known without it."""
        try:
            return await self._blobs.read(entry.blob)
        except (BlobMissing, BadPack) as error:
            _log.error("original_lost", queue_id=entry.queue_id, pack=entry.blob.pack, reason=type(error).__name__)
            return b"".join(field.raw for field in entry.summary.headers) + b"\r\n"


def _recipient(told: ReportedRecipient, action: Action, now: float) -> RecipientReport:
    recipient = told.recipient
    return RecipientReport(
        # RFC 3464 §2.3.2: the address as the sender knows it, where an alias would tell what is private.
        final_recipient=recipient.forward_path,
        action=action,
        status=told.status,
        original_recipient=print_orcpt(recipient.orcpt) if recipient.orcpt else None,
        diagnostic_code=told.text or None,
        last_attempt=report_time(now),
    )


def report_queue_id(entry: DeliverEntry, action: Action, told: Sequence[ReportedRecipient]) -> str:
    """The same for the same message, kind and recipients."""
    paths = sorted(f"{one.recipient.account_id} {one.recipient.forward_path}" for one in told)
    return queue_id_of(entry, ("delivery", entry.queue_id, action.value, *paths))
