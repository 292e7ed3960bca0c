"""`paquebot account app-password`: passwords for single programs, made here and told once."""

from typing import Annotated

import typer

from paquebot.cli.admin.connection import DataOption, administer
from paquebot.cli.admin.presentation import JsonOption, Record, YesOption, iso_time, print_record, print_records
from paquebot.v1 import directory_pb2 as pb

app_password_app = typer.Typer(
    help="Passwords for single programs, such as a phone: made here, told once, removed alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="For example alice@example.org.", show_default=False)]


@app_password_app.command("add")
def add(
    address: Address,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for: phone.", show_default=False)],
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Make an app password and print it: it is not told again."""
    request = pb.CreateAppPasswordRequest(address=address, name=name)
    made = administer(data, lambda client: client.ask(client.stub.CreateAppPassword, request))
    print_record({**_record(made.app_password), "password": made.password}, as_json=as_json)


@app_password_app.command("list")
def list_(address: Address, as_json: JsonOption = False, data: DataOption = None) -> None:
    """List an account's app passwords, without the passwords."""
    request = pb.ListAppPasswordsRequest(address=address)
    found = administer(data, lambda client: client.ask(client.stub.ListAppPasswords, request))
    columns = ("id", "name", "created", "last_used")
    print_records([_record(entry) for entry in found.app_passwords], columns, as_json=as_json)


@app_password_app.command("remove")
def remove(
    address: Address,
    app_password_id: Annotated[str, typer.Argument(metavar="ID", help="As listed.", show_default=False)],
    yes: YesOption = False,
    data: DataOption = None,
) -> None:
    """Remove an app password: the program that has it can no longer log in."""
    if not yes:
        typer.confirm(f"Remove app password {app_password_id} of {address}?", abort=True)
    request = pb.DeleteAppPasswordRequest(address=address, app_password_id=app_password_id)
    administer(data, lambda client: client.ask(client.stub.DeleteAppPassword, request))
    typer.echo(f"app password {app_password_id} of {address} removed")


def _record(entry: pb.AppPassword) -> Record:
    return {
        "id": entry.app_password_id,
        "name": entry.name,
        "created": iso_time(entry.created_at_ms),
        "last_used": (iso_time(entry.last_used_at_ms) or "")[:10] or None,
    }
