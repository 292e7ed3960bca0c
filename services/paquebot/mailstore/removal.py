"""Messages that go away: expunge (RFC 3501 §6.4.3, RFC 4315 §2.1) and removal whatever the flags.

Each removed UID leaves a row in `expunged` with the mod_seq of its removal, until the janitor forgets it, so
that every session and every client that comes back learns of it (RFC 7162 §3.2).
"""

from collections.abc import Sequence

from paquebot.mailstore.locks import LockedMailbox, lock_account, lock_mailbox
from paquebot.mailstore.rows import Record
from paquebot.mailstore.types import Expunged
from paquebot.runtime.postgres import Connection, Postgres

# The rows of `box` are locked. Takes the mailbox's new mod_seq from it, and tells what went away.
_REMOVE = """
    , gone AS (
        DELETE FROM mailstore.messages m USING box
        WHERE m.account_id = $1 AND m.mailbox_id = $2 AND {condition}
        RETURNING m.uid, m.flags, m.size, box.recent_from
    ), total AS (
        SELECT count(*) AS messages, coalesce(sum(size), 0) AS octets,
               count(*) FILTER (WHERE uid >= recent_from) AS recent,
               count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
               count(*) FILTER (WHERE flags & 8 <> 0) AS deleted
        FROM gone
    ), counted AS (
        UPDATE mailstore.mailboxes b
        SET highest_mod_seq = box.mod_seq, messages = b.messages - total.messages, octets = b.octets - total.octets,
            recent = b.recent - total.recent, unseen = b.unseen - total.unseen, deleted = b.deleted - total.deleted
        FROM box CROSS JOIN total WHERE b.account_id = $1 AND b.mailbox_id = $2 AND total.messages > 0
    ), used AS (
        UPDATE mailstore.accounts a
        SET octets = a.octets - total.octets, messages = a.messages - total.messages
        FROM total WHERE a.account_id = $1 AND total.messages > 0
    ), noted AS (
        INSERT INTO mailstore.expunged (account_id, mailbox_id, mod_seq, uid, expunged_at)
        SELECT $1, $2, box.mod_seq, uid, now() FROM gone CROSS JOIN box
    )
    SELECT box.mod_seq, (SELECT array_agg(uid ORDER BY uid) FROM gone) AS gone FROM box
"""
_DELETED = "m.flags & 8 <> 0 AND box.deleted > 0 AND $3::bigint[] IS NULL"
_NAMED = "m.uid = ANY($3::bigint[])"
_NAMED_DELETED = f"m.flags & 8 <> 0 AND box.deleted > 0 AND {_NAMED}"
_UNDER_LOCK = "WITH box AS MATERIALIZED (SELECT $4::bigint AS mod_seq, $5::bigint AS recent_from, $6::int AS deleted)"
# Nearly always nobody else changes the mailbox at the same time. Then its row, once it is locked, is as the
# statement's snapshot has it, and so are its messages: one statement does all. Else `box` is empty: nothing is done.
_AT_ONCE = """
    WITH seen AS MATERIALIZED (
        SELECT highest_mod_seq FROM mailstore.mailboxes WHERE account_id = $1 AND mailbox_id = $2
    ), account AS MATERIALIZED (
        SELECT account_id FROM mailstore.accounts WHERE account_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
    ), locked AS MATERIALIZED (
        SELECT b.highest_mod_seq, b.recent_from, b.deleted
        FROM account JOIN mailstore.mailboxes b USING (account_id) WHERE b.mailbox_id = $2 FOR NO KEY UPDATE OF b
    ), box AS MATERIALIZED (
        SELECT highest_mod_seq + 1 AS mod_seq, recent_from, deleted FROM locked JOIN seen USING (highest_mod_seq)
    )
"""
_EXPUNGE_AT_ONCE = _AT_ONCE + _REMOVE.format(condition=_DELETED)
_EXPUNGE_NAMED_AT_ONCE = _AT_ONCE + _REMOVE.format(condition=_NAMED_DELETED)
_EXPUNGE = _UNDER_LOCK + _REMOVE.format(condition=_DELETED)
_EXPUNGE_NAMED = _UNDER_LOCK + _REMOVE.format(condition=_NAMED_DELETED)
_REMOVE_NAMED = _UNDER_LOCK + _REMOVE.format(condition=_NAMED)


async def expunge(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int] | None) -> Expunged:
    at_once, under_lock = (_EXPUNGE_AT_ONCE, _EXPUNGE) if uids is None else (_EXPUNGE_NAMED_AT_ONCE, _EXPUNGE_NAMED)

    async def work(connection: Connection) -> Expunged:
        await lock_account(connection, account_id)
        mailbox = await lock_mailbox(connection, account_id, mailbox_id)
        return await _remove(connection, mailbox, under_lock, uids)

    row = await postgres.fetchrow("expunge", at_once, account_id, mailbox_id, uids)
    return _expunged(row) if row is not None else await postgres.run("expunge", work)


async def remove(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    async def work(connection: Connection) -> Expunged:
        return await remove_within(connection, account_id, mailbox_id, uids)

    return await postgres.run("remove", work)


async def remove_within(connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    """Remove the messages of `uids` as a part of the caller's transaction."""
    await lock_account(connection, account_id)
    mailbox = await lock_mailbox(connection, account_id, mailbox_id)
    return await _remove(connection, mailbox, _REMOVE_NAMED, uids)


async def _remove(connection: Connection, mailbox: LockedMailbox, sql: str, uids: Sequence[int] | None) -> Expunged:
    place = mailbox.account_id, mailbox.mailbox_id
    known = mailbox.highest_mod_seq + 1, mailbox.recent_from, mailbox.deleted
    return _expunged(await connection.fetchrow(sql, *place, uids, *known))


def _expunged(row: Record) -> Expunged:
    return Expunged(tuple(row["gone"]), row["mod_seq"]) if row["gone"] else Expunged((), row["mod_seq"] - 1)
