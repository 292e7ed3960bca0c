"""Notifications of what became of recipients here: failed (over quota, account gone) and, when asked for, delivered.

RFC 3461 §4.1 (NOTIFY), §5.2.6 and §6.2 (the action "delivered"); RFC 5321 §4.5.5: never to the null reverse-path.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.delivery.entries import EntryOutcome
from paquebot.mailstore import DeliveryResult
from paquebot.message import Action
from paquebot.notification import Notifier, Report, ReportedRecipient, is_wanted, queue_id_of
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import LocalRecipient
from paquebot.v1.queue_pb2 import DeliverEntry

_log = Log("paquebot.delivery")

# RFC 3463 §3.2, §3.3
_MAILBOX_FULL = ("5.2.2", "The mailbox is full")
_NO_MAILBOX = ("5.1.1", "There is no such mailbox any more")
_DELIVERED = ("2.0.0", "")

DueReport = tuple[DeliverEntry, Action, list[ReportedRecipient[LocalRecipient]]]


def due(outcomes: Iterable[EntryOutcome]) -> list[DueReport]:
    """The notifications that are due for the outcomes: at most one per message and action."""
    found: dict[tuple[str, Action], DueReport] = {}
    for one in outcomes:
        entry, recipient, result = one.delivery.entry, one.delivery.recipient, one.outcome.result
        if result is DeliveryResult.DELIVERED and not recipient.notify:
            continue  # most of them
        action, (status, text) = _action(result)
        if not entry.reverse_path or not is_wanted(recipient.notify, action):
            continue
        key = entry.queue_id, action
        found.setdefault(key, (entry, action, []))[2].append(ReportedRecipient(recipient, status, text))
    return list(found.values())


def _action(result: DeliveryResult) -> tuple[Action, tuple[str, str]]:
    match result:
        case DeliveryResult.DELIVERED | DeliveryResult.DUPLICATE:
            return Action.DELIVERED, _DELIVERED
        case DeliveryResult.OVER_QUOTA:
            return Action.FAILED, _MAILBOX_FULL
        case DeliveryResult.NO_ACCOUNT:
            return Action.FAILED, _NO_MAILBOX


class DeliveryReporter:
    """Sends the notifications of delivery."""

    def __init__(self, notifier: Notifier, blobs: BlobStore) -> None:
        self._notifier = notifier
        self._blobs = blobs

    async def report(
        self, entry: DeliverEntry, action: Action, recipients: Sequence[ReportedRecipient[LocalRecipient]], now: float
    ) -> None:
        """One notification to the reverse-path of `entry`; returns when it is kept.

        Raises SpoolUnavailable, BlobsUnavailable, DirectoryUnavailable, SenderUncertain.
        """
        if action is Action.DELIVERED and not self._notifier.may_report_success(entry):
            return
        queue_id = report_queue_id(entry, action, recipients)
        report = Report(entry, entry.reverse_path, queue_id, action, recipients, now)
        await self._notifier.send(report, lambda: self._original(entry))

    @contextlib.asynccontextmanager
    async def _original(self, entry: DeliverEntry) -> AsyncIterator[bytes]:
        """The message, or when it is lost the header fields that are known without it."""
        try:
            content = await self._blobs.read(entry.blob)
        except (BlobMissing, BadPack) as error:
            _log.error("original_lost", queue_id=entry.queue_id, pack=entry.blob.pack, reason=type(error).__name__)
            content = b"".join(field.raw for field in entry.summary.headers) + b"\r\n"
        yield content


def report_queue_id(
    entry: DeliverEntry, action: Action, recipients: Sequence[ReportedRecipient[LocalRecipient]]
) -> str:
    """The same for the same message, action and recipients."""
    paths = sorted(f"{one.recipient.account_id} {one.recipient.forward_path}" for one in recipients)
    return queue_id_of(entry, ("delivery", entry.queue_id, action.value, *paths))
