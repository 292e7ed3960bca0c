"""Reading the messages of a mailbox.

Every change of a mailbox is made under its row's lock and commits in the order of its mod_seq, so one
statement that reads the mailbox's row and its messages sees all changes up to `highest_mod_seq` and none
after.
"""

import asyncio
import functools
from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence

from paquebot.mailstore import bad_rows, dates
from paquebot.mailstore.bad_rows import BadRowResult
from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.errors import NoSuchMailbox, NotSelectable
from paquebot.mailstore.mailboxes import names
from paquebot.mailstore.mailboxes.rows import MAILBOX_COLUMNS, mailbox
from paquebot.mailstore.messages import rows
from paquebot.mailstore.messages.types import (
    LAST_UID,
    MAX_MOD_SEQ,
    Changes,
    MailboxState,
    SearchRows,
    StoredMessage,
)
from paquebot.runtime.postgres.pool import Postgres, sole_row

_BATCH = 500
_BATCH_WITH_SUMMARY = 100
_BATCH_BYTES = 256 * 1024  # of summaries; a batch ends with the message that reaches it

_STATE = f"""
    SELECT {MAILBOX_COLUMNS}, m.*
    FROM mailstore.mailboxes b CROSS JOIN LATERAL (
        SELECT {rows.FLAG_COLUMNS} FROM mailstore.messages
        WHERE account_id = b.account_id AND mailbox_id = b.mailbox_id
    ) m
    WHERE b.account_id = $1 AND b.mailbox_id = $2
"""  # noqa: S608 - only constants are put in
_STATE_BY_NAME = _STATE.replace("b.mailbox_id = $2", "b.name = $2")
# Both reads go along an index that has the mod_seq in order; ORDER BY makes the planner take that index without
# statistics too. They find nothing when nothing changed.
_CHANGES = f"""
    SELECT {MAILBOX_COLUMNS}, m.*, e.expunged
    FROM mailstore.mailboxes b CROSS JOIN LATERAL (
        SELECT {rows.FLAG_COLUMNS} FROM (
            SELECT uid, flags, mod_seq, keywords FROM mailstore.messages
            WHERE account_id = b.account_id AND mailbox_id = b.mailbox_id AND mod_seq > $3 ORDER BY mod_seq
        ) changed
    ) m CROSS JOIN LATERAL (
        SELECT array_agg(uid ORDER BY uid) AS expunged FROM (
            SELECT uid FROM mailstore.expunged
            WHERE account_id = b.account_id AND mailbox_id = b.mailbox_id AND mod_seq > $3 ORDER BY mod_seq, uid
        ) gone
    ) e
    WHERE b.account_id = $1 AND b.mailbox_id = $2
"""  # noqa: S608 - only constants are put in
_MESSAGES = f"""
    SELECT m.* FROM {rows.messages_by_uid(rows.MESSAGE_COLUMNS)} ORDER BY asked.uid
"""  # noqa: S608 - only constants are put in
_MESSAGES_WITH_WHOLE_SUMMARY = _MESSAGES.replace("prefix", "prefix, summary")  # for single messages
# A summary may be 150 KB, and its client may read slowly. octet_length does not read the summary itself.
_MESSAGES_WITH_SUMMARY = f"""
    SELECT * FROM (
        SELECT m.*, sum(octet_length(m.summary)) OVER (ORDER BY asked.uid) - octet_length(m.summary) AS octets_before
        FROM {rows.messages_by_uid(rows.MESSAGE_COLUMNS + ", summary")}
    ) found WHERE octets_before < {_BATCH_BYTES} ORDER BY uid
"""  # noqa: S608 - only constants are put in


def _seconds(column: str) -> str:
    return f"floor(extract(epoch FROM {dates.clamped(column)}))::bigint"


_SEARCH_COLUMNS = f"""
    SELECT array_agg(m.uid ORDER BY m.uid) AS uids,
           array_agg(size ORDER BY m.uid) AS sizes,
           array_agg({_seconds("internal_date")} ORDER BY m.uid) AS internal_dates,
           array_agg({_seconds("save_date")} ORDER BY m.uid) AS save_dates
"""
_SEARCH_ALL = f"{_SEARCH_COLUMNS} FROM mailstore.messages m WHERE account_id = $1 AND mailbox_id = $2"
_SEARCH_SOME = f"{_SEARCH_COLUMNS} FROM {rows.messages_by_uid('uid, size, internal_date, save_date')}"


class MailboxReader:
    """One per process."""

    __slots__ = ("_postgres",)

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def state(self, account_id: int, mailbox_id: int) -> MailboxState:
        """Raises NoSuchMailbox, NotSelectable."""
        row = await self._postgres.fetchrow("mailbox_state", _STATE, account_id, mailbox_id)
        return _state(row, str(mailbox_id))

    async def state_by_name(self, account_id: int, name: str) -> MailboxState:
        """Raises NoSuchMailbox, NotSelectable."""
        row = await self._postgres.fetchrow("mailbox_state", _STATE_BY_NAME, account_id, names.sought(name))
        return _state(row, name)

    async def changes_since(self, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
        """All changes after `mod_seq`, in one query whose cost grows with the changes, not with the mailbox.

        Raises NoSuchMailbox when the mailbox was deleted.
        """
        row = await self._postgres.fetchrow("changes", _CHANGES, account_id, mailbox_id, min(mod_seq, MAX_MOD_SEQ))
        if row is None:
            raise NoSuchMailbox(str(mailbox_id))
        box = mailbox(row)
        forgotten = mod_seq < box.expunged_horizon
        changed = rows.flag_rows(row, account_id, mailbox_id)
        expunged = (uid for uid in row["expunged"] or () if 0 < uid <= LAST_UID)
        return Changes(box, changed, None if forgotten else array("I", expunged))

    async def messages(
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
        cannot be read is logged, and its UID added to `left_out`; the other messages are returned.
        """
        batches = _Batches(self._postgres, account_id, mailbox_id, uids, left_out, with_summary=with_summary)
        following: asyncio.Task[Sequence[Record]] | None = None
        try:
            start = 0
            while start < len(batches.uids):
                found = await (following or batches.read(start))
                start = batches.next(start, found)
                # PostgreSQL reads the next batch while the caller works on this one.
                following = asyncio.create_task(batches.read(start)) if start < len(batches.uids) else None
                for row in found:
                    try:
                        message = rows.message(row, account_id, mailbox_id, with_summary=with_summary)
                    except (ValueError, TypeError, OverflowError) as error:
                        batches.leave_out(row["uid"], error)
                    else:
                        yield message
        finally:
            if following is not None:
                following.cancel()

    async def search_rows(self, account_id: int, mailbox_id: int, uids: Sequence[int] | None = None) -> SearchRows:
        """Sizes and dates of the messages of `uids`, of all when None."""
        if uids is None:
            row = await self._postgres.fetchrow("search", _SEARCH_ALL, account_id, mailbox_id)
        else:
            row = await self._postgres.fetchrow("search", _SEARCH_SOME, account_id, mailbox_id, uids)
        row = sole_row(row)
        columns = row["uids"] or (), row["sizes"] or (), row["internal_dates"] or (), row["save_dates"] or ()
        try:
            return SearchRows(*(array(kind, column) for kind, column in zip("IQqq", columns, strict=True)))
        except OverflowError:
            return _mended_search_rows(account_id, mailbox_id, *columns)


def _state(row: Record | None, asked: str) -> MailboxState:
    if row is None:
        raise NoSuchMailbox(asked)
    box = mailbox(row)
    if not box.selectable:
        raise NotSelectable(box.name)
    return MailboxState(box, rows.flag_rows(row, box.account_id, box.mailbox_id))


class _Batches:
    """The rows of messages, read in batches; `uids` go up."""

    __slots__ = ("_account_id", "_left_out", "_mailbox_id", "_postgres", "_with_summary", "uids")

    def __init__(
        self,
        postgres: Postgres,
        account_id: int,
        mailbox_id: int,
        uids: Sequence[int],
        left_out: list[int] | None,
        *,
        with_summary: bool,
    ) -> None:
        self._postgres = postgres
        self._account_id = account_id
        self._mailbox_id = mailbox_id
        self._left_out = left_out
        self._with_summary = with_summary
        self.uids = array("I", sorted(set(uids)))  # may be a whole mailbox, held while its client is slow

    async def read(self, start: int) -> Sequence[Record]:
        """The batch that begins at `start`, without the rows that cannot be read."""
        sql, size = (_MESSAGES_WITH_SUMMARY, _BATCH_WITH_SUMMARY) if self._with_summary else (_MESSAGES, _BATCH)
        some = self.uids[start : start + size]
        try:
            return await self._read(sql, some)
        except Exception as error:
            if not bad_rows.may_be_of_rows(error):
                raise
        whole = _MESSAGES_WITH_WHOLE_SUMMARY if self._with_summary else _MESSAGES
        return await bad_rows.one_by_one(functools.partial(self._read, whole), some, self.leave_out)

    async def _read(self, sql: str, uids: Sequence[int]) -> Sequence[Record]:
        return await self._postgres.fetch("messages", sql, self._account_id, self._mailbox_id, list(uids))

    def next(self, start: int, found: Sequence[Record]) -> int:
        """Where the next batch begins: with summaries, after the last message of a batch that ended at its limit of
        bytes."""
        if not self._with_summary:
            return start + _BATCH
        if sum(len(row["summary"]) for row in found) < _BATCH_BYTES:
            return start + _BATCH_WITH_SUMMARY
        return bisect_right(self.uids, found[-1]["uid"])

    def leave_out(self, uid: int, error: Exception) -> None:
        """Report a row that cannot be read."""
        if self._left_out is not None:
            self._left_out.append(uid)
        reason = f"{type(error).__name__}: {error}"
        place = {"account": self._account_id, "mailbox": self._mailbox_id, "uid": uid}
        bad_rows.report(BadRowResult.OMITTED, reason, **place)


def _mended_search_rows(
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    sizes: Sequence[int],
    internal_dates: Sequence[int],
    save_dates: Sequence[int],
) -> SearchRows:
    kept = rows.with_valid_uids(account_id, mailbox_id, uids, sizes)
    places = {uid: place for place, uid in enumerate(uids)}
    return SearchRows(
        uids=array("I", (uid for uid, _ in kept)),
        sizes=array("Q", (max(0, size) for _, size in kept)),
        internal_dates=array("q", (internal_dates[places[uid]] for uid, _ in kept)),
        save_dates=array("q", (save_dates[places[uid]] for uid, _ in kept)),
    )
