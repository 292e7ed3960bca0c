"""The mailstore: all mailboxes and messages' metadata of all accounts, over PostgreSQL.

Invariants: a UID and a mod_seq are allocated only here, under the mailbox row's lock; locks are taken in the
order (account, mailbox); a message row, its delivery record, the counters of its mailbox and the account's
usage change in one transaction. Nothing here knows of hints: after a call returns, the service publishes
`hint.mailbox.<account>` for the account it changed.

Every method raises `paquebot.runtime.postgres.pool.PostgresUnavailable` when the engine cannot answer (temporary),
`PostgresRefused` when it can never take a value, and exceptions of `paquebot.mailstore.errors` when it refuses. Values
are checked, or brought within their bounds (dates, mod-sequences), before PostgreSQL is asked. Any method but those of
the account itself may raise `NoSuchMailbox`, and those that make an account on first use (`ensure_account`, `deliver`)
respect a deletion.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime

from paquebot.mailstore import accounts, compactions, maildrops
from paquebot.mailstore.deliveries import delivery
from paquebot.mailstore.mailboxes import subscriptions, tree
from paquebot.mailstore.messages import append, copies, flag_changes, removal, view
from paquebot.mailstore.messages.keywords import need_keywords
from paquebot.mailstore.snapshots.export import promised
from paquebot.mailstore.types import (
    MOST_MOD_SEQ,
    NO_FLAGS,
    Appended,
    BlobUse,
    Changes,
    CompactionCandidate,
    CompactionRule,
    Copied,
    Delivery,
    DeliveryOutcome,
    Expunged,
    Flag,
    FlagOp,
    Fragmentation,
    Mailbox,
    Maildrop,
    MailstoreLimits,
    NewMessage,
    PackLiveness,
    RecentRange,
    Relocation,
    SearchRows,
    Snapshot,
    SpecialUse,
    StoredMessage,
    StoreResult,
    Usage,
)
from paquebot.mailstore.upkeep import checks, row_checks
from paquebot.mailstore.upkeep import packs as upkeep
from paquebot.mailstore.upkeep.row_checks import BadRow
from paquebot.runtime.postgres.migrations import Schema
from paquebot.runtime.postgres.pool import Postgres

SCHEMA = Schema("mailstore", "paquebot.mailstore")
"""For `paquebot.runtime.postgres.migrations.wait_for_version`."""


class Mailstore:
    """One per process; safe for any number of tasks at once."""

    __slots__ = ("_accounts", "_limits", "_postgres")

    def __init__(self, postgres: Postgres, limits: MailstoreLimits | None = None) -> None:
        self._postgres = postgres
        self._limits = limits or MailstoreLimits()
        self._accounts = accounts.KnownAccounts()

    # Accounts

    async def ensure_account(self, account_id: int) -> None:
        """Make the account's mailboxes (INBOX, Drafts, Sent, Trash, Junk, Archive, all subscribed) unless
        they are there. Free of cost for an account seen before. Raises NoSuchAccount when it was deleted."""
        await accounts.ensure_account(self._postgres, self._accounts, account_id)

    async def delete_account(self, account_id: int) -> None:
        """Remove all mailboxes and messages, for good: the id is not taken again. Idempotent."""
        await accounts.delete_account(self._postgres, self._accounts, account_id)

    async def usage(self, account_id: int) -> Usage:
        """What the account has stored; zeros when it has no mailboxes yet."""
        return await accounts.usage(self._postgres, account_id)

    # The tree of mailboxes. Names are Unicode with "/" between levels; INBOX is spelled in any case.

    async def mailboxes(self, account_id: int) -> tuple[Mailbox, ...]:
        """All mailboxes of the account by name, with their counts: LIST and STATUS in one query."""
        return await tree.mailboxes(self._postgres, account_id)

    async def find_mailbox(self, account_id: int, name: str) -> Mailbox:
        """The mailbox of that name, selectable or not. Raises NoSuchMailbox."""
        return await tree.find_mailbox(self._postgres, account_id, name)

    async def status(self, account_id: int, names: Collection[str]) -> dict[str, Mailbox]:
        """The mailboxes of `names` that exist, by the name as given."""
        return await tree.status(self._postgres, account_id, names)

    async def create_mailbox(self, account_id: int, name: str, *, special_use: SpecialUse | None = None) -> Mailbox:
        """Make a mailbox and its missing superiors. A UIDVALIDITY is never used again for a name.

        Raises MailboxExists, BadMailboxName, TooManyMailboxes.
        """
        return await tree.create_mailbox(self._postgres, self._limits, account_id, name, special_use)

    async def delete_mailbox(self, account_id: int, name: str) -> None:
        """Remove a mailbox and its messages; a name with inferiors stays as not selectable (RFC 3501 §6.3.4).

        Raises NoSuchMailbox, MailboxHasInferiors, MailboxProtected.
        """
        await tree.delete_mailbox(self._postgres, account_id, name)

    async def rename_mailbox(self, account_id: int, name: str, new_name: str) -> None:
        """Rename a mailbox and its inferiors, making missing superiors; their UIDVALIDITY becomes a new one.

        Renaming INBOX moves its messages to a new mailbox and leaves INBOX and its inferiors (RFC 3501
        §6.3.5). Raises NoSuchMailbox, MailboxExists, BadMailboxName, TooManyMailboxes.
        """
        await promised(tree.rename_mailbox(self._postgres, self._limits, account_id, name, new_name))

    async def subscribe(self, account_id: int, name: str) -> None:
        """Add a name, of a mailbox or not, to the subscriptions. Raises BadMailboxName, TooManyMailboxes."""
        await subscriptions.subscribe(self._postgres, self._limits, account_id, name)

    async def unsubscribe(self, account_id: int, name: str) -> None:
        """Take a name from the subscriptions; idempotent. Raises NoSuchMailbox for what cannot be a name."""
        await subscriptions.unsubscribe(self._postgres, account_id, name)

    async def subscriptions(self, account_id: int) -> tuple[str, ...]:
        """The subscribed names in order; a name stays when its mailbox goes (RFC 3501 §6.3.6)."""
        return await subscriptions.subscriptions(self._postgres, account_id)

    # What a session sees

    async def snapshot(self, account_id: int, mailbox_id: int) -> Snapshot:
        """The mailbox and the flags of all its messages in one moment. Raises NoSuchMailbox, NotSelectable."""
        return await view.snapshot(self._postgres, account_id, mailbox_id)

    async def snapshot_of(self, account_id: int, name: str) -> Snapshot:
        """As `snapshot`, of the mailbox of that name."""
        return await view.snapshot_of(self._postgres, account_id, name)

    async def changes_since(self, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
        """All changes after `mod_seq`, in one query that costs what changed, not what is there.

        Raises NoSuchMailbox when the mailbox was deleted.
        """
        return await view.changes_since(self._postgres, account_id, mailbox_id, mod_seq)

    async def claim_recent(self, account_id: int, mailbox_id: int) -> RecentRange:
        """Take the recent messages for the calling session: no other session gets them (RFC 3501 §2.3.2)."""
        return await view.claim_recent(self._postgres, account_id, mailbox_id)

    def messages(
        self,
        account_id: int,
        mailbox_id: int,
        uids: Sequence[int],
        *,
        with_summary: bool,
        left_out: list[int] | None = None,
    ) -> AsyncIterator[StoredMessage]:
        """The messages of `uids` (in any order) that still exist, going up by UID, read in bounded batches.

        The summary is read only `with_summary`. No connection is held while the caller uses a message. A row that
        cannot be read is named in the log, and its UID put into `left_out`: the others come.
        """
        return view.messages(self._postgres, account_id, mailbox_id, uids, with_summary, left_out)

    async def search_rows(self, account_id: int, mailbox_id: int, uids: Sequence[int] | None = None) -> SearchRows:
        """Sizes and dates of the messages of `uids`, of all when None."""
        return await view.search_rows(self._postgres, account_id, mailbox_id, uids)

    # Changes

    async def deliver(
        self, deliveries: Sequence[Delivery], *, refuse_over_quota: bool = False
    ) -> list[DeliveryOutcome]:
        """Put each message into its account, in one transaction; the answer at place i is for delivery i.

        Each (queue id, account) has its effect once, however often it comes. The mailbox is INBOX, or the one
        that `detail` names (see `delivery`). Accounts are made on first use. With `refuse_over_quota` a message
        over quota, in bytes or messages, is recorded as refused: it stays OVER_QUOTA when it comes again, even with
        room by then.
        """
        return await promised(delivery.deliver(self._postgres, self._limits, deliveries, refuse_over_quota))

    async def delivered(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """Which of the (account id, queue id) were delivered or refused, or name an account that was deleted: what a
        recovery need not do again."""
        return await delivery.delivered(self._postgres, keys)

    async def append(
        self,
        account_id: int,
        mailbox_id: int,
        messages: Sequence[NewMessage],
        *,
        quota_bytes: int,
        claim: bool = False,
    ) -> Appended:
        """Put messages into one mailbox, all or none (RFC 3501 §6.3.11, RFC 3502).

        With `claim` the calling session, which has the mailbox selected, takes the recent messages, as by
        `claim_recent`. Raises NoSuchMailbox, NotSelectable, OverQuota, BadKeyword, TooManyKeywords, MailboxFull.
        """
        need_keywords(word for message in messages for word in message.keywords)
        return await promised(
            append.append(
                self._postgres, self._limits, account_id, mailbox_id, messages, quota_bytes=quota_bytes, claim=claim
            )
        )

    async def copy(
        self,
        account_id: int,
        source_id: int,
        uids: Sequence[int],
        target_id: int,
        *,
        quota_bytes: int,
        all_of_them: bool = False,
    ) -> Copied:
        """Copy the messages of `uids` that exist, with flags, dates and ids, all or none (RFC 3501 §6.4.7).

        `all_of_them`: they must all exist. Raises NoSuchMailbox (its `name` is the id), NotSelectable, OverQuota,
        TooManyKeywords, MailboxFull, SomeExpunged.
        """
        return await promised(
            copies.copy(
                self._postgres,
                self._limits,
                account_id,
                source_id,
                uids,
                target_id,
                quota_bytes,
                all_of_them=all_of_them,
            )
        )

    async def move(
        self, account_id: int, source_id: int, uids: Sequence[int], target_id: int, *, all_of_them: bool = False
    ) -> Copied:
        """Move the messages of `uids` that exist: in each moment they are in exactly one place (RFC 6851).

        Raises as `copy`, but never OverQuota.
        """
        return await promised(
            copies.move(self._postgres, self._limits, account_id, source_id, uids, target_id, all_of_them=all_of_them)
        )

    async def store_flags(
        self,
        account_id: int,
        mailbox_id: int,
        uids: Sequence[int],
        op: FlagOp,
        *,
        flags: Flag = NO_FLAGS,
        keywords: Sequence[str] = (),
        unchanged_since: int | None = None,
    ) -> StoreResult:
        """Change flags and keywords of the messages of `uids` that exist (RFC 3501 §6.4.6, RFC 7162 §3.1.3).

        A message that has the flags already keeps its mod_seq. Raises NoSuchMailbox, BadKeyword, TooManyKeywords.
        """
        need_keywords(keywords)
        if unchanged_since is not None:
            unchanged_since = min(unchanged_since, MOST_MOD_SEQ)
        change = flag_changes.FlagChange(op, flags, tuple(dict.fromkeys(keywords)), unchanged_since)
        return await flag_changes.store_flags(self._postgres, self._limits, account_id, mailbox_id, uids, change)

    async def expunge(self, account_id: int, mailbox_id: int, uids: Sequence[int] | None = None) -> Expunged:
        """Remove the messages with the flag Deleted; of `uids` only, when given (RFC 4315 §2.1)."""
        return await removal.expunge(self._postgres, account_id, mailbox_id, uids)

    async def remove(self, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
        """Remove the messages of `uids`, whatever their flags."""
        return await removal.remove(self._postgres, account_id, mailbox_id, uids)

    # POP3's maildrop: INBOX under an exclusive lease

    async def lock_maildrop(self, account_id: int, owner: str, ttl: float) -> Maildrop:
        """Take the maildrop for `owner` (any text unique to the session) for `ttl` seconds, and list it.

        Raises MaildropLocked while another owner's lease lasts.
        """
        await self.ensure_account(account_id)
        return await maildrops.lock(self._postgres, account_id, owner, ttl)

    async def renew_maildrop(self, account_id: int, owner: str, ttl: float) -> None:
        """Make the lease last `ttl` seconds from now. Raises MaildropLost when it is not `owner`'s."""
        await maildrops.renew(self._postgres, account_id, owner, ttl)

    async def keep_sizes(self, account_id: int, mailbox_id: int, sizes: Mapping[int, int]) -> None:
        """What POP3 sends of messages, by UID, where it was not known yet; a message that is gone is passed over."""
        await maildrops.keep_sizes(self._postgres, account_id, mailbox_id, sizes)

    async def unlock_maildrop(self, account_id: int, owner: str) -> None:
        """Give the maildrop back without a change; idempotent."""
        await maildrops.unlock(self._postgres, account_id, owner)

    async def close_maildrop(self, account_id: int, owner: str, mailbox_id: int, uids: Sequence[int]) -> Expunged:
        """Remove the messages of `uids` and give the maildrop back, in one transaction (RFC 1939 §6).

        Raises MaildropLost, with nothing removed, when the lease is not `owner`'s any more.
        """
        return await maildrops.close(self._postgres, account_id, owner, mailbox_id, uids)

    # Upkeep, for janitor, verify and recover

    async def live_packs(self, packs: Collection[str]) -> dict[str, PackLiveness]:
        """How much of each pack is referred to; a pack that nothing refers to is missing from the answer."""
        return await upkeep.live_packs(self._postgres, packs)

    async def forget_deliveries(self, older_than: datetime) -> int:
        """Drop the records of deliveries before `older_than`; return how many."""
        return await upkeep.forget_deliveries(self._postgres, older_than)

    async def forget_expunged(
        self, older_than: datetime, passed_over: Callable[[str, Exception], None] = upkeep.tell
    ) -> int:
        """Drop the records of expunges before `older_than` and move the mailboxes' horizons; return how many. A mailbox
        that fails is told to `passed_over`."""
        return await upkeep.forget_expunged(self._postgres, older_than, passed_over)

    def blobs(self, first_account: int = 0, last_account: int = 2**63 - 1) -> AsyncIterator[BlobUse]:
        """Every message row's blob of the accounts in the range (both included), by account, mailbox, UID."""
        return upkeep.blobs(self._postgres, first_account, last_account)

    def blobs_of_packs(self, packs: Collection[str]) -> AsyncIterator[BlobUse]:
        """Every message row that refers to one of `packs`, by account, mailbox, UID."""
        return upkeep.blobs_of_packs(self._postgres, packs)

    # Compaction, for the janitor: under a lease of the account, which no mail path asks for

    async def standings(self, rule: CompactionRule, after: int, limit: int) -> list[CompactionCandidate]:
        """The next accounts after the id `after` that may have something to move, at most `limit`, by id."""
        return await compactions.standings(self._postgres, rule, after, limit)

    async def measure_compaction(
        self, rule: CompactionRule, before: str, standing: Sequence[CompactionCandidate], *, record: bool
    ) -> list[Fragmentation]:
        """What compaction would move of each account from packs with ids below `before`; reads all their rows.
        With `record` it is kept, for `standings` and for the backlog among the figures."""
        return await compactions.measure(self._postgres, rule, before, standing, record=record)

    async def scattered_packs(self, rule: CompactionRule, before: str, account_id: int, limit: int) -> list[str]:
        """The packs from which the account's messages should move, the oldest first, at most `limit`."""
        return await compactions.scattered_packs(self._postgres, rule, before, account_id, limit)

    async def compaction_uses(self, account_id: int, packs: Collection[str], message_bytes: int) -> list[BlobUse]:
        """The account's rows that refer to one of `packs`, by mailbox and UID; without larger messages."""
        return await compactions.uses(self._postgres, account_id, packs, message_bytes)

    async def take_compaction(self, account_id: int, owner: str, ttl: float) -> bool:
        """Take the account's lease for `owner` (any new text) for `ttl` seconds; False: another has it."""
        return await compactions.take(self._postgres, account_id, owner, ttl)

    async def give_back_compaction(self, account_id: int, owner: str) -> None:
        """End the lease; idempotent."""
        await compactions.give_back(self._postgres, account_id, owner)

    async def relocate(self, account_id: int, relocations: Sequence[Relocation], *, owner: str, ttl: float) -> int:
        """Point the account's rows of each `old` entry to `new`, all or none, and make the lease last `ttl`
        seconds from then; return how many rows. Other accounts' rows of the same entry stay.

        The bytes are the same, so neither mod_seq nor anything a client sees changes. No copy under way can
        keep an `old` reference. Raises CompactionLost when `owner` has no lease any more, NoSuchAccount.
        """
        return await compactions.relocate(self._postgres, account_id, relocations, owner, ttl)

    async def left_since(self, packs: Collection[str], since: datetime) -> set[str]:
        """Which of `packs` rows were moved away from after `since`: a reader may still hold a reference."""
        return await compactions.left_since(self._postgres, packs, since)

    async def forget_compactions(self, older_than: datetime) -> None:
        """Drop what is known of deleted accounts and of packs left before `older_than`."""
        await compactions.forget(self._postgres, older_than)

    def bad_rows(self) -> AsyncIterator[BadRow]:
        """Every row of a mailbox or a message that services cannot read as it is."""
        return row_checks.bad_ones(self._postgres)

    async def mend(self, bad: BadRow, summary: bytes | None = None) -> bool:
        """Write into the row what services read in its place; `summary`: a new one. False: nobody can tell."""
        return await row_checks.mend(self._postgres, bad, summary)

    async def check(self, account_id: int | None = None) -> list[str]:
        """Every broken invariant, a sentence each, of one account or of all; empty when all is well."""
        return await checks.check(self._postgres, account_id)
