"""The real engines for every test that asks for one, started once per session on free loopback ports.

Session fixtures: `nats_engine`, `s3_engine`, `postgres_engine`; all that the collected tests ask for start at the
same time. Per test: `jetstream` (no streams left behind), `bucket` (a new bucket), `database` (a new database's DSN).
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path

import asyncpg
import nats
import pytest
import urllib3
from loopback import free_port
from nats.js import JetStreamContext

from paquebot.cli.engines.engine import Engine, start_engine
from paquebot.cli.engines.nats import NatsAccess, NatsEngine
from paquebot.cli.engines.ports import EnginePorts
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.process import ManagedProcess
from paquebot.cli.engines.s3 import S3Access, S3Engine

pytest_plugins = ["spool_fixtures"]

_numbers = itertools.count(1)


@dataclass(slots=True, frozen=True)
class EngineSet:
    """The three descriptions; only those that a collected test asks for are running."""

    nats: NatsEngine
    s3: S3Engine
    postgres: PostgresEngine


def engine_set(directory: Path) -> EngineSet:
    """Descriptions of three engines below `directory`, each port free."""
    ports = EnginePorts(**{item.name: free_port() for item in fields(EnginePorts)})
    return EngineSet(
        nats=NatsEngine(directory / "nats", (NatsAccess("test", "nats-secret"),), ports),
        s3=S3Engine(directory / "s3", (S3Access("test", "test-key", "s3-secret-of-tests"),), "paquebot", ports),
        postgres=PostgresEngine(directory / "postgres", "postgres secret", ports),
    )


@pytest.fixture(scope="session")
async def engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineSet]:
    directory = tmp_path_factory.mktemp("engines")
    described = engine_set(directory)
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    processes = await _start(
        [
            engine
            for engine in (described.nats, described.s3, described.postgres)
            if f"{engine.name}_engine" in wanted
        ],
        directory / "log",
    )
    yield described
    await asyncio.gather(*(process.kill() for process in processes))  # nothing here is worth a clean end
    shutil.rmtree(directory)


async def _start(wanted: list[Engine], log_dir: Path) -> list[ManagedProcess]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(start_engine(engine, log_dir)) for engine in wanted]
    return [task.result() for task in tasks]


@pytest.fixture(scope="session")
def nats_engine(engines: EngineSet) -> NatsEngine:
    return engines.nats


@pytest.fixture(scope="session")
def s3_engine(engines: EngineSet) -> S3Engine:
    return engines.s3


@pytest.fixture(scope="session")
def postgres_engine(engines: EngineSet) -> PostgresEngine:
    return engines.postgres


@pytest.fixture
async def jetstream(nats_engine: NatsEngine) -> AsyncIterator[JetStreamContext]:
    """A connected JetStream without streams; every stream is deleted after the test, whoever made it."""
    login = nats_engine.accesses[0]
    connection = await nats.connect(nats_engine.url, user=login.name, password=login.password)
    context = connection.jetstream()
    yield context
    for stream in await context.streams_info():
        await context.delete_stream(stream.config.name)
    await connection.close()


@pytest.fixture
async def bucket(s3_engine: S3Engine) -> AsyncIterator[str]:
    """The name of a new, empty bucket; deleted with all it holds after the test."""
    name = f"test-{next(_numbers)}"
    with urllib3.PoolManager() as pool:
        client = s3_engine.client(pool)
        await asyncio.to_thread(client.make_bucket, name)
        yield name
        await asyncio.to_thread(client.remove_bucket, name)


@pytest.fixture
async def database(postgres_engine: PostgresEngine) -> AsyncIterator[str]:
    """The superuser's DSN of a new, empty database; dropped after the test, with its connections."""
    name = f"test_{next(_numbers)}"
    await _administer(postgres_engine, f"CREATE DATABASE {name}")
    yield postgres_engine.dsn(name)
    await _administer(postgres_engine, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(engine: PostgresEngine, statement: str) -> None:
    connection = await asyncpg.connect(engine.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
