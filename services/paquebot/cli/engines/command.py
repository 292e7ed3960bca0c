"""`paquebot engine nats|s3|postgres`: one engine in the foreground, as a pod of an evaluation installation runs it.

The engine and its durable settings are those of `paquebot up`. The process reads PAQUEBOT_*, passes the engine's
output on, serves /livez and /readyz, and exits when the engine exits.
"""

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from paquebot.cli.engines.engine import Engine, EngineError, kill_when_stuck, start_engine
from paquebot.cli.engines.grants import NATS_USERS, S3_USERS, nats_access, s3_access
from paquebot.cli.engines.nats import NatsAccess, NatsEngine
from paquebot.cli.engines.ports import DEFAULT_PORTS
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.process import ManagedProcess
from paquebot.cli.engines.s3 import S3Access, S3Engine
from paquebot.observability.log import Log
from paquebot.runtime.engine_settings import ProcessSettings
from paquebot.runtime.process.service import Context, run
from paquebot.runtime.settings import SettingsError, setting

engine_app = typer.Typer(
    help="Run one bundled engine in the foreground, for evaluation installations. Settings are PAQUEBOT_* variables: "
    "ENGINE_DATA and ENGINE_ACCESS (directories), ENGINE_HOST, ENGINE_MONITOR_HOST, S3_BUCKET, METRICS_LISTEN, "
    "LOG_LEVEL, DRAIN.",
    no_args_is_help=True,
)

_log = Log("paquebot.engine")
_READY_SECONDS = 300.0  # recovery after a crash, on a slow volume
_OWN_LOGIN = "engine"  # new at every start; the readiness probe uses it


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of an engine process."""

    process: ProcessSettings
    data: Path = setting("ENGINE_DATA", help="directory for the engine's data, usually on a volume")
    access: Path = setting("ENGINE_ACCESS", help="directory with a file for each login: nats.USER, s3.USER, ...")
    host: str = setting("ENGINE_HOST", "127.0.0.1", help="address to listen on; 0.0.0.0 in a pod")
    monitor_host: str = setting(
        "ENGINE_MONITOR_HOST", "127.0.0.1", help="address of the monitor, which has no login (nats)"
    )
    bucket: str = setting("S3_BUCKET", "paquebot", help="the bucket to create (s3)")


def nats_engine(settings: EngineSettings) -> NatsEngine:
    """NATS with a login for each file `nats.USER`, which holds the password. Raises SettingsError."""
    logins = [nats_access(user, _read(settings, f"nats.{user}")) for user in NATS_USERS]
    own = NatsAccess(_OWN_LOGIN, secrets.token_urlsafe(24))
    hosts = {"host": settings.host, "monitor_host": settings.monitor_host}
    return NatsEngine(settings.data / "nats", (own, *logins), DEFAULT_PORTS, **hosts)


def s3_engine(settings: EngineSettings) -> S3Engine:
    """S3 with a login for each file `s3.USER`, which holds `ACCESSKEY:SECRETKEY`. Raises SettingsError."""
    logins = []
    for user in S3_USERS:
        access_key, _, secret_key = _read(settings, f"s3.{user}").partition(":")
        logins.append(s3_access(user, access_key, secret_key, settings.bucket))
    own = S3Access(_OWN_LOGIN, secrets.token_hex(10), secrets.token_urlsafe(30))
    return S3Engine(settings.data / "s3", (own, *logins), settings.bucket, DEFAULT_PORTS, host=settings.host)


def postgres_engine(settings: EngineSettings) -> PostgresEngine:
    """PostgreSQL; the file `postgres.owner` holds the password of the superuser `postgres`. Raises SettingsError."""
    password = _read(settings, "postgres.owner")
    return PostgresEngine(settings.data / "postgres", password, DEFAULT_PORTS, host=settings.host)


def _read(settings: EngineSettings, name: str) -> str:
    path = settings.access / name
    try:
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError([f"PAQUEBOT_ENGINE_ACCESS: cannot read {path}: {error.strerror}"]) from None
    if not text:
        raise SettingsError([f"PAQUEBOT_ENGINE_ACCESS: {path} is empty"])
    return text


class EngineExit:
    """The exit code for our process when the engine exited by itself."""

    code = 0


async def serve(context: Context, engine: Engine, ended: EngineExit) -> None:
    """Run `engine` until the drain, or until it exits by itself. Raises EngineError when it cannot run."""
    context.health.depend(engine.name, engine.probe)
    starting = asyncio.ensure_future(start_engine(engine, None, _READY_SECONDS))
    draining = asyncio.ensure_future(context.draining.wait())
    await asyncio.wait((starting, draining), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()  # which kills the process
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    process = starting.result()
    context.started()
    watching = asyncio.ensure_future(
        kill_when_stuck(engine, process, lambda why: _log.error("engine_stuck", reason=why))
    )
    try:
        await _until_drained(process, draining, ended)
    finally:
        watching.cancel()


async def _until_drained(process: ManagedProcess, draining: "asyncio.Future[Literal[True]]", ended: EngineExit) -> None:
    ending = asyncio.ensure_future(process.wait())
    await asyncio.wait((ending, draining), return_when=asyncio.FIRST_COMPLETED)
    if draining.done():
        await process.stop()  # exit code 0 whatever the signal, because we stopped it
        return
    draining.cancel()
    code = ending.result()
    ended.code = (
        code if code > 0 else 128 - code if code < 0 else 1
    )  # as a shell does; an engine should not exit with 0
    _log.error("engine_exited", engine=process.name, code=code)


def _command(name: str, make: Callable[[EngineSettings], Engine]) -> Callable[[], None]:
    ended = EngineExit()

    async def main(context: Context, settings: EngineSettings) -> None:
        try:
            settings.data.mkdir(parents=True, exist_ok=True)
            await serve(context, make(settings), ended)
        except OSError as error:
            raise SettingsError([f"PAQUEBOT_ENGINE_DATA: {error}"]) from None
        except EngineError as error:
            _log.error("engine_failed", engine=name, reason=str(error))
            ended.code = 1

    def command() -> None:
        # No other user may read an engine's files.
        os.umask(0o077)
        code = run(f"engine-{name}", EngineSettings, main)
        sys.exit(code or ended.code)

    return command


_ENGINES: tuple[tuple[str, Callable[[EngineSettings], Engine], str], ...] = (
    ("nats", nats_engine, "Run NATS with JetStream. Every acknowledged job is on disk."),
    ("s3", s3_engine, "Run SeaweedFS's S3 service. Every acknowledged object is on disk."),
    ("postgres", postgres_engine, "Run PostgreSQL with every durability setting on."),
)
for _name, _make, _help in _ENGINES:
    engine_app.command(_name, help=_help)(_command(_name, _make))
