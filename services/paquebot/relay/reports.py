"""Who is told what: which recipients of a job a notification is due for, and the notification itself.

RFC 3461 §4.1 (NOTIFY), §5.2.2 (a next host without DSN: "relayed"), §5.2.5 (delays), §6.1; RFC 3464; RFC 5321 §4.5.5
(never to the null reverse-path). A notification's queue id follows from what it reports, so that a job that comes
again after a crash makes the same notification, which is then delivered once.
"""

import datetime
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from paquebot.blobs.ulid import ulid_at
from paquebot.message import Action, DeliveryReport, RecipientReport, Ret, build_dsn
from paquebot.observability.log import Log, shown
from paquebot.relay import metrics
from paquebot.relay.result import Outcome, Result
from paquebot.relay.settings import ReportSettings
from paquebot.rpc import ValidationClient
from paquebot.spool import Spool
from paquebot.v1.mail_pb2 import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    RET_FULL,
    RET_UNSPECIFIED,
    Client,
    Envelope,
    RemoteRecipient,
)
from paquebot.v1.queue_pb2 import RelayJob
from paquebot.v1.recipient_validation_pb2 import VERDICT_ACCEPT, VERDICT_UNSPECIFIED
from paquebot.wire.smtp.parameters import print_orcpt
from paquebot.wire.smtp.xtext import encode_xtext

_log = Log("paquebot.relay")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class SenderUncertain(Exception):
    """The directory cannot say now where a notification goes."""


@dataclass(frozen=True, slots=True)
class Told:
    """One recipient in a notification."""

    recipient: RemoteRecipient
    result: Result


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


def due(job: RelayJob, results: Collection[tuple[RemoteRecipient, Result]], action: Action) -> list[Told]:
    """For which of the recipients a notification of this kind is due, by NOTIFY and the next host's word."""
    if not job.reverse_path:
        return []
    told = [Told(recipient, result) for recipient, result in results if wants(recipient, action)]
    if action is Action.RELAYED:  # RFC 3461 §5.2.2: a host that took over the wishes reports by itself
        return [one for one in told if one.result.outcome is Outcome.DELIVERED and not one.result.dsn_passed]
    return told


class Reporter:
    """Writes notifications and hands them to the spool. `hostname` is the Reporting-MTA."""

    def __init__(self, hostname: str, settings: ReportSettings, validation: ValidationClient, spool: Spool) -> None:
        self._hostname = hostname
        self._settings = settings
        self._validation = validation
        self._spool = spool

    async def report(
        self, job: RelayJob, action: Action, told: Sequence[Told], raw: bytes, now: float, *, retry_until: float = 0.0
    ) -> None:
        """To the reverse-path; returns when the notification is kept. Raises SpoolUnavailable,
        DirectoryUnavailable, SenderUncertain."""
        if told:
            await self._send(job, job.reverse_path, action, told, raw, now, retry_until)

    async def double_bounce(self, job: RelayJob, told: Sequence[Told], raw: bytes, now: float) -> None:
        """A message with the null reverse-path failed: to the postmaster if one is set, else to nobody.
        Raises as `report`."""
        to = self._settings.double_bounce_to
        if not to or any(one.recipient.forward_path == to for one in told):
            metrics.DOUBLE_BOUNCES.labels("dropped").inc()
            _log.warning("double_bounce_dropped", queue_id=job.queue_id, domain=job.domain)
            return
        metrics.DOUBLE_BOUNCES.labels("reported").inc()
        await self._send(job, to, Action.FAILED, told, raw, now, 0.0)

    async def _send(
        self,
        job: RelayJob,
        to: str,
        action: Action,
        told: Sequence[Told],
        raw: bytes,
        now: float,
        retry_until: float,
    ) -> None:
        envelope = await self._envelope(job, to, action, told)
        if envelope is None:
            metrics.REPORTS.labels("undeliverable").inc()
            _log.warning("report_undeliverable", queue_id=job.queue_id, to=shown(to), action=action.value)
            return
        report = self._written(job, to, action, told, raw, now, retry_until, envelope.queue_id)
        octets = build_dsn(report)
        envelope.eight_bit = not octets.isascii()
        await self._spool.accept(envelope, octets)
        metrics.REPORTS.labels(action.value).inc()
        _log.info(
            "reported",
            queue_id=job.queue_id,
            report_queue_id=envelope.queue_id,
            action=action.value,
            recipients=len(told),
        )

    async def _envelope(self, job: RelayJob, to: str, action: Action, told: Sequence[Told]) -> Envelope | None:
        """From the null reverse-path (RFC 3464 §2) to wherever mail for `to` goes; None: nowhere."""
        [validation] = await self._validation.validate([to], may_relay=True, trace=job.trace)
        if validation.verdict == VERDICT_UNSPECIFIED:
            raise SenderUncertain
        if validation.verdict != VERDICT_ACCEPT:
            return None
        return Envelope(
            queue_id=report_queue_id(job, action, told),
            local=validation.local,
            remote=validation.remote,
            smtputf8=not to.isascii(),
            client=Client(listener="local", helo=self._hostname),
            trace=job.trace,
        )

    def _written(
        self,
        job: RelayJob,
        to: str,
        action: Action,
        told: Sequence[Told],
        raw: bytes,
        now: float,
        retry_until: float,
        queue_id: str,
    ) -> DeliveryReport:
        moment = _moment(now)
        until = _moment(retry_until) if retry_until else None
        return DeliveryReport(
            reporting_mta=self._hostname,
            return_path=to,
            recipients=tuple(_entry(one, action, moment, until) for one in told),
            original=raw,
            message_id=f"<{queue_id}@{self._hostname}>",
            now=moment,
            arrival_date=_moment(job.accepted_at_ms / 1000),
            envelope_id=encode_xtext(job.envid) if job.envid else None,
            ret=self._ret(job, raw),
        )

    def _ret(self, job: RelayJob, raw: bytes) -> Ret:
        """RFC 3461 §4.3: as asked for; without RET as we like."""
        whole = len(raw) <= self._settings.full_up_to if job.ret == RET_UNSPECIFIED else job.ret == RET_FULL
        return Ret.FULL if whole else Ret.HDRS


def _entry(
    told: Told, action: Action, now: datetime.datetime, retry_until: datetime.datetime | None
) -> RecipientReport:
    recipient, result = told.recipient, told.result
    orcpt = recipient.orcpt or (f"rfc822;{recipient.original}" if recipient.original else "")
    return RecipientReport(
        final_recipient=recipient.forward_path,
        action=action,
        status=result.status,
        original_recipient=print_orcpt(orcpt) if orcpt else None,
        diagnostic_code=result.text or None,
        remote_mta=result.host or None,
        last_attempt=now,
        will_retry_until=retry_until,
    )


def report_queue_id(job: RelayJob, action: Action, told: Sequence[Told]) -> str:
    """The same for the same job, kind and recipients, and another one for each attempt: a ULID made by hash."""
    paths = sorted(one.recipient.forward_path for one in told)
    text = "\0".join((job.queue_id, job.domain, str(job.attempt), action.value, *paths))
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
    chance = "".join(_CROCKFORD[(digest >> shift) & 31] for shift in range(75, -1, -5))
    return ulid_at(job.accepted_at_ms)[:10] + chance


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
