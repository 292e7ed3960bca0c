"""Administration of aliases: addresses that lead to other addresses, local or remote."""

import datetime
from dataclasses import dataclass

import asyncpg

from paquebot.directory.domains import lock_home
from paquebot.directory.errors import AlreadyExists, InvalidValue, NotFound
from paquebot.directory.names import domain_name, local_address, target_addresses
from paquebot.runtime.postgres.pool import Connection, Postgres, sole_row
from paquebot.wire.address import Address, canonical, parse_address


@dataclass(frozen=True, slots=True)
class Alias:
    address: Address
    targets: tuple[str, ...]
    enabled: bool
    created_at: datetime.datetime


_COLUMNS = "local_part, domain, targets, enabled, created_at"
_INSERT = f"""
INSERT INTO directory.aliases (local_part, domain, targets) VALUES ($1, $2, $3) RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant of column names
_ACCOUNT = "SELECT 1 FROM directory.accounts WHERE domain = $1 AND local_part = $2"
_GET = f"SELECT {_COLUMNS} FROM directory.aliases WHERE domain = $1 AND local_part = $2"  # noqa: S608
_LIST = f"""
SELECT {_COLUMNS} FROM directory.aliases
WHERE (domain, local_part) > ($1, $2) AND ($3 = '' OR domain = $3) ORDER BY domain, local_part LIMIT $4
"""  # noqa: S608
_UPDATE = f"""
UPDATE directory.aliases SET targets = coalesce($3, targets), enabled = coalesce($4, enabled)
WHERE domain = $1 AND local_part = $2 RETURNING {_COLUMNS}
"""  # noqa: S608
_DELETE = "DELETE FROM directory.aliases WHERE domain = $1 AND local_part = $2 RETURNING 1"


async def create_alias(postgres: Postgres, address: str, targets: list[str]) -> Alias:
    """Raises InvalidValue, NotFound, AlreadyExists, FailedPrecondition."""
    at = local_address(address)
    checked_targets = _checked(at, targets)

    async def work(connection: Connection) -> Alias:
        await lock_home(connection, at.domain)
        if await connection.fetchval(_ACCOUNT, at.domain, at.local):
            raise AlreadyExists(f"{at} is an account")
        try:
            row = await connection.fetchrow(_INSERT, at.local, at.domain, checked_targets)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(f"alias {at} already exists") from None
        return _alias(sole_row(row))

    return await postgres.run("create_alias", work)


async def get_alias(postgres: Postgres, address: str) -> Alias:
    """Raises InvalidValue, NotFound."""
    at = local_address(address)
    return _found(await postgres.fetchrow("get_alias", _GET, at.domain, at.local), at)


async def list_aliases(postgres: Postgres, domain: str, *, after: tuple[str, str], limit: int) -> list[Alias]:
    """At most `limit` aliases (of `domain`; empty: of all) by (domain, local part), those after `after`."""
    only = domain_name(domain) if domain else ""
    rows = await postgres.fetch("list_aliases", _LIST, *after, only, limit)
    return [_alias(row) for row in rows]


async def update_alias(postgres: Postgres, address: str, *, targets: list[str] | None, enabled: bool | None) -> Alias:
    """None leaves the old value. Raises InvalidValue, NotFound."""
    at = local_address(address)
    checked_targets = _checked(at, targets) if targets is not None else None
    return _found(await postgres.fetchrow("update_alias", _UPDATE, at.domain, at.local, checked_targets, enabled), at)


async def delete_alias(postgres: Postgres, address: str) -> None:
    """Raises InvalidValue, NotFound."""
    at = local_address(address)
    if await postgres.fetchval("delete_alias", _DELETE, at.domain, at.local) is None:
        raise NotFound(f"there is no alias {at}")


def _checked(address: Address, targets: list[str]) -> list[str]:
    """Refuses an alias that leads to itself; resolution finds longer loops. Raises InvalidValue."""
    checked = target_addresses(targets)
    if any(canonical(parse_address(target)) == address for target in checked):
        raise InvalidValue(f"alias {address} cannot lead to itself")
    return checked


def _found(row: asyncpg.Record | None, address: Address) -> Alias:
    if row is None:
        raise NotFound(f"there is no alias {address}")
    return _alias(row)


def _alias(row: asyncpg.Record) -> Alias:
    return Alias(Address(row["local_part"], row["domain"]), tuple(row["targets"]), row["enabled"], row["created_at"])
