"""Administration of accounts. Passwords come as hashes only."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from paquebot.directory.domains import lock_home
from paquebot.directory.errors import AlreadyExists, NotFound
from paquebot.directory.names import display_name, domain_name, local_address, quota
from paquebot.runtime.postgres.pool import Connection, Postgres, sole_row
from paquebot.wire.address import Address


@dataclass(frozen=True, slots=True)
class Account:
    """`quota_bytes` 0: none."""

    account_id: int
    address: Address
    display_name: str
    enabled: bool
    quota_bytes: int
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class AccountChange:
    """New values; None leaves the old one."""

    password_hash: str | None = None
    display_name: str | None = None
    enabled: bool | None = None
    quota_bytes: int | None = None


_COLUMNS = "account_id, local_part, domain, display_name, enabled, quota_bytes, created_at"
_INSERT = f"""
INSERT INTO directory.accounts (local_part, domain, display_name, password_hash, quota_bytes)
SELECT $1, name, $3, $4, coalesce($5, nullif(default_quota_bytes, 0), $6) FROM directory.domains WHERE name = $2
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant of column names
_ALIAS = "SELECT 1 FROM directory.aliases WHERE domain = $1 AND local_part = $2"
_GET = f"SELECT {_COLUMNS} FROM directory.accounts WHERE domain = $1 AND local_part = $2"  # noqa: S608
_LIST = f"""
SELECT {_COLUMNS} FROM directory.accounts
WHERE (domain, local_part) > ($1, $2) AND ($3 = '' OR domain = $3) ORDER BY domain, local_part LIMIT $4
"""  # noqa: S608
_UPDATE = f"""
UPDATE directory.accounts
SET password_hash = coalesce($3, password_hash), display_name = coalesce($4, display_name),
    enabled = coalesce($5, enabled), quota_bytes = coalesce($6, quota_bytes),
    password_version = password_version + CASE WHEN $3::text IS NULL THEN 0 ELSE 1 END
WHERE domain = $1 AND local_part = $2 RETURNING {_COLUMNS}
"""  # noqa: S608
_DELETE = """
WITH gone AS (
    DELETE FROM directory.accounts WHERE domain = $1 AND local_part = $2 RETURNING account_id
)
INSERT INTO directory.removed_accounts (account_id) SELECT account_id FROM gone RETURNING account_id
"""


async def check_free(postgres: Postgres, address: str) -> None:
    """Raises InvalidValue, AlreadyExists: there is such an account."""
    at = local_address(address)
    if await postgres.fetchrow("get_account", _GET, at.domain, at.local) is not None:
        raise AlreadyExists(f"account {at} already exists")


async def create_account(
    postgres: Postgres,
    address: str,
    password_hash: str,
    *,
    name: str = "",
    quota_bytes: int | None = None,
    default_quota_bytes: int = 0,
) -> Account:
    """`quota_bytes` None: the domain's default, or `default_quota_bytes` where it has none.

    Raises InvalidValue, NotFound, AlreadyExists, FailedPrecondition.
    """
    at = local_address(address)
    display_name(name)
    if quota_bytes is not None:
        quota(quota_bytes)

    async def work(connection: Connection) -> Account:
        await lock_home(connection, at.domain)
        if await connection.fetchval(_ALIAS, at.domain, at.local):
            raise AlreadyExists(f"{at} is an alias")
        try:
            row = await connection.fetchrow(
                _INSERT, at.local, at.domain, name, password_hash, quota_bytes, default_quota_bytes
            )
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(f"account {at} already exists") from None
        return _account(sole_row(row))

    return await postgres.run("create_account", work)


async def get_account(postgres: Postgres, address: str) -> Account:
    """Raises InvalidValue, NotFound."""
    at = local_address(address)
    return _found(await postgres.fetchrow("get_account", _GET, at.domain, at.local), at)


async def list_accounts(postgres: Postgres, domain: str, *, after: tuple[str, str], limit: int) -> list[Account]:
    """At most `limit` accounts (of `domain`; empty: of all) by (domain, local part), those after `after`."""
    only = domain_name(domain) if domain else ""
    rows = await postgres.fetch("list_accounts", _LIST, *after, only, limit)
    return [_account(row) for row in rows]


async def update_account(postgres: Postgres, address: str, change: AccountChange) -> Account:
    """Raises InvalidValue, NotFound."""
    at = local_address(address)
    if change.display_name is not None:
        display_name(change.display_name)
    if change.quota_bytes is not None:
        quota(change.quota_bytes)
    row = await postgres.fetchrow(
        "update_account",
        _UPDATE,
        at.domain,
        at.local,
        change.password_hash,
        change.display_name,
        change.enabled,
        change.quota_bytes,
    )
    return _found(row, at)


async def delete_account(postgres: Postgres, address: str) -> int:
    """Delete the account and its app passwords; returns its id, under which `janitor` purges its mail later.
    Raises NotFound."""
    at = local_address(address)
    account_id = await postgres.fetchval("delete_account", _DELETE, at.domain, at.local)
    if account_id is None:
        raise NotFound(f"there is no account {at}")
    return int(account_id)


_REMOVED = "SELECT account_id FROM directory.removed_accounts WHERE removed_at < $1 ORDER BY account_id"

_PURGED = "DELETE FROM directory.removed_accounts WHERE account_id = ANY($1::bigint[])"


async def removed_accounts(postgres: Postgres, before: datetime.datetime) -> list[int]:
    """Ids of accounts removed before `before` that are not purged. Raises PostgresUnavailable."""
    rows = await postgres.fetch("removed_accounts", _REMOVED, before)
    return [row["account_id"] for row in rows]


async def delete_removed(postgres: Postgres, account_ids: Sequence[int]) -> None:
    """Forget these accounts: their mail is purged. Raises PostgresUnavailable."""
    await postgres.execute("accounts_purged", _PURGED, list(account_ids))


def _found(row: asyncpg.Record | None, address: Address) -> Account:
    if row is None:
        raise NotFound(f"there is no account {address}")
    return _account(row)


def _account(row: asyncpg.Record) -> Account:
    return Account(
        row["account_id"],
        Address(row["local_part"], row["domain"]),
        row["display_name"],
        row["enabled"],
        row["quota_bytes"],
        row["created_at"],
    )
