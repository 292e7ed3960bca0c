"""The real engines for every test that asks for one, started once per session on free loopback ports.

Session fixtures: `nats_engine`, `s3_engine`, `postgres_engine`; all that the collected tests ask for start at the
same time. Per test: `jetstream` (no streams left behind), `bucket` (a new one), `database` (the DSN of a new one).
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import nats
import pytest
import urllib3
import uvloop
from hypothesis import settings
from nats.js import JetStreamContext
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from paquebot.cli.engines.engine import Engine, start_engine
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.process import ManagedProcess
from paquebot.cli.engines.s3 import S3Engine
from paquebot.runtime.postgres.migrations import migrate
from tests.support.loopback import EngineSet, engine_set

# Each run tries a property with the same values, so a failure is the same on every machine.
# `--hypothesis-profile=random` draws other values, and more of them; `quick` (make test-unit) tries fewer.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("quick", derandomize=True, deadline=None, max_examples=20)
settings.register_profile("random", deadline=None, max_examples=1000)
settings.load_profile("same")

pytest_plugins = [
    "tests.support.spool_fixtures",
    "tests.support.mailstore_fixtures",
    "tests.support.smtp_fixtures",
    "tests.support.imap_fixtures",
    "tests.support.pop3_fixtures",
    "tests.support.rebuild_world",
]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The services' own event loop, so that the tests meet what the services meet."""
    return {"uvloop": uvloop.new_event_loop}


_WHOLE = ("e2e", "monitoring", "chaos", "attack", "drill", "bench", "cluster", "chart")
"""Folders whose tests share a platform that is expensive to start, so one process runs them; the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What several processes share out (pytest-xdist) in the order of `_WHOLE`."""
    items.sort(key=lambda item: _rank(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _Parts(config, log)


class _Parts(LoadScopeScheduling):  # type: ignore[misc]
    """One process runs a folder of `_WHOLE`, and else a file."""

    def _split_scope(self, nodeid: str) -> str:
        return _folder(nodeid) if _folder(nodeid) in _WHOLE else nodeid.partition("::")[0]


def _folder(nodeid: str) -> str:
    return nodeid.removeprefix("tests/").partition("/")[0]


def _rank(nodeid: str) -> int:
    folder = _folder(nodeid)
    return _WHOLE.index(folder) if folder in _WHOLE else len(_WHOLE)


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineSet]:
    directory = tmp_path_factory.mktemp("engines")
    described = engine_set(directory)
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    processes = await _start(
        [engine for engine in (described.nats, described.s3, described.postgres) if f"{engine.name}_engine" in wanted],
        directory / "log",
    )
    yield described
    await asyncio.gather(*(process.kill() for process in processes))  # nothing here is worth a clean end
    shutil.rmtree(directory)
    for socket in described.s3.stray_sockets():
        socket.unlink(missing_ok=True)


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
    """A connected JetStream without streams; every stream is deleted after the test."""
    login = nats_engine.accesses[0]
    connection = await nats.connect(nats_engine.url, user=login.name, password=login.password)
    context = connection.jetstream()
    yield context
    for stream in await context.streams_info():
        await context.delete_stream(str(stream.config.name))
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


@pytest.fixture(scope="session")
async def migrated_template(postgres_engine: PostgresEngine) -> str:
    """A database with every schema, to be copied: faster than migrating each."""
    name = "migrated"
    await _administer(postgres_engine, f"CREATE DATABASE {name}")
    await migrate(postgres_engine.dsn(name))
    return name


@pytest.fixture
async def migrated_database(postgres_engine: PostgresEngine, migrated_template: str) -> AsyncIterator[str]:
    """As `database`, with every schema."""
    name = f"test_{next(_numbers)}"
    await _administer(postgres_engine, f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    yield postgres_engine.dsn(name)
    await _administer(postgres_engine, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(engine: PostgresEngine, statement: str) -> None:
    connection = await asyncpg.connect(engine.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
