"""`paquebot roundtrip`: send one message through an installation and read it back; `helm test` runs it."""

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.message import Message

from paquebot.cli.admin.connection import (
    AdminSettings,
    DataOption,
    client_environment,
    directory_answer,
    exit_for_settings,
)
from paquebot.cli.roundtrip.route import RoundTripLogin, RoundTripRoute, ServiceAddress, client_context
from paquebot.cli.roundtrip.trip import RoundTripError, TimedStep, round_trip
from paquebot.cli.waiting import CommandFailed, RetryUntil, WaitOption
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.settings import Listen, Secret, SettingsError, load, parse_listen, setting
from paquebot.v1 import directory_pb2 as pb

RouteOf = Callable[[RoundTripLogin, RoundTripLogin], RoundTripRoute]

_SMTP = "127.0.0.1:2587"
_IMAP = "127.0.0.1:2143"
_POP3 = "127.0.0.1:2110"

_FORBIDDEN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class RoundtripSettings:
    """Passwords of the given accounts. They are not arguments, because every process of a machine can see those."""

    sender_password: Secret = setting("ROUNDTRIP_SENDER_PASSWORD", Secret(""), help="password of --sender")
    recipient_password: Secret = setting("ROUNDTRIP_RECIPIENT_PASSWORD", Secret(""), help="password of --recipient")


def _endpoint(text: str) -> ServiceAddress:
    """`host:port`; a host name is looked up later."""
    found = _listen(text)
    return ServiceAddress(found.host, found.port)


def _listen(text: str) -> Listen:
    try:
        return parse_listen(text)
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("0.0.0.0:25", "mail.example.org:587")) from None


def roundtrip_command(
    smtp: Annotated[
        ServiceAddress,
        typer.Option(
            parser=_endpoint, envvar="PAQUEBOT_ROUNDTRIP_SMTP", metavar="HOST:PORT", help="Submission listener."
        ),
    ] = _SMTP,  # type: ignore[assignment]
    imap: Annotated[
        ServiceAddress,
        typer.Option(parser=_endpoint, envvar="PAQUEBOT_ROUNDTRIP_IMAP", metavar="HOST:PORT", help="IMAP."),
    ] = _IMAP,  # type: ignore[assignment]
    pop3: Annotated[
        ServiceAddress,
        typer.Option(parser=_endpoint, envvar="PAQUEBOT_ROUNDTRIP_POP3", metavar="HOST:PORT", help="POP3."),
    ] = _POP3,  # type: ignore[assignment]
    hostname: Annotated[
        str,
        typer.Option(
            envvar="PAQUEBOT_HOSTNAME", metavar="NAME", help="Name to expect in the certificate; '' for the host."
        ),
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(envvar="PAQUEBOT_ROUNDTRIP_CA", help="PEM file of trusted authorities; the system's if missing."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Trust any certificate.")] = False,
    sender: Annotated[str, typer.Option(metavar="ADDRESS", help="Sender; PAQUEBOT_ROUNDTRIP_SENDER_PASSWORD.")] = "",
    recipient: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Recipient; PAQUEBOT_ROUNDTRIP_RECIPIENT_PASSWORD.")
    ] = "",
    temporary: Annotated[
        bool,
        typer.Option("--temporary", help="Create a domain with two accounts for it (the default without --sender)."),
    ] = False,
    expect_client: Annotated[
        str,
        typer.Option(
            envvar="PAQUEBOT_ROUNDTRIP_CLIENT", metavar="ADDRESS,...", help="Client addresses to expect in Received."
        ),
    ] = "",
    forbidden: Annotated[
        str,
        typer.Option(
            envvar="PAQUEBOT_ROUNDTRIP_FORBIDDEN",
            metavar="HOST:PORT",
            help="Address that NetworkPolicies forbid this pod: report whether they are enforced.",
        ),
    ] = "",
    wait: WaitOption = "1m",  # type: ignore[assignment]
    data: DataOption = None,
) -> None:
    """Submit a message and read it over IMAP and POP3, all with STARTTLS. The exit code is 0 when it arrived.

    Without --sender and --recipient, create a domain with two accounts through the directory
    (PAQUEBOT_RECIPIENT_VALIDATION, PAQUEBOT_ADMIN_TOKEN) and remove them at the end.
    """
    if (temporary and (sender or recipient)) or bool(sender) != bool(recipient):
        raise typer.BadParameter("give --sender and --recipient, or --temporary")
    try:
        tls = client_context(name=hostname, ca=ca, verify=not insecure)
    except (OSError, ssl.SSLError) as error:
        typer.echo(f"paquebot: cannot read certificates from {ca}: {error}", err=True)
        raise typer.Exit(2) from None

    def route(first: RoundTripLogin, second: RoundTripLogin) -> RoundTripRoute:
        return RoundTripRoute(smtp, imap, pop3, tls, first, second, expect_client, wait)

    try:
        environ = client_environment(data, os.environ)
        if sender:
            passwords = load(RoundtripSettings, environ)
            given = (
                RoundTripLogin(sender, passwords.sender_password),
                RoundTripLogin(recipient, passwords.recipient_password),
            )
            round_trip(route(*given), _print_step)
        else:
            asyncio.run(
                _with_temporary_accounts(load(AdminSettings, environ), route, RetryUntil(wait, _print_progress))
            )
    except SettingsError as error:
        exit_for_settings(data, error)
    except (RoundTripError, CommandFailed) as error:
        typer.echo(f"paquebot: {error}", err=True)
        raise typer.Exit(1) from None
    if forbidden:
        typer.echo(enforcement(_listen(forbidden)))


async def _with_temporary_accounts(settings: AdminSettings, route: RouteOf, retries: RetryUntil) -> None:
    async with _temporary_accounts(settings, retries) as logins:
        await asyncio.to_thread(round_trip, route(*logins), _print_step)


@contextlib.asynccontextmanager
async def _temporary_accounts(
    settings: AdminSettings, retries: RetryUntil
) -> AsyncIterator[tuple[RoundTripLogin, RoundTripLogin]]:
    """Two accounts in a domain of their own; removed at the end, also after an error. Raises CommandFailed."""
    # RFC 2606 §2: nobody can own a domain below .invalid, so it cannot have mail of others.
    domain = f"roundtrip-{secrets.token_hex(6)}.invalid"
    logins = tuple(RoundTripLogin(f"{name}@{domain}", secrets.token_urlsafe(18)) for name in ("alice", "bob"))
    channel = open_channel(settings.directory)
    client = DirectoryClient(channel, settings.directory, settings.admin_token)

    async def ask(rpc: Any, request: Message) -> None:
        await retries.call("the directory", lambda: directory_answer(client.ask(rpc, request)))

    try:
        await ask(client.stub.CreateDomain, pb.CreateDomainRequest(name=domain))
        made: list[RoundTripLogin] = []
        try:
            for login in logins:
                await ask(
                    client.stub.CreateAccount, pb.CreateAccountRequest(address=login.address, password=login.password)
                )
                made.append(login)
            typer.echo(f"domain {domain} with two accounts created")
            yield logins[0], logins[1]
        finally:
            for login in made:
                await ask(client.stub.DeleteAccount, pb.DeleteAccountRequest(address=login.address))
            await ask(client.stub.DeleteDomain, pb.DeleteDomainRequest(name=domain))
            typer.echo(f"domain {domain} removed")
    finally:
        await channel.close()


def _print_step(timed: TimedStep) -> None:
    typer.echo(f"{timed.seconds * 1000:6.0f} ms  {timed.what}")


def _print_progress(text: str) -> None:
    typer.echo(text, err=True)


def enforcement(forbidden: Listen) -> str:
    """Try to connect to `forbidden`, which has a listener and which the NetworkPolicies forbid this pod. The result in
    one sentence."""
    try:
        with socket.create_connection((forbidden.host, forbidden.port), _FORBIDDEN_SECONDS):
            return (
                f"NetworkPolicies: NOT ENFORCED here: this pod reached {forbidden}, which they forbid; "
                "every pod of the cluster can reach the ports of this release"
            )
    except socket.gaierror:
        return f"NetworkPolicies: unknown: {forbidden.host} has no address"
    except OSError:
        return f"NetworkPolicies: enforced: {forbidden} did not answer this pod"
