"""Values that go into and come out of a mailbox's messages; all frozen.

Sizes are in bytes, as the client sees them: a message's `size` is its RFC822.SIZE, with the recipient's prefix. Dates
are aware, in UTC. UIDs have 32 bits, mod_seqs 63 bits (RFC 7162 §3.1).
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from paquebot.mailstore.mailboxes.mailbox import Mailbox
from paquebot.mailstore.messages.flags import NO_FLAGS, Flag
from paquebot.v1.mail_pb2 import BlobRef

LAST_UID = 2**32 - 1
"""RFC 3501 §2.3.1.1: a UID is a non-zero 32-bit number."""
MAX_MOD_SEQ = 2**63 - 1
"""RFC 7162 §3.1: a mod-sequence has 63 bits."""


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
class MailboxState:
    """A mailbox and the flags of all its messages at one moment."""

    mailbox: Mailbox
    rows: FlagRows


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of a mailbox after a mod_seq, read at one moment."""

    mailbox: Mailbox
    rows: FlagRows
    """Messages that are new or changed."""
    expunged: "array[int] | None"
    """UIDs of expunged messages, going up (also of those that came after the mod_seq); None: the mod_seq is before
    `mailbox.expunged_horizon`, so the caller must compare UIDs with a `MailboxState`."""


@dataclass(frozen=True, slots=True)
class RecentRange:
    """UIDs that one session claimed as recent: first <= uid < until."""

    first: int
    until: int


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a mailbox with all that is known without its content."""

    uid: int
    mod_seq: int
    flags: Flag
    keywords: tuple[str, ...]
    size: int
    """RFC822.SIZE: bytes of prefix and content."""
    internal_date: datetime
    save_date: datetime
    blob: BlobRef
    prefix: bytes
    """Return-Path and Delivered-To of this recipient: comes before the content; CRLF-ended or empty."""
    email_id: str
    """The queue id of the message as it was accepted (RFC 8474 §5.1); copies keep it."""
    thread_id: str | None
    """RFC 8474 §5.2."""
    summary: bytes | None
    """A serialized MessageSummary of the message without prefix; None: the caller did not ask for it."""


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
    """A message to put into a mailbox; its content is in a pack already."""

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
    """Size of the content when each of its lines ends with CRLF. None: not counted, as for mail from SMTP."""

    @property
    def size(self) -> int:
        return self.blob.size + len(self.prefix)

    @property
    def crlf_size(self) -> int | None:
        """The size of what POP3 sends, with the prefix."""
        return None if self.crlf_bytes is None else self.crlf_bytes + len(self.prefix)


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
    """Of the expunges that a move made in the source; 0 for a copy."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The result of a change of flags."""

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
