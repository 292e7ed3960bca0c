"""The mailstore: mailboxes, messages' metadata, deliveries and usage, in the PostgreSQL schema `mailstore`.

A process opens the classes that it needs, each on its one `Postgres`. Each method is one transaction, safe for any
number of tasks at once. The functions below the classes take a connection and are steps of such transactions.

Invariants: a UID and a mod_seq are allocated only under the mailbox row's lock; locks are taken in the order (account,
mailbox); a message row, its delivery record, the counters of its mailbox and the account's usage change in one
transaction. The mailstore publishes no hints: after a call returns, the service publishes `hint.mailbox.<account>` for
the account it changed.

Every method raises `paquebot.runtime.postgres.pool.PostgresUnavailable` when the engine cannot answer (temporary),
`PostgresRefused` when it can never take a value, and exceptions of `paquebot.mailstore.errors` when it refuses. Values
are checked, or brought within their bounds (dates, mod-sequences), before PostgreSQL is asked.
"""

from paquebot.mailstore.accounts import Accounts, Usage
from paquebot.mailstore.blob_rows import BlobUse
from paquebot.mailstore.compactions.compactions import Compactions
from paquebot.mailstore.compactions.types import CompactionCandidate, CompactionRule, Fragmentation, Relocation
from paquebot.mailstore.deliveries.deliveries import Deliveries
from paquebot.mailstore.deliveries.types import Delivery, DeliveryOutcome, DeliveryResult
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.mailboxes.mailbox import Mailbox, SpecialUse
from paquebot.mailstore.mailboxes.mailboxes import Mailboxes
from paquebot.mailstore.maildrops import Maildrop, MaildropMessage, Maildrops
from paquebot.mailstore.messages.flags import NO_FLAGS, Flag, FlagOp
from paquebot.mailstore.messages.messages import Messages
from paquebot.mailstore.messages.reader import MailboxReader
from paquebot.mailstore.messages.types import (
    Appended,
    Changes,
    Copied,
    Expunged,
    FlagRows,
    MailboxState,
    NewMessage,
    RecentRange,
    SearchRows,
    StoredMessage,
    StoreResult,
)
from paquebot.mailstore.snapshots.rebuilds import Rebuilds
from paquebot.mailstore.snapshots.snapshots import Snapshots
from paquebot.mailstore.upkeep.packs import PackLiveness, PackUses
from paquebot.mailstore.upkeep.row_checks import RowChecks
from paquebot.runtime.postgres.migrations import Schema

SCHEMA = Schema("mailstore", "paquebot.mailstore")
"""For `paquebot.runtime.postgres.migrations.wait_for_version`."""

__all__ = [
    "NO_FLAGS",
    "SCHEMA",
    "Accounts",
    "Appended",
    "BlobUse",
    "Changes",
    "CompactionCandidate",
    "CompactionRule",
    "Compactions",
    "Copied",
    "Deliveries",
    "Delivery",
    "DeliveryOutcome",
    "DeliveryResult",
    "Expunged",
    "Flag",
    "FlagOp",
    "FlagRows",
    "Fragmentation",
    "Mailbox",
    "MailboxReader",
    "MailboxState",
    "Mailboxes",
    "Maildrop",
    "MaildropMessage",
    "Maildrops",
    "MailstoreLimits",
    "Messages",
    "NewMessage",
    "PackLiveness",
    "PackUses",
    "Rebuilds",
    "RecentRange",
    "Relocation",
    "RowChecks",
    "SearchRows",
    "Snapshots",
    "SpecialUse",
    "StoreResult",
    "StoredMessage",
    "Usage",
]
