"""The statements that put messages into another mailbox of their account: copy (RFC 3501 §6.4.7), move (RFC 6851).

They run in a transaction that has locked the account, so no other transaction can remove the source's messages
meanwhile. The messages get consecutive UIDs in the order of their old ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.mailstore.errors import SomeExpunged
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.locks import LockedMailbox, lock_mailboxes
from paquebot.mailstore.messages import keywords, rows
from paquebot.mailstore.messages.types import Copied
from paquebot.runtime.postgres.pool import ChangedMeanwhile, Connection, sole_row

_CHOOSE = f"""
    SELECT coalesce(array_agg(m.uid ORDER BY m.uid), '{{}}') AS uids, coalesce(sum(size), 0)::bigint AS octets,
           count(*) FILTER (WHERE m.uid >= $4) AS recent,
           count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
           count(*) FILTER (WHERE flags & 8 <> 0) AS deleted
    FROM {rows.messages_by_uid("uid, size, flags")}
"""  # noqa: S608 - only constants are put in
_WORDS = f"SELECT DISTINCT unnest(m.keywords) AS word FROM {rows.messages_by_uid('keywords')}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class ChosenMessages:
    """Messages to copy or move, and what they add to a mailbox's counters."""

    uids: tuple[int, ...]
    total_size: int
    recent: int
    unseen: int
    deleted: int
    words: tuple[str, ...]


async def choose(
    connection: Connection, source: LockedMailbox, uids: Sequence[int], *, all_of_them: bool = False
) -> ChosenMessages:
    """Those of `uids` that exist. Raises SomeExpunged when `all_of_them` must and do not."""
    place = source.account_id, source.mailbox_id, uids
    row = sole_row(await connection.fetchrow(_CHOOSE, *place, source.recent_from))
    if all_of_them and len(row["uids"]) < len(set(uids)):
        raise SomeExpunged
    words = await connection.fetch(_WORDS, *place) if source.keywords else ()
    return ChosenMessages(
        uids=tuple(row["uids"]),
        total_size=row["octets"],
        recent=row["recent"],
        unseen=row["unseen"],
        deleted=row["deleted"],
        words=tuple(row["word"] for row in words),
    )


# $1 account, $2 source, $3 uids, $4 target, $5 first UID, $6 mod_seq, $7 and $8 keywords' old and new
# spelling
_NEW_KEYWORDS = """
    CASE m.keywords WHEN '{}' THEN '{}' ELSE ARRAY(
        SELECT s.new FROM unnest(m.keywords) WITH ORDINALITY AS k (word, place)
        JOIN unnest($7::text[], $8::text[]) AS s (old, new) ON s.old = k.word ORDER BY k.place
    ) END
"""
_PLACED = "unnest($3::bigint[]) WITH ORDINALITY AS asked (uid, place)"
_COPY = f"""
    INSERT INTO mailstore.messages (
        account_id, mailbox_id, uid, mod_seq, flags, keywords, size, internal_date, save_date,
        pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
        queue_id, thread_key, prefix, summary, crlf_size
    )
    SELECT account_id, $4, $5 - 1 + place, $6, flags, {_NEW_KEYWORDS},
           size, internal_date, now(),
           pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
           queue_id, thread_key, prefix, summary, crlf_size
    FROM {rows.messages_by_uid("*", _PLACED)}
"""  # noqa: S608 - only constants are put in
_MOVE = f"""
    UPDATE mailstore.messages m
    SET mailbox_id = $4, uid = $5 - 1 + c.place, mod_seq = $6, save_date = now(), keywords = {_NEW_KEYWORDS}
    FROM (SELECT asked.place, m.at FROM {rows.messages_by_uid("messages.ctid AS at", _PLACED)}) c
    WHERE m.ctid = c.at
"""  # noqa: S608 - only constants are put in
_NOTE_EXPUNGED = """
    INSERT INTO mailstore.expunged (account_id, mailbox_id, mod_seq, uid, expunged_at)
    SELECT $1, $2, $3, uid, now() FROM unnest($4::bigint[]) AS uid
"""
_COUNT_IN = """
    UPDATE mailstore.mailboxes
    SET uid_next = uid_next + $3, highest_mod_seq = highest_mod_seq + 1, recent = recent + $3,
        messages = messages + $3, octets = octets + $4, unseen = unseen + $5, deleted = deleted + $6
    WHERE account_id = $1 AND mailbox_id = $2
    RETURNING uid_next - $3 AS first_uid, highest_mod_seq AS mod_seq
"""
_COUNT_OUT = """
    UPDATE mailstore.mailboxes
    SET highest_mod_seq = highest_mod_seq + 1, recent = recent - $7,
        messages = messages - $3, octets = octets - $4, unseen = unseen - $5, deleted = deleted - $6
    WHERE account_id = $1 AND mailbox_id = $2
    RETURNING highest_mod_seq AS mod_seq
"""
_COUNT_USED = """
    UPDATE mailstore.accounts SET octets = octets + $2, messages = messages + $3 WHERE account_id = $1
"""


def _counts(mailbox: LockedMailbox, chosen: ChosenMessages) -> tuple[int, ...]:
    counted = len(chosen.uids), chosen.total_size, chosen.unseen, chosen.deleted
    return mailbox.account_id, mailbox.mailbox_id, *counted


async def copy_messages(
    connection: Connection,
    limits: MailstoreLimits,
    source: LockedMailbox,
    chosen: ChosenMessages,
    target: LockedMailbox,
) -> Copied:
    """Raises NotSelectable, TooManyKeywords, TooManyMessages, MailboxFull."""
    copied = await _put(connection, _COPY, source, chosen, target, limits)
    await connection.execute(_COUNT_USED, source.account_id, chosen.total_size, len(chosen.uids))
    return copied


async def move_messages(
    connection: Connection,
    limits: MailstoreLimits,
    account_id: int,
    source_id: int,
    uids: Sequence[int],
    target_id: int,
    *,
    all_of_them: bool = False,
) -> Copied:
    """Move the messages of `uids` that exist. Raises as `Messages.move`."""
    locked = await lock_mailboxes(connection, account_id, [source_id, target_id])
    source, target = locked[source_id], locked[target_id]
    chosen = await choose(connection, source, uids, all_of_them=all_of_them)
    if not chosen.uids:
        return Copied(target.uid_validity, (), (), target.highest_mod_seq, source.highest_mod_seq)
    gone: int = await connection.fetchval(_COUNT_OUT, *_counts(source, chosen), chosen.recent)
    await connection.execute(_NOTE_EXPUNGED, account_id, source_id, gone, chosen.uids)
    moved = await _put(connection, _MOVE, source, chosen, target, limits)
    return Copied(moved.uid_validity, moved.source_uids, moved.uids, moved.mod_seq, gone)


async def _put(
    connection: Connection,
    sql: str,
    source: LockedMailbox,
    chosen: ChosenMessages,
    target: LockedMailbox,
    limits: MailstoreLimits,
) -> Copied:
    """Put the chosen messages into the target with `sql`: _COPY or _MOVE."""
    target.need_selectable()
    target.need_uids(len(chosen.uids))
    if target.mailbox_id != source.mailbox_id or sql is _COPY:
        target.need_messages(len(chosen.uids), limits)
    if not chosen.uids:
        return Copied(target.uid_validity, (), (), target.highest_mod_seq, 0)
    spellings = await keywords.add_keywords(connection, target, chosen.words, limits)
    spelled = [spellings([word])[0] for word in chosen.words]
    at = sole_row(await connection.fetchrow(_COUNT_IN, *_counts(target, chosen)))
    first_uid, mod_seq = at["first_uid"], at["mod_seq"]
    status: str = await connection.execute(
        sql,
        source.account_id,
        source.mailbox_id,
        chosen.uids,
        target.mailbox_id,
        first_uid,
        mod_seq,
        chosen.words,
        spelled,
    )
    if int(status.rpartition(" ")[2]) < len(chosen.uids):
        raise ChangedMeanwhile
    uids = range(first_uid, first_uid + len(chosen.uids))
    return Copied(target.uid_validity, chosen.uids, uids, mod_seq, 0)
