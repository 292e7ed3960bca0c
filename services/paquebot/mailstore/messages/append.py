"""The statement that appends messages (RFC 3501 §6.3.11, RFC 3502)."""

from collections.abc import Sequence

from paquebot.mailstore import dates
from paquebot.mailstore.blob_rows import blob_values
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.messages.keywords import KeywordSpellings
from paquebot.mailstore.messages.types import Appended, NewMessage, RecentRange
from paquebot.runtime.postgres.pool import Connection

# Migrations changes_in_one_call and crlf_sizes. Where there is no room for all messages, the statement passes a
# limit of -1 bytes. It reads the counts of messages without the locks, so appends at the same time may pass the bound
# by their own messages: the bound protects the platform and need not be exact.
_APPEND = """
    SELECT uid_validity, first_uid, mod_seq, recent_from FROM mailstore.append_messages(
        $1, $2, (
            SELECT CASE WHEN a.messages + cardinality($6::text[]) <= $21
                         AND b.messages + cardinality($6::text[]) <= $22 THEN $3::bigint ELSE -1 END
            FROM mailstore.accounts a JOIN mailstore.mailboxes b USING (account_id)
            WHERE account_id = $1 AND b.mailbox_id = $2
        ), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
"""


async def append_messages(
    connection: Connection,
    place: tuple[int, int, int, bool],
    messages: Sequence[NewMessage],
    spellings: KeywordSpellings,
    limits: MailstoreLimits,
) -> Appended | None:
    """`place`: account id, mailbox id, the account's limit in bytes, whether the session claims the recent messages.

    None: nothing was appended; something is to be refused, or the mailbox does not know a keyword in this spelling.
    """
    columns = zip(*(_columns(message, spellings) for message in messages), strict=True)
    bounds = limits.messages, limits.mailbox_messages
    row = await connection.fetchrow(_APPEND, *place, spellings.known(), *columns, *bounds)
    if row is None:
        return None
    first, mod_seq, recent_from = row["first_uid"], row["mod_seq"], row["recent_from"]
    uids = range(first, first + len(messages))
    claimed = RecentRange(recent_from, uids.stop) if recent_from is not None else None
    return Appended(row["uid_validity"], uids, mod_seq, claimed)


def _columns(message: NewMessage, spellings: KeywordSpellings) -> tuple[object, ...]:
    return (
        *(message.email_id, message.size, dates.storable(message.internal_date)),
        *(int(message.flags), " ".join(spellings(message.keywords))),
        *blob_values(message.blob),
        *(message.thread_key, message.prefix, message.summary, message.crlf_size),
    )
