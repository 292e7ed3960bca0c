"""Values that go into and come out of the mailstore; all frozen.

Bytes are counted as the reader sees them: a message's `size` is its RFC822.SIZE, the recipient's prefix
included. Dates are aware, in UTC. UIDs are 32 bits, mod_seqs 63 bits (RFC 7162 §3.1).
"""

import enum
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from paquebot.runtime.settings import setting
from paquebot.v1.mail_pb2 import BlobRef


class Flag(enum.IntFlag):
    """The system flags that are stored (RFC 3501 §2.3.2), as the bits of `messages.flags`."""

    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


NO_FLAGS = Flag(0)
LAST_UID = 2**32 - 1
"""RFC 3501 §2.3.1.1: a UID is a non-zero 32-bit number."""
MOST_MOD_SEQ = 2**63 - 1
"""RFC 7162 §3.1: a mod-sequence has 63 bits."""
NO_LIMIT = 2**62
"""Bytes: more than an account can have."""


class SpecialUse(enum.Enum):
    """The use of a mailbox made with the account (RFC 6154 §2)."""

    DRAFTS = "drafts"
    SENT = "sent"
    TRASH = "trash"
    JUNK = "junk"
    ARCHIVE = "archive"


class FlagOp(enum.Enum):
    """What a change of flags does with those it names."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class MailstoreLimits:
    """Bounds of one account, so that no account can grow without end what others must wait for. Settings of every
    service that writes into mailboxes; what is above a bound that was lowered stays, and nothing is added to it."""

    messages: int = setting("ACCOUNT_MESSAGES", 1_000_000, help="most messages of an account")
    mailbox_messages: int = setting("MAILBOX_MESSAGES", 250_000, help="most messages of one mailbox")
    mailboxes: int = setting(
        "ACCOUNT_MAILBOXES", 1000, help="most mailboxes of an account; twice as many subscriptions"
    )
    keywords: int = setting("MAILBOX_KEYWORDS", 300, help="most different keywords in one mailbox")
    name_length: int = setting("MAILBOX_NAME", 400, help="most characters of a whole mailbox name; 2,400 bytes")
    depth: int = setting("MAILBOX_LEVELS", 16, help="most levels of a mailbox name")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if min(self.messages, self.mailbox_messages, self.keywords, self.name_length, self.depth) < 1:
            raise ValueError(
                "PAQUEBOT_ACCOUNT_MESSAGES, PAQUEBOT_MAILBOX_MESSAGES, _KEYWORDS, _NAME and _LEVELS are at least 1"
            )
        if self.mailboxes < len(SpecialUse) + 1:
            raise ValueError(
                f"PAQUEBOT_ACCOUNT_MAILBOXES is at least {len(SpecialUse) + 1}: an account begins with so many"
            )


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox as it was when asked: everything STATUS and SELECT tell, kept up to date by every change."""

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
    octets: int
    """Sum of the sizes of the messages (RFC 8438 §3)."""
    keywords: tuple[str, ...]
    """Every keyword its messages may have, in one spelling each."""
    expunged_horizon: int
    """Expunges up to this mod_seq were forgotten."""
    special_use: SpecialUse | None
    selectable: bool


@dataclass(frozen=True, slots=True)
class FlagRows:
    """UIDs with their flags and mod_seqs in columns, so that a mailbox of 100,000 messages takes about 1.3
    MB.

    `uids`, `flags` and `mod_seqs` have the same length and go up by UID; `keywords` has only the messages
    with any.
    """

    uids: "array[int]" = field(default_factory=lambda: array("I"))
    flags: bytes = b""
    """A `Flag` value per message."""
    mod_seqs: "array[int]" = field(default_factory=lambda: array("Q"))
    keywords: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By UID."""

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A mailbox and all its messages in one moment."""

    mailbox: Mailbox
    rows: FlagRows


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a mailbox after a mod_seq, seen in one moment."""

    mailbox: Mailbox
    rows: FlagRows
    """Messages that are new or changed."""
    expunged: "array[int] | None"
    """UIDs that went away, going up (also those that came and went); None: asked from before
    `mailbox.expunged_horizon`, so compare UIDs with a snapshot."""


@dataclass(frozen=True, slots=True)
class RecentRange:
    """UIDs claimed as recent by one session: first <= uid < until."""

    first: int
    until: int


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a mailbox with all that is known without its body."""

    uid: int
    mod_seq: int
    flags: Flag
    keywords: tuple[str, ...]
    size: int
    """RFC822.SIZE: bytes of prefix and message."""
    internal_date: datetime
    save_date: datetime
    blob: BlobRef
    prefix: bytes
    """Return-Path and Delivered-To of this recipient: comes before the blob's bytes; CRLF-ended or empty."""
    email_id: str
    """The queue id of the message as it was accepted (RFC 8474 §5.1); copies keep it."""
    thread_id: str | None
    """RFC 8474 §5.2."""
    summary: bytes | None
    """A serialized MessageSummary of the message without prefix; None: was not asked for."""


@dataclass(frozen=True, slots=True)
class SearchRows:
    """Columns a search needs beside flags; same length, going up by UID."""

    uids: "array[int]"
    sizes: "array[int]"
    internal_dates: "array[int]"
    """Unix time in seconds."""
    save_dates: "array[int]"
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to put into a mailbox; its bytes are in a pack already."""

    email_id: str
    """Its queue id."""
    blob: BlobRef
    summary: bytes
    """A serialized MessageSummary."""
    thread_key: bytes
    """MessageSummary.thread_key; empty: none."""
    internal_date: datetime
    flags: Flag = NO_FLAGS
    keywords: tuple[str, ...] = ()
    prefix: bytes = b""
    crlf_bytes: int | None = None
    """Bytes of the message when each of its lines ends with CRLF. None: not counted, as of what came over SMTP."""

    @property
    def size(self) -> int:
        return self.blob.size + len(self.prefix)

    @property
    def crlf_size(self) -> int | None:
        """What POP3 sends, the prefix included."""
        return None if self.crlf_bytes is None else self.crlf_bytes + len(self.prefix)


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
    """What became of a Delivery."""

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    """This message was delivered to this account before: nothing was changed."""
    OVER_QUOTA = "over_quota"
    """Nothing was put into a mailbox. May be tried again, unless it was recorded as refused."""
    NO_ACCOUNT = "no_account"
    """The account was deleted."""


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """The answer to one Delivery. The ids are of the message's place when `result` is DELIVERED, else 0."""

    result: DeliveryResult
    mailbox_id: int = 0
    uid: int = 0
    mod_seq: int = 0


@dataclass(frozen=True, slots=True)
class Appended:
    """Where new messages are, in the order given (RFC 4315 §3)."""

    uid_validity: int
    uids: Sequence[int]
    mod_seq: int
    claimed: RecentRange | None = None
    """What is \\Recent for the caller's session alone, when it claimed that."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Messages copied or moved: `source_uids[i]` became `uids[i]`, both going up (RFC 4315 §3)."""

    uid_validity: int
    source_uids: Sequence[int]
    uids: Sequence[int]
    mod_seq: int
    """Of the new messages."""
    source_mod_seq: int
    """Of the expunges a move made in the source; 0 for a copy."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What a change of flags did."""

    rows: FlagRows
    """The named messages that exist and did not fail, as they are now, whether they changed or not."""
    changed: Sequence[int]
    """UIDs that really changed."""
    modified: Sequence[int]
    """UIDs left alone because they changed after `unchanged_since` (RFC 7162 §3.1.3)."""
    mod_seq: int
    """The mod_seq given to the changed ones; the mailbox's highest when none changed."""


@dataclass(frozen=True, slots=True)
class Expunged:
    """UIDs that were removed, going up, and the mod_seq of their removal (the mailbox's highest when none)."""

    uids: Sequence[int]
    mod_seq: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account has stored."""

    octets: int
    messages: int


@dataclass(frozen=True, slots=True)
class MaildropMessage:
    """One message of a maildrop (RFC 1939 §5)."""

    uid: int
    size: int
    """Bytes with each line ended by CRLF (RFC 1939 §11), or RFC822.SIZE where that is not known."""
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Maildrop:
    """INBOX as POP3 sees it: fixed for the session. A UIDL is made of `uid_validity` and `uid`."""

    mailbox_id: int
    uid_validity: int
    messages: tuple[MaildropMessage, ...]


@dataclass(frozen=True, slots=True)
class PackLiveness:
    """How much of a pack is still referred to."""

    entries: int
    """Different entries with at least one message row."""
    octets: int
    """Their stored bytes, each entry counted once."""
    rows: int
    """Message rows."""


@dataclass(frozen=True, slots=True)
class BlobUse:
    """One message row's place and blob, for verification and compaction."""

    account_id: int
    mailbox_id: int
    uid: int
    email_id: str
    blob: BlobRef


@dataclass(frozen=True, slots=True)
class Relocation:
    """An entry that was written again in another pack."""

    old: BlobRef
    new: BlobRef


@dataclass(frozen=True, slots=True)
class CompactionRule:
    """When an account's messages lie so scattered that they are worth writing together."""

    saved_packs: int
    """Least number of packs that reading all of them must be spared."""
    pack_bytes: int
    """Size of the packs to write."""
    message_bytes: int
    """Larger messages (as stored) are not moved."""

    @property
    def share_bytes(self) -> int:
        """A pack with more of the account's bytes is compact enough."""
        return self.pack_bytes // 4

    @property
    def floor_bytes(self) -> int:
        """Packs with no more of them, such as one message, are always worth putting together."""
        return min(self.message_bytes, self.share_bytes)

    def text(self) -> str:
        return f"{self.saved_packs},{self.pack_bytes},{self.message_bytes}"


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """What compaction would move of an account: zeros when that is not worth it."""

    account_id: int
    packs: int
    """From so many."""
    messages: int
    octets: int
    """As stored."""


@dataclass(frozen=True, slots=True)
class CompactionCandidate:
    """An account before a look at its messages."""

    account_id: int
    stored: int
    """Messages in all its mailboxes."""
    arrivals: int
    """Grows with every message put into one of its mailboxes."""
    known: Fragmentation | None
    """What the last look found, when it still holds."""
