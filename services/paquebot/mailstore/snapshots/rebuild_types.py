"""A rebuild of the mailstore, and what it reads from snapshots and packs."""

import datetime
from dataclasses import dataclass

from paquebot.v1.mail_pb2 import BlobRef

ARRIVALS_ID = 0
"""The mailbox id, in the tables of a rebuild, of messages that no snapshot knows."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One rebuild; its progress is in the tables, so that another process can continue."""

    rebuild: str
    run: str
    """The snapshot it is made from; empty: none."""
    outcomes_lost: bool
    """Whether no record of relayed messages was left when it began."""
    accounts_to: int = 0
    packs_to: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotTimes:
    """The times of an account's snapshot, which decide about a message that the snapshot does not know."""

    taken_at: datetime.datetime
    records_since: datetime.datetime


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """The place of a message in a pack, and its summary."""

    queue_id: str
    blob: BlobRef
    thread_key: bytes
    summary: bytes


@dataclass(frozen=True, slots=True)
class RebuiltMessage:
    """A found message for an account whose snapshot does not know it, or that has none."""

    account_id: int
    found: FoundMessage
    internal_date: datetime.datetime
    prefix: bytes
    delivered: bool
    """Whether it came to a recipient (and so leaves a record of delivery), not by APPEND."""


@dataclass(slots=True)
class Restored:
    """The counts of an account's messages."""

    restored: int = 0
    arrived: int = 0
    """In INBOX, because no snapshot knew them."""
    gone: int = 0
    """In the snapshot, but not in the bucket: they were expunged after it."""


@dataclass(frozen=True, slots=True)
class CounterAdvance:
    """The maximum number of rebuilds that continued from the same state before."""

    since_snapshot: int
    ever: int
