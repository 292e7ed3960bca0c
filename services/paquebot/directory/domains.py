"""Administration of domains."""

import datetime
from dataclasses import dataclass

import asyncpg

from paquebot.directory.errors import AlreadyExists, FailedPrecondition, InvalidValue, NotFound
from paquebot.directory.names import domain_name, quota, target_address
from paquebot.runtime.postgres.pool import Connection, Postgres, sole_row


@dataclass(frozen=True, slots=True)
class Domain:
    """`alias_of` and `catch_all` empty: none; `default_quota_bytes` 0: none."""

    name: str
    alias_of: str
    catch_all: str
    enabled: bool
    default_quota_bytes: int
    created_at: datetime.datetime
    accounts: int
    aliases: int


@dataclass(frozen=True, slots=True)
class DomainChange:
    """New values; None leaves the old one."""

    alias_of: str | None = None
    catch_all: str | None = None
    enabled: bool | None = None
    default_quota_bytes: int | None = None


_COLUMNS = """
SELECT name, coalesce(alias_of, '') AS alias_of, catch_all, enabled, default_quota_bytes, created_at,
       (SELECT count(*) FROM directory.accounts a WHERE a.domain = d.name) AS accounts,
       (SELECT count(*) FROM directory.aliases a WHERE a.domain = d.name) AS aliases
FROM directory.domains d
"""
_GET = _COLUMNS + "WHERE name = $1"
_LIST = _COLUMNS + "WHERE name > $1 ORDER BY name LIMIT $2"
_INSERT = """
INSERT INTO directory.domains (name, alias_of, catch_all, default_quota_bytes)
VALUES ($1, nullif($2, ''), $3, $4)
"""
_UPDATE = """
UPDATE directory.domains
SET alias_of = nullif(coalesce($2, alias_of), ''), catch_all = coalesce($3, catch_all),
    enabled = coalesce($4, enabled), default_quota_bytes = coalesce($5, default_quota_bytes)
WHERE name = $1
"""
_LOCK = "SELECT alias_of FROM directory.domains WHERE name = $1 FOR UPDATE"
_DELETE = "DELETE FROM directory.domains WHERE name = $1"


async def create_domain(
    postgres: Postgres, name: str, *, alias_of: str = "", catch_all: str = "", default_quota_bytes: int = 0
) -> Domain:
    """Raises InvalidValue, AlreadyExists, FailedPrecondition."""
    name = domain_name(name)
    alias_of = domain_name(alias_of) if alias_of else ""
    catch_all = target_address(catch_all) if catch_all else ""
    quota(default_quota_bytes)

    async def work(connection: Connection) -> Domain:
        await _check_alias_of(connection, name, alias_of)
        try:
            await connection.execute(_INSERT, name, alias_of, catch_all, default_quota_bytes)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(f"domain {name} already exists") from None
        return _domain(sole_row(await connection.fetchrow(_GET, name)))

    return await postgres.run("create_domain", work)


async def get_domain(postgres: Postgres, name: str) -> Domain:
    """Raises InvalidValue, NotFound."""
    name = domain_name(name)
    row = await postgres.fetchrow("get_domain", _GET, name)
    if row is None:
        raise NotFound(f"there is no domain {name}")
    return _domain(row)


async def list_domains(postgres: Postgres, *, after: str, limit: int) -> list[Domain]:
    """At most `limit` domains by name, those after the name `after`."""
    return [_domain(row) for row in await postgres.fetch("list_domains", _LIST, after, limit)]


async def update_domain(postgres: Postgres, name: str, change: DomainChange) -> Domain:
    """Raises InvalidValue, NotFound, FailedPrecondition."""
    name = domain_name(name)
    alias_of = domain_name(change.alias_of) if change.alias_of else change.alias_of
    catch_all = target_address(change.catch_all) if change.catch_all else change.catch_all
    if change.default_quota_bytes is not None:
        quota(change.default_quota_bytes)

    async def work(connection: Connection) -> Domain:
        if await connection.fetchrow(_LOCK, name) is None:
            raise NotFound(f"there is no domain {name}")
        domain = _domain(sole_row(await connection.fetchrow(_GET, name)))
        if alias_of and (domain.accounts or domain.aliases):
            raise FailedPrecondition(f"domain {name} has accounts or aliases, so it cannot be an alias of {alias_of}")
        await _check_alias_of(connection, name, alias_of or "")
        await connection.execute(_UPDATE, name, alias_of, catch_all, change.enabled, change.default_quota_bytes)
        return _domain(sole_row(await connection.fetchrow(_GET, name)))

    return await postgres.run("update_domain", work)


async def delete_domain(postgres: Postgres, name: str) -> None:
    """Raises InvalidValue, NotFound, FailedPrecondition while anything belongs to the domain."""
    name = domain_name(name)

    async def work(connection: Connection) -> None:
        try:
            status = await connection.execute(_DELETE, name)
        except asyncpg.ForeignKeyViolationError:
            raise FailedPrecondition(
                f"domain {name} still has accounts, aliases or alias domains: remove them first"
            ) from None
        if status == "DELETE 0":
            raise NotFound(f"there is no domain {name}")

    await postgres.run("delete_domain", work)


async def lock_home(connection: Connection, name: str) -> None:
    """Lock the domain of a new account or alias. Raises NotFound, FailedPrecondition."""
    row = await connection.fetchrow(_LOCK, name)
    if row is None:
        raise NotFound(f"there is no domain {name}")
    if row["alias_of"]:
        raise FailedPrecondition(f"domain {name} is an alias of {row['alias_of']}: add the address there")


async def _check_alias_of(connection: Connection, name: str, alias_of: str) -> None:
    """An alias domain must lead to a domain that is not an alias, so there are no chains and no loops."""
    if not alias_of:
        return
    if alias_of == name:
        raise InvalidValue("a domain cannot be an alias of itself")
    row = await connection.fetchrow(_LOCK, alias_of)
    if row is None:
        raise FailedPrecondition(f"no domain {alias_of} to be an alias of")
    if row["alias_of"]:
        raise FailedPrecondition(f"domain {alias_of} is itself an alias: name {row['alias_of']} instead")
    if await connection.fetchval("SELECT 1 FROM directory.domains WHERE alias_of = $1 LIMIT 1", name):
        raise FailedPrecondition(f"other domains are aliases of {name}, so it cannot be one")


def _domain(row: asyncpg.Record) -> Domain:
    return Domain(*(row[field] for field in Domain.__slots__))
