"""A running service has imported what it works with: the rest of the command line would be a quarter of its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from paquebot.cli.services import SERVICES, ServiceCommand, by_command

pytestmark = pytest.mark.slow

_NO_SERVICE = {"click", "typer", "rich", "opentelemetry", "aiosmtpd", "paquebot.cli.app"}
_NEVER = {
    "smtp_ingress": {"asyncpg", "dns", "paquebot.mailstore", "paquebot.directory"},
    "recipient_validation": {"minio", "dns", "cryptography"},
    "delivery": {"dns", "cryptography", "paquebot.directory"},
    "relay": {"cryptography", "paquebot.mailstore", "paquebot.directory"},
    "imap": {"dns", "paquebot.directory"},
    "pop3": {"dns", "paquebot.directory"},
}
_ENTRY = """
import sys
import paquebot.cli.main
from paquebot.cli import services
services.settings_class(services.by_command(sys.argv[1:]))
print("\\n".join(sys.modules))
"""


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_imports_nothing_that_it_never_uses(service: ServiceCommand) -> None:
    run = subprocess.run([sys.executable, "-c", _ENTRY, service.command], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())

    assert f"paquebot.{service.name}.service" in imported
    assert not imported & (_NO_SERVICE | _NEVER[service.name])


@pytest.mark.parametrize("arguments", [[], ["relay", "--help"], ["--help"], ["relay", "relay"], ["smtp_ingress"]])
def test_only_an_exact_service_command_skips_the_command_line(arguments: list[str]) -> None:
    assert by_command(arguments) is None
