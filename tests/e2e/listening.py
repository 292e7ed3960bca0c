"""The ports on which a platform listens, and what its mail ports answer a client without a login."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import asdict

from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.layout import SERVICES
from tests.cluster.probes.listeners import descendants
from tests.e2e.platforms import Platform

_ENGINES = ("nats", "s3", "postgres")
MAIL: dict[str, tuple[bytes, bytes]] = {
    "smtp": (b"EHLO x\r\nMAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<b@elsewhere.example>\r\nQUIT\r\n", b"550 5.7.1"),
    "submission": (b"EHLO x\r\nMAIL FROM:<alice@here.test>\r\nQUIT\r\n", b"530 5.7.0"),
    "submissions": (b"EHLO x\r\nMAIL FROM:<alice@here.test>\r\nQUIT\r\n", b"530 5.7.0"),
    "imap": (b"a EXAMINE INBOX\r\nb LOGOUT\r\n", b"a BAD"),
    "imaps": (b"a EXAMINE INBOX\r\nb LOGOUT\r\n", b"a BAD"),
    "pop3": (b"STAT\r\nQUIT\r\n", b"-ERR"),
    "pop3s": (b"STAT\r\nQUIT\r\n", b"-ERR"),
}
"""What is asked before a login, and how the refusal begins."""
TLS = ("submissions", "imaps", "pop3s")


def pids(platform: Platform) -> Iterable[int]:
    for name in (*_ENGINES, *SERVICES):
        yield from descendants(platform.stack.supervisor.pid(name))


def ports(platform: Platform) -> dict[str, int]:
    """Those that are opened."""
    every = {**asdict(platform.plan.ports.services), **asdict(platform.plan.ports.engines)}
    return {name: port for name, port in every.items() if port}


async def converse(port: int, asked: bytes, context: ssl.SSLContext | None, hostname: str) -> bytes:
    name = hostname if context else None
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context, server_hostname=name)
    said = await reader.readline()  # no client may speak before the greeting
    for line in asked.splitlines(keepends=True):
        writer.write(line)
        await writer.drain()
        said += await reader.readline()
    said += await reader.read()
    writer.close()
    await writer.wait_closed()
    return said
