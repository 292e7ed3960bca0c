"""`paquebot demo`: create the demo domain on an installation, as `paquebot up` does on this machine."""

import asyncio
import os
import secrets
from dataclasses import dataclass
from typing import Annotated

import typer

from paquebot.cli.admin.connection import (
    AdminSettings,
    DataOption,
    client_environment,
    directory_answer,
    exit_for_settings,
)
from paquebot.cli.demo.accounts import DEMO_READER, DEMO_SENDER, ensure_accounts
from paquebot.cli.waiting import CommandFailed, RetryUntil, WaitOption
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.settings import Secret, SettingsError, load, setting


@dataclass(frozen=True, slots=True)
class DemoSettings:
    client: AdminSettings
    password: Secret = setting("DEMO_PASSWORD", Secret(""), help="password of new demo accounts; empty: a random one")
    reset: bool = setting("DEMO_RESET", False, help="set the password of demo accounts that exist, too")


def demo_command(
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="The demo domain.")] = "paquebot.test",
    wait: WaitOption = "10m",  # type: ignore[assignment]
    data: DataOption = None,
) -> None:
    """Create the demo domain with the accounts alice and bob, where missing. Waits for the platform.

    New accounts get the password PAQUEBOT_DEMO_PASSWORD, or a random one, which is printed. The well-known password
    of `paquebot up` is never used, because other people can reach the installation. Accounts that exist keep their
    password unless PAQUEBOT_DEMO_RESET is true.
    """
    try:
        settings = load(DemoSettings, client_environment(data, os.environ))
    except SettingsError as error:
        exit_for_settings(data, error)
    password = settings.password or secrets.token_urlsafe(18)
    retries = RetryUntil(wait, lambda text: typer.echo(text, err=True))
    try:
        created = asyncio.run(_ensure(settings, domain, password, retries))
    except SettingsError as error:  # a certificate file without a certificate
        exit_for_settings(data, error)
    except CommandFailed as error:
        typer.echo(f"paquebot: {error}", err=True)
        raise typer.Exit(1) from None
    state = "created" if created else "exists already"
    typer.echo(f"domain {domain} with the accounts {DEMO_SENDER}@{domain} and {DEMO_READER}@{domain} {state}")
    if not settings.password and (created or settings.reset):
        typer.echo(f"the new password: {password}")


async def _ensure(settings: DemoSettings, domain: str, password: str, retries: RetryUntil) -> bool:
    channel = open_channel(settings.client.directory)
    client = DirectoryClient(channel, settings.client.directory, settings.client.admin_token)
    try:
        return await retries.call(
            "the directory", lambda: directory_answer(ensure_accounts(client, domain, password, reset=settings.reset))
        )
    finally:
        await channel.close()
