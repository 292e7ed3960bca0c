"""How the administration commands reach the directory: settings of the environment, or of a local stack.

A local stack writes `client.env` into its data directory (lines `PAQUEBOT_NAME=value`). The environment comes
first, `--data DIR` before it, `./.paquebot` where neither says anything.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from paquebot.cli.waiting import CommandFailed, TemporaryFailure
from paquebot.rpc import DirectoryClient, DirectoryRefused, DirectoryUnavailable, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import Secret, SettingsError, load, setting

T = TypeVar("T")

CLIENT_ENV = "client.env"
DEFAULT_DATA = Path(".paquebot")
_TARGET = "PAQUEBOT_RECIPIENT_VALIDATION"

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Data directory of a local stack; ./.paquebot if not given.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class AdminSettings:
    directory: DirectoryClientSettings
    admin_token: Secret = setting("ADMIN_TOKEN", help="of the directory's administration")


def client_environment(data: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to read settings from. Raises SettingsError when the file of `data` cannot be read."""
    if data is not None:
        return {**environ, **_read(data / CLIENT_ENV)}
    default = DEFAULT_DATA / CLIENT_ENV
    return {**(_read(default) if default.is_file() else {}), **_beside(environ), **environ}


def _beside(environ: Mapping[str, str]) -> dict[str, str]:
    """In the container of recipient_validation itself: where that listens."""
    listen = environ.get("PAQUEBOT_GRPC_LISTEN", "").partition(",")[0].strip()
    if not listen or listen.startswith("unix:"):
        return {_TARGET: listen} if listen else {}
    return {_TARGET: f"localhost:{listen.rpartition(':')[2]}"}


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise SettingsError([f"cannot read {path}: {error.strerror}; is it the data of `paquebot up`?"]) from None
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def client_settings(data: Path | None) -> AdminSettings:
    """Settings of the process's environment and `data`. Raises SettingsError."""
    return load(AdminSettings, client_environment(data, os.environ))


def exit_for_settings(data: Path | None, error: SettingsError) -> NoReturn:
    """Say what is wrong and end with exit code 2; one sentence where no platform is named at all."""
    named = data is not None or (DEFAULT_DATA / CLIENT_ENV).is_file()
    if named or any(name.startswith("PAQUEBOT_") for name in os.environ):
        for fault in error.faults:
            typer.echo(f"paquebot: {fault}", err=True)
    else:
        text = "there is no platform here: start one with `paquebot up`, name its directory with --data DIR,"
        typer.echo(f"paquebot: {text} or set PAQUEBOT_... for one elsewhere", err=True)
    raise typer.Exit(2) from None


def administer(data: Path | None, work: Callable[[DirectoryClient], Awaitable[T]]) -> T:
    """The result of `work` with a connected client. A failure is one sentence and exit code 1; 2 for settings."""
    try:
        settings = client_settings(data)
    except SettingsError as error:
        exit_for_settings(data, error)
    try:
        return asyncio.run(_with_client(settings, work))
    except SettingsError as error:  # certificates that are none
        exit_for_settings(data, error)
    except DirectoryRefused as refused:
        typer.echo(f"paquebot: {refused}", err=True)
    except DirectoryUnavailable as away:
        typer.echo(
            f"paquebot: the directory at {settings.directory.target} does not answer: {away}; is the platform running?",
            err=True,
        )
    raise typer.Exit(1)


async def _with_client(settings: AdminSettings, work: Callable[[DirectoryClient], Awaitable[T]]) -> T:
    channel = open_channel(settings.directory)
    try:
        return await work(DirectoryClient(channel, settings.directory, settings.admin_token))
    finally:
        await channel.close()


async def directory_answer(answer: Awaitable[T]) -> T:
    """The directory's faults as TemporaryFailure, which patience understands, or CommandFailed."""
    try:
        return await answer
    except DirectoryUnavailable as error:
        raise TemporaryFailure(str(error)) from error
    except DirectoryRefused as refused:
        raise CommandFailed(f"the directory refuses: {refused}") from refused
