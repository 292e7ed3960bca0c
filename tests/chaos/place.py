"""The platform that suffers: what `paquebot up` runs, two workers of `smtp_ingress` and of `imap`, a second process of
`delivery` and of `relay`, a proxy before each engine, and the other side of the relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from paquebot.cli.demo.accounts import DEMO_PASSWORD
from paquebot.cli.engines import process as processes
from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.engines.process import ManagedProcess, ProcessCommand
from paquebot.cli.up.environment import DATABASE, PlatformPlan
from paquebot.cli.up.layout import SERVICES, Layout, Ports, listen
from paquebot.cli.up.stack import Stack
from paquebot.rpc import DirectoryClient, open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import load
from paquebot.v1.directory_pb2 import CreateAccountRequest, CreateAliasRequest, CreateDomainRequest
from tests.attack.field import Victim, enrol
from tests.chaos.plans import Cast
from tests.chaos.probes import Asked
from tests.chaos.proxy import Proxy
from tests.chaos.target import Target
from tests.e2e.platforms import free_ports
from tests.support.loopback import free_port
from tests.support.lying_s3 import LyingS3

DOMAIN = "chaos.test"
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
ALIASES = {"team": ("dave", "erin"), "all": NAMES[:4]}
ENGINES = ("nats", "s3", "postgres")
REPLICAS = {"delivery_2": "delivery", "relay_2": "relay"}
WORKERS = ("smtp_ingress", "imap")
"""Services of which two workers share the ports."""
PROCESSES = (*SERVICES, *REPLICAS)
ACK_WAIT = 4.0
SETTINGS = {
    "PAQUEBOT_ARGON2_PASSES": "1",
    "PAQUEBOT_LOG_ADDRESSES": "true",
    "PAQUEBOT_NATS_ACK_WAIT": f"{ACK_WAIT:g}s",
    "PAQUEBOT_NATS_TIMEOUT": "2s",
    "PAQUEBOT_S3_TIMEOUT": "3s",
    "PAQUEBOT_POSTGRES_TIMEOUT": "3s",
    "PAQUEBOT_RECIPIENT_VALIDATION_TIMEOUT": "3s",
    "PAQUEBOT_IMAP_BODY_CACHE": str(128 * 2**10),  # most of what is read comes from S3, and some does not
    "PAQUEBOT_POP3_LEASE": "3s",
    "PAQUEBOT_SMTP_ERRORS": "1000",
    "PAQUEBOT_RELAY_RETRY": "1s,1s,2s,3s",
    "PAQUEBOT_RELAY_BACK_OFF": "1s",
    "PAQUEBOT_RELAY_BACK_OFF_MAX": "3s",
    **{f"PAQUEBOT_RELAY_TIMEOUT_{phase}": "3s" for phase in ("CONNECT", "GREETING", "MAIL", "RCPT", "DATA", "BLOCK")},
    "PAQUEBOT_RELAY_TIMEOUT_END": "3s",
}
"""Deadlines as short as they can be, so that a fault of seconds is longer than each."""
_DISKS = {"nats": "192m", "s3": "1g", "postgres": "1g"}
READY_SECONDS = 90.0
LATE = 5.0
"""How long after its request an answer of S3 comes when it is late: longer than services wait."""


@dataclass(frozen=True, slots=True)
class ProxiedPlan(PlatformPlan):
    """Services reach the engines through proxies; the driver and the command line go straight there."""

    proxied: Mapping[int, int] = field(default_factory=dict)

    def role_dsn(self, role: str) -> str:
        return self.postgres.role_dsn(role, self.secrets.roles[role], DATABASE)

    def service_environment(self, service: str) -> dict[str, str]:
        environment = PlatformPlan.service_environment(self, service)
        for name, value in environment.items():
            for port, proxy in self.proxied.items():
                value = value.replace(f"{LOOPBACK}:{port}", f"{LOOPBACK}:{proxy}")
            environment[name] = value
        if service in WORKERS:
            environment["PAQUEBOT_WORKERS"] = "2"
        return environment


@dataclass
class Place:
    """A running platform. `disks`: engines whose data lies on a small disk of its own."""

    plan: ProxiedPlan
    stack: Stack
    proxies: dict[str, Proxy]
    s3: LyingS3
    """Between the proxy before S3 and S3 itself: it hands on what comes, or lies."""
    target: Target
    cast: Cast
    disks: frozenset[str]
    said: list[str]
    victim: Victim
    """What attackers know; one of them has an account."""
    ending: bool = False
    """No more patience: clients give up."""
    asked: list[Asked] = field(default_factory=list)
    """What services answered to probes, by fault."""
    _metrics: dict[str, int] = field(default_factory=dict)

    @property
    def ports(self) -> Ports:
        return self.plan.ports

    def tls(self) -> ssl.SSLContext:
        return self.victim.tls

    def pid(self, name: str) -> int:
        return self.stack.supervisor.pid(name)

    async def start_replicas(self) -> None:
        for name, service in REPLICAS.items():
            self._metrics[name] = free_port()
            await self.stack.supervisor.keep_running(name, partial(self._start_replica, name, service))

    async def _start_replica(self, name: str, service: str) -> ManagedProcess:
        environment = self.plan.service_environment(service)
        environment["PAQUEBOT_METRICS_LISTEN"] = listen(self._metrics[name])
        command = ProcessCommand(
            argv=(sys.executable, "-m", "paquebot", service), cwd=self.plan.layout.data, env=environment
        )
        process = ManagedProcess(name, command, self.plan.layout.logs)
        await process.start()
        return process

    def health_port(self, name: str) -> int:
        return self._metrics.get(name) or self.ports.services.metrics(name)

    def unready(self, name: str) -> str:
        """Why a service is not ready; empty: it is."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.health_port(name)}/readyz", timeout=5):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return error.read(300).decode("utf-8", "replace").strip() or str(error.code)
        except OSError as error:
            return str(error)

    async def all_unready(self) -> dict[str, str]:
        """Services that are not ready, and why."""
        found = await asyncio.gather(*(asyncio.to_thread(self.unready, name) for name in PROCESSES))
        return {name: why for name, why in zip(PROCESSES, found, strict=True) if why}

    def resize(self, engine: str, *, full: bool) -> None:
        """Make an engine's disk as small as what lies on it, or as large as before."""
        size = _DISKS[engine]
        path = self.plan.layout.data / engine
        if full:
            used = subprocess.run(["df", "-k", "--output=used", path], check=True, capture_output=True, text=True)
            size = f"{int(used.stdout.split()[-1])}k"
        subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)

    async def command(self, *words: str) -> tuple[int, str]:
        """`paquebot WORDS --data ...` as an operator runs it: its exit code and what it said."""
        argv = (sys.executable, "-m", "paquebot", *words, "--data", str(self.plan.layout.data))
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


@contextlib.asynccontextmanager
async def running(data: Path, target: Target, *, disks: bool) -> AsyncIterator[Place]:
    """Start the platform with accounts and aliases; ends it, and all its processes, at the end of the block."""
    processes.LOGS_KEPT = 200  # a finding may be in any of them
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(target.running())
        ports = free_ports()
        engines = {"nats": ports.engines.nats, "s3": ports.engines.s3, "postgres": ports.engines.postgres}
        s3 = await stack.enter_async_context(LyingS3(LOOPBACK, ports.engines.s3, late=LATE))
        ways = {**engines, "s3": s3.listens_at}
        proxies = {name: await stack.enter_async_context(Proxy(port)) for name, port in ways.items()}
        layout = Layout(data)
        layout.data.mkdir(parents=True, exist_ok=True)
        if disks:
            _mount(layout.data)
        plan = _plan(layout, ports, target, {port: proxies[name].port for name, port in engines.items()})
        said: list[str] = []
        platform = Stack(plan, said.append, said.append)
        await platform.start()
        stack.push_async_callback(platform.stop)
        cast = Cast(DOMAIN, NAMES, ALIASES)
        victim = Victim(
            ports.services, DOMAIN, ssl.create_default_context(cafile=str(layout.certificate)), cast.address(NAMES[0])
        )
        place = Place(plan, platform, proxies, s3, target, cast, frozenset(_DISKS if disks else ()), said, victim)
        await place.start_replicas()
        await _populate(place)
        await enrol(plan, victim.mallory)
        yield place


def _plan(layout: Layout, ports: Ports, target: Target, proxied: Mapping[int, int]) -> ProxiedPlan:
    relay = {"PAQUEBOT_RELAY_DNS": f"{LOOPBACK}:{target.dns.port}", "PAQUEBOT_RELAY_PORT": str(target.host.port)}
    return ProxiedPlan(layout, ports, layout.secrets(), f"mail.{DOMAIN}", DOMAIN, {**SETTINGS, **relay}, proxied)


def may_mount() -> bool:
    """Whether this process may give an engine a disk of its own: root, in a mount namespace that ends with it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


def _mount(data: Path) -> None:
    for engine, size in _DISKS.items():
        path = data / engine
        path.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", path], check=True)


def keep_disks(data: Path) -> None:
    """Copy what lies on the small disks, which end with this process, to where the rest of the data is."""
    for engine in _DISKS:
        shutil.copytree(data / engine, data / "disks" / engine, symlinks=True, ignore=_sockets)


def _sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(directory, name).is_socket()]


async def _populate(place: Place) -> None:
    settings = load(DirectoryClientSettings, place.plan.client_environment())
    channel = open_channel(settings)
    try:
        client = DirectoryClient(channel, settings, place.plan.secrets.admin_token)
        await client.ask(client.stub.CreateDomain, CreateDomainRequest(name=DOMAIN))
        for name in NAMES:
            request = CreateAccountRequest(address=place.cast.address(name), password=DEMO_PASSWORD, display_name=name)
            await client.ask(client.stub.CreateAccount, request)
        for name, targets in ALIASES.items():
            addresses = [place.cast.address(target) for target in targets]
            await client.ask(
                client.stub.CreateAlias, CreateAliasRequest(address=place.cast.address(name), targets=addresses)
            )
    finally:
        await channel.close()
