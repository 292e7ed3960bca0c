"""A real `paquebot janitor` is killed at each step of a compaction: nothing is lost, and a later run cleans up."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import asyncpg
import pytest

from paquebot.blobs import BlobStore
from paquebot.cli.engines.s3 import S3Engine
from paquebot.janitor.compaction.compact import compact
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import Stores
from paquebot.janitor.sweep import sweep
from paquebot.janitor.verification.verify import verify
from paquebot.queue import Queue
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.settings import Seconds
from tests.support.compaction_world import Scatterer, all_packs, everything, packs_of, uses
from tests.support.slow_proxy import SlowProxy

DEADLINE_SECONDS = 60.0
EVER = 365 * 86400.0


@pytest.fixture
async def proxy(s3_engine: S3Engine) -> AsyncIterator[SlowProxy]:
    host, _, port = s3_engine.endpoint.rpartition(":")
    async with SlowProxy(host, int(port)) as proxy:
        yield proxy


@pytest.fixture
def stores(blobs: BlobStore, queue: Queue, migrated: Postgres) -> Stores:
    return Stores.of(blobs, queue, migrated)


@pytest.fixture
def settings(
    nats_settings: NatsSettings, s3_settings: S3Settings, postgres_settings: PostgresSettings
) -> JanitorSettings:
    return JanitorSettings(nats_settings, s3_settings, postgres_settings)


@pytest.fixture
def environ(settings: JanitorSettings, proxy: SlowProxy) -> Mapping[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PAQUEBOT_NATS_URL": settings.nats.url[0],
        "PAQUEBOT_NATS_USER": settings.nats.user,
        "PAQUEBOT_NATS_PASSWORD": str(settings.nats.password),
        "PAQUEBOT_S3_ENDPOINT": proxy.endpoint,
        "PAQUEBOT_S3_BUCKET": settings.s3.bucket,
        "PAQUEBOT_S3_ACCESS_KEY": settings.s3.access_key,
        "PAQUEBOT_S3_SECRET_KEY": str(settings.s3.secret_key),
        "PAQUEBOT_POSTGRES_DSN": str(settings.postgres.dsn),
        "PAQUEBOT_JANITOR_PACK_BYTES": "4KiB",
        "PAQUEBOT_JANITOR_COMPACT_LEASE": "1s",
    }


async def started(environ: Mapping[str, str], **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "paquebot", "janitor"),
        env={**environ, **more},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def killed(process: asyncio.subprocess.Process) -> None:
    assert process.returncode is None
    process.kill()
    await process.wait()


async def nothing_is_lost(stores: Stores, before: object) -> None:
    assert await everything(stores) == before
    assert (await verify(stores, settle=0)).faults == []
    assert (await recover(stores, since=EVER, settle=0)).messages == 0


async def later_runs_clean_up(stores: Stores, settings: JanitorSettings, before: object) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await compact(stores, settings)).backlog_messages:
            pass  # until the lease of the killed janitor expires
        while set(await all_packs(stores)) != {use.blob.pack for use in await uses(stores)}:
            await sweep(stores, replace(settings, min_age=Seconds(0.0)))
    await nothing_is_lost(stores, before)


@pytest.mark.parametrize(
    ("request_start", "count", "moved"),
    [("GET /{bucket}/packs/", 3, False), ("PUT /{bucket}/packs/", 1, False), ("PUT /{bucket}/packs/", 2, True)],
    ids=["reading", "first pack written", "second pack written"],
)
async def test_killed_at_a_request(
    stores: Stores,
    settings: JanitorSettings,
    environ: Mapping[str, str],
    proxy: SlowProxy,
    request_start: str,
    count: int,
    moved: bool,
) -> None:
    await Scatterer(stores).packs(30, [1], [1, 2])
    old = set(await all_packs(stores))
    before = await everything(stores)
    proxy.hold_at(request_start.format(bucket=settings.s3.bucket).encode(), count)
    process = await started(environ)
    await proxy.until_held(DEADLINE_SECONDS)
    await killed(process)
    proxy.release()
    assert ({use.blob.pack for use in await uses(stores)} <= old) is not moved
    await nothing_is_lost(stores, before)
    await later_runs_clean_up(stores, settings, before)


async def test_killed_within_the_transaction(
    stores: Stores, settings: JanitorSettings, environ: Mapping[str, str], migrated_database: str, migrated: Postgres
) -> None:
    await Scatterer(stores).packs(30, [1])
    old, before = await all_packs(stores), await everything(stores)
    connection = await asyncpg.connect(migrated_database)
    holder = connection.transaction()
    await holder.start()
    await connection.execute("SELECT 1 FROM mailstore.accounts FOR UPDATE")
    process = await started(environ)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await migrated.fetchval("test", waiting):
            pass
    await killed(process)
    await holder.rollback()
    await connection.close()
    assert await packs_of(stores, 1) == old
    assert len(await all_packs(stores)) == len(old) + 1  # the new pack is garbage
    await nothing_is_lost(stores, before)
    await later_runs_clean_up(stores, settings, before)


async def test_killed_while_old_packs_are_deleted(
    stores: Stores, settings: JanitorSettings, environ: Mapping[str, str], proxy: SlowProxy
) -> None:
    await Scatterer(stores).packs(30, [1])
    before = await everything(stores)
    await compact(stores, settings)
    proxy.hold_at(b"POST /")
    process = await started(environ, PAQUEBOT_JANITOR_MIN_AGE="0s")
    await proxy.until_held(DEADLINE_SECONDS)
    await killed(process)
    proxy.release()
    await nothing_is_lost(stores, before)
    await later_runs_clean_up(stores, settings, before)
