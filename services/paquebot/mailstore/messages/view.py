"""What a session sees of a mailbox: a snapshot, what changed since, the messages, and the claim on recent
ones.

Every change of a mailbox is made under its row's lock and commits in the order of its mod_seq, so one
statement that reads the mailbox's row and its messages sees all changes up to `highest_mod_seq` and none
after.
"""

import asyncio
import functools
from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence

from paquebot.mailstore import bad_rows, dates, rows
from paquebot.mailstore.bad_rows import RowReading
from paquebot.mailstore.errors import NoSuchMailbox, NotSelectable
from paquebot.mailstore.mailboxes import names
from paquebot.mailstore.types import (
    LAST_UID,
    MOST_MOD_SEQ,
    Changes,
    RecentRange,
    SearchRows,
    Snapshot,
    StoredMessage,
)
from paquebot.runtime.postgres.pool import Postgres, sole_row

_BATCH = 500
_BATCH_WITH_SUMMARY = 100
_BATCH_BYTES = 256 * 1024  # of summaries; a batch ends with the message that reaches it

_SNAPSHOT = f"""
    SELECT {rows.MAILBOX_COLUMNS}, m.*
    FROM mailstore.mailboxes b CROSS JOIN LATERAL (
        SELECT {rows.FLAG_COLUMNS} FROM mailstore.messages
        WHERE account_id = b.account_id AND mailbox_id = b.mailbox_id
    ) m
    WHERE b.account_id = $1 AND b.mailbox_id = $2
"""  # noqa: S608 - only constants are put in
_SNAPSHOT_BY_NAME = _SNAPSHOT.replace("b.mailbox_id = $2", "b.name = $2")


async def snapshot(postgres: Postgres, account_id: int, mailbox_id: int) -> Snapshot:
    row = await postgres.fetchrow("snapshot", _SNAPSHOT, account_id, mailbox_id)
    return _snapshot(row, str(mailbox_id))


async def snapshot_of(postgres: Postgres, account_id: int, name: str) -> Snapshot:
    row = await postgres.fetchrow("snapshot", _SNAPSHOT_BY_NAME, account_id, names.sought(name))
    return _snapshot(row, name)


def _snapshot(row: rows.Record | None, asked: str) -> Snapshot:
    if row is None:
        raise NoSuchMailbox(asked)
    mailbox = rows.mailbox(row)
    if not mailbox.selectable:
        raise NotSelectable(mailbox.name)
    return Snapshot(mailbox, rows.flag_rows(row, mailbox.account_id, mailbox.mailbox_id))


# Both reads go along an index that has the mod_seq in order, which is asked for so that the planner takes that index
# without statistics too. They find nothing when nothing changed.
_CHANGES = f"""
    SELECT {rows.MAILBOX_COLUMNS}, m.*, e.expunged
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


async def changes_since(postgres: Postgres, account_id: int, mailbox_id: int, mod_seq: int) -> Changes:
    row = await postgres.fetchrow("changes", _CHANGES, account_id, mailbox_id, min(mod_seq, MOST_MOD_SEQ))
    if row is None:
        raise NoSuchMailbox(str(mailbox_id))
    mailbox = rows.mailbox(row)
    forgotten = mod_seq < mailbox.expunged_horizon
    changed = rows.flag_rows(row, account_id, mailbox_id)
    expunged = (uid for uid in row["expunged"] or () if 0 < uid <= LAST_UID)
    return Changes(mailbox, changed, None if forgotten else array("I", expunged))


# What `before` locks, `b` cannot be changed by others: its uid_next is the newest there is.
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


async def claim_recent(postgres: Postgres, account_id: int, mailbox_id: int) -> RecentRange:
    row = await postgres.fetchrow("claim_recent", _CLAIM, account_id, mailbox_id)
    if row is not None:
        return RecentRange(row["recent_from"], row["uid_next"])
    uid_next = await postgres.fetchval("recent", _UID_NEXT, account_id, mailbox_id)
    if uid_next is None:
        raise NoSuchMailbox(str(mailbox_id))
    return RecentRange(uid_next, uid_next)


_MESSAGES = f"""
    SELECT m.* FROM {rows.looked_up(rows.MESSAGE_COLUMNS)} ORDER BY asked.uid
"""  # noqa: S608 - only constants are put in
# A summary may be 150 KB, and who asks for it may read slowly. To learn how long it is does not read it.
_MESSAGES_WITH_SUMMARY = f"""
    SELECT * FROM (
        SELECT m.*, sum(octet_length(m.summary)) OVER (ORDER BY asked.uid) - octet_length(m.summary) AS octets_before
        FROM {rows.looked_up(rows.MESSAGE_COLUMNS + ", summary")}
    ) found WHERE octets_before < {_BATCH_BYTES} ORDER BY uid
"""  # noqa: S608 - only constants are put in


async def messages(
    postgres: Postgres,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    with_summary: bool,
    left_out: list[int] | None,
) -> AsyncIterator[StoredMessage]:
    sql, size = (_MESSAGES_WITH_SUMMARY, _BATCH_WITH_SUMMARY) if with_summary else (_MESSAGES, _BATCH)
    whole = _MESSAGES.replace("prefix", "prefix, summary") if with_summary else _MESSAGES  # not cut by its bytes
    wanted = array("I", sorted(set(uids)))  # may be a whole mailbox, held while its reader is slow
    bad: list[int] = [] if left_out is None else left_out

    def leave_out(uid: int, error: Exception) -> None:
        bad.append(uid)
        reason = f"{type(error).__name__}: {error}"
        bad_rows.tell(RowReading.LEFT_OUT, reason, account=account_id, mailbox=mailbox_id, uid=uid)

    async def read(sql: str, some: Sequence[int]) -> Sequence[rows.Record]:
        return await postgres.fetch("messages", sql, account_id, mailbox_id, list(some))

    async def ask(start: int) -> Sequence[rows.Record]:
        some = wanted[start : start + size]
        try:
            return await read(sql, some)
        except Exception as error:
            if not bad_rows.is_of_rows(error):
                raise
        return await bad_rows.one_by_one(functools.partial(read, whole), some, leave_out)

    following: asyncio.Task[Sequence[rows.Record]] | None = None
    try:
        start = 0
        while start < len(wanted):
            found = await (following or ask(start))
            start = _next(wanted, start + size, found) if with_summary else start + size
            # PostgreSQL reads the next batch while the caller works on this one.
            following = asyncio.create_task(ask(start)) if start < len(wanted) else None
            for row in found:
                try:
                    message = rows.message(row, account_id, mailbox_id, with_summary=with_summary)
                except (ValueError, TypeError, OverflowError) as error:
                    leave_out(row["uid"], error)
                else:
                    yield message
    finally:
        if following is not None:
            following.cancel()


def _next(wanted: Sequence[int], following: int, found: Sequence[rows.Record]) -> int:
    """Where the next batch begins: behind the last message of one that its bytes cut short."""
    if sum(len(row["summary"]) for row in found) < _BATCH_BYTES:
        return following
    return bisect_right(wanted, found[-1]["uid"])


def _seconds(column: str) -> str:
    return f"floor(extract(epoch FROM {dates.clamped(column)}))::bigint"


_SEARCH_COLUMNS = f"""
    SELECT array_agg(m.uid ORDER BY m.uid) AS uids,
           array_agg(size ORDER BY m.uid) AS sizes,
           array_agg({_seconds("internal_date")} ORDER BY m.uid) AS internal_dates,
           array_agg({_seconds("save_date")} ORDER BY m.uid) AS save_dates
"""
_SEARCH_ALL = f"{_SEARCH_COLUMNS} FROM mailstore.messages m WHERE account_id = $1 AND mailbox_id = $2"
_SEARCH_SOME = f"{_SEARCH_COLUMNS} FROM {rows.looked_up('uid, size, internal_date, save_date')}"


async def search_rows(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int] | None) -> SearchRows:
    if uids is None:
        row = await postgres.fetchrow("search", _SEARCH_ALL, account_id, mailbox_id)
    else:
        row = await postgres.fetchrow("search", _SEARCH_SOME, account_id, mailbox_id, uids)
    row = sole_row(row)
    columns = row["uids"] or (), row["sizes"] or (), row["internal_dates"] or (), row["save_dates"] or ()
    try:
        return SearchRows(*(array(kind, column) for kind, column in zip("IQqq", columns, strict=True)))
    except OverflowError:
        uids, sizes, internal_dates, save_dates = columns
    kept = rows.sound(account_id, mailbox_id, uids, sizes)
    places = {uid: place for place, uid in enumerate(uids)}
    return SearchRows(
        uids=array("I", (uid for uid, _ in kept)),
        sizes=array("Q", (max(0, size) for _, size in kept)),
        internal_dates=array("q", (internal_dates[places[uid]] for uid, _ in kept)),
        save_dates=array("q", (save_dates[places[uid]] for uid, _ in kept)),
    )
