"""What our platform asked of its engines: S3 requests, packs, PostgreSQL transactions and WAL syncs."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import dataclass, fields

import asyncpg

from paquebot.cli.up.environment import DATABASE
from paquebot.cli.up.layout import SERVICES
from tests.bench.ours import Ours
from tests.bench.rows import LOOPBACK

# PostgreSQL's processes publish their figures at most once a second, and an idle one within ten.
_STATISTICS_SECONDS = 10.5


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """Counted since some start, or between two looks. Our own looks at PostgreSQL are in it: a few transactions."""

    s3_requests: float
    s3_puts: float
    packs: float
    transactions: float
    wal_syncs: float

    def since(self, earlier: EngineCosts) -> EngineCosts:
        return EngineCosts(**{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)})


def metric(ours: Ours, service: str, name: str, *labels: str) -> float:
    """The sum of a metric's series whose labels contain each of `labels`; 0 when there is none."""
    return _sum(_page(ours, service), name, labels)


def _page(ours: Ours, service: str) -> list[str]:
    url = f"http://{LOOPBACK}:{ours.platform.plan.ports.services.metrics(service)}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text.splitlines()


def _sum(lines: list[str], name: str, labels: tuple[str, ...] = ()) -> float:
    found = 0.0
    for line in lines:
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(label in series for label in labels):
            found += float(value)
    return found


async def engine_costs(ours: Ours, *, exactly: bool = True, away: tuple[str, ...] = ()) -> EngineCosts:
    """So far, but for what services that are `away` have asked.

    `exactly`: wait until PostgreSQL's processes have published theirs, else theirs may lack up to a second.
    """
    if exactly:
        await asyncio.sleep(_STATISTICS_SECONDS)
    there = [service for service in SERVICES if service not in away]
    pages = await asyncio.gather(*(asyncio.to_thread(_page, ours, service) for service in there))
    lines = [line for page in pages for line in page]
    connection = await asyncpg.connect(ours.platform.plan.postgres.dsn(DATABASE))
    try:
        transactions = await connection.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1", DATABASE
        )
        syncs = await connection.fetchval(_wal_syncs(connection.get_server_version().major))
    finally:
        await connection.close()
    return EngineCosts(
        s3_requests=_sum(lines, "paquebot_s3_requests_total"),
        s3_puts=_sum(lines, "paquebot_s3_requests_total", ('call="put"',)),
        packs=_sum(lines, "paquebot_spool_pack_messages_count"),
        transactions=float(transactions),
        wal_syncs=float(syncs),
    )


def _wal_syncs(version: int) -> str:
    """PostgreSQL 18 moved the number to another view."""
    if version >= 18:
        return "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"
    return "SELECT wal_sync FROM pg_stat_wal"
