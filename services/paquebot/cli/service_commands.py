"""One command for each service: its help, its settings, and the service itself."""

import sys
from collections.abc import Callable

import typer
from rich.console import Console
from rich.table import Table

from paquebot.cli.services import SERVICES, ServiceCommand, run_service, settings_class
from paquebot.runtime.settings import describe


def add_services(app: typer.Typer) -> None:
    """Add a command for each service."""
    for service in SERVICES:
        app.command(
            service.command,
            help=f"Run the service {service.name}: {service.summary}.",
            rich_help_panel="Services",
        )(_command(service))


def _command(service: ServiceCommand) -> Callable[[bool], None]:
    def command(settings: bool = typer.Option(False, "--settings", help="list the settings and end")) -> None:
        if settings:
            _print_settings(settings_class(service))
            return
        sys.exit(run_service(service))

    return command


def _print_settings(settings_class: type) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("variable", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for row in describe(settings_class):
        table.add_row(*row)
    Console(highlight=False).print(table)
