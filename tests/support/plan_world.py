"""Mailboxes in tables that PostgreSQL never analysed, and a count of the rows that its plans read there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from paquebot.mailstore import Accounts
from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import Secret

_SCHEMAS = "schemaname IN ('mailstore', 'directory', 'spool')"
_TABLES = f"SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE {_SCHEMAS}"

# \Seen on every other; each tenth has a keyword; eight messages in a pack; messages from SMTP have a prefix.
_FILL = """
    INSERT INTO mailstore.messages (
        account_id, mailbox_id, uid, mod_seq, flags, keywords, size, internal_date, save_date,
        pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
        queue_id, thread_key, prefix, summary)
    SELECT $1::bigint, 1, n, n + 1, n % 2, CASE WHEN n % 10 = 0 THEN '{$work}' ELSE '{}' END::text[], 100, now(), now(),
           lpad($1::bigint || '-' || n / 8, 26, '0'), n % 8 * 50, 50, 100, 1, 0,
           lpad($1::bigint || '-' || n, 26, '0'), substr(sha256(n::text::bytea), 1, 16), '', repeat('s', 300)::bytea
    FROM generate_series(1, $2::int) AS n
"""
_COUNT = """
    UPDATE mailstore.mailboxes
    SET uid_next = $2::int + 1, highest_mod_seq = $2 + 1, recent_from = $2 + 1, messages = $2, octets = 100 * $2,
        unseen = $2 / 2, keywords = '{$work}'
    WHERE account_id = $1 AND mailbox_id = 1
"""
_USE = "UPDATE mailstore.accounts SET octets = 100 * $2::int, messages = $2 WHERE account_id = $1"
_RECORD = """
    INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at, refused)
    SELECT $1::bigint, lpad($1::bigint || '-' || n, 26, '0'), now(), false FROM generate_series(1, $2::int) AS n
"""


async def fill(postgres: Postgres, account_id: int, count: int) -> None:
    """Give an account `count` messages in INBOX, with UIDs from 1."""
    await Accounts(postgres).ensure(account_id)
    async with postgres.transaction("fill") as connection:
        await connection.execute(_FILL, account_id, count)
        await connection.execute(_COUNT, account_id, count)
        await connection.execute(_USE, account_id, count)
        await connection.execute(_RECORD, account_id, count)


async def never_analyse(postgres: Postgres) -> None:
    """Keep the tables without statistics, as before the first autovacuum."""
    async with postgres.connection("never_analyse") as connection:
        for table in await connection.fetch(_TABLES):
            await connection.execute(f"ALTER TABLE {table['name']} SET (autovacuum_enabled = false)")


_READ = f"""
    SELECT (SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)
            FROM pg_stat_user_tables WHERE {_SCHEMAS})::bigint AS rows,
           (SELECT coalesce(sum(coalesce(heap_blks_read, 0) + coalesce(heap_blks_hit, 0)
                                + coalesce(idx_blks_read, 0) + coalesce(idx_blks_hit, 0)), 0)
            FROM pg_statio_user_tables WHERE {_SCHEMAS})::bigint AS blocks,
           (SELECT coalesce(sum(idx_tup_read), 0)
            FROM pg_stat_user_indexes WHERE {_SCHEMAS})::bigint AS entries
"""


@dataclass(frozen=True, slots=True)
class Work:
    """Reads of statements: rows of tables, entries of indexes, blocks of both."""

    rows: int
    entries: int
    blocks: int

    @classmethod
    async def so_far(cls, postgres: Postgres) -> Work:
        """Return the work of the database so far; `pool` must have the only connection to it."""
        await postgres.execute("flush", "SELECT pg_stat_force_next_flush()")
        row = await postgres.fetchrow("work", _READ)
        assert row is not None
        return cls(row["rows"], row["entries"], row["blocks"])

    def __sub__(self, before: Work) -> Work:
        return Work(self.rows - before.rows, self.entries - before.entries, self.blocks - before.blocks)


async def work_of(postgres: Postgres, step: Callable[[], Awaitable[object]]) -> Work:
    before = await Work.so_far(postgres)
    await step()
    return await Work.so_far(postgres) - before


@pytest.fixture
async def alone(migrated_database: str) -> AsyncIterator[Postgres]:
    """A pool of one connection: its statements keep their plans, and all counts belong to them."""
    postgres = await open_postgres(PostgresSettings(dsn=Secret(migrated_database), pool_size=1), "tests")
    await never_analyse(postgres)
    yield postgres
    await postgres.close()
