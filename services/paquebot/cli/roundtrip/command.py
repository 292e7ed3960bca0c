"""`paquebot roundtrip`: one message the whole way through an installation; what `helm test` runs."""

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
    """Passwords of given accounts: not arguments, which any process of a machine can see."""

    sender_password: Secret = setting("ROUNDTRIP_SENDER_PASSWORD", Secret(""), help="of --sender")
    recipient_password: Secret = setting("ROUNDTRIP_RECIPIENT_PASSWORD", Secret(""), help="of --recipient")


def _endpoint(text: str) -> ServiceAddress:
    """`host:port`; a name is not looked up yet."""
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
        typer.Option(parser=_endpoint, envvar="PAQUEBOT_ROUNDTRIP_SMTP", metavar="HOST:PORT", help="Submission."),
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
        str, typer.Option(envvar="PAQUEBOT_HOSTNAME", metavar="NAME", help="To find in the certificate; '': the host.")
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(envvar="PAQUEBOT_ROUNDTRIP_CA", help="PEM to trust; the system's if missing or empty."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Trust any certificate.")] = False,
    sender: Annotated[str, typer.Option(metavar="ADDRESS", help="Who sends; PAQUEBOT_ROUNDTRIP_SENDER_PASSWORD.")] = "",
    recipient: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Who reads; PAQUEBOT_ROUNDTRIP_RECIPIENT_PASSWORD.")
    ] = "",
    temporary: Annotated[
        bool,
        typer.Option("--temporary", help="Make a domain with two accounts for it (the default without --sender)."),
    ] = False,
    expect_client: Annotated[
        str,
        typer.Option(envvar="PAQUEBOT_ROUNDTRIP_CLIENT", metavar="ADDRESS,...", help="What Received must say we are."),
    ] = "",
    forbidden: Annotated[
        str,
        typer.Option(
            envvar="PAQUEBOT_ROUNDTRIP_FORBIDDEN",
            metavar="HOST:PORT",
            help="What NetworkPolicies forbid us: say whether they are enforced.",
        ),
    ] = "",
    wait: WaitOption = "1m",  # type: ignore[assignment]
    data: DataOption = None,
) -> None:
    """Send a message by submission and read it over IMAP and POP3, all with STARTTLS; exit code 0 when it came.

    Without --sender and --recipient it makes a domain of its own with two accounts through the directory
    (PAQUEBOT_RECIPIENT_VALIDATION, PAQUEBOT_ADMIN_TOKEN) and removes them in the end.
    """
    if (temporary and (sender or recipient)) or bool(sender) != bool(recipient):
        raise typer.BadParameter("give --sender and --recipient, or --temporary")
    try:
        tls = client_context(name=hostname, ca=ca, verify=not insecure)
    except (OSError, ssl.SSLError) as error:
        typer.echo(f"paquebot: no certificates can be read from {ca}: {error}", err=True)
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
            round_trip(route(*given), _say)
        else:
            asyncio.run(_between_strangers(load(AdminSettings, environ), route, RetryUntil(wait, _tell)))
    except SettingsError as error:
        exit_for_settings(data, error)
    except (RoundTripError, CommandFailed) as error:
        typer.echo(f"paquebot: {error}", err=True)
        raise typer.Exit(1) from None
    if forbidden:
        typer.echo(enforcement(_listen(forbidden)))


async def _between_strangers(settings: AdminSettings, route: RouteOf, patience: RetryUntil) -> None:
    async with _temporary_accounts(settings, patience) as logins:
        await asyncio.to_thread(round_trip, route(*logins), _say)


@contextlib.asynccontextmanager
async def _temporary_accounts(
    settings: AdminSettings, patience: RetryUntil
) -> AsyncIterator[tuple[RoundTripLogin, RoundTripLogin]]:
    """Two accounts in a domain that nobody else has; removed in the end, whatever happens. Raises CommandFailed."""
    # RFC 2606 §2: .invalid is nobody's, so no mail of others can be for it.
    domain = f"roundtrip-{secrets.token_hex(6)}.invalid"
    logins = tuple(RoundTripLogin(f"{name}@{domain}", secrets.token_urlsafe(18)) for name in ("alice", "bob"))
    channel = open_channel(settings.directory)
    client = DirectoryClient(channel, settings.directory, settings.admin_token)

    async def ask(rpc: Any, request: Message) -> None:
        await patience.until_done("the directory", lambda: directory_answer(client.ask(rpc, request)))

    try:
        await ask(client.stub.CreateDomain, pb.CreateDomainRequest(name=domain))
        made: list[RoundTripLogin] = []
        try:
            for login in logins:
                await ask(
                    client.stub.CreateAccount, pb.CreateAccountRequest(address=login.address, password=login.password)
                )
                made.append(login)
            typer.echo(f"domain {domain} with two accounts is made")
            yield logins[0], logins[1]
        finally:
            for login in made:
                await ask(client.stub.DeleteAccount, pb.DeleteAccountRequest(address=login.address))
            await ask(client.stub.DeleteDomain, pb.DeleteDomainRequest(name=domain))
            typer.echo(f"domain {domain} is removed again")
    finally:
        await channel.close()


def _say(timed: TimedStep) -> None:
    typer.echo(f"{timed.seconds * 1000:6.0f} ms  {timed.what}")


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def enforcement(forbidden: Listen) -> str:
    """A sentence for a person about what came of a connection to `forbidden`, which something listens on."""
    try:
        with socket.create_connection((forbidden.host, forbidden.port), _FORBIDDEN_SECONDS):
            return (
                f"NetworkPolicies: NOT ENFORCED here, for this pod reached {forbidden}, which they forbid it; "
                "every pod of the cluster reaches the ports of this release"
            )
    except socket.gaierror:
        return f"NetworkPolicies: not known, for {forbidden.host} has no address"
    except OSError:
        return f"NetworkPolicies: enforced, for {forbidden} did not answer this pod"
