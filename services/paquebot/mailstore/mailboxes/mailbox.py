"""A mailbox's row as the services see it."""

import enum
from dataclasses import dataclass


class SpecialUse(enum.Enum):
    """The use of a mailbox (RFC 6154 §2)."""

    DRAFTS = "drafts"
    SENT = "sent"
    TRASH = "trash"
    JUNK = "junk"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox at one moment: what STATUS and SELECT answer. Every change keeps the counts up to date."""

    account_id: int
    mailbox_id: int
    """Never used again in this account, and kept by a rename (RFC 8474 §4)."""
    name: str
    uid_validity: int
    uid_next: int
    highest_mod_seq: int
    recent_from: int
    """Messages with this UID or a higher one are recent and not yet claimed (RFC 3501 §2.3.2)."""
    recent: int
    messages: int
    unseen: int
    deleted: int
    total_size: int
    """Sum of the sizes of the messages, in bytes (RFC 8438 §3)."""
    keywords: tuple[str, ...]
    """Every keyword its messages may have, in one spelling each."""
    expunged_horizon: int
    """The records of expunges up to this mod_seq were deleted."""
    special_use: SpecialUse | None
    selectable: bool
