"""Changes of the messages of a mailbox: APPEND, COPY, MOVE, STORE, EXPUNGE.

Each method is one transaction. A UID and a mod_seq are given only here and in `deliveries`, under the lock of the
mailbox's row; a message row, the counters of its mailbox and the account's usage change together. After a call returns,
the caller publishes the hint of the account it changed.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from paquebot.mailstore import bad_rows
from paquebot.mailstore.bad_rows import BadRowResult
from paquebot.mailstore.errors import NoSuchMailbox
from paquebot.mailstore.limits import NO_QUOTA, MailstoreLimits
from paquebot.mailstore.locks import lock_account, lock_mailbox, lock_mailboxes
from paquebot.mailstore.messages.append import append_messages
from paquebot.mailstore.messages.copies import choose, copy_messages, move_messages
from paquebot.mailstore.messages.flag_changes import change_flags, spelled
from paquebot.mailstore.messages.flags import NO_FLAGS, Flag, FlagChange, FlagOp
from paquebot.mailstore.messages.keywords import KeywordSpellings, add_keywords, need_keywords
from paquebot.mailstore.messages.removal import remove_messages
from paquebot.mailstore.messages.types import (
    MAX_MOD_SEQ,
    Appended,
    Copied,
    Expunged,
    NewMessage,
    RecentRange,
    StoreResult,
)
from paquebot.mailstore.uid_ceilings import within_uid_ceilings
from paquebot.runtime.postgres.pool import Connection, Postgres

# While `before` is locked no other transaction can change `b`: its uid_next is the newest there is.
_CLAIM = """
    UPDATE mailstore.mailboxes b SET recent_from = b.uid_next, recent = 0
    FROM (
        SELECT account_id, mailbox_id, recent_from FROM mailstore.mailboxes
        WHERE account_id = $1 AND mailbox_id = $2 FOR NO KEY UPDATE
    ) before
    WHERE b.account_id = before.account_id AND b.mailbox_id = before.mailbox_id AND before.recent_from < b.uid_next
    RETURNING before.recent_from, b.uid_next
"""
_UID_NEXT = "SELECT uid_next FROM mailstore.mailboxes WHERE account_id = $1 AND mailbox_id = $2"
_WITH_OLD_EXPUNGES = """
    SELECT account_id, mailbox_id, max(mod_seq) AS horizon FROM mailstore.expunged
    WHERE expunged_at < $1 GROUP BY account_id, mailbox_id
"""
# By mod_seq rather than by time: no record at or below the horizon may stay.
_FORGET_EXPUNGED = """
    WITH box AS (
        UPDATE mailstore.mailboxes SET expunged_horizon = greatest(expunged_horizon, $3)
        WHERE account_id = $1 AND mailbox_id = $2
    )
    DELETE FROM mailstore.expunged WHERE account_id = $1 AND mailbox_id = $2 AND mod_seq <= $3
"""


def _report(subject: str, error: Exception) -> None:
    bad_rows.report(BadRowResult.OMITTED, f"{type(error).__name__}: {error}", subject=subject)


class Messages:
    """One per process."""

    __slots__ = ("_limits", "_postgres")

    def __init__(self, postgres: Postgres, limits: MailstoreLimits | None = None) -> None:
        self._postgres = postgres
        self._limits = limits or MailstoreLimits()

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
        words = dict.fromkeys(word for message in messages for word in message.keywords)
        need_keywords(words)
        place = account_id, mailbox_id, quota_bytes or NO_QUOTA, claim

        async def at_once(connection: Connection) -> Appended | None:
            return await append_messages(connection, place, messages, KeywordSpellings(words), self._limits)

        async def step_by_step(connection: Connection) -> Appended | None:
            account = await lock_account(connection, account_id)
            account.need_room(sum(message.size for message in messages), quota_bytes)
            account.need_messages(len(messages), self._limits)
            mailbox = await lock_mailbox(connection, account_id, mailbox_id)
            mailbox.need_selectable()
            mailbox.need_uids(len(messages))
            mailbox.need_messages(len(messages), self._limits)
            if not messages:
                return Appended(mailbox.uid_validity, (), mailbox.highest_mod_seq)
            spellings = await add_keywords(connection, mailbox, words, self._limits)
            return await append_messages(connection, place, messages, spellings, self._limits)

        appended = None
        if messages:
            appended = await within_uid_ceilings(self._postgres.run_statement("append", at_once))
        if appended is None:
            appended = await within_uid_ceilings(self._postgres.run("append", step_by_step))
        assert appended is not None  # the locked mailbox knows every keyword in its spelling, and has room
        return appended

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

        async def work(connection: Connection) -> Copied:
            account = await lock_account(connection, account_id)
            locked = await lock_mailboxes(connection, account_id, [source_id, target_id])
            chosen = await choose(connection, locked[source_id], uids, all_of_them=all_of_them)
            account.need_room(chosen.total_size, quota_bytes)
            account.need_messages(len(chosen.uids), self._limits)
            return await copy_messages(connection, self._limits, locked[source_id], chosen, locked[target_id])

        return await within_uid_ceilings(self._postgres.run("copy", work))

    async def move(
        self, account_id: int, source_id: int, uids: Sequence[int], target_id: int, *, all_of_them: bool = False
    ) -> Copied:
        """Move the messages of `uids` that exist: at each moment they are in exactly one place (RFC 6851).

        Raises as `copy`, but never OverQuota.
        """

        async def work(connection: Connection) -> Copied:
            await lock_account(connection, account_id)
            return await move_messages(
                connection, self._limits, account_id, source_id, uids, target_id, all_of_them=all_of_them
            )

        return await within_uid_ceilings(self._postgres.run("move", work))

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
            unchanged_since = min(unchanged_since, MAX_MOD_SEQ)
        change = FlagChange(op, flags, tuple(dict.fromkeys(keywords)), unchanged_since)

        async def at_once(connection: Connection) -> StoreResult | None:
            return await change_flags(connection, account_id, mailbox_id, uids, change)

        async def step_by_step(connection: Connection) -> StoreResult | None:
            mailbox = await lock_mailbox(connection, account_id, mailbox_id)
            change_as_spelled = await spelled(connection, mailbox, change, self._limits)
            return await change_flags(connection, account_id, mailbox_id, uids, change_as_spelled)

        result = await self._postgres.run_statement("store_flags", at_once)
        result = result or await self._postgres.run("store_flags", step_by_step)
        assert result is not None  # the locked mailbox knows every keyword in its spelling
        return result

    async def expunge(self, account_id: int, mailbox_id: int, uids: Sequence[int] | None = None) -> Expunged:
        """Remove the messages with the flag Deleted; of `uids` only, when given (RFC 3501 §6.4.3, RFC 4315 §2.1)."""

        async def work(connection: Connection) -> Expunged:
            return await remove_messages(connection, account_id, mailbox_id, uids, only_deleted=True)

        return await self._postgres.run_statement("expunge", work)

    async def remove(self, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
        """Remove the messages of `uids`, whatever their flags."""

        async def work(connection: Connection) -> Expunged:
            return await remove_messages(connection, account_id, mailbox_id, uids, only_deleted=False)

        return await self._postgres.run_statement("remove", work)

    async def claim_recent(self, account_id: int, mailbox_id: int) -> RecentRange:
        """Take the recent messages for the calling session: no other session gets them (RFC 3501 §2.3.2)."""
        row = await self._postgres.fetchrow("claim_recent", _CLAIM, account_id, mailbox_id)
        if row is not None:
            return RecentRange(row["recent_from"], row["uid_next"])
        uid_next = await self._postgres.fetchval("recent", _UID_NEXT, account_id, mailbox_id)
        if uid_next is None:
            raise NoSuchMailbox(str(mailbox_id))
        return RecentRange(uid_next, uid_next)

    async def forget_expunged(
        self, older_than: datetime, passed_over: Callable[[str, Exception], None] = _report
    ) -> int:
        """Delete the records of expunges before `older_than` and move the mailboxes' horizons; return how many.
        `passed_over` receives each mailbox that fails."""
        total = 0
        for row in await self._postgres.fetch("forget_expunged", _WITH_OLD_EXPUNGES, older_than):
            try:
                async with self._postgres.connection("forget_expunged") as connection:
                    status: str = await connection.execute(_FORGET_EXPUNGED, *row)
            except Exception as error:
                if not bad_rows.may_be_of_rows(error):
                    raise
                passed_over(f"account {row['account_id']}, mailbox {row['mailbox_id']}", error)
            else:
                total += int(status.rpartition(" ")[2])
        return total
