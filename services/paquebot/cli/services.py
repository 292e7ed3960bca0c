"""The services as processes: where each lives, and how one is run, configured by PAQUEBOT_* alone.

A running service has imported what is named here and nothing else of the command line.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from paquebot.runtime.process.service import run


@dataclass(frozen=True, slots=True)
class ServiceCommand:
    """Where a service lives: imported only when it is run."""

    name: str
    settings: str
    summary: str

    @property
    def command(self) -> str:
        return self.name.replace("_", "-")


SERVICES = (
    ServiceCommand("smtp_ingress", "SmtpIngressSettings", "take mail in: MX, submission, submissions"),
    ServiceCommand("recipient_validation", "RecipientValidationSettings", "say who exists and who may log in (gRPC)"),
    ServiceCommand("delivery", "DeliverySettings", "put accepted messages into mailboxes"),
    ServiceCommand("relay", "RelaySettings", "carry accepted messages to other domains"),
    ServiceCommand("imap", "ImapSettings", "serve mailboxes over IMAP"),
    ServiceCommand("pop3", "Pop3Settings", "serve maildrops over POP3"),
)


def by_command(arguments: Sequence[str]) -> ServiceCommand | None:
    """The service that these arguments run; None when they ask for anything else, were it a service's help."""
    return next((service for service in SERVICES if [service.command] == list(arguments)), None)


def settings_class(service: ServiceCommand) -> type:
    """What its PAQUEBOT_* are read into."""
    found: type = getattr(_module(service), service.settings)
    return found


def run_service(service: ServiceCommand) -> int:
    """Run the process to its end; returns the exit code."""
    return run(service.name, settings_class(service), _module(service).main)


def _module(service: ServiceCommand) -> ModuleType:
    return importlib.import_module(f"paquebot.{service.name}.service")
