"""`paquebot demo`: the demo domain of an installation elsewhere, as `paquebot up` makes it here."""

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
    password: Secret = setting("DEMO_PASSWORD", Secret(""), help="of the demo accounts that are made; empty: drawn")
    reset: bool = setting("DEMO_RESET", False, help="give the password to accounts that are there, too")


def demo_command(
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="The demo domain.")] = "paquebot.test",
    wait: WaitOption = "10m",  # type: ignore[assignment]
    data: DataOption = None,
) -> None:
    """Make the demo domain with the accounts alice and bob, where missing; waits for the platform.

    Their password is PAQUEBOT_DEMO_PASSWORD, else one that is drawn and printed: other people reach an installation
    elsewhere, so it is never the one of `paquebot up`. Accounts that are there stay as they are, unless
    PAQUEBOT_DEMO_RESET is true: then they get the password, too.
    """
    try:
        settings = load(DemoSettings, client_environment(data, os.environ))
    except SettingsError as error:
        exit_for_settings(data, error)
    password = settings.password or secrets.token_urlsafe(18)
    patience = RetryUntil(wait, lambda text: typer.echo(text, err=True))
    try:
        made = asyncio.run(_ensure(settings, domain, password, patience))
    except SettingsError as error:  # certificates that are none
        exit_for_settings(data, error)
    except CommandFailed as fault:
        typer.echo(f"paquebot: {fault}", err=True)
        raise typer.Exit(1) from None
    state = "is made" if made else "was there already"
    typer.echo(f"domain {domain} with the accounts {DEMO_SENDER}@{domain} and {DEMO_READER}@{domain} {state}")
    if not settings.password and (made or settings.reset):
        typer.echo(f"the password that was set now: {password}")


async def _ensure(settings: DemoSettings, domain: str, password: str, patience: RetryUntil) -> bool:
    channel = open_channel(settings.client.directory)
    client = DirectoryClient(channel, settings.client.directory, settings.client.admin_token)
    try:
        return await patience.until_done(
            "the directory", lambda: directory_answer(ensure_accounts(client, domain, password, reset=settings.reset))
        )
    finally:
        await channel.close()
