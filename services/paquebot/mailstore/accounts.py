"""An account's row: made with its first mailboxes on first use, kept as a tombstone when the account is
deleted.
"""

from collections.abc import Sequence

from paquebot.mailstore.errors import NoSuchAccount
from paquebot.mailstore.mailboxes.names import FIRST_MAILBOXES, INBOX_ID
from paquebot.mailstore.types import Usage
from paquebot.runtime.postgres.pool import Connection, Postgres

_KNOWN = 100_000
_CHUNK = 5000


class KnownAccounts:
    """Accounts that this process saw, so that making sure of one costs nothing; bounded."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[int, None] = {}

    def __contains__(self, account_id: int) -> bool:
        return account_id in self._ids

    def add(self, account_id: int) -> None:
        self._ids[account_id] = None
        if len(self._ids) > _KNOWN:
            del self._ids[next(iter(self._ids))]

    def discard(self, account_id: int) -> None:
        self._ids.pop(account_id, None)


_ADD_ACCOUNTS = """
    WITH first AS (
        SELECT mailbox_id, name, special_use FROM unnest($2::int[], $3::text[], $4::text[])
            AS f (mailbox_id, name, special_use)
    ), made AS (
        INSERT INTO mailstore.accounts (account_id, last_mailbox_id, last_uid_validity)
        SELECT id, (SELECT max(mailbox_id) FROM first), extract(epoch FROM now())::bigint
        FROM unnest($1::bigint[]) AS id ORDER BY id
        ON CONFLICT DO NOTHING
        RETURNING account_id, last_uid_validity
    ), boxes AS (
        INSERT INTO mailstore.mailboxes (account_id, mailbox_id, name, uid_validity, special_use)
        SELECT made.account_id, first.mailbox_id, first.name, made.last_uid_validity, first.special_use
        FROM made CROSS JOIN first
    )
    INSERT INTO mailstore.subscriptions (account_id, name)
    SELECT made.account_id, first.name FROM made CROSS JOIN first
"""


async def add_accounts(connection: Connection, account_ids: Sequence[int]) -> None:
    """Make the accounts that are neither there nor deleted, each with its first mailboxes."""
    await connection.execute(
        _ADD_ACCOUNTS,
        account_ids,
        list(range(INBOX_ID, INBOX_ID + len(FIRST_MAILBOXES))),
        [name for name, _ in FIRST_MAILBOXES],
        [None if use is None else use.value for _, use in FIRST_MAILBOXES],
    )


_IS_DELETED = "SELECT deleted_at IS NOT NULL FROM mailstore.accounts WHERE account_id = $1"


async def ensure_account(postgres: Postgres, known: KnownAccounts, account_id: int) -> None:
    if account_id in known:
        return
    deleted = await postgres.fetchval("find_account", _IS_DELETED, account_id)
    if deleted is None:
        async with postgres.transaction("add_account") as connection:
            await add_accounts(connection, [account_id])
            deleted = await connection.fetchval(_IS_DELETED, account_id)
    if deleted:
        raise NoSuchAccount(account_id)
    known.add(account_id)


# A tombstone first, so that nothing can be added while the rows go away piece by piece.
_BURY = """
    WITH tombstone AS (
        INSERT INTO mailstore.accounts (account_id, last_mailbox_id, last_uid_validity, deleted_at)
        VALUES ($1, 0, 1, now())
        ON CONFLICT (account_id) DO UPDATE
            SET octets = 0, messages = 0, deleted_at = coalesce(mailstore.accounts.deleted_at, now())
    ), boxes AS (
        DELETE FROM mailstore.mailboxes WHERE account_id = $1
    ), lock AS (
        DELETE FROM mailstore.maildrop_locks WHERE account_id = $1
    )
    DELETE FROM mailstore.subscriptions WHERE account_id = $1
"""
# `+ 0`: by the place of each row, and not through the account's index once for every chunk.
_DELETE_MESSAGES = """
    DELETE FROM mailstore.messages WHERE account_id + 0 = $1 AND ctid = ANY(ARRAY(
        SELECT ctid FROM mailstore.messages WHERE account_id = $1 LIMIT $2))
"""
_DELETE_EXPUNGED = """
    DELETE FROM mailstore.expunged WHERE account_id + 0 = $1 AND ctid = ANY(ARRAY(
        SELECT ctid FROM mailstore.expunged WHERE account_id = $1 LIMIT $2))
"""


async def delete_account(postgres: Postgres, known: KnownAccounts, account_id: int) -> None:
    known.discard(account_id)

    async def bury(connection: Connection) -> None:
        await connection.execute("SELECT 1 FROM mailstore.accounts WHERE account_id = $1 FOR UPDATE", account_id)
        await connection.execute(_BURY, account_id)

    await postgres.run("delete_account", bury)
    for sql in (_DELETE_MESSAGES, _DELETE_EXPUNGED):
        while await _deleted(postgres, sql, account_id) == _CHUNK:
            pass


async def _deleted(postgres: Postgres, sql: str, account_id: int) -> int:
    async with postgres.connection("delete_account") as connection:
        status: str = await connection.execute(sql, account_id, _CHUNK)
    return int(status.rpartition(" ")[2])


_USAGE = "SELECT octets, messages FROM mailstore.quota WHERE account_id = $1"


async def usage(postgres: Postgres, account_id: int) -> Usage:
    row = await postgres.fetchrow("usage", _USAGE, account_id)
    return Usage(0, 0) if row is None else Usage(row["octets"], row["messages"])
