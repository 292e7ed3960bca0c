"""Two whole platforms with DNS between them, started once for all end-to-end tests. In the second one every service has
two workers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.e2e.platforms import Platform, free_ports, running
from tests.support.dns_server import DnsServer


@pytest.fixture(scope="session")
async def platforms(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Platform, Platform]]:
    here, there = free_ports(), free_ports()
    zones = {f"{name}.test": "@ MX 10 mail\nmail A 127.0.0.1" for name in ("here", "there")}
    async with DnsServer(zones) as dns:
        common = {"PAQUEBOT_RELAY_DNS": f"127.0.0.1:{dns.port}"}
        directory = tmp_path_factory.mktemp("platforms")
        async with (
            running(
                directory / "here",
                "here.test",
                ports=here,
                settings={**common, "PAQUEBOT_RELAY_PORT": str(there.services.smtp)},
            ) as first,
            running(
                directory / "there",
                "there.test",
                ports=there,
                settings={**common, "PAQUEBOT_RELAY_PORT": str(here.services.smtp), "PAQUEBOT_WORKERS": "2"},
            ) as second,
        ):
            yield first, second
