"""The statement that removes messages.

Each removed UID leaves a row in `expunged` with the mod_seq of its removal, until the janitor deletes it, so that every
session and every client that comes back learns of the removal (RFC 7162 §3.2).
"""

from collections.abc import Sequence

from paquebot.mailstore.errors import NoSuchMailbox
from paquebot.mailstore.locks import lock_account
from paquebot.mailstore.messages.types import Expunged
from paquebot.runtime.postgres.pool import Connection

# Migration changes_in_one_call.
_REMOVE = "SELECT mod_seq, removed FROM mailstore.remove_messages($1, $2, $3, $4)"


async def remove_messages(
    connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int] | None, *, only_deleted: bool
) -> Expunged:
    """`uids` None: of all messages. Raises NoSuchAccount, NoSuchMailbox."""
    row = await connection.fetchrow(_REMOVE, account_id, mailbox_id, uids, only_deleted)
    if row is None:
        await lock_account(connection, account_id)
        raise NoSuchMailbox(str(mailbox_id))
    return Expunged(tuple(row["removed"] or ()), row["mod_seq"])
