"""An attacker who controls a service reaches little: each database role reads only what its service needs."""

from __future__ import annotations

import asyncpg
import pytest

_TABLES = """
SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'v', 'm', 'p')
"""
_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER"
_COLUMN_RIGHTS = "SELECT, INSERT, UPDATE, REFERENCES"


async def _reachable(database: str, role: str, schema: str) -> set[str]:
    """Tables of a schema in which the role has any right, at least to one column."""
    connection = await asyncpg.connect(database)
    try:
        names = [row["relname"] for row in await connection.fetch(_TABLES, schema)]
        assert names, "the schema has tables"
        if not await connection.fetchval("SELECT has_schema_privilege($1, $2, 'USAGE')", role, schema):
            return set()
        ask = "SELECT has_table_privilege($1, $2, $3) OR has_any_column_privilege($1, $2, $4)"
        return {
            name for name in names if await connection.fetchval(ask, role, f"{schema}.{name}", _RIGHTS, _COLUMN_RIGHTS)
        }
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("role", "schema", "allowed"),
    [
        ("paquebot_imap", "directory", set()),
        ("paquebot_imap", "spool", set()),
        ("paquebot_pop3", "directory", set()),
        ("paquebot_pop3", "spool", set()),
        ("paquebot_delivery", "directory", set()),
        ("paquebot_delivery", "spool", set()),
        ("paquebot_relay", "mailstore", set()),
        ("paquebot_relay", "directory", set()),
        ("paquebot_recipient_validation", "mailstore", {"quota", "schema_version"}),
        ("paquebot_recipient_validation", "spool", set()),
        ("paquebot_janitor", "directory", {"removed_accounts", "schema_version"}),
    ],
)
async def test_a_role_reaches_nothing_else(migrated_database: str, role: str, schema: str, allowed: set[str]) -> None:
    assert await _reachable(migrated_database, role, schema) == allowed


async def test_the_server_itself_refuses(migrated_database: str) -> None:
    connection = await asyncpg.connect(migrated_database)
    try:
        for role, table in (
            ("paquebot_imap", "directory.accounts"),
            ("paquebot_relay", "mailstore.messages"),
            ("paquebot_recipient_validation", "mailstore.messages"),
        ):
            await connection.execute(f"SET ROLE {role}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {table}")
            await connection.execute("RESET ROLE")
    finally:
        await connection.close()
