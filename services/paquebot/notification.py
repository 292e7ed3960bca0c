"""Notifications of what became of a message (RFC 3464): addressed, written, and handed to the spool. Which of them are
due, and what they say of each recipient, is for the service that knows it.

A stranger's reverse-path may be anybody's, so success is told there only so often (`SuccessLimits`): RFC 3461 lets a
stranger ask for it (§4.1), and whoever is named gets the answer. Failures are always told.

They come from the null reverse-path (RFC 5321 §4.5.5). A notification's queue id follows from what it reports, so that
a job that comes again after a crash makes the same one, which is then delivered once.
"""

import datetime
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from paquebot.blobs.ulid import ulid_at
from paquebot.message import DeliveryReport, RecipientReport, Ret, build_dsn
from paquebot.observability.metrics import counter
from paquebot.rpc import ValidationClient
from paquebot.runtime.settings import setting
from paquebot.spool import Spool
from paquebot.v1.mail_pb2 import RET_FULL, RET_UNSPECIFIED, Client, Envelope
from paquebot.v1.recipient_validation_pb2 import VERDICT_ACCEPT, VERDICT_UNSPECIFIED, Verdict
from paquebot.wire.smtp.xtext import encode_xtext

_REMEMBERED = 20_000
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


SUPPRESSED = counter(
    "paquebot_notification_suppressed_total",
    "Notifications of success that strangers asked for and that were not sent, by the limit that was reached",
    {"limit": ("address", "domain", "total")},
)


@dataclass(frozen=True, slots=True)
class SuccessLimits:
    """Notifications of success to reverse-paths that nobody has logged in for. Each is the most at once, too."""

    per_address: int = setting(
        "REPORT_SUCCESS_PER_ADDRESS", 10, help="an hour to one reverse-path, for strangers' mail"
    )
    per_domain: int = setting("REPORT_SUCCESS_PER_DOMAIN", 100, help="the same, to the reverse-paths of one domain")
    total: int = setting("REPORT_SUCCESS_TOTAL", 1000, help="the same, in all, of a process; 0: none at all")

    def __post_init__(self) -> None:
        if min(self.per_address, self.per_domain, self.total) < 0:
            raise ValueError("PAQUEBOT_REPORT_SUCCESS_*: none is below zero")


class SuccessShares:
    """Token buckets, each as deep as its limit and filled in an hour. `clock`: seconds."""

    def __init__(self, limits: SuccessLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._used: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # tokens gone, at which time

    def allow(self, reverse_path: str) -> bool:
        """Count one in; False: one too many, which is counted as suppressed and takes nothing."""
        domain = reverse_path.rpartition("@")[2].lower()
        limits = self._limits
        wanted = (
            ("total", "", limits.total),
            ("domain", domain, limits.per_domain),
            ("address", reverse_path.lower(), limits.per_address),
        )
        now = self._clock()
        for name, key, most in wanted:
            if self._gone(name, key, most, now) + 1 > most:
                SUPPRESSED.labels(name).inc()
                return False
        for name, key, most in wanted:
            self._used[name, key] = self._gone(name, key, most, now) + 1, now
            self._used.move_to_end((name, key))
        while len(self._used) > _REMEMBERED:
            self._used.popitem(last=False)
        return True

    def _gone(self, name: str, key: str, most: int, now: float) -> float:
        gone, at = self._used.get((name, key), (0.0, now))
        return max(0.0, gone - (now - at) * most / 3600)


class SenderUncertain(Exception):
    """The directory cannot say now where a notification goes, or its mailbox is full."""


class AcceptedMessage(Protocol):
    """What DeliverEntry and RelayJob say of the message as it was accepted."""

    @property
    def queue_id(self) -> str: ...
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
class Notification:
    """Whom it is for is known."""

    about: AcceptedMessage
    to: str
    envelope: Envelope


class Notifier:
    """One for a process. `hostname` is the Reporting-MTA; originals of up to `full_up_to` bytes are enclosed where the
    sender did not say. Verdicts in `uncertain` may be others later."""

    def __init__(
        self,
        hostname: str,
        full_up_to: int,
        validation: ValidationClient,
        spool: Spool,
        success: SuccessShares,
        *,
        uncertain: Iterable["Verdict.ValueType"] = (VERDICT_UNSPECIFIED,),
    ) -> None:
        self._hostname = hostname
        self._full_up_to = full_up_to
        self._validation = validation
        self._spool = spool
        self._success = success
        self._uncertain = frozenset(uncertain)

    def may_tell_success(self, about: AcceptedMessage, to: str) -> bool:
        """Of the message, to its reverse-path: somebody has logged in for it, or the limits leave room."""
        return bool(about.login) or self._success.allow(to)

    async def address(self, about: AcceptedMessage, to: str, queue_id: str) -> Notification | None:
        """To wherever mail for `to` goes; None: nowhere. Raises SenderUncertain, DirectoryUnavailable."""
        [validation] = await self._validation.validate([to], may_relay=True, trace=about.trace)
        if validation.verdict in self._uncertain:
            raise SenderUncertain(Verdict.Name(validation.verdict))
        if validation.verdict != VERDICT_ACCEPT:
            return None
        envelope = Envelope(
            queue_id=queue_id,
            local=validation.local,
            remote=validation.remote,
            smtputf8=not to.isascii(),
            client=Client(listener="local", helo=self._hostname),
            trace=about.trace,
        )
        return Notification(about, to, envelope)

    async def send(
        self, notification: Notification, recipients: Iterable[RecipientReport], original: bytes, now: float
    ) -> None:
        """Returns when it is kept. Raises SpoolUnavailable."""
        about, envelope = notification.about, notification.envelope
        octets = build_dsn(
            DeliveryReport(
                reporting_mta=self._hostname,
                return_path=notification.to,
                recipients=tuple(recipients),
                original=original,
                message_id=f"<{envelope.queue_id}@{self._hostname}>",
                now=report_time(now),
                arrival_date=report_time(about.accepted_at_ms / 1000),
                envelope_id=encode_xtext(about.envid) if about.envid and about.envid.isascii() else None,
                ret=self._ret(about, original),
            )
        )
        envelope.eight_bit = not octets.isascii()
        await self._spool.accept(envelope, octets)

    def _ret(self, about: AcceptedMessage, original: bytes) -> Ret:
        """RFC 3461 §4.3: as asked for; without RET as we like."""
        whole = len(original) <= self._full_up_to if about.ret == RET_UNSPECIFIED else about.ret == RET_FULL
        return Ret.FULL if whole else Ret.HDRS


def queue_id_of(about: AcceptedMessage, reported: Iterable[str]) -> str:
    """A ULID made by hash: the same for the same message and the same things `reported` of it."""
    digest = int.from_bytes(hashlib.sha256("\0".join(reported).encode()).digest()[:10], "big")
    chance = "".join(_CROCKFORD[(digest >> shift) & 31] for shift in range(75, -1, -5))
    return ulid_at(about.accepted_at_ms)[:10] + chance


def report_time(seconds: float) -> datetime.datetime:
    """Unix time as reports tell it."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
