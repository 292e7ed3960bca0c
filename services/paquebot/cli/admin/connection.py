"""How the administration commands reach the directory: by the environment's settings, or those of a local platform.

`paquebot up` writes `client.env` into its data directory (lines `PAQUEBOT_NAME=value`). `--data DIR` takes precedence
over the environment, and the environment over `./.paquebot`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, Protocol, TypeVar

import typer

from paquebot.cli.waiting import CommandFailed, TemporaryFailure
from paquebot.rpc import DirectoryClient, DirectoryRefused, DirectoryUnavailable, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import Secret, SettingsError, load, setting

T = TypeVar("T")


class _Page(Protocol):
    next_page_token: str


P = TypeVar("P", bound=_Page)

CLIENT_ENV = "client.env"
DEFAULT_DATA = Path(".paquebot")
_TARGET = "PAQUEBOT_RECIPIENT_VALIDATION"

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Data directory of `paquebot up`; ./.paquebot if not given.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class AdminSettings:
    directory: DirectoryClientSettings
    admin_token: Secret = setting("ADMIN_TOKEN", help="token for the directory's administration")


def client_environment(data: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to read settings from. Raises SettingsError when `client.env` in `data` cannot be read."""
    if data is not None:
        return {**environ, **_read(data / CLIENT_ENV)}
    default = DEFAULT_DATA / CLIENT_ENV
    return {**(_read(default) if default.is_file() else {}), **_same_container(environ), **environ}


def _same_container(environ: Mapping[str, str]) -> dict[str, str]:
    """In the container of recipient_validation: the address on which the service listens."""
    listen = environ.get("PAQUEBOT_GRPC_LISTEN", "").partition(",")[0].strip()
    if not listen or listen.startswith("unix:"):
        return {_TARGET: listen} if listen else {}
    return {_TARGET: f"localhost:{listen.rpartition(':')[2]}"}


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise SettingsError(
            [f"cannot read {path}: {error.strerror}; is this the data directory of `paquebot up`?"]
        ) from None
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def client_settings(data: Path | None) -> AdminSettings:
    """The settings from the process's environment and `data`. Raises SettingsError."""
    return load(AdminSettings, client_environment(data, os.environ))


def exit_for_settings(data: Path | None, error: SettingsError) -> NoReturn:
    """Print what is wrong and exit with code 2; one sentence when nothing names a platform."""
    named = data is not None or (DEFAULT_DATA / CLIENT_ENV).is_file()
    if named or any(name.startswith("PAQUEBOT_") for name in os.environ):
        for fault in error.faults:
            typer.echo(f"paquebot: {fault}", err=True)
    else:
        text = "no platform found: start one with `paquebot up`, give its directory with --data DIR,"
        typer.echo(f"paquebot: {text} or set PAQUEBOT_... for a remote one", err=True)
    raise typer.Exit(2) from None


def administer(data: Path | None, work: Callable[[DirectoryClient], Awaitable[T]]) -> T:
    """The result of `work` with a connected client. A failure prints a sentence and exits with 1, or 2 for settings."""
    try:
        settings = client_settings(data)
    except SettingsError as error:
        exit_for_settings(data, error)
    try:
        return asyncio.run(_with_client(settings, work))
    except SettingsError as error:  # a certificate file without a certificate
        exit_for_settings(data, error)
    except DirectoryRefused as refused:
        typer.echo(f"paquebot: {refused}", err=True)
    except DirectoryUnavailable as error:
        text = f"the directory at {settings.directory.target} does not answer; is the platform running? ({error})"
        typer.echo(f"paquebot: {text}", err=True)
    raise typer.Exit(1)


async def _with_client(settings: AdminSettings, work: Callable[[DirectoryClient], Awaitable[T]]) -> T:
    channel = open_channel(settings.directory)
    try:
        return await work(DirectoryClient(channel, settings.directory, settings.admin_token))
    finally:
        await channel.close()


async def pages(read: Callable[[str], Awaitable[P]]) -> AsyncIterator[P]:
    """Every page of a list. `read` gets the token of a page; the first one's is empty."""
    token = ""
    while True:
        page = await read(token)
        yield page
        if not (token := page.next_page_token):
            return


async def directory_answer(answer: Awaitable[T]) -> T:
    """The directory's answer. Raises TemporaryFailure, on which `RetryUntil` tries again, or CommandFailed."""
    try:
        return await answer
    except DirectoryUnavailable as error:
        raise TemporaryFailure(str(error)) from error
    except DirectoryRefused as refused:
        raise CommandFailed(f"the directory refuses: {refused}") from refused
