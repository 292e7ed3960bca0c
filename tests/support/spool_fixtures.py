"""Fixtures of the durable tier on the real engines: settings, `blobs`, `queue`, `spool`, a migrated database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from nats.js import JetStreamContext

from paquebot.blobs import BlobStore
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.queue import Queue
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import Seconds, Secret
from paquebot.spool import Spool, SpoolSettings
from tests.support.lying_s3 import LyingS3


@pytest.fixture
def nats_settings(nats_engine: NatsEngine) -> NatsSettings:
    login = nats_engine.accesses[0]
    return NatsSettings(url=(nats_engine.url,), user=login.name, password=Secret(login.password), timeout=Seconds(5.0))


@pytest.fixture
def s3_settings(s3_engine: S3Engine, bucket: str) -> S3Settings:
    login = s3_engine.accesses[0]
    return S3Settings(
        endpoint=f"http://{s3_engine.endpoint}",
        bucket=bucket,
        access_key=login.access_key,
        secret_key=Secret(login.secret_key),
    )


@pytest.fixture
async def queue(nats_settings: NatsSettings, jetstream: JetStreamContext) -> AsyncIterator[Queue]:
    """A queue whose stream is new and empty."""
    opened = await Queue.open(nats_settings, "tests")
    await ensure_stream(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def blobs(s3_settings: S3Settings) -> AsyncIterator[BlobStore]:
    """An empty bucket; emptied after the test."""
    store = BlobStore(s3_settings)
    yield store
    await store.delete_objects([key async for key, _ in store.list_objects("")])
    await store.close()


@pytest.fixture
async def lying_s3(s3_engine: S3Engine) -> AsyncIterator[LyingS3]:
    """A proxy before S3 that gives the wrong answers that a test sets."""
    host, _, port = s3_engine.endpoint.rpartition(":")
    async with LyingS3(host, int(port)) as proxy:
        yield proxy


@pytest.fixture
async def spool(blobs: BlobStore, queue: Queue) -> AsyncIterator[Spool]:
    opened = Spool(blobs, queue, SpoolSettings())
    yield opened
    await opened.close()


@pytest.fixture
def postgres_settings(migrated_database: str) -> PostgresSettings:
    return PostgresSettings(dsn=Secret(migrated_database), pool_size=4)


@pytest.fixture
async def migrated(postgres_settings: PostgresSettings) -> AsyncIterator[Postgres]:
    """A pool, as the superuser, on a new database with every schema."""
    postgres = await open_postgres(postgres_settings, "tests")
    yield postgres
    await postgres.close()
