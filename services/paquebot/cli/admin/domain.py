"""`paquebot domain`: the domains that this platform accepts mail for."""

from collections.abc import Awaitable
from typing import Annotated

import typer

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

domain_app = typer.Typer(
    help="Add, list, change and remove the domains that this platform accepts mail for.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="DOMAIN", help="For example example.org.", show_default=False)]
AliasOf = Annotated[
    str | None, typer.Option(metavar="DOMAIN", help="Deliver its mail to the same local parts of DOMAIN; '' to stop.")
]
CatchAll = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Account for mail to unknown local parts; '' to refuse it.")
]
Quota = Annotated[
    int | None,
    typer.Option(parser=quota_bytes, metavar="SIZE", help="Quota of new accounts; none for PAQUEBOT_ACCOUNT_QUOTA."),
]

_COLUMNS = ("domain", "enabled", "alias_of", "catch_all", "default_quota_bytes", "accounts", "aliases")


@domain_app.command("add")
def add(
    name: Name,
    alias_of: AliasOf = None,
    catch_all: CatchAll = None,
    quota: Quota = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Add a domain and accept mail for it."""
    request = pb.CreateDomainRequest(
        name=name, alias_of=alias_of or "", catch_all=catch_all or "", default_quota_bytes=quota or 0
    )
    domain = administer(data, lambda client: client.ask(client.stub.CreateDomain, request))
    print_record(_record(domain), as_json=as_json)


@domain_app.command("list")
def list_(as_json: JsonOption = False, data: DataOption = None) -> None:
    """List all domains."""
    print_records([_record(domain) for domain in administer(data, _all)], _COLUMNS, as_json=as_json)


@domain_app.command("show")
def show(name: Name, as_json: JsonOption = False, data: DataOption = None) -> None:
    """Show one domain."""
    request = pb.GetDomainRequest(name=name)
    domain = administer(data, lambda client: client.ask(client.stub.GetDomain, request))
    print_record(_record(domain), as_json=as_json)


@domain_app.command("set")
def set_(
    name: Name,
    alias_of: AliasOf = None,
    catch_all: CatchAll = None,
    quota: Quota = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Accept mail, or refuse it.")] = None,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Change a domain. Options that are not given keep their values."""
    if all(value is None for value in (alias_of, catch_all, quota, enabled)):
        raise typer.BadParameter("give at least one option to change")
    request = pb.UpdateDomainRequest(
        name=name, alias_of=alias_of, catch_all=catch_all, default_quota_bytes=quota, enabled=enabled
    )
    domain = administer(data, lambda client: client.ask(client.stub.UpdateDomain, request))
    print_record(_record(domain), as_json=as_json)


@domain_app.command("remove")
def remove(name: Name, yes: YesOption = False, data: DataOption = None) -> None:
    """Remove a domain that has no accounts and no aliases."""
    if not yes:
        typer.confirm(f"Remove domain {name}?", abort=True)
    request = pb.DeleteDomainRequest(name=name)
    administer(data, lambda client: client.ask(client.stub.DeleteDomain, request))
    typer.echo(f"domain {name} removed")


async def _all(client: DirectoryClient) -> list[pb.Domain]:
    def read(token: str) -> Awaitable[pb.ListDomainsResponse]:
        return client.ask(client.stub.ListDomains, pb.ListDomainsRequest(page_token=token))

    return [domain async for page in pages(read) for domain in page.domains]


def _record(domain: pb.Domain) -> Record:
    return {
        "domain": domain.name,
        "enabled": domain.enabled,
        "alias_of": domain.alias_of or None,
        "catch_all": domain.catch_all or None,
        "default_quota_bytes": domain.default_quota_bytes,
        "accounts": domain.accounts,
        "aliases": domain.aliases,
        "created": iso_time(domain.created_at_ms),
    }
