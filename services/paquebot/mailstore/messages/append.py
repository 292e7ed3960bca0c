"""APPEND: messages that a client puts into a mailbox of its account (RFC 3501 §6.3.11, RFC 3502)."""

from collections.abc import Sequence

from paquebot.mailstore import dates, rows
from paquebot.mailstore.locks import lock_account, lock_mailbox
from paquebot.mailstore.messages import keywords
from paquebot.mailstore.types import NO_LIMIT, Appended, MailstoreLimits, NewMessage, RecentRange
from paquebot.runtime.postgres.pool import Connection, Postgres

# Migrations changes_in_one_call and crlf_sizes. Without room for so many messages, no bytes are allowed. Their number
# is read without the locks, so those who add at the same time may pass the bound by what they bring: it protects, it
# counts nothing.
_APPEND = """
    SELECT uid_validity, first_uid, mod_seq, recent_from FROM mailstore.append_messages(
        $1, $2, (
            SELECT CASE WHEN a.messages + cardinality($6::text[]) <= $21
                         AND b.messages + cardinality($6::text[]) <= $22 THEN $3::bigint ELSE -1 END
            FROM mailstore.accounts a JOIN mailstore.mailboxes b USING (account_id)
            WHERE account_id = $1 AND b.mailbox_id = $2
        ), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
"""


async def append(
    postgres: Postgres,
    limits: MailstoreLimits,
    account_id: int,
    mailbox_id: int,
    messages: Sequence[NewMessage],
    *,
    quota_bytes: int,
    claim: bool,
) -> Appended:
    place = account_id, mailbox_id, quota_bytes or NO_LIMIT, claim
    words = dict.fromkeys(word for message in messages for word in message.keywords)

    async def at_once(connection: Connection) -> Appended | None:
        return await _append(connection, place, messages, keywords.Spelling(words), limits)

    async def step_by_step(connection: Connection) -> Appended | None:
        account = await lock_account(connection, account_id)
        account.need_room(sum(message.size for message in messages), quota_bytes)
        account.need_messages(len(messages), limits)
        mailbox = await lock_mailbox(connection, account_id, mailbox_id)
        mailbox.need_selectable()
        mailbox.need_uids(len(messages))
        mailbox.need_messages(len(messages), limits)
        if not messages:
            return Appended(mailbox.uid_validity, (), mailbox.highest_mod_seq)
        spelling = await keywords.spell(connection, mailbox, words, limits)
        return await _append(connection, place, messages, spelling, limits)

    appended = await postgres.run_statement("append", at_once) if messages else None
    appended = appended or await postgres.run("append", step_by_step)
    assert appended is not None  # every keyword is spelled as the locked mailbox knows it, and there is room
    return appended


async def _append(
    connection: Connection,
    place: tuple[int, int, int, bool],
    messages: Sequence[NewMessage],
    spelling: keywords.Spelling,
    limits: MailstoreLimits,
) -> Appended | None:
    """None: not done; something is to be refused, or the mailbox spells a keyword in another way or not yet."""
    columns = zip(*(_columns(message, spelling) for message in messages), strict=True)
    bounds = limits.messages, limits.mailbox_messages
    row = await connection.fetchrow(_APPEND, *place, spelling.known(), *columns, *bounds)
    if row is None:
        return None
    first, mod_seq, recent_from = row["first_uid"], row["mod_seq"], row["recent_from"]
    uids = range(first, first + len(messages))
    claimed = RecentRange(recent_from, uids.stop) if recent_from is not None else None
    return Appended(row["uid_validity"], uids, mod_seq, claimed)


def _columns(message: NewMessage, spelling: keywords.Spelling) -> tuple[object, ...]:
    return (
        *(message.email_id, message.size, dates.storable(message.internal_date)),
        *(int(message.flags), " ".join(spelling(message.keywords))),
        *rows.blob_values(message.blob),
        *(message.thread_key, message.prefix, message.summary, message.crlf_size),
    )
