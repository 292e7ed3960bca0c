"""Notifications of what became of a message (RFC 3464): addressed, written, and handed to the spool. Which of them are
due, and what they say of each recipient, is for the service that knows it.

They come from the null reverse-path (RFC 5321 §4.5.5). A notification's queue id follows from what it reports, so that
a job that comes again after a crash makes the same one, which is then delivered once.
"""

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from paquebot.blobs.ulid import ulid_at
from paquebot.message import DeliveryReport, RecipientReport, Ret, build_dsn
from paquebot.rpc import ValidationClient
from paquebot.spool import Spool
from paquebot.v1.mail_pb2 import RET_FULL, RET_UNSPECIFIED, Client, Envelope
from paquebot.v1.recipient_validation_pb2 import VERDICT_ACCEPT, VERDICT_UNSPECIFIED, Verdict
from paquebot.wire.smtp.xtext import encode_xtext

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class SenderUncertain(Exception):
    """The directory cannot say now where a notification goes, or its mailbox is full."""


class Accepted(Protocol):
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


@dataclass(frozen=True, slots=True)
class Notification:
    """Whom it is for is known."""

    about: Accepted
    to: str
    envelope: Envelope


class Notifier:
    """One for a process. `hostname` is the Reporting-MTA; originals of up to `full_up_to` octets are enclosed where the
    sender did not say. Verdicts in `uncertain` may be others later."""

    def __init__(
        self,
        hostname: str,
        full_up_to: int,
        validation: ValidationClient,
        spool: Spool,
        *,
        uncertain: Iterable["Verdict.ValueType"] = (VERDICT_UNSPECIFIED,),
    ) -> None:
        self._hostname = hostname
        self._full_up_to = full_up_to
        self._validation = validation
        self._spool = spool
        self._uncertain = frozenset(uncertain)

    async def address(self, about: Accepted, to: str, queue_id: str) -> Notification | None:
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
                now=moment(now),
                arrival_date=moment(about.accepted_at_ms / 1000),
                envelope_id=encode_xtext(about.envid) if about.envid else None,
                ret=self._ret(about, original),
            )
        )
        envelope.eight_bit = not octets.isascii()
        await self._spool.accept(envelope, octets)

    def _ret(self, about: Accepted, original: bytes) -> Ret:
        """RFC 3461 §4.3: as asked for; without RET as we like."""
        whole = len(original) <= self._full_up_to if about.ret == RET_UNSPECIFIED else about.ret == RET_FULL
        return Ret.FULL if whole else Ret.HDRS


def queue_id_of(about: Accepted, reported: Iterable[str]) -> str:
    """A ULID made by hash: the same for the same message and the same things `reported` of it."""
    digest = int.from_bytes(hashlib.sha256("\0".join(reported).encode()).digest()[:10], "big")
    chance = "".join(_CROCKFORD[(digest >> shift) & 31] for shift in range(75, -1, -5))
    return ulid_at(about.accepted_at_ms)[:10] + chance


def moment(seconds: float) -> datetime.datetime:
    """Unix time as reports tell it."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
