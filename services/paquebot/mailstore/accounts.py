"""An account's row: made with its first mailboxes on first use, kept as a tombstone when the account is
deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import FIFOCache

from paquebot.mailstore.errors import NoSuchAccount
from paquebot.mailstore.mailboxes.names import FIRST_MAILBOXES, INBOX_ID
from paquebot.runtime.postgres.pool import Connection, Postgres

_MAX_KNOWN = 100_000
_CHUNK = 5000


@dataclass(frozen=True, slots=True)
class Usage:
    """The stored bytes and messages of an account."""

    total_size: int
    """Bytes of all its messages; a copy counts again."""
    messages: int


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
    """Make the accounts that neither exist nor were deleted, each with its first mailboxes."""
    await connection.execute(
        _ADD_ACCOUNTS,
        account_ids,
        list(range(INBOX_ID, INBOX_ID + len(FIRST_MAILBOXES))),
        [name for name, _ in FIRST_MAILBOXES],
        [None if use is None else use.value for _, use in FIRST_MAILBOXES],
    )


_IS_DELETED = "SELECT deleted_at IS NOT NULL FROM mailstore.accounts WHERE account_id = $1"
# A tombstone first, so that no process can add anything while the rows are deleted chunk by chunk.
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
_USAGE = "SELECT octets, messages FROM mailstore.quota WHERE account_id = $1"
_USAGES = "SELECT account_id, octets, messages FROM mailstore.quota WHERE account_id = ANY($1::bigint[])"


class Accounts:
    """One per process. It remembers the accounts that this process saw, so that `ensure` costs nothing for them."""

    __slots__ = ("_known", "_postgres")

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._known: FIFOCache[int, None] = FIFOCache(_MAX_KNOWN)

    async def ensure(self, account_id: int) -> None:
        """Make the account's mailboxes (INBOX, Drafts, Sent, Trash, Junk, Archive, all subscribed) unless they exist.

        Raises NoSuchAccount when it was deleted.
        """
        if account_id in self._known:
            return
        deleted = await self._postgres.fetchval("find_account", _IS_DELETED, account_id)
        if deleted is None:
            async with self._postgres.transaction("add_account") as connection:
                await add_accounts(connection, [account_id])
                deleted = await connection.fetchval(_IS_DELETED, account_id)
        if deleted:
            raise NoSuchAccount(account_id)
        self._known[account_id] = None

    async def delete(self, account_id: int) -> None:
        """Remove all mailboxes and messages for good: the id is not used again. Idempotent."""
        self._known.pop(account_id, None)

        async def bury(connection: Connection) -> None:
            await connection.execute("SELECT 1 FROM mailstore.accounts WHERE account_id = $1 FOR UPDATE", account_id)
            await connection.execute(_BURY, account_id)

        await self._postgres.run("delete_account", bury)
        for sql in (_DELETE_MESSAGES, _DELETE_EXPUNGED):
            while await self._delete_chunk(sql, account_id) == _CHUNK:
                pass

    async def _delete_chunk(self, sql: str, account_id: int) -> int:
        async with self._postgres.connection("delete_account") as connection:
            status: str = await connection.execute(sql, account_id, _CHUNK)
        return int(status.rpartition(" ")[2])

    async def usage(self, account_id: int) -> Usage:
        """Zeros when the account has no mailboxes yet."""
        row = await self._postgres.fetchrow("usage", _USAGE, account_id)
        return Usage(0, 0) if row is None else Usage(row["octets"], row["messages"])

    async def usages(self, account_ids: Sequence[int]) -> dict[int, Usage]:
        """By account, for a role that may read nothing else of the mailstore; an account that never had mail is
        absent."""
        rows = await self._postgres.fetch("usages", _USAGES, list(account_ids))
        return {row["account_id"]: Usage(row["octets"], row["messages"]) for row in rows}
