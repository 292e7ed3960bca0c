"""Notifications of what became of recipients here: failed (over quota, account gone) and, when asked for, delivered.

RFC 3461 §4.1 (NOTIFY), §5.2.6 and §6.2 (the action "delivered"); RFC 3464; RFC 5321 §4.5.5: never to the null
reverse-path. A notification's queue id follows from what it reports, so a job that comes again after a crash makes the
same notification, which is then delivered once.
"""

import datetime
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.blobs.ulid import ulid_at
from paquebot.delivery import metrics
from paquebot.delivery.entries import Result
from paquebot.delivery.settings import ReportSettings
from paquebot.mailstore import DeliveryResult
from paquebot.message import Action, DeliveryReport, RecipientReport, Ret, build_dsn
from paquebot.observability.log import Log, shown
from paquebot.rpc import ValidationClient
from paquebot.spool import Spool
from paquebot.v1.mail_pb2 import (
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    RET_FULL,
    RET_UNSPECIFIED,
    Client,
    Envelope,
    LocalRecipient,
)
from paquebot.v1.queue_pb2 import DeliverEntry
from paquebot.v1.recipient_validation_pb2 import VERDICT_ACCEPT, VERDICT_OVER_QUOTA, VERDICT_UNSPECIFIED, Verdict
from paquebot.wire.smtp.parameters import print_orcpt
from paquebot.wire.smtp.xtext import encode_xtext

_log = Log("paquebot.delivery")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# RFC 3463 §3.2, §3.3
_MAILBOX_FULL = ("5.2.2", "The mailbox is full")
_NO_MAILBOX = ("5.1.1", "There is no such mailbox any more")
_DELIVERED = ("2.0.0", "")


class SenderUncertain(Exception):
    """The directory cannot say now where a notification goes, or its mailbox is full."""


@dataclass(frozen=True, slots=True)
class Told:
    """One recipient in a notification."""

    recipient: LocalRecipient
    status: str
    text: str


def due(results: Iterable[Result]) -> list[tuple[DeliverEntry, Action, list[Told]]]:
    """The notifications that are due for the results: at most one per message and action."""
    found: dict[tuple[str, Action], tuple[DeliverEntry, Action, list[Told]]] = {}
    for result in results:
        entry, recipient = result.addressed.entry, result.addressed.recipient
        if result.outcome.result is DeliveryResult.DELIVERED and not recipient.notify:
            continue  # most of them
        action, (status, text) = _became(result.outcome.result)
        if not entry.reverse_path or not wants(recipient, action):
            continue
        key = entry.queue_id, action
        found.setdefault(key, (entry, action, []))[2].append(Told(recipient, status, text))
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


class Reporter:
    """Writes notifications and hands them to the spool. `hostname` is the Reporting-MTA."""

    def __init__(
        self,
        hostname: str,
        settings: ReportSettings,
        validation: ValidationClient,
        blobs: BlobStore,
        spool: Spool,
    ) -> None:
        self._hostname = hostname
        self._settings = settings
        self._validation = validation
        self._blobs = blobs
        self._spool = spool

    async def report(self, entry: DeliverEntry, action: Action, told: Sequence[Told], now: float) -> None:
        """One notification to the reverse-path of `entry`; returns when it is kept.

        Raises SpoolUnavailable, BlobsUnavailable, DirectoryUnavailable, SenderUncertain.
        """
        envelope = await self._envelope(entry, action, told)
        if envelope is None:
            metrics.REPORTS.labels("undeliverable").inc()
            _log.warning("report_undeliverable", queue_id=entry.queue_id, to=shown(entry.reverse_path))
            return
        original = await self._original(entry)
        octets = build_dsn(self._written(entry, action, told, original, now, envelope.queue_id))
        envelope.eight_bit = not octets.isascii()
        await self._spool.accept(envelope, octets)
        metrics.REPORTS.labels(action.value).inc()
        _log.info(
            "reported",
            queue_id=entry.queue_id,
            report_queue_id=envelope.queue_id,
            action=action.value,
            recipients=len(told),
        )

    async def _envelope(self, entry: DeliverEntry, action: Action, told: Sequence[Told]) -> Envelope | None:
        """From the null reverse-path (RFC 3464 §2) to wherever mail for the sender goes; None: nowhere."""
        to = entry.reverse_path
        [validation] = await self._validation.validate([to], may_relay=True, trace=entry.trace)
        if validation.verdict in (VERDICT_UNSPECIFIED, VERDICT_OVER_QUOTA):
            raise SenderUncertain(Verdict.Name(validation.verdict))
        if validation.verdict != VERDICT_ACCEPT:
            return None
        return Envelope(
            queue_id=report_queue_id(entry, action, told),
            local=validation.local,
            remote=validation.remote,
            smtputf8=not to.isascii(),
            client=Client(listener="local", helo=self._hostname),
            trace=entry.trace,
        )

    async def _original(self, entry: DeliverEntry) -> bytes:
        """The message, or when it is lost the header fields that are known without it."""
        try:
            return await self._blobs.read(entry.blob)
        except (BlobMissing, BadPack) as error:
            _log.error("original_lost", queue_id=entry.queue_id, pack=entry.blob.pack, reason=type(error).__name__)
            return b"".join(field.raw for field in entry.summary.headers) + b"\r\n"

    def _written(
        self,
        entry: DeliverEntry,
        action: Action,
        told: Sequence[Told],
        original: bytes,
        now: float,
        queue_id: str,
    ) -> DeliveryReport:
        moment = _moment(now)
        return DeliveryReport(
            reporting_mta=self._hostname,
            return_path=entry.reverse_path,
            recipients=tuple(_recipient(one, action, moment) for one in told),
            original=original,
            message_id=f"<{queue_id}@{self._hostname}>",
            now=moment,
            arrival_date=_moment(entry.accepted_at_ms / 1000),
            envelope_id=encode_xtext(entry.envid) if entry.envid else None,
            ret=self._ret(entry, original),
        )

    def _ret(self, entry: DeliverEntry, original: bytes) -> Ret:
        """RFC 3461 §4.3: as asked for; without RET as we like."""
        fits = len(original) <= self._settings.full_up_to
        return Ret.FULL if (fits if entry.ret == RET_UNSPECIFIED else entry.ret == RET_FULL) else Ret.HDRS


def _recipient(told: Told, action: Action, now: datetime.datetime) -> RecipientReport:
    recipient = told.recipient
    return RecipientReport(
        # RFC 3464 §2.3.2: the address as the sender knows it, where an alias would tell what is private.
        final_recipient=recipient.forward_path,
        action=action,
        status=told.status,
        original_recipient=print_orcpt(recipient.orcpt) if recipient.orcpt else None,
        diagnostic_code=told.text or None,
        last_attempt=now,
    )


def report_queue_id(entry: DeliverEntry, action: Action, told: Sequence[Told]) -> str:
    """The same for the same message, kind and recipients: a ULID made by hash."""
    paths = sorted(f"{one.recipient.account_id} {one.recipient.forward_path}" for one in told)
    text = "\0".join(("delivery", entry.queue_id, action.value, *paths))
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
    chance = "".join(_CROCKFORD[(digest >> shift) & 31] for shift in range(75, -1, -5))
    return ulid_at(entry.accepted_at_ms)[:10] + chance


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
