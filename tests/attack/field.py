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

from platforms import Platform, running

from attack.limits import Limits, limited
from dns_server import DnsServer
from paquebot.cli.up.environment import Plan
from paquebot.cli.up.layout import ServicePorts
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.engines import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest
from remote_host import SILENT, RemoteHost

HOST = "127.0.0.1"
DOMAIN = "paquebot.test"
SECRET = "long enough a password"
SILENT_DOMAINS = 20
SILENT_HOST, _GOOD_HOST = "127.0.0.7", "127.0.0.8"
SILENT_ZONES = {f"silent{n}.test": f"@ MX 10 mx\nmx A {SILENT_HOST}" for n in range(SILENT_DOMAINS)}
"""For `DnsServer`: what attackers make us write to."""
_addresses = (f"127.9.{high}.{low}" for high, low in itertools.cycle(itertools.product(range(1, 250), range(1, 250))))


@dataclass(frozen=True, slots=True)
class Victim:
    """What attackers know of a platform: `somebody` has an account there, and so has the attacker, `mallory`."""

    ports: ServicePorts
    domain: str
    tls: ssl.SSLContext
    somebody: str
    prepared: set[str] = field(default_factory=set)
    """Names of attacks for which everything is there."""

    @property
    def mallory(self) -> str:
        return f"mallory@{self.domain}"


@dataclass(frozen=True, slots=True)
class Field:
    """A platform for measuring. `good` takes mail for good.test; hosts of the domains silentN.test never say a word."""

    platform: Platform
    limits: Limits
    victim: Victim
    good: RemoteHost

    @property
    def ports(self) -> ServicePorts:
        return self.victim.ports

    @property
    def tls(self) -> ssl.SSLContext:
        return self.victim.tls

    @property
    def oscar(self) -> str:
        """The account of somebody who only wants to work."""
        return self.victim.somebody


@contextlib.asynccontextmanager
async def field_of(directory: Path) -> AsyncIterator[Field]:
    """Start the platform; ends it, and all its processes, at the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        good = await stack.enter_async_context(RemoteHost(address=_GOOD_HOST))
        await stack.enter_async_context(RemoteHost({"CONNECT": SILENT}, address=SILENT_HOST, port=good.port))
        zones = {"good.test": f"@ MX 10 mx\nmx A {_GOOD_HOST}", **SILENT_ZONES}
        dns = await stack.enter_async_context(DnsServer(zones))
        relay = {"PAQUEBOT_RELAY_DNS": f"{HOST}:{dns.port}", "PAQUEBOT_RELAY_PORT": str(good.port)}
        platform = await stack.enter_async_context(running(directory, DOMAIN, settings=relay))
        victim = Victim(platform.plan.ports.services, DOMAIN, platform.tls(), f"oscar@{DOMAIN}")
        await enrol(platform.plan, victim.mallory, victim.somebody)
        limits = stack.enter_context(limited(platform))
        yield Field(platform, limits, victim, good)


async def enrol(plan: Plan, *addresses: str) -> None:
    """Make these accounts; their password is SECRET."""
    settings = load(DirectoryClientSettings, plan.client_environment())
    channel = open_channel(settings)
    try:
        client = DirectoryClient(channel, settings, plan.secrets.admin_token)
        for address in addresses:
            request = CreateAccountRequest(address=address, password=SECRET, display_name=address.partition("@")[0])
            await client.ask(client.stub.CreateAccount, request)
    finally:
        await channel.close()


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
