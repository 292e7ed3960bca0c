"""The values that a delivery status notification reports, without their form.

RFC 3464 §2 (the fields), RFC 3461 §4 (ENVID, RET, ORCPT as they came in the envelope).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from paquebot.wire.smtp.parameters import Ret


class Action(Enum):
    """RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """The outcome of one recipient (RFC 3464 §2.3)."""

    final_recipient: str
    action: Action
    status: str
    """Enhanced status code, "5.1.1"."""
    original_recipient: str | None = None
    """The ORCPT parameter as it came: address type, ";" and xtext (RFC 3461 §4.2)."""
    diagnostic_code: str | None = None
    """The reply of the other mail system, with its code: "550 5.1.1 No such user here"."""
    remote_mta: str | None = None
    last_attempt: datetime | None = None
    will_retry_until: datetime | None = None
    """Only for delayed recipients."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """One notification to one reverse-path; the times are aware."""

    reporting_mta: str
    """Host name of the system that writes the report."""
    return_path: str
    """The original message's reverse-path, which receives the report; never the null reverse-path."""
    recipients: tuple[RecipientReport, ...]
    original: bytes
    """The stored message, or at least its header."""
    message_id: str
    """Of the notification, with angle brackets."""
    now: datetime
    arrival_date: datetime | None = None
    envelope_id: str | None = None
    """The ENVID parameter as it came, in xtext (RFC 3461 §4.4)."""
    ret: Ret | None = None
