"""The platform that is attacked, with the chart's memory limits, and what attackers and ordinary clients know of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from platforms import Platform, running

from attack.limits import Limits, limited
from dns_server import DnsServer
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.engines import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest
from remote_host import SILENT, RemoteHost

HOST = "127.0.0.1"
DOMAIN = "paquebot.test"
SECRET = "long enough a password"
MALLORY = f"mallory@{DOMAIN}"
"""An account of the platform whose owner attacks it."""
OSCAR = f"oscar@{DOMAIN}"
"""An account whose owner only wants to work."""
SILENT_DOMAINS = 20
_SILENT_HOST, _GOOD_HOST = "127.0.0.7", "127.0.0.8"
_addresses = (f"127.9.{high}.{low}" for high, low in itertools.cycle(itertools.product(range(1, 250), range(1, 250))))


@dataclass(frozen=True, slots=True)
class Field:
    """What is known from outside; `good` takes mail for good.test, and the domains silentN.test never say a word."""

    platform: Platform
    limits: Limits
    tls: ssl.SSLContext
    good: RemoteHost

    @property
    def smtp(self) -> int:
        return self.platform.plan.ports.services.smtp

    @property
    def submissions(self) -> int:
        return self.platform.plan.ports.services.submissions

    @property
    def imap(self) -> int:
        return self.platform.plan.ports.services.imap

    @property
    def imaps(self) -> int:
        return self.platform.plan.ports.services.imaps

    @property
    def pop3(self) -> int:
        return self.platform.plan.ports.services.pop3

    @property
    def pop3s(self) -> int:
        return self.platform.plan.ports.services.pop3s


@contextlib.asynccontextmanager
async def field_of(directory: Path) -> AsyncIterator[Field]:
    """Start the platform; ends it, and all its processes, at the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        good = await stack.enter_async_context(RemoteHost(address=_GOOD_HOST))
        await stack.enter_async_context(RemoteHost({"CONNECT": SILENT}, address=_SILENT_HOST, port=good.port))
        silent = {f"silent{n}.test": f"@ MX 10 mx\nmx A {_SILENT_HOST}" for n in range(SILENT_DOMAINS)}
        zones = {"good.test": f"@ MX 10 mx\nmx A {_GOOD_HOST}", **silent}
        dns = await stack.enter_async_context(DnsServer(zones))
        relay = {"PAQUEBOT_RELAY_DNS": f"{HOST}:{dns.port}", "PAQUEBOT_RELAY_PORT": str(good.port)}
        platform = await stack.enter_async_context(running(directory, DOMAIN, settings=relay))
        await _enrol(platform, MALLORY, OSCAR)
        limits = stack.enter_context(limited(platform))
        yield Field(platform, limits, platform.tls(), good)


async def _enrol(platform: Platform, *addresses: str) -> None:
    settings = load(DirectoryClientSettings, platform.plan.client_environment())
    channel = open_channel(settings)
    try:
        client = DirectoryClient(channel, settings, platform.plan.secrets.admin_token)
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
