"""Whole platforms for end-to-end tests: each is what `paquebot up` runs, on free ports in a directory of its own."""

from __future__ import annotations

import asyncio
import imaplib
import poplib
import smtplib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from paquebot.cli.demo.accounts import DEMO_PASSWORD, ensure_demo
from paquebot.cli.engines.ports import LOOPBACK, EnginePorts
from paquebot.cli.up.environment import PlatformPlan
from paquebot.cli.up.layout import Layout, Ports, ServicePorts
from paquebot.cli.up.stack import Stack
from tests.support.loopback import free_port

T = TypeVar("T")
TIMEOUT = 30.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Platform:
    """A running platform with the accounts alice and bob in its domain."""

    plan: PlatformPlan
    stack: Stack
    said: list[str]

    @property
    def domain(self) -> str:
        return self.plan.domain

    def address(self, name: str) -> str:
        return f"{name}@{self.domain}"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.plan.authority))

    def submission(self, name: str) -> smtplib.SMTP:
        """A connection that is logged in, over STARTTLS."""
        client = smtplib.SMTP(LOOPBACK, self.plan.ports.services.submission, timeout=TIMEOUT)
        with closed_on_failure(client.close):
            client.starttls(context=self.tls())
            client.login(self.address(name), DEMO_PASSWORD)
        return client

    def mx(self) -> smtplib.SMTP:
        return smtplib.SMTP(LOOPBACK, self.plan.ports.services.smtp, timeout=TIMEOUT)

    def imap(self, name: str) -> imaplib.IMAP4:
        client = imaplib.IMAP4(LOOPBACK, self.plan.ports.services.imap, timeout=TIMEOUT)
        with closed_on_failure(client.shutdown):
            client.starttls(self.tls())
            client.login(self.address(name), DEMO_PASSWORD)
        return client

    def pop3(self, name: str) -> poplib.POP3:
        client = poplib.POP3(LOOPBACK, self.plan.ports.services.pop3, timeout=TIMEOUT)
        with closed_on_failure(client.close):
            client.stls(self.tls())
            client.user(self.address(name))
            client.pass_(DEMO_PASSWORD)
        return client

    def subjects(self, name: str, mailbox: str = "INBOX") -> list[str]:
        """The subject of every message in a mailbox, in order of UID."""
        client = self.imap(name)
        with closed_on_failure(client.shutdown):
            client.select(mailbox, readonly=True)
            _, parts = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
            lines = [part[1].decode() for part in parts if isinstance(part, tuple)]
            client.logout()
        return [line.partition(":")[2].strip() for line in lines]


@contextmanager
def closed_on_failure(close: Callable[[], object]) -> Iterator[None]:
    """A client whose conversation failed must not keep its socket."""
    try:
        yield
    except BaseException:
        close()
        raise


def free_ports() -> Ports:
    # gRPC has its UNIX socket, unless a port is asked for.
    services = ServicePorts(**{item.name: free_port() for item in fields(ServicePorts) if item.name != "grpc"})
    return Ports(services, EnginePorts(**{item.name: free_port() for item in fields(EnginePorts)}))


@asynccontextmanager
async def running(
    directory: Path, domain: str, *, ports: Ports | None = None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Platform]:
    """Start a platform for `domain`; ends it, and all its processes, at the end of the block."""
    layout = Layout(directory)
    layout.data.mkdir(parents=True, exist_ok=True)
    overrides = {"PAQUEBOT_ARGON2_PASSES": "1", "PAQUEBOT_LOG_ADDRESSES": "true", **(settings or {})}
    plan = PlatformPlan(layout, ports or free_ports(), layout.secrets(), f"mail.{domain}", domain, overrides)
    said: list[str] = []
    stack = Stack(plan, said.append, said.append)
    await stack.start()
    try:
        await ensure_demo(plan)
        yield Platform(plan, stack, said)
    finally:
        await stack.stop()


async def until(look: Callable[[], T | None], what: str, timeout: float = TIMEOUT) -> T:
    """The first true result of the blocking function `look`, asked again and again. Fails after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                if result := await asyncio.to_thread(look):
                    return result
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {timeout:g} s") from None
