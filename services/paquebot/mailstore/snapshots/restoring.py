"""The steps that restore an account of a rebuild: mailboxes, messages, subscriptions, in one transaction.

No client may find another message under a UID that it knows. A restored mailbox has its UIDVALIDITY and its UIDs from
the snapshot, and continues at the ceiling that the snapshot promised (`uid_ceilings`), so all UIDs assigned after
the snapshot stay unused for ever. Each earlier rebuild from the same snapshot may have given `UID_ROOM` more. Where
there is no promise, or no room left, the UIDVALIDITY is a new one. Mod-sequences and ids advance far beyond all values
that were given.

A mailbox whose name is free, or taken by one that never had a message, gets the snapshot's id, UIDVALIDITY and UIDs.
Where services made mailboxes and mail came before the rebuild, the messages of the snapshot are added to the mailbox of
that name, with new UIDs.
"""

from paquebot.mailstore.accounts import add_accounts
from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.messages.keywords import KeywordSpellings
from paquebot.mailstore.snapshots.rebuild_types import ARRIVALS_ID, CounterAdvance, Restored
from paquebot.mailstore.uid_ceilings import NO_UID, UID_ROOM
from paquebot.runtime.postgres.pool import Connection, sole_row
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotMailbox

MOD_SEQ_ADVANCE = 2**40
"""More changes than a mailbox can see between two snapshots; there is room for eight million advances."""
ID_ADVANCE = 2**20
"""More mailboxes than an account can make, delete and rename between two snapshots: each is a transaction."""
LARGE_ACCOUNT_SECONDS = 3600.0

_SNAPSHOT = "SELECT snapshot FROM mailstore.rebuild_accounts WHERE account_id = $1 FOR UPDATE"
_IS_DELETED = """
    SELECT deleted_at IS NOT NULL FROM mailstore.accounts WHERE account_id = $1 FOR NO KEY UPDATE
"""
_GONE = "SELECT count(*) FROM mailstore.rebuild_messages WHERE account_id = $1 AND summary IS NULL"
_CLEAR = """
    WITH messages AS (DELETE FROM mailstore.rebuild_messages WHERE account_id = $1)
    DELETE FROM mailstore.rebuild_accounts WHERE account_id = $1
"""


async def restore_account(connection: Connection, account_id: int, advance: CounterAdvance) -> Restored:
    """Make the account whole from its gathered rows, and delete these."""
    await connection.execute(f"SET LOCAL statement_timeout = '{LARGE_ACCOUNT_SECONDS:g}s'")
    await connection.execute("SET LOCAL enable_nestloop = off")  # _ADD compares two lists: by hash
    stored = await connection.fetchrow(_SNAPSHOT, account_id)
    result = Restored()
    if stored is None:
        return result
    deleted = await connection.fetchval(_IS_DELETED, account_id)
    if not deleted:
        result.gone = await connection.fetchval(_GONE, account_id)
        if stored["snapshot"] is None:
            await _without_snapshot(connection, account_id, advance, is_new=deleted is None)
        else:
            snapshot = AccountSnapshot.FromString(stored["snapshot"])
            result.restored = await _mailboxes(connection, account_id, snapshot, advance)
        result.arrived = await _arrivals(connection, account_id)
        await recount(connection, account_id)
    await _run(connection, _CLEAR, account_id)
    return result


async def _run(connection: Connection, sql: str, *args: object) -> int:
    """The number of rows that the statement changed; its timeout is that of a large account."""
    status: str = await connection.execute(sql, *args, timeout=LARGE_ACCOUNT_SECONDS)
    return int(status.rpartition(" ")[2])


# Without a snapshot

_NEW_VALIDITY = """
    WITH given AS (
        UPDATE mailstore.accounts
        SET last_uid_validity = least(greatest(last_uid_validity, extract(epoch FROM now())::bigint) + $2, 4294967295)
        WHERE account_id = $1 RETURNING last_uid_validity
    )
    UPDATE mailstore.mailboxes SET uid_validity = given.last_uid_validity FROM given WHERE account_id = $1
"""


async def _without_snapshot(connection: Connection, account_id: int, advance: CounterAdvance, *, is_new: bool) -> None:
    """A new account; its UIDVALIDITY is greater than any that the lost one had."""
    if is_new:
        await add_accounts(connection, [account_id])
        await connection.execute(_NEW_VALIDITY, account_id, (advance.ever + 1) * ID_ADVANCE)


# From a snapshot

_TAKE = """
    INSERT INTO mailstore.accounts (account_id, last_mailbox_id, last_uid_validity)
    VALUES ($1, $2, least(greatest($3::bigint, extract(epoch FROM now())::bigint) + $4, 4294967295))
    ON CONFLICT (account_id) DO UPDATE
    SET last_mailbox_id = greatest(mailstore.accounts.last_mailbox_id, excluded.last_mailbox_id),
        last_uid_validity = greatest(mailstore.accounts.last_uid_validity, excluded.last_uid_validity)
    RETURNING last_mailbox_id, last_uid_validity
"""
_DROP_UNUSED = """
    DELETE FROM mailstore.mailboxes
    WHERE account_id = $1 AND name = ANY($2::text[]) AND messages = 0 AND uid_next = 1
"""
_THERE = """
    SELECT mailbox_id, name, highest_mod_seq, keywords FROM mailstore.mailboxes
    WHERE account_id = $1 ORDER BY mailbox_id FOR NO KEY UPDATE
"""
_FORGET_SUBSCRIPTIONS = "DELETE FROM mailstore.subscriptions WHERE account_id = $1"
_SUBSCRIBE = """
    INSERT INTO mailstore.subscriptions (account_id, name) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING
"""
_USE_IDS = "UPDATE mailstore.accounts SET last_mailbox_id = $2 WHERE account_id = $1"


async def _mailboxes(
    connection: Connection, account_id: int, snapshot: AccountSnapshot, advance: CounterAdvance
) -> int:
    """Restore all mailboxes of the snapshot; returns how many messages they got."""
    ids = min(snapshot.last_mailbox_id + (advance.since_snapshot + 1) * ID_ADVANCE, 2**31 - ID_ADVANCE)
    validity_advance = (advance.since_snapshot + 1) * ID_ADVANCE
    given = sole_row(await connection.fetchrow(_TAKE, account_id, ids, snapshot.last_uid_validity, validity_advance))
    next_id, uid_validity = given["last_mailbox_id"] + 1, given["last_uid_validity"]
    await connection.execute(_DROP_UNUSED, account_id, [box.name for box in snapshot.mailboxes])
    there = {row["name"]: row for row in await connection.fetch(_THERE, account_id)}
    if not there:
        await connection.execute(_FORGET_SUBSCRIPTIONS, account_id)
    await connection.execute(_SUBSCRIBE, account_id, list(snapshot.subscriptions))
    taken = {row["mailbox_id"] for row in there.values()}
    count = 0
    for box in snapshot.mailboxes:
        if box.name in there:
            count += await _add_to(connection, account_id, box, there[box.name])
            continue
        mailbox_id = box.mailbox_id
        if mailbox_id in taken:
            mailbox_id, next_id = next_id, next_id + 1
        count += await _make(connection, account_id, mailbox_id, box, advance, uid_validity)
    await connection.execute(_USE_IDS, account_id, next_id - 1)
    return count


_MAKE = """
    INSERT INTO mailstore.mailboxes (
        account_id, mailbox_id, name, uid_validity, uid_next, uid_ceiling, highest_mod_seq, recent_from,
        expunged_horizon, keywords, special_use, selectable)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $5, $7, $8, $9, $10)
"""
_VALUES = """internal_date, save_date, pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
             queue_id, thread_key, prefix, summary"""
_INTO = f"""
    INSERT INTO mailstore.messages (account_id, mailbox_id, uid, mod_seq, flags, keywords, size, {_VALUES})
"""
_FILL = f"""
    {_INTO}
    SELECT account_id, $3, uid, $4, flags, keywords, blob_size + length(prefix), {_VALUES}
    FROM mailstore.rebuild_messages WHERE account_id = $1 AND mailbox_id = $2 AND summary IS NOT NULL
"""  # noqa: S608 - only constants are put in


async def _make(
    connection: Connection,
    account_id: int,
    mailbox_id: int,
    box: SnapshotMailbox,
    advance: CounterAdvance,
    uid_validity: int,
) -> int:
    """Make the snapshot's own mailbox, with its UIDs; returns how many messages it got."""
    uid_next = box.uid_ceiling + advance.since_snapshot * UID_ROOM
    ceiling = uid_next + UID_ROOM
    if ceiling > NO_UID:  # nothing was promised, or no room is left: only a new UIDVALIDITY is safe
        uid_next, ceiling = box.uid_next, NO_UID
    else:
        uid_validity = box.uid_validity
    mod_seq = box.highest_mod_seq + (advance.since_snapshot + 1) * MOD_SEQ_ADVANCE
    place = account_id, mailbox_id, box.name, uid_validity
    words, use = list(box.keywords), box.special_use or None
    await connection.execute(_MAKE, *place, uid_next, ceiling, mod_seq, words, use, box.selectable)
    return await _run(connection, _FILL, account_id, box.mailbox_id, mailbox_id, mod_seq)


_SPELL = """
    UPDATE mailstore.rebuild_messages SET keywords = ARRAY(
        SELECT coalesce(s.new, k.word) FROM unnest(keywords) WITH ORDINALITY AS k (word, place)
        LEFT JOIN unnest($3::text[], $4::text[]) AS s (old, new) ON s.old = k.word ORDER BY k.place)
    WHERE account_id = $1 AND mailbox_id = $2 AND keywords <> '{}'
"""
_SET_KEYWORDS = "UPDATE mailstore.mailboxes SET keywords = $3 WHERE account_id = $1 AND mailbox_id = $2"
_ADD = f"""
    WITH new AS (
        SELECT r.*, row_number() OVER (ORDER BY uid, internal_date, queue_id) AS place
        FROM mailstore.rebuild_messages r
        WHERE account_id = $1 AND mailbox_id = $2 AND summary IS NOT NULL AND NOT EXISTS (
            SELECT FROM mailstore.messages m
            WHERE m.account_id = $1 AND m.mailbox_id = $3 AND m.queue_id = r.queue_id)
    ), box AS (
        UPDATE mailstore.mailboxes
        SET uid_next = uid_next + (SELECT count(*) FROM new), highest_mod_seq = highest_mod_seq + 1
        WHERE account_id = $1 AND mailbox_id = $3
        RETURNING uid_next - (SELECT count(*) FROM new) AS first_uid, highest_mod_seq
    )
    {_INTO}
    SELECT account_id, $3, first_uid - 1 + place, highest_mod_seq, flags, keywords, blob_size + length(prefix),
           {_VALUES}
    FROM new CROSS JOIN box
"""  # noqa: S608 - only constants are put in


async def _add_to(connection: Connection, account_id: int, box: SnapshotMailbox, there: Record) -> int:
    """Add the snapshot's messages to a mailbox that is in use, each once, with new UIDs; returns how many."""
    known = KeywordSpellings((*there["keywords"], *box.keywords))
    if box.keywords:
        await connection.execute(_SET_KEYWORDS, account_id, there["mailbox_id"], list(known.known()))
        new = [known([word])[0] for word in box.keywords]
        await _run(connection, _SPELL, account_id, box.mailbox_id, list(box.keywords), new)
    return await _run(connection, _ADD, account_id, box.mailbox_id, there["mailbox_id"])


async def _arrivals(connection: Connection, account_id: int) -> int:
    """Add the messages that no snapshot knows to INBOX in order of arrival; returns how many."""
    return await _run(connection, _ADD, account_id, ARRIVALS_ID, INBOX_ID)


_COUNT = """
    UPDATE mailstore.mailboxes b
    SET messages = c.messages, recent = c.recent, unseen = c.unseen, deleted = c.deleted, octets = c.octets
    FROM (
        SELECT b.mailbox_id, count(m.uid) AS messages, count(*) FILTER (WHERE m.uid >= b.recent_from) AS recent,
               count(*) FILTER (WHERE m.flags & 1 = 0) AS unseen, count(*) FILTER (WHERE m.flags & 8 <> 0) AS deleted,
               coalesce(sum(m.size), 0) AS octets
        FROM mailstore.mailboxes b LEFT JOIN mailstore.messages m USING (account_id, mailbox_id)
        WHERE b.account_id = $1 GROUP BY b.mailbox_id
    ) c
    WHERE b.account_id = $1 AND b.mailbox_id = c.mailbox_id
"""
_USAGE = """
    UPDATE mailstore.accounts SET (octets, messages) = (
        SELECT coalesce(sum(octets), 0), coalesce(sum(messages), 0) FROM mailstore.mailboxes WHERE account_id = $1)
    WHERE account_id = $1
"""


async def recount(connection: Connection, account_id: int) -> None:
    """Set the counters of an account and its mailboxes from its messages."""
    await _run(connection, _COUNT, account_id)
    await _run(connection, _USAGE, account_id)
