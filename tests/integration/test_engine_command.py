"""`paquebot engine`: logins from files, faults in one sentence, and the exit code of an engine that ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from paquebot.cli.engines.command import EngineExit, EngineSettings, nats_engine, postgres_engine, s3_engine, serve
from paquebot.cli.engines.grants import NATS_USERS, S3_USERS
from paquebot.cli.engines.nats import NatsEngine
from paquebot.queue import Publication, Queue, QueueUnavailable
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.settings import Seconds, Secret, SettingsError, load
from tests.support.loopback import engine_set


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    access = tmp_path / "access"
    access.mkdir()
    for user in NATS_USERS:
        (access / f"nats.{user}").write_text(f"password of {user}\n")
    for user in S3_USERS:
        (access / f"s3.{user}").write_text(f"KEY{user}:secret:of:{user}\n")
    (access / "postgres.owner").write_text("owner's\n")
    environ = {"PAQUEBOT_ENGINE_DATA": str(tmp_path / "data"), "PAQUEBOT_ENGINE_ACCESS": str(access)}
    return load(EngineSettings, environ)


def test_every_login_is_read_from_its_file(settings: EngineSettings) -> None:
    engine = nats_engine(replace(settings, host="0.0.0.0"))
    configuration = json.loads(engine.configuration())
    users = {entry["user"]: entry for entry in configuration["authorization"]["users"]}
    assert set(users) == {"engine", *NATS_USERS}
    assert users["imap"]["password"] == "password of imap"
    assert "permissions" not in users["engine"]
    assert all("permissions" in users[user] for user in NATS_USERS)
    assert (configuration["listen"], configuration["http"]) == ("0.0.0.0:2422", "127.0.0.1:2822")
    identities = {entry["name"]: entry for entry in json.loads(s3_engine(settings).identities())["identities"]}
    assert identities["pop3"]["credentials"] == [{"accessKey": "KEYpop3", "secretKey": "secret:of:pop3"}]
    assert identities["pop3"]["actions"] == ["Read:paquebot", "List:paquebot"]
    assert postgres_engine(settings).password == "owner's"


def test_a_start_on_a_full_disk_sets_no_limit_for_later(settings: EngineSettings) -> None:
    """By default nats-server takes 75 % of the free space at its start as its limit, for as long as it runs."""
    limit = json.loads(nats_engine(settings).configuration())["jetstream"]["max_file_store"]
    assert limit > shutil.disk_usage(settings.access).total


def test_all_ipv6_addresses(settings: EngineSettings) -> None:
    assert json.loads(nats_engine(replace(settings, host="::")).configuration())["listen"] == "[::]:2422"


@pytest.mark.parametrize(("name", "fault"), [("nats.relay", "cannot read"), ("nats.imap", "is empty")])
def test_a_missing_login_is_named(settings: EngineSettings, name: str, fault: str) -> None:
    path = settings.access / name
    if fault == "is empty":
        path.write_text("\n")
    else:
        path.unlink()
    with pytest.raises(SettingsError, match=f"{fault}.*{name}|{name} {fault}"):
        nats_engine(settings)


async def started(tmp_path: Path) -> tuple[Context, EngineExit, asyncio.Future[None]]:
    return await started_engine(engine_set(tmp_path).nats)


async def started_engine(engine: NatsEngine) -> tuple[Context, EngineExit, asyncio.Future[None]]:
    context, ended = Context("engine", Health(), asyncio.Event()), EngineExit()
    serving = asyncio.ensure_future(serve(context, engine, ended))
    async with asyncio.timeout(60.0):
        while await context.health.unready():
            assert not serving.done()
            await asyncio.sleep(0.02)
    return context, ended, serving


def child_of_ours(directory: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if Path(os.readlink(entry / "cwd")) == directory:
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("no engine runs")


async def test_a_drain_exits_with_0(tmp_path: Path) -> None:
    context, ended, serving = await started(tmp_path)
    context.draining.set()
    await asyncio.wait_for(serving, 30.0)
    assert ended.code == 0
    with pytest.raises(AssertionError, match="no engine runs"):
        child_of_ours(tmp_path / "nats")


async def test_a_killed_engine_sets_our_exit_code(tmp_path: Path) -> None:
    _, ended, serving = await started(tmp_path)
    os.kill(child_of_ours(tmp_path / "nats"), signal.SIGKILL)
    await asyncio.wait_for(serving, 30.0)
    assert ended.code == 128 + signal.SIGKILL


async def test_a_server_that_refuses_writes_is_killed(tmp_path: Path) -> None:
    """After one failed write nats-server refuses all writes, even when the disk has space again."""
    engine = engine_set(tmp_path).nats
    _, ended, serving = await started_engine(engine)
    assert await engine.stuck() == ""
    login = engine.accesses[0]
    settings = NatsSettings(url=(engine.url,), user=login.name, password=Secret(login.password), timeout=Seconds(1.0))
    queue = await Queue.open(settings, "tests")
    try:
        await ensure_stream(queue)
        [blocks] = (engine.data_dir / "jetstream").rglob("msgs")
        shutil.rmtree(blocks)
        blocks.touch()  # the server cannot create the next block
        with contextlib.suppress(QueueUnavailable):
            for _ in range(32):
                await queue.publish([Publication("deliver.ready.example", b"x" * 10**6)])
            pytest.fail("everything was stored")
        await asyncio.wait_for(serving, 30.0)
    finally:
        await queue.close()
    assert ended.code == 128 + signal.SIGKILL
