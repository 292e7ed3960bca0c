"""`paquebot account`: the accounts. Passwords are read from a prompt or stdin, never from an argument."""

import getpass
import sys
import warnings
from collections.abc import Awaitable
from typing import Annotated

import typer

from paquebot.cli.admin.app_password import app_password_app
from paquebot.cli.admin.connection import DataOption, administer, pages
from paquebot.cli.admin.presentation import (
    JsonOption,
    Record,
    YesOption,
    iso_time,
    print_record,
    print_records,
    quota_bytes,
)
from paquebot.rpc import DirectoryClient
from paquebot.v1 import directory_pb2 as pb

account_app = typer.Typer(
    help="Add, list, change and remove accounts; set their passwords.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
account_app.add_typer(app_password_app, name="app-password")

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="For example alice@example.org.", show_default=False)]
DisplayName = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Display name.")]
Quota = Annotated[
    int | None, typer.Option(parser=quota_bytes, metavar="SIZE", help="Maximum size of its mail: 5GiB, or none.")
]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")]

_COLUMNS = ("address", "name", "enabled", "quota_bytes", "used_bytes", "messages", "account_id")


@account_app.command("add")
def add(
    address: Address,
    name: DisplayName = None,
    quota: Quota = None,
    password_stdin: PasswordStdin = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Add an account. Prompts for its password."""
    request = pb.CreateAccountRequest(
        address=address,
        display_name=name or "",
        quota_bytes=quota,
        password=_password(from_stdin=password_stdin),
    )
    account = administer(data, lambda client: client.ask(client.stub.CreateAccount, request))
    print_record(_record(account), as_json=as_json)


@account_app.command("list")
def list_(
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="Only accounts of this domain.")] = "",
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List accounts with their quota and usage."""
    accounts = administer(data, lambda client: _all(client, domain))
    print_records([_record(account) for account in accounts], _COLUMNS, as_json=as_json)


@account_app.command("show")
def show(address: Address, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Show one account."""
    request = pb.GetAccountRequest(address=address)
    account = administer(data, lambda client: client.ask(client.stub.GetAccount, request))
    print_record(_record(account), as_json=as_json)


@account_app.command("set")
def set_(
    address: Address,
    name: DisplayName = None,
    quota: Quota = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Allow logins and deliveries, or refuse them.")
    ] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Change an account. Options that are not given keep their values."""
    if all(value is None for value in (name, quota, enabled)):
        raise typer.BadParameter("give at least one option to change")
    request = pb.UpdateAccountRequest(address=address, display_name=name, quota_bytes=quota, enabled=enabled)
    account = administer(data, lambda client: client.ask(client.stub.UpdateAccount, request))
    print_record(_record(account), as_json=as_json)


@account_app.command("password")
def password(address: Address, password_stdin: PasswordStdin = False, data: DataOption = None) -> None:
    """Set an account's password. Prompts for it."""
    request = pb.UpdateAccountRequest(address=address, password=_password(from_stdin=password_stdin))
    administer(data, lambda client: client.ask(client.stub.UpdateAccount, request))
    typer.echo(f"password of {address} changed")


@account_app.command("remove")
def remove(address: Address, yes: YesOption = False, data: DataOption = None) -> None:
    """Remove an account permanently: it cannot log in or receive mail any more.

    `paquebot janitor` deletes its mail a day later.
    """
    if not yes:
        typer.confirm(f"Remove account {address} permanently?", abort=True)
    request = pb.DeleteAccountRequest(address=address)
    removed = administer(data, lambda client: client.ask(client.stub.DeleteAccount, request))
    typer.echo(f"account {address} removed (id {removed.account_id})")


def _password(*, from_stdin: bool) -> str:
    if not from_stdin:
        return _prompted_password()
    try:
        line = sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise typer.BadParameter("--password-stdin: the password is not UTF-8") from None
    if not line:
        raise typer.BadParameter("--password-stdin: no password on stdin")
    return line


def _prompted_password() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would show the password
        try:
            return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Repeat the password"))
        except getpass.GetPassWarning:
            raise typer.BadParameter("no terminal to type the password in: give it with --password-stdin") from None


async def _all(client: DirectoryClient, domain: str) -> list[pb.Account]:
    def read(token: str) -> Awaitable[pb.ListAccountsResponse]:
        return client.ask(client.stub.ListAccounts, pb.ListAccountsRequest(domain=domain, page_token=token))

    return [account async for page in pages(read) for account in page.accounts]


def _record(account: pb.Account) -> Record:
    return {
        "address": account.address,
        "name": account.display_name or None,
        "enabled": account.enabled,
        "quota_bytes": account.quota_bytes,
        "used_bytes": account.used_bytes,
        "messages": account.used_messages,
        "account_id": account.account_id,
        "created": iso_time(account.created_at_ms),
    }
