"""Notifications of what became of a message (RFC 3464): addressed, written and handed to the spool, for the two
services that know which of them are due.

They come from the null reverse-path (RFC 5321 §4.5.5) and never go to it. A notification's queue id follows from what
it reports, so a job that comes again after a crash makes the same notification, which is then delivered once.

A stranger's reverse-path may be anybody's, and RFC 3461 §4.1 lets a stranger ask for a notification of success. So
notifications of success to strangers are limited (`SuccessLimits`). Notifications of failure are not.
"""

import datetime
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache
from prometheus_client import Counter

from paquebot.message import Action, DeliveryReport, RecipientReport, build_dsn
from paquebot.observability.log import Log, shown
from paquebot.observability.metrics import counter
from paquebot.rpc import ValidationClient
from paquebot.runtime.settings import setting
from paquebot.runtime.ulid import ulid_at
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
    LocalRecipient,
    RemoteRecipient,
)
from paquebot.v1.recipient_validation_pb2 import VERDICT_ACCEPT, VERDICT_UNSPECIFIED, Verdict
from paquebot.wire.smtp.parameters import Ret, print_orcpt
from paquebot.wire.smtp.xtext import encode_xtext

_log = Log("paquebot.notification")
_MAX_KNOWN = 20_000
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
R = TypeVar("R", LocalRecipient, RemoteRecipient)


SUPPRESSED = counter(
    "paquebot_notification_suppressed_total",
    "Notifications of success that strangers asked for and that were not sent, by the limit that was reached",
    {"limit": ("address", "domain", "total")},
)


@dataclass(frozen=True, slots=True)
class SuccessLimits:
    """Notifications of success to reverse-paths of messages that came without a login. Each limit is the burst, too."""

    per_address: int = setting(
        "REPORT_SUCCESS_PER_ADDRESS", 10, help="an hour to one reverse-path, for strangers' mail"
    )
    per_domain: int = setting("REPORT_SUCCESS_PER_DOMAIN", 100, help="the same, to the reverse-paths of one domain")
    total: int = setting("REPORT_SUCCESS_TOTAL", 1000, help="the same, in all, of a process; 0: none at all")

    def __post_init__(self) -> None:
        if min(self.per_address, self.per_domain, self.total) < 0:
            raise ValueError("PAQUEBOT_REPORT_SUCCESS_*: each must be zero or more")


class SuccessShares:
    """Token buckets, each as deep as its limit and filled in an hour. `clock`: seconds."""

    def __init__(self, limits: SuccessLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._used: LRUCache[tuple[str, str], tuple[float, float]] = LRUCache(_MAX_KNOWN)  # tokens gone, at which time

    def allow(self, reverse_path: str) -> bool:
        """Take a token of each bucket. False: one of them is empty; the notification counts as suppressed."""
        domain = reverse_path.rpartition("@")[2].lower()
        limits = self._limits
        buckets = (
            ("total", "", limits.total),
            ("domain", domain, limits.per_domain),
            ("address", reverse_path.lower(), limits.per_address),
        )
        now = self._clock()
        for name, key, limit in buckets:
            if self._gone(name, key, limit, now) + 1 > limit:
                SUPPRESSED.labels(name).inc()
                return False
        for name, key, limit in buckets:
            self._used[name, key] = self._gone(name, key, limit, now) + 1, now
        return True

    def _gone(self, name: str, key: str, limit: int, now: float) -> float:
        gone, at = self._used.get((name, key), (0.0, now))
        return max(0.0, gone - (now - at) * limit / 3600)


class SenderUncertain(Exception):
    """The directory cannot say now where a notification goes, or its mailbox is full."""


class AcceptedMessage(Protocol):
    """What `DeliverEntry` and `RelayJob` say of the message as it was accepted."""

    @property
    def queue_id(self) -> str: ...
    @property
    def reverse_path(self) -> str: ...
    @property
    def accepted_at_ms(self) -> int: ...
    @property
    def envid(self) -> str: ...
    @property
    def ret(self) -> int: ...
    @property
    def trace(self) -> str: ...
    @property
    def login(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ReportedRecipient(Generic[R]):
    """One recipient in a notification. `status`: enhanced status code; `text`: the reply or the reason, may be empty;
    `host`: the other host that said so, if any."""

    recipient: R
    status: str
    text: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Report(Generic[R]):
    """A notification that is due: one action for some recipients of the message `about`. `now`: Unix seconds of the
    attempt; `retry_until`: Unix seconds, of a delayed message only."""

    about: AcceptedMessage
    to: str
    queue_id: str
    action: Action
    recipients: Sequence[ReportedRecipient[R]]
    now: float
    retry_until: float = 0.0


def is_wanted(notify: Collection[int], action: Action) -> bool:
    """RFC 3461 §4.1: without NOTIFY the sender gets notifications of failures and delays."""
    if NOTIFY_NEVER in notify:
        return False
    match action:
        case Action.FAILED:
            return not notify or NOTIFY_FAILURE in notify
        case Action.DELAYED:
            return not notify or NOTIFY_DELAY in notify
        case Action.DELIVERED | Action.RELAYED:
            return NOTIFY_SUCCESS in notify
    return False


class Notifier:
    """One for a process. `hostname` is the Reporting-MTA; originals of up to `full_up_to` bytes are enclosed where the
    sender did not say. `sent` counts by action. Verdicts in `uncertain` may change later."""

    def __init__(
        self,
        hostname: str,
        full_up_to: int,
        validation: ValidationClient,
        spool: Spool,
        success: SuccessShares,
        sent: Counter,
        *,
        uncertain: Iterable["Verdict.ValueType"] = (VERDICT_UNSPECIFIED,),
    ) -> None:
        self._hostname = hostname
        self._full_up_to = full_up_to
        self._validation = validation
        self._spool = spool
        self._success = success
        self._sent = sent
        self._uncertain = frozenset(uncertain)

    def may_report_success(self, about: AcceptedMessage) -> bool:
        """To the reverse-path of the message: it came with a login, or the limits leave room."""
        return bool(about.login) or self._success.allow(about.reverse_path)

    async def send(self, report: Report[R], original: Callable[[], AbstractAsyncContextManager[bytes]]) -> None:
        """Returns when the notification is kept, or can reach nobody. `original` opens the message.

        Raises SenderUncertain, DirectoryUnavailable, SpoolUnavailable, and what opening raises.
        """
        envelope = await self._envelope(report)
        if envelope is None:
            self._sent.labels("undeliverable").inc()
            _log.warning(
                "notification_undeliverable",
                queue_id=report.about.queue_id,
                to=shown(report.to),
                action=report.action.value,
            )
            return
        async with original() as content:
            dsn = self._dsn(report, content)
        envelope.eight_bit = not dsn.isascii()
        await self._spool.accept(envelope, dsn)
        self._sent.labels(report.action.value).inc()
        _log.info(
            "notification_sent",
            queue_id=report.about.queue_id,
            report_queue_id=report.queue_id,
            action=report.action.value,
            recipients=len(report.recipients),
        )

    async def _envelope(self, report: Report[R]) -> Envelope | None:
        """To where mail for `report.to` goes. None: there is no such place."""
        to, trace = report.to, report.about.trace
        [validation] = await self._validation.validate([to], may_relay=True, trace=trace)
        if validation.verdict in self._uncertain:
            raise SenderUncertain(Verdict.Name(validation.verdict))
        if validation.verdict != VERDICT_ACCEPT:
            return None
        return Envelope(
            queue_id=report.queue_id,
            local=validation.local,
            remote=validation.remote,
            smtputf8=not to.isascii(),
            client=Client(listener="local", helo=self._hostname),
            trace=trace,
        )

    def _dsn(self, report: Report[R], original: bytes) -> bytes:
        about = report.about
        return build_dsn(
            DeliveryReport(
                reporting_mta=self._hostname,
                return_path=report.to,
                recipients=tuple(_recipient_report(one, report) for one in report.recipients),
                original=original,
                message_id=f"<{report.queue_id}@{self._hostname}>",
                now=_time(report.now),
                arrival_date=_time(about.accepted_at_ms / 1000),
                envelope_id=encode_xtext(about.envid) if about.envid and about.envid.isascii() else None,
                ret=self._ret(about, original),
            )
        )

    def _ret(self, about: AcceptedMessage, original: bytes) -> Ret:
        """RFC 3461 §4.3: as RET asks; without RET the choice is ours."""
        whole = len(original) <= self._full_up_to if about.ret == RET_UNSPECIFIED else about.ret == RET_FULL
        return Ret.FULL if whole else Ret.HDRS


def _recipient_report(reported: ReportedRecipient[R], report: Report[R]) -> RecipientReport:
    recipient = reported.recipient
    orcpt = recipient.orcpt
    if not orcpt and isinstance(recipient, RemoteRecipient) and recipient.original:
        orcpt = f"rfc822;{recipient.original}"
    return RecipientReport(
        # RFC 3464 §2.3.2: the address as the sender knows it; that of a local alias's target is private.
        final_recipient=recipient.forward_path,
        action=report.action,
        status=reported.status,
        original_recipient=print_orcpt(orcpt) if orcpt else None,
        diagnostic_code=reported.text or None,
        remote_mta=reported.host or None,
        last_attempt=_time(report.now),
        will_retry_until=_time(report.retry_until) if report.retry_until else None,
    )


def queue_id_of(about: AcceptedMessage, reported: Iterable[str]) -> str:
    """A ULID made by hash: the same for the same message and the same `reported` words."""
    digest = int.from_bytes(hashlib.sha256("\0".join(reported).encode()).digest()[:10], "big")
    suffix = "".join(_CROCKFORD[(digest >> shift) & 31] for shift in range(75, -1, -5))
    return ulid_at(about.accepted_at_ms)[:10] + suffix


def _time(seconds: float) -> datetime.datetime:
    """Unix time in whole seconds."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
