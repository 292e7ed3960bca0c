"""The platform that is attacked, with the chart's memory limits, and what attackers and ordinary clients know of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import ServicePorts
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest, CreateDomainRequest
from tests.attack.limits import Limits, chart_settings, limited
from tests.e2e.platforms import Platform, running
from tests.support.dns_server import DnsServer
from tests.support.remote_host import SILENT, Answer, RemoteHost

HOST = "127.0.0.1"
DOMAIN = "paquebot.test"
SECRET = "long enough a password"
SILENT_DOMAINS = 20
ALIAS_DOMAIN = "alias.test"
INNER_HOST, SILENT_HOST, _GOOD_HOST = "127.0.0.4", "127.0.0.7", "127.0.0.8"
SILENT_ZONES = {f"silent{n}.test": f"@ MX 10 mx\nmx A {SILENT_HOST}" for n in range(SILENT_DOMAINS)}
"""For `DnsServer`: what attackers make us write to."""
BANNER = "a banner that no stranger may read"
_WAYS_INSIDE = {"mx": f"@ MX 10 mx\nmx A {INNER_HOST}", "address": f"@ A {INNER_HOST}"}
INNER_DOMAINS = tuple(f"inside-by-{way}.test" for way in _WAYS_INSIDE)
_addresses = (f"127.9.{high}.{low}" for high, low in itertools.cycle(itertools.product(range(1, 250), range(1, 250))))


@dataclass(frozen=True, slots=True)
class Victim:
    """What attackers know of a platform: `user` has an account there, and so has the attacker, `mallory`."""

    ports: ServicePorts
    domain: str
    tls: ssl.SSLContext
    user: str
    prepared: set[str] = field(default_factory=set)
    """What was made ready for attacks, by the names of the functions."""

    @property
    def mallory(self) -> str:
        return f"mallory@{self.domain}"


@dataclass(frozen=True, slots=True)
class Field:
    """A platform for measuring. `good` takes mail for good.test; hosts of the domains silentN.test never say a word.
    `inner` is a host that relay may not reach, though INNER_DOMAINS lead to it."""

    platform: Platform
    limits: Limits
    victim: Victim
    good: RemoteHost
    inner: RemoteHost
    dns: DnsServer
    directory: Path

    @property
    def ports(self) -> ServicePorts:
        return self.victim.ports

    @property
    def tls(self) -> ssl.SSLContext:
        return self.victim.tls

    @property
    def oscar(self) -> str:
        """The account of an ordinary user."""
        return self.victim.user


@contextlib.asynccontextmanager
async def field_of(directory: Path) -> AsyncIterator[Field]:
    """Start the platform; ends it, and all its processes, at the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        good = await stack.enter_async_context(RemoteHost(address=_GOOD_HOST))
        await stack.enter_async_context(RemoteHost({"CONNECT": SILENT}, address=SILENT_HOST, port=good.port))
        banner: dict[str, Answer] = {"CONNECT": f"554 {BANNER}"}
        inner = await stack.enter_async_context(RemoteHost(banner, address=INNER_HOST, port=good.port))
        inside = dict(zip(INNER_DOMAINS, _WAYS_INSIDE.values(), strict=True))
        zones = {"good.test": f"@ MX 10 mx\nmx A {_GOOD_HOST}", **SILENT_ZONES, **inside}
        dns = await stack.enter_async_context(DnsServer(zones))
        settings = {**relay_settings(dns, good), **chart_settings()}
        platform = await stack.enter_async_context(running(directory / "field", DOMAIN, settings=settings))
        victim = Victim(platform.plan.ports.services, DOMAIN, platform.tls(), f"oscar@{DOMAIN}")
        await enrol(platform.plan, victim.mallory, victim.user)
        limits = stack.enter_context(limited(platform))
        yield Field(platform, limits, victim, good, inner, dns, directory)


def relay_settings(dns: DnsServer, good: RemoteHost) -> dict[str, str]:
    """Of these networks, which no relay may reach by itself, two hosts alone are open."""
    return {
        "PAQUEBOT_RELAY_DNS": f"{HOST}:{dns.port}",
        "PAQUEBOT_RELAY_PORT": str(good.port),
        "PAQUEBOT_RELAY_ALLOW_NETWORKS": f"{_GOOD_HOST}/32,{SILENT_HOST}/32",
    }


@contextlib.asynccontextmanager
async def administration(plan: PlatformPlan) -> AsyncIterator[DirectoryClient]:
    settings = load(DirectoryClientSettings, plan.client_environment())
    channel = open_channel(settings)
    try:
        yield DirectoryClient(channel, settings, plan.secrets.admin_token)
    finally:
        await channel.close()


async def enrol(plan: PlatformPlan, *addresses: str) -> None:
    """Make these accounts; their password is SECRET."""
    async with administration(plan) as client:
        for address in addresses:
            request = CreateAccountRequest(address=address, password=SECRET, display_name=address.partition("@")[0])
            await client.ask(client.stub.CreateAccount, request)


async def add_alias_domain(plan: PlatformPlan) -> None:
    async with administration(plan) as client:
        await client.ask(client.stub.CreateDomain, CreateDomainRequest(name=ALIAS_DOMAIN, alias_of=plan.domain))


async def connected(port: int, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """From a new address: the limits for one client do not hold it back."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        sock.bind((next(_addresses), 0))
        await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
        return await asyncio.open_connection(sock=sock, ssl=tls, server_hostname="localhost" if tls else None)
    except BaseException:
        sock.close()
        raise
