"""`paquebot migrate` with engines that start late, a missing database, and wrong logins."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from paquebot.cli.engines.engine import Engine, start_engine
from paquebot.cli.engines.process import ManagedProcess
from paquebot.runtime.engine_settings import NatsSettings, S3Settings
from paquebot.runtime.postgres.migrations import ROLES
from tests.support.loopback import engine_set
from tests.support.roles import ROLE_PASSWORD, role_dsn

COMMAND_SECONDS = 90.0


@pytest.fixture
def environ(
    nats_settings: NatsSettings, s3_settings: S3Settings, database: str, jetstream: object, tmp_path: Path
) -> dict[str, str]:
    """Settings of the test's engines, with a database that does not exist yet."""
    parts = urllib.parse.urlsplit(database)
    return {
        "PATH": os.environ["PATH"],
        "PAQUEBOT_NATS_URL": nats_settings.url[0],
        "PAQUEBOT_NATS_USER": nats_settings.user,
        "PAQUEBOT_NATS_PASSWORD": str(nats_settings.password),
        "PAQUEBOT_S3_ENDPOINT": s3_settings.endpoint,
        "PAQUEBOT_S3_BUCKET": s3_settings.bucket,
        "PAQUEBOT_S3_ACCESS_KEY": s3_settings.access_key,
        "PAQUEBOT_S3_SECRET_KEY": str(s3_settings.secret_key),
        "PAQUEBOT_POSTGRES_DSN": parts._replace(path=parts.path + "_new").geturl(),
    }


@asynccontextmanager
async def migrating(environ: Mapping[str, str], *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "paquebot", "migrate", *options),
        env=dict(environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(environ: Mapping[str, str], *options: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    async with migrating(environ, *options) as process:
        output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()


async def drop(dsn: str, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def test_concurrent_migrations_create_a_missing_database_and_logins(
    environ: dict[str, str], database: str
) -> None:
    passwords = {f"PAQUEBOT_ROLE_PASSWORD_{role.removeprefix('paquebot_').upper()}": ROLE_PASSWORD for role in ROLES}
    answers = await asyncio.gather(*(run({**environ, **passwords}) for _ in range(2)))
    dsn = environ["PAQUEBOT_POSTGRES_DSN"]
    try:
        for code, output, errors in answers:
            assert code == 0, errors
            assert "schema mailstore is at version" in output
            assert "stream MAIL is up to date" in output
            assert "role paquebot_imap can log in" in output
        for role in ROLES:
            connection = await asyncpg.connect(role_dsn(dsn, role))
            assert await connection.fetchval("SELECT current_user::text") == role
            await connection.close()
        # Without the variable a password stays unchanged.
        assert (await run(environ))[0] == 0
        connection = await asyncpg.connect(role_dsn(dsn, "paquebot_imap"))
        await connection.close()
    finally:
        await drop(database, urllib.parse.urlsplit(dsn).path.removeprefix("/"))


async def test_it_waits_for_engines_that_come_late(tmp_path: Path) -> None:
    late = engine_set(tmp_path)
    login = late.nats.accesses[0]
    key = late.s3.accesses[0]
    environ = {
        "PATH": os.environ["PATH"],
        "PAQUEBOT_NATS_URL": late.nats.url,
        "PAQUEBOT_NATS_USER": login.name,
        "PAQUEBOT_NATS_PASSWORD": login.password,
        "PAQUEBOT_S3_ENDPOINT": f"http://{late.s3.endpoint}",
        "PAQUEBOT_S3_ACCESS_KEY": key.access_key,
        "PAQUEBOT_S3_SECRET_KEY": key.secret_key,
        "PAQUEBOT_POSTGRES_DSN": late.postgres.dsn("paquebot"),
    }
    engines: dict[str, Engine] = {"PostgreSQL": late.postgres, "NATS": late.nats, "S3": late.s3}
    started: list[ManagedProcess] = []
    try:
        async with migrating(environ) as process:
            assert process.stderr is not None
            awaited = set(engines)
            while awaited:
                line = (await process.stderr.readline()).decode()
                assert line.startswith("waiting for "), line
                awaited.discard(line.split()[2])
            for engine in engines.values():
                started.append(await start_engine(engine, tmp_path / "log"))
            output, errors = await process.communicate()
            assert process.returncode == 0, errors
            assert b"database paquebot created" in output
    finally:
        for managed in started:
            await managed.kill()
        for socket in late.s3.stray_sockets():
            socket.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"PAQUEBOT_NATS_URL": "nats://127.0.0.1:1", "PAQUEBOT_NATS_TIMEOUT": "1s"}, "NATS: not within 1s: not conn"),
        ({"PAQUEBOT_S3_ENDPOINT": "http://127.0.0.1:1"}, "S3: not within 1s: "),
        ({"PAQUEBOT_S3_SECRET_KEY": "wrong"}, "S3 refuses our key "),
        ({"PAQUEBOT_POSTGRES_PASSWORD": "wrong"}, "PostgreSQL refuses the login: "),
        ({"PAQUEBOT_NATS_REPLICAS": "3"}, "NATS refuses the configuration of stream MAIL: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_permanent_failure_is_one_sentence(
    environ: dict[str, str], database: str, changed: dict[str, str], sentence: str
) -> None:
    parts = urllib.parse.urlsplit(database)
    if "PAQUEBOT_POSTGRES_PASSWORD" in changed:
        environ["PAQUEBOT_POSTGRES_DSN"] = parts._replace(netloc="postgres@" + parts.netloc.rpartition("@")[2]).geturl()
    else:
        environ["PAQUEBOT_POSTGRES_DSN"] = database
    code, _, errors = await run({**environ, **changed}, "--wait", "1s")
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.startswith("paquebot: "), errors
    assert sentence in last
    assert "Traceback" not in errors


async def test_an_owner_without_the_right_to_create_the_database(environ: dict[str, str], database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE ROLE migrate_owner LOGIN PASSWORD 'secret'")
    try:
        parts = urllib.parse.urlsplit(environ["PAQUEBOT_POSTGRES_DSN"])
        dsn = parts._replace(netloc="migrate_owner:secret@" + parts.netloc.rpartition("@")[2]).geturl()
        code, _, errors = await run({**environ, "PAQUEBOT_POSTGRES_DSN": dsn})
        assert code == 1
        assert "lacks the right: permission denied to create database" in errors.splitlines()[-1]
    finally:
        await connection.execute("DROP ROLE migrate_owner")
        await connection.close()


async def test_a_missing_dsn_is_a_fault_of_the_settings(environ: dict[str, str]) -> None:
    code, _, errors = await run({**environ, "PAQUEBOT_POSTGRES_DSN": ""})
    assert (code, errors) == (2, "paquebot: PAQUEBOT_POSTGRES_DSN must be set: postgresql://owner@host:port/database\n")
