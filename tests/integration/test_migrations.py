"""The migration runner on real databases: order, each file once, concurrent runs, refusals, roles."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.postgres.migrations import (
    ROLES,
    SCHEMAS,
    MigrationError,
    Schema,
    applied,
    bootstrap_roles,
    code_version,
    migrate,
    migrations_of,
    wait_for_version,
)
from paquebot.runtime.postgres.pool import open_postgres
from paquebot.runtime.settings import Secret
from tests.support.roles import let_roles_log_in, role_dsn

Write = Callable[..., Schema]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A package whose migrations are the keyword arguments: name → SQL."""
    root = tmp_path / "made_for_tests"
    (root / "migrations").mkdir(parents=True)
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files: str) -> Schema:
        for name, sql in files.items():
            (root / "migrations" / f"{name.removeprefix('_')}.sql").write_text(sql)
        return Schema("made", "made_for_tests")

    yield write
    sys.modules.pop("made_for_tests", None)


async def rows(dsn: str, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def test_every_schema_of_the_platform(database: str) -> None:
    versions = await migrate(database)
    assert versions == {schema.name: code_version(schema) for schema in SCHEMAS}
    assert all(version > 0 for version in versions.values())
    assert await migrate(database) == versions


async def test_files_run_in_order_and_once(database: str, package: Write) -> None:
    schema = package(_0001_first="CREATE TABLE made.t (n int)", _0002_second="INSERT INTO made.t VALUES (2)")
    assert await migrate(database, [schema]) == {"made": 2}
    package(_0003_third="-- floor: 2\nINSERT INTO made.t VALUES (3); INSERT INTO made.t VALUES (4)")
    assert await migrate(database, [schema]) == {"made": 3}
    assert await migrate(database, [schema]) == {"made": 3}
    assert await rows(database, "SELECT n FROM made.t") == [(2,), (3,), (4,)]
    assert await rows(database, "SELECT version, name, floor FROM made.schema_version ORDER BY 1") == [
        (1, "0001_first", 1),
        (2, "0002_second", 1),
        (3, "0003_third", 2),
    ]


async def test_concurrent_migrators(database: str, package: Write) -> None:
    schema = package(_0001_first="CREATE TABLE made.t (n int)", _0002_second="INSERT INTO made.t VALUES (2)")
    answers = await asyncio.gather(*(migrate(database, [schema]) for _ in range(5)))
    assert answers == [{"made": 2}] * 5
    assert await rows(database, "SELECT n FROM made.t") == [(2,)]


async def test_a_file_that_fails_leaves_nothing(database: str, package: Write) -> None:
    schema = package(_0001_first="CREATE TABLE made.t (n int)", _0002_bad="CREATE TABLE made.u (n int); SELECT 1/0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database, [schema])
    assert await rows(database, "SELECT max(version), to_regclass('made.u') FROM made.schema_version") == [(1, None)]


async def test_a_file_never_changes(database: str, package: Write) -> None:
    schema = package(_0001_first="CREATE TABLE made.t (n int)")
    await migrate(database, [schema])
    package(_0001_first="CREATE TABLE made.t (n bigint)")
    with pytest.raises(MigrationError, match="another release"):
        await migrate(database, [schema])


@pytest.mark.parametrize("name", ["_0002_gap", "_1_short", "_0001_Capital"])
def test_numbers_without_gaps(package: Write, name: str) -> None:
    schema = package(**{name: "SELECT 1"})
    with pytest.raises(MigrationError, match="not number 0001"):
        migrations_of(schema)


async def test_a_schema_needs_a_plain_name(database: str, package: Write) -> None:
    package(_0001_first="SELECT 1")
    with pytest.raises(MigrationError, match="not a schema name"):
        await migrate(database, [Schema('x"; DROP', "made_for_tests")])


async def test_a_package_without_files_has_no_schema(database: str) -> None:
    assert await migrate(database, [Schema("wire", "paquebot.wire")]) == {"wire": 0}
    assert await rows(database, "SELECT to_regnamespace('wire')") == [(None,)]


async def test_services_wait_for_their_version(database: str, package: Write) -> None:
    schema = package(_0001_first="CREATE TABLE made.t (n int)")
    postgres = await open_postgres(PostgresSettings(dsn=Secret(database), pool_size=1), "tests")
    assert await applied(postgres, "made") is None
    waiting = asyncio.create_task(wait_for_version(postgres, schema, poll=0.02))
    await migrate(database, [schema])
    found = await asyncio.wait_for(waiting, 10.0)
    assert (found.version, found.floor) == (1, 1)
    # A newer release has migrated: this code may run while it is not older than the floor.
    sql = "INSERT INTO made.schema_version VALUES ($1, 'later', $2, '')"
    await postgres.execute("test", sql, 2, 1)
    assert (await wait_for_version(postgres, schema)).version == 2
    await postgres.execute("test", sql, 3, 2)
    with pytest.raises(MigrationError, match="needs code of version 2"):
        await wait_for_version(postgres, schema)
    await postgres.close()


async def test_roles_log_in_with_their_password(database: str) -> None:
    await migrate(database)
    await asyncio.gather(*(let_roles_log_in(database, *ROLES) for _ in range(3)))
    for role in ROLES:
        assert await rows(role_dsn(database, role), "SELECT current_user::text") == [(role,)]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await rows(role_dsn(database, role).replace("p%40ss", "wrong"), "SELECT 1")
    with pytest.raises(MigrationError, match="not a role"):
        await bootstrap_roles(database, {"postgres": "x"})


DELIVER = "SELECT mailstore.deliver_at_once(" + ", ".join(["'{}'"] * 18) + ")"
ALLOWED = {
    "paquebot_recipient_validation": ["SELECT octets FROM mailstore.quota"],
    "paquebot_imap": [
        "SELECT 1 FROM mailstore.messages",
        "DELETE FROM mailstore.mailboxes WHERE account_id = 1",
    ],
    "paquebot_pop3": [
        "SELECT 1 FROM mailstore.messages",
        "DELETE FROM mailstore.messages WHERE account_id = 1",
    ],
    "paquebot_delivery": ["SELECT 1 FROM mailstore.deliveries", DELIVER],
    "paquebot_janitor": ["DELETE FROM mailstore.deliveries", "DELETE FROM mailstore.messages"],
    "paquebot_relay": ["SELECT 1 FROM spool.outcomes"],
}
FORBIDDEN = {
    "paquebot_recipient_validation": ["SELECT 1 FROM mailstore.accounts", "SELECT 1 FROM mailstore.messages"],
    "paquebot_imap": ["SELECT 1 FROM directory.accounts", "SELECT 1 FROM mailstore.deliveries", DELIVER],
    "paquebot_pop3": ["SELECT 1 FROM directory.accounts", "UPDATE mailstore.messages SET size = 0"],
    "paquebot_delivery": ["SELECT 1 FROM directory.accounts", "DELETE FROM mailstore.messages"],
    "paquebot_janitor": ["SELECT 1 FROM directory.app_passwords", "UPDATE mailstore.schema_version SET floor = 9"],
    "paquebot_relay": ["SELECT 1 FROM mailstore.messages", "SELECT 1 FROM mailstore.quota"],
}


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_has_its_own_rights(database: str, role: str) -> None:
    await migrate(database)
    await let_roles_log_in(database, role)
    connection = await asyncpg.connect(role_dsn(database, role))
    for statement in ALLOWED[role]:
        await connection.execute(statement)
    for statement in FORBIDDEN[role]:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


def test_no_module_is_left() -> None:
    assert not isinstance(sys.modules.get("made_for_tests"), types.ModuleType)
