"""Our platform with the accounts of the benchmark: what `paquebot up` runs, on free ports, all engines durable."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from paquebot.cli.demo.accounts import DEMO_PASSWORD, ensure_demo
from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import SERVICES, Layout
from paquebot.cli.up.stack import Stack
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest
from tests.bench.rows import user
from tests.e2e.platforms import Platform, free_ports

ENGINES = ("nats", "s3", "postgres")
_AT_ONCE = 4  # password hashes


@dataclass(frozen=True, slots=True)
class Ours:
    """A running platform as a `bench.rows.Side`."""

    platform: Platform
    accounts: int

    @property
    def name(self) -> str:
        return "Paquebot"

    @property
    def domain(self) -> str:
        return self.platform.domain

    @property
    def password(self) -> str:
        return DEMO_PASSWORD

    @property
    def smtp_port(self) -> int:
        return self.platform.plan.ports.services.smtp

    @property
    def imaps_port(self) -> int:
        return self.platform.plan.ports.services.imaps

    @property
    def plain_imap_port(self) -> None:
        return None

    def address(self, number: int) -> str:
        return self.platform.address(user(number))

    def tls(self) -> ssl.SSLContext:
        return self.platform.tls()

    def roots(self) -> Mapping[str, int]:
        return {name: self.platform.stack.supervisor.pid(name) for name in (*SERVICES, *ENGINES)}


@dataclass(frozen=True, slots=True)
class _Replicas(PlatformPlan):
    """A plan with so many workers of some services, by name."""

    workers: Mapping[str, int] = field(default_factory=dict)

    def service_environment(self, service: str) -> dict[str, str]:
        own = {"PAQUEBOT_WORKERS": str(self.workers[service])} if service in self.workers else {}
        return {**PlatformPlan.service_environment(self, service), **own}


@asynccontextmanager
async def ours_running(
    directory: Path,
    domain: str,
    accounts: int = 100,
    workers: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Ours]:
    """A platform in `directory`, ended with the block; as `paquebot up` runs it but for `workers` of some services, and
    `settings` (PAQUEBOT_*) of all."""
    layout = Layout(directory)
    layout.data.mkdir(parents=True, exist_ok=True)
    overrides = {"PAQUEBOT_ARGON2_PASSES": "1", **(settings or {})}  # accounts are made faster; the load has no logins
    plan = _Replicas(layout, free_ports(), layout.secrets(), f"mail.{domain}", domain, overrides, workers or {})
    said: list[str] = []
    stack = Stack(plan, said.append, said.append)
    await stack.start()
    try:
        await ensure_demo(plan)
        platform = Platform(plan, stack, said)
        await _make_accounts(platform, accounts)
        yield Ours(platform, accounts)
    finally:
        await stack.stop()


async def _make_accounts(platform: Platform, accounts: int) -> None:
    settings = load(DirectoryClientSettings, platform.plan.client_environment())
    channel = open_channel(settings)
    client = DirectoryClient(channel, settings, platform.plan.secrets.admin_token)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def make(number: int) -> None:
        request = CreateAccountRequest(address=platform.address(user(number)), password=DEMO_PASSWORD)
        async with turns:
            await client.ask(client.stub.CreateAccount, request)

    try:
        await asyncio.gather(*(make(number) for number in range(accounts)))
    finally:
        await channel.close()
