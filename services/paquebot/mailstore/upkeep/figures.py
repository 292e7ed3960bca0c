"""The totals of all mailboxes, as gauges: read from the accounts' counts, which every change keeps up to date, so no
message row is read. Several processes report the same figures: take their maximum."""

import asyncio
import contextlib

from paquebot.mailstore.upkeep import troubles
from paquebot.mailstore.upkeep.troubles import STAGES
from paquebot.observability.metrics import Across, gauge
from paquebot.runtime.postgres.pool import Postgres, PostgresUnavailable, sole_row

ACCOUNTS = gauge(
    "paquebot_mailstore_accounts", "Accounts that have mailboxes; counted every five minutes", across=Across.MAX
)
MESSAGES = gauge(
    "paquebot_mailstore_messages", "Messages in all mailboxes; counted every five minutes", across=Across.MAX
)
BYTES = gauge(
    "paquebot_mailstore_bytes",
    "Bytes of the messages in all mailboxes, before compression, a copy counted again; counted every five minutes",
    across=Across.MAX,
)
BACKLOG_MESSAGES = gauge(
    "paquebot_mailstore_compaction_backlog_messages",
    "Messages that lie scattered and that compaction would still move, as the janitor's last run left it",
    across=Across.MAX,
)
BACKLOG_BYTES = gauge(
    "paquebot_mailstore_compaction_backlog_bytes",
    "Stored bytes of the messages that compaction would still move",
    across=Across.MAX,
)
SNAPSHOT = gauge(
    "paquebot_mailstore_snapshot_timestamp_seconds",
    "Unix time of the janitor's newest snapshot of the metadata in the bucket, 0: none; read every five minutes",
    across=Across.MAX,
)

TROUBLES = gauge(
    "paquebot_mailstore_upkeep_failures",
    "Accounts, packs and rows that the janitor's newest run passed over or mended, by stage; read every five minutes",
    {"stage": STAGES},
    across=Across.MAX,
)

EVERY_SECONDS = 300.0
_TOTALS = """
SELECT count(*) AS accounts, coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(octets), 0)::bigint AS octets
FROM mailstore.accounts WHERE deleted_at IS NULL
"""
# Prometheus never scrapes the janitor, whose runs are short: it writes its figures where a service reads them.
_BACKLOG = """
SELECT coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(octets), 0)::bigint AS octets
FROM mailstore.compactions WHERE packs > 0
"""
_SNAPSHOT = "SELECT coalesce(extract(epoch FROM max(finished_at)), 0)::float8 FROM mailstore.snapshot_runs"


async def observe(postgres: Postgres) -> None:
    """Set the gauges. Raises PostgresUnavailable."""
    row = sole_row(await postgres.fetchrow("totals", _TOTALS))
    ACCOUNTS.set(row["accounts"])
    MESSAGES.set(row["messages"])
    BYTES.set(row["octets"])
    row = sole_row(await postgres.fetchrow("compaction_backlog", _BACKLOG))
    BACKLOG_MESSAGES.set(row["messages"])
    BACKLOG_BYTES.set(row["octets"])
    SNAPSHOT.set(await postgres.fetchval("snapshot_time", _SNAPSHOT))
    found = await troubles.count(postgres)
    for stage in STAGES:
        TROUBLES.labels(stage).set(found.get(stage, 0))


async def observe_forever(postgres: Postgres) -> None:
    """Keep the gauges up to date; while PostgreSQL is away they stay as they were."""
    while True:
        with contextlib.suppress(PostgresUnavailable):
            await observe(postgres)
        await asyncio.sleep(EVERY_SECONDS)
