"""`paquebot alias`: addresses that forward to other addresses."""

from collections.abc import Awaitable
from typing import Annotated

import typer

from paquebot.cli.admin.connection import DataOption, administer, pages
from paquebot.cli.admin.presentation import JsonOption, Record, YesOption, iso_time, print_record, print_records
from paquebot.rpc import DirectoryClient
from paquebot.v1 import directory_pb2 as pb

alias_app = typer.Typer(
    help="Add, list, change and remove addresses that forward to other addresses, local or remote.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="For example team@example.org.", show_default=False)]

_COLUMNS = ("address", "targets", "enabled")


@alias_app.command("add")
def add(
    address: Address,
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="Addresses that receive its mail.", show_default=False)
    ],
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Add an alias for one or more addresses."""
    request = pb.CreateAliasRequest(address=address, targets=targets)
    alias = administer(data, lambda client: client.ask(client.stub.CreateAlias, request))
    print_record(_record(alias), as_json=as_json)


@alias_app.command("list")
def list_(
    domain: Annotated[str, typer.Option(metavar="DOMAIN", help="Only aliases of this domain.")] = "",
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """List aliases and their targets."""
    aliases = administer(data, lambda client: _all(client, domain))
    print_records([_record(alias) for alias in aliases], _COLUMNS, as_json=as_json)


@alias_app.command("show")
def show(address: Address, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Show one alias."""
    request = pb.GetAliasRequest(address=address)
    alias = administer(data, lambda client: client.ask(client.stub.GetAlias, request))
    print_record(_record(alias), as_json=as_json)


@alias_app.command("set")
def set_(
    address: Address,
    target: Annotated[
        list[str] | None, typer.Option(metavar="ADDRESS", help="New target; repeat the option for several.")
    ] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Accept mail, or refuse it.")] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Change an alias. New targets replace all old ones; options that are not given keep their values."""
    if not target and enabled is None:
        raise typer.BadParameter("give at least one option to change")
    request = pb.UpdateAliasRequest(address=address, targets=target or [], enabled=enabled)
    alias = administer(data, lambda client: client.ask(client.stub.UpdateAlias, request))
    print_record(_record(alias), as_json=as_json)


@alias_app.command("remove")
def remove(address: Address, yes: YesOption = False, data: DataOption = None) -> None:
    """Remove an alias."""
    if not yes:
        typer.confirm(f"Remove alias {address}?", abort=True)
    request = pb.DeleteAliasRequest(address=address)
    administer(data, lambda client: client.ask(client.stub.DeleteAlias, request))
    typer.echo(f"alias {address} removed")


async def _all(client: DirectoryClient, domain: str) -> list[pb.Alias]:
    def read(token: str) -> Awaitable[pb.ListAliasesResponse]:
        return client.ask(client.stub.ListAliases, pb.ListAliasesRequest(domain=domain, page_token=token))

    return [alias async for page in pages(read) for alias in page.aliases]


def _record(alias: pb.Alias) -> Record:
    return {
        "address": alias.address,
        "targets": list(alias.targets),
        "enabled": alias.enabled,
        "created": iso_time(alias.created_at_ms),
    }
