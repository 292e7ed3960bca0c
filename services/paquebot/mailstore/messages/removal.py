"""Messages that go away: expunge (RFC 3501 §6.4.3, RFC 4315 §2.1) and removal whatever the flags.

Each removed UID leaves a row in `expunged` with the mod_seq of its removal, until the janitor forgets it, so
that every session and every client that comes back learns of it (RFC 7162 §3.2).
"""

from collections.abc import Sequence

from paquebot.mailstore.errors import NoSuchMailbox
from paquebot.mailstore.locks import lock_account
from paquebot.mailstore.types import Expunged
from paquebot.runtime.postgres.pool import Connection, Postgres

# Migration changes_in_one_call.
_REMOVE = "SELECT mod_seq, removed FROM mailstore.remove_messages($1, $2, $3, $4)"


async def expunge(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int] | None) -> Expunged:
    return await _run(postgres, "expunge", account_id, mailbox_id, uids, only_deleted=True)


async def remove(postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    return await _run(postgres, "remove", account_id, mailbox_id, uids, only_deleted=False)


async def remove_within(connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    """Remove the messages of `uids` as a part of the caller's transaction."""
    return await _remove(connection, account_id, mailbox_id, uids, only_deleted=False)


async def _run(
    postgres: Postgres, call: str, account_id: int, mailbox_id: int, uids: Sequence[int] | None, *, only_deleted: bool
) -> Expunged:
    async def work(connection: Connection) -> Expunged:
        return await _remove(connection, account_id, mailbox_id, uids, only_deleted=only_deleted)

    return await postgres.run_statement(call, work)


async def _remove(
    connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int] | None, *, only_deleted: bool
) -> Expunged:
    row = await connection.fetchrow(_REMOVE, account_id, mailbox_id, uids, only_deleted)
    if row is None:
        await lock_account(connection, account_id)
        raise NoSuchMailbox(str(mailbox_id))
    return Expunged(tuple(row["removed"] or ()), row["mod_seq"])
