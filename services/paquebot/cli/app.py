"""The command `paquebot`: the platform on one machine, its services one by one, and the operator's tools."""

import sys
from collections.abc import Callable

import typer
from rich.console import Console
from rich.table import Table

from paquebot import __version__
from paquebot.cli.admin.account import account_app
from paquebot.cli.admin.alias import alias_app
from paquebot.cli.admin.domain import domain_app
from paquebot.cli.demo.command import demo_command
from paquebot.cli.engines.command import engine_app
from paquebot.cli.queue import queue_app
from paquebot.cli.roundtrip.command import roundtrip_command
from paquebot.cli.services import SERVICES, ServiceCommand, run_service, settings_class
from paquebot.cli.session import session_app
from paquebot.cli.sink.command import sink_command
from paquebot.cli.up.command import up
from paquebot.cli.upkeep import add_upkeep
from paquebot.runtime.settings import describe

app = typer.Typer(
    name="paquebot",
    help="A mail platform of separate services: SMTP in, validation, relay, delivery, IMAP and POP3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the default keeps the line breaks of a docstring
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"paquebot {__version__}")
        raise typer.Exit


def _add_services(app: typer.Typer) -> None:
    """Add a command for each service."""
    for service in SERVICES:
        app.command(
            service.command,
            help=f"Run the service {service.name}: {service.summary}. Its settings are PAQUEBOT_* variables.",
            short_help=f"Run the service {service.name}: {service.summary}.",
            rich_help_panel="Services",
        )(_command(service))


def _command(service: ServiceCommand) -> Callable[[bool], None]:
    def command(settings: bool = typer.Option(False, "--settings", help="List the settings and exit.")) -> None:
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


app.command()(up)
for name, part in (
    ("domain", domain_app),
    ("account", account_app),
    ("alias", alias_app),
    ("queue", queue_app),
    ("session", session_app),
):
    app.add_typer(part, name=name, rich_help_panel="Administration")
app.add_typer(engine_app, name="engine", rich_help_panel="Evaluation")
app.command("demo", rich_help_panel="Evaluation")(demo_command)
app.command("sink", rich_help_panel="Evaluation")(sink_command)
add_upkeep(app)
app.command("roundtrip", rich_help_panel="Upkeep")(roundtrip_command)
_add_services(app)
