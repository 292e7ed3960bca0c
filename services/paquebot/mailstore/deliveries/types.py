"""A delivery and its result."""

import enum
from dataclasses import dataclass

from paquebot.mailstore.messages.types import NewMessage


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for one account."""

    account_id: int
    detail: str
    """Subaddress (RFC 5233); empty: none."""
    quota_bytes: int
    """The account's limit; 0: none."""
    message: NewMessage


class DeliveryResult(enum.Enum):
    """The outcome of a Delivery."""

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    """This message was delivered to this account before: nothing was changed."""
    OVER_QUOTA = "over_quota"
    """Nothing was put into a mailbox. The caller may try again, unless it was recorded as refused."""
    NO_ACCOUNT = "no_account"
    """The account was deleted."""


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """The answer to one Delivery. The ids are of the message's place when `result` is DELIVERED, else 0."""

    result: DeliveryResult
    mailbox_id: int = 0
    uid: int = 0
    mod_seq: int = 0
