"""Messages that go away: expunge (RFC 3501 §6.4.3, RFC 4315 §2.1) and removal whatever the flags.

Each removed UID leaves a row in `expunged` with the mod_seq of its removal, until the janitor forgets it, so
that every session and every client that comes back learns of it (RFC 7162 §3.2).
"""

from collections.abc import Sequence

from paquebot.mailstore.locks import LockedMailbox, lock_account, lock_mailbox
from paquebot.mailstore.types import Expunged
from paquebot.runtime.postgres import Connection, Postgres

_REMOVE = """
    WITH gone AS (
        DELETE FROM mailstore.messages
        WHERE account_id = $1 AND mailbox_id = $2 AND {condition}
        RETURNING uid, flags, size
    ), total AS (
        SELECT count(*) AS messages, coalesce(sum(size), 0) AS octets,
               count(*) FILTER (WHERE uid >= $4) AS recent,
               count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
               count(*) FILTER (WHERE flags & 8 <> 0) AS deleted
        FROM gone
    ), box AS (
        UPDATE mailstore.mailboxes b
        SET highest_mod_seq = $3, messages = b.messages - total.messages, octets = b.octets - total.octets,
            recent = b.recent - total.recent, unseen = b.unseen - total.unseen, deleted = b.deleted - total.deleted
        FROM total WHERE b.account_id = $1 AND b.mailbox_id = $2 AND total.messages > 0
    ), used AS (
        UPDATE mailstore.accounts a
        SET octets = a.octets - total.octets, messages = a.messages - total.messages
        FROM total WHERE a.account_id = $1 AND total.messages > 0
    ), noted AS (
        INSERT INTO mailstore.expunged (account_id, mailbox_id, mod_seq, uid, expunged_at)
        SELECT $1, $2, $3, uid, now() FROM gone
    )
    SELECT array_agg(uid ORDER BY uid) FROM gone
"""
_EXPUNGE_ALL = _REMOVE.format(condition="flags & 8 <> 0")
_EXPUNGE_SOME = _REMOVE.format(condition="flags & 8 <> 0 AND uid = ANY($5::bigint[])")
_REMOVE_SOME = _REMOVE.format(condition="uid = ANY($5::bigint[])")


async def expunge(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int] | None) -> Expunged:
    async def work(connection: Connection) -> Expunged:
        await lock_account(connection, account_id)
        mailbox = await lock_mailbox(connection, account_id, mailbox_id)
        if not mailbox.deleted:
            return Expunged((), mailbox.highest_mod_seq)
        if uids is None:
            return await _remove(connection, mailbox, _EXPUNGE_ALL)
        return await _remove(connection, mailbox, _EXPUNGE_SOME, uids)

    return await postgres.run("expunge", work)


async def remove(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    async def work(connection: Connection) -> Expunged:
        return await remove_within(connection, account_id, mailbox_id, uids)

    return await postgres.run("remove", work)


async def remove_within(connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    """Remove the messages of `uids` as a part of the caller's transaction."""
    await lock_account(connection, account_id)
    mailbox = await lock_mailbox(connection, account_id, mailbox_id)
    return await _remove(connection, mailbox, _REMOVE_SOME, uids)


async def _remove(connection: Connection, mailbox: LockedMailbox, sql: str, *args: object) -> Expunged:
    mod_seq = mailbox.highest_mod_seq + 1
    place = mailbox.account_id, mailbox.mailbox_id
    gone = await connection.fetchval(sql, *place, mod_seq, mailbox.recent_from, *args)
    return Expunged(tuple(gone), mod_seq) if gone else Expunged((), mailbox.highest_mod_seq)
