"""Ordered SQL files that bring a PostgreSQL schema to the version the code needs. Several migrators may run at once.

A package keeps its schema's files in `<package>/migrations/0001_<what>.sql`, numbered without gaps. A file
runs in one transaction with its row in `<schema>.schema_version`, under an advisory lock, so a migrator that
dies leaves nothing half done. A line `-- floor: N` states the compatibility floor: the oldest code version
that works with the schema after this file (default: the floor before it), so old and new pods run side by
side in a rolling upgrade. A file never changes after it was released: its SHA-256 is compared.
"""

import asyncio
import base64
import hashlib
import hmac
import importlib.resources
import re
import secrets
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from paquebot.runtime.postgres.pool import Postgres, PostgresNotReady, PostgresUnavailable, session_attribute

ROLES = (
    "paquebot_delivery",
    "paquebot_imap",
    "paquebot_pop3",
    "paquebot_janitor",
    "paquebot_recipient_validation",
    "paquebot_relay",
)
"""The services' database roles. Migrations grant to them; `bootstrap_roles` lets them log in."""

_TRIES = 10
_CONNECT_SECONDS = 5.0
_MAINTENANCE_DATABASE = "postgres"  # every PostgreSQL has it
_LOCK = 0x70617175  # any constant: all migrators of a database share it
_FILE = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")
_FLOOR = re.compile(r"^-- floor: ([0-9]+)$", re.MULTILINE)
_SCHEMA_NAME = re.compile(r"[a-z][a-z_]*")


class MigrationError(Exception):
    """The files and the database do not match; a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A PostgreSQL schema and the package that keeps its files."""

    name: str
    package: str


SCHEMAS = (
    Schema("directory", "paquebot.directory"),
    Schema("mailstore", "paquebot.mailstore"),
    Schema("spool", "paquebot.spool"),
)
"""Every schema of the platform, in the order of migration."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    floor: int
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """The version of a schema in a database, and the oldest code version that may use it."""

    version: int
    floor: int


def migrations_of(schema: Schema) -> tuple[Migration, ...]:
    """The schema's files in order; none when the package has no such folder. Raises MigrationError."""
    folder = importlib.resources.files(schema.package) / "migrations"
    if not folder.is_dir():
        return ()
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    found: list[Migration] = []
    floor = 1
    for number, name in enumerate(names, 1):
        match = _FILE.fullmatch(name)
        if not match or int(match[1]) != number:
            raise MigrationError(f"{schema.package}: {name} is not number {number:04} of the migrations")
        sql = (folder / name).read_text("utf-8")
        stated = _FLOOR.search(sql)
        floor = int(stated[1]) if stated else floor
        found.append(Migration(number, name.removesuffix(".sql"), floor, sql))
    return tuple(found)


def code_version(schema: Schema) -> int:
    """The version this code was written for: the number of its newest file."""
    return len(migrations_of(schema))


async def migrate(dsn: str, packages: Sequence[Schema] = SCHEMAS) -> dict[str, int]:
    """Bring every schema of `packages` to the version of its files; return the versions by schema name.

    `dsn` logs in as the owner of the schemas, who may create roles. Raises MigrationError, or asyncpg's
    exceptions.
    """
    connection = await asyncpg.connect(dsn, timeout=10.0, target_session_attrs=session_attribute(dsn))
    try:
        await ensure_roles(connection)
        return {schema.name: await _migrate_schema(connection, schema) for schema in packages}
    finally:
        await connection.close()


async def _migrate_schema(connection: Any, schema: Schema) -> int:
    files = migrations_of(schema)
    if not files:
        return 0
    await _prepare(connection, schema.name)
    for migration in files:
        async with connection.transaction():
            # Held to the end of the transaction, so the version is read after any other migrator's commit.
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            await _apply(connection, schema.name, migration)
    newest = await connection.fetchval(f"SELECT max(version) FROM {schema.name}.schema_version")  # noqa: S608
    return int(newest)


async def _prepare(connection: Any, name: str) -> None:
    if not _SCHEMA_NAME.fullmatch(name):
        raise MigrationError(f"{name!r} is not a schema name")
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            f"CREATE SCHEMA IF NOT EXISTS {name};"
            f"CREATE TABLE IF NOT EXISTS {name}.schema_version ("
            "  version integer PRIMARY KEY, name text NOT NULL, floor integer NOT NULL,"
            "  sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
            f"GRANT SELECT ON {name}.schema_version TO PUBLIC"
        )


async def _apply(connection: Any, name: str, migration: Migration) -> None:
    table = f"{name}.schema_version"
    known = await connection.fetchval(f"SELECT sha256 FROM {table} WHERE version = $1", migration.version)  # noqa: S608
    if known is None:
        await connection.execute(migration.sql)
        await connection.execute(
            f"INSERT INTO {table} (version, name, floor, sha256) VALUES ($1, $2, $3, $4)",  # noqa: S608
            migration.version,
            migration.name,
            migration.floor,
            migration.sha256,
        )
    elif known != migration.sha256:
        raise MigrationError(
            f"schema {name} of this database was made with another {migration.name}.sql: it belongs to another release"
        )


async def applied(postgres: Postgres, schema: str) -> Applied | None:
    """The version of `schema` in the database; None when it was never migrated or the role may not read it."""
    sql = f"SELECT version, floor FROM {schema}.schema_version ORDER BY version DESC LIMIT 1"  # noqa: S608
    try:
        row = await postgres.fetchrow("schema_version", sql)
    except PostgresNotReady:
        return None
    return None if row is None else Applied(row["version"], row["floor"])


async def check_reached(postgres: Postgres, schema: Schema) -> None:
    """A probe of readiness: PostgreSQL answers, and `schema` is not behind this code. Raises RuntimeError otherwise."""
    found, code = await applied(postgres, schema.name), code_version(schema)
    if found is None or found.version < code:
        raise RuntimeError(f"schema {schema.name} is not yet at version {code}")


async def wait_for_version(
    postgres: Postgres, schema: Schema, minimum: int | None = None, *, poll: float = 1.0
) -> Applied:
    """Wait, without end, until `schema` has at least version `minimum` (default: the code's own version).

    A new pod waits here not-ready until the migrations are done. Raises MigrationError when the database has
    moved past what this code can use.
    """
    code = code_version(schema)
    needed = code if minimum is None else minimum
    while True:
        try:
            found = await applied(postgres, schema.name)
        except PostgresUnavailable:
            found = None
        if found is not None and found.floor > code:
            raise MigrationError(
                f"schema {schema.name} is at version {found.version} and needs code of version {found.floor} "
                f"or newer; this code is of version {code}"
            )
        if found is not None and found.version >= needed:
            return found
        await asyncio.sleep(poll)


async def wait_for_version_or_drain(postgres: Postgres, schema: Schema, draining: asyncio.Event) -> bool:
    """As `wait_for_version`, until `draining`. False: the drain began first."""
    wait = asyncio.ensure_future(wait_for_version(postgres, schema))
    drain = asyncio.ensure_future(draining.wait())
    await asyncio.wait((wait, drain), return_when=asyncio.FIRST_COMPLETED)
    drain.cancel()
    if not wait.done():
        wait.cancel()
        return False
    wait.result()
    return True


async def make_database(dsn: str) -> str:
    """Make the database of `dsn` unless it is there, logging in to `postgres` instead; its name, or empty: it was
    there. Safe with others doing the same. Raises asyncpg's exceptions."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_SECONDS)
    except asyncpg.InvalidCatalogNameError:
        return await _make_database(dsn)
    await connection.close()
    return ""


async def _make_database(dsn: str) -> str:
    parts = urllib.parse.urlsplit(dsn)
    elsewhere = parts._replace(path=f"/{_MAINTENANCE_DATABASE}").geturl()
    name = urllib.parse.unquote(parts.path.removeprefix("/"))
    quoted = name.replace('"', '""')
    connection = await asyncpg.connect(elsewhere, timeout=_CONNECT_SECONDS)
    try:
        await connection.execute(f'CREATE DATABASE "{quoted}"')
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        return ""  # another process was first
    finally:
        await connection.close()
    return name


async def ensure_roles(connection: Any, roles: Sequence[str] = ROLES) -> None:
    """Create the missing roles, not able to log in. Safe with others doing the same in other databases."""
    known = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    for role in roles:
        if role not in known:
            try:
                await connection.execute(f'CREATE ROLE "{role}" NOLOGIN')
            except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                continue  # roles belong to the cluster: a migrator of another database was first


async def bootstrap_roles(admin_dsn: str, passwords: Mapping[str, str]) -> None:
    """Let the roles of `passwords` log in with their password. Raises MigrationError for an unknown role.

    The engine gets a SCRAM verifier (RFC 5803), never the password, so no statement log can hold it.
    """
    for role in passwords:
        if role not in ROLES:
            raise MigrationError(f"{role} is not a role of the platform")
    connection = await asyncpg.connect(admin_dsn, timeout=10.0, target_session_attrs=session_attribute(admin_dsn))
    try:
        await ensure_roles(connection)
        for role, password in passwords.items():
            await _let_log_in(connection, role, password)
    finally:
        await connection.close()


async def _let_log_in(connection: Any, role: str, password: str) -> None:
    statement = f"ALTER ROLE \"{role}\" LOGIN PASSWORD '{scram_verifier(password)}'"
    for attempt in range(1, _TRIES + 1):
        try:
            await connection.execute(statement)
        except asyncpg.InternalServerError:  # "tuple concurrently updated": another bootstrap has the same row
            if attempt == _TRIES:
                raise
        else:
            return


def scram_verifier(password: str, *, iterations: int = 4096) -> str:
    """`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (RFC 5803 §2), with a fresh salt."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return (
        f"SCRAM-SHA-256${iterations}:{base64.b64encode(salt).decode()}"
        f"${base64.b64encode(stored).decode()}:{base64.b64encode(server).decode()}"
    )
