"""A platform with mail of every kind flowing, and a Prometheus that watches it; started once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from paquebot.cli.up.layout import SERVICES
from tests.e2e.platforms import Platform, free_ports, running
from tests.monitoring.prometheus_server import Prometheus, scraping
from tests.monitoring.traffic import ABROAD, REMOTE, flowing
from tests.support.dns_server import DnsServer
from tests.support.remote_host import RemoteHost

DOMAIN = "watched.test"


@dataclass(frozen=True, slots=True)
class Watched:
    platform: Platform
    prometheus: Prometheus


@pytest.fixture(scope="module")  # mail must not flow on behind the tests of others
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    ports = free_ports()
    zones = dict.fromkeys(ABROAD, "@ MX 10 mail\nmail A 127.0.0.1")
    async with DnsServer(zones) as dns, RemoteHost(REMOTE) as remote:
        settings = {
            "PAQUEBOT_RELAY_DNS": f"127.0.0.1:{dns.port}",
            "PAQUEBOT_RELAY_PORT": str(remote.port),
            "PAQUEBOT_NATS_TIMEOUT": "1s",
            "PAQUEBOT_S3_TIMEOUT": "1s",
            "PAQUEBOT_POSTGRES_TIMEOUT": "1s",
            "PAQUEBOT_RECIPIENT_VALIDATION_TIMEOUT": "2s",
        }
        async with running(directory / "data", DOMAIN, ports=ports, settings=settings) as platform:
            pods = {f"mail-{service.replace('_', '-')}-0": ports.services.metrics(service) for service in SERVICES}
            async with scraping(directory / "prometheus", pods) as prometheus, flowing(platform):
                yield Watched(platform, prometheus)
