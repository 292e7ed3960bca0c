"""The commands that run a service, configured by PAQUEBOT_* variables alone.

A running service imports this module and nothing else of the command line.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from paquebot.runtime.process.service import run


@dataclass(frozen=True, slots=True)
class ServiceCommand:
    """One service: its package, its settings class and its summary. The package is imported only to run it."""

    name: str
    settings: str
    summary: str

    @property
    def command(self) -> str:
        return self.name.replace("_", "-")


SERVICES = (
    ServiceCommand("smtp_ingress", "SmtpIngressSettings", "accept mail over SMTP (MX, submission, submissions)"),
    ServiceCommand("recipient_validation", "RecipientValidationSettings", "resolve recipients and check logins (gRPC)"),
    ServiceCommand("delivery", "DeliverySettings", "deliver accepted messages to mailboxes"),
    ServiceCommand("relay", "RelaySettings", "relay accepted messages to other domains"),
    ServiceCommand("imap", "ImapSettings", "serve mailboxes over IMAP"),
    ServiceCommand("pop3", "Pop3Settings", "serve maildrops over POP3"),
)


def by_command(arguments: Sequence[str]) -> ServiceCommand | None:
    """The service that these arguments run; None for anything else, also for a service's help."""
    return next((service for service in SERVICES if [service.command] == list(arguments)), None)


def settings_class(service: ServiceCommand) -> type:
    """The class of its settings."""
    found: type = getattr(_module(service), service.settings)
    return found


def run_service(service: ServiceCommand) -> int:
    """Run the service until it exits; returns the exit code."""
    return run(service.name, settings_class(service), _module(service).main)


def _module(service: ServiceCommand) -> ModuleType:
    return importlib.import_module(f"paquebot.{service.name}.service")
