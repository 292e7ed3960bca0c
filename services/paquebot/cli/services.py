"""One command for each service: `paquebot smtp-ingress` runs that process, configured by PAQUEBOT_* alone."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.table import Table

from paquebot.runtime.service import run
from paquebot.runtime.settings import describe


@dataclass(frozen=True, slots=True)
class ServiceCommand:
    """Where a service lives: imported only when it is run, so that `paquebot --help` stays quick."""

    name: str
    settings: str
    summary: str


SERVICES = (
    ServiceCommand("smtp_ingress", "SmtpIngressSettings", "take mail in: MX, submission, submissions"),
    ServiceCommand("recipient_validation", "RecipientValidationSettings", "say who exists and who may log in (gRPC)"),
    ServiceCommand("delivery", "DeliverySettings", "put accepted messages into mailboxes"),
    ServiceCommand("relay", "RelaySettings", "carry accepted messages to other domains"),
    ServiceCommand("imap", "ImapSettings", "serve mailboxes over IMAP"),
    ServiceCommand("pop3", "Pop3Settings", "serve maildrops over POP3"),
)


def add_services(app: typer.Typer) -> None:
    """Add a command for each service."""
    for service in SERVICES:
        app.command(
            service.name.replace("_", "-"),
            help=f"Run the service {service.name}: {service.summary}.",
            rich_help_panel="Services",
        )(_command(service))


def _command(service: ServiceCommand) -> Callable[[bool], None]:
    def command(settings: bool = typer.Option(False, "--settings", help="list the settings and end")) -> None:
        module = importlib.import_module(f"paquebot.{service.name}.service")
        settings_class = getattr(module, service.settings)
        if settings:
            _print_settings(settings_class)
            return
        sys.exit(run(service.name, settings_class, module.main))

    return command


def _print_settings(settings_class: type) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("variable", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for row in describe(settings_class):
        table.add_row(*row)
    Console(highlight=False).print(table)
