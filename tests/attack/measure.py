"""How an ordinary client fares while another attacks: `make attack`.

    python tests/attack/measure.py [--seconds 10]

Starts a platform, and lets one ordinary client of each protocol work without a pause: SMTP from connect to 250, IMAP
from connect over login, SELECT and FETCH to LOGOUT, POP3 the same way. First alone, then under each attack. Prints p50
and p99 of each, failures, and the memory and CPU that the attacked service took; writes build/attack.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __package__ in (None, ""):
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "e2e")]

from platforms import PASSWORD, Platform, running

from attack.attacks import ATTACKS, HOST, Attack, Ports, under
from bench.processes import cpu_seconds, pss_mib

_DEADLINE_SECONDS = 30.0


@dataclass(slots=True)
class Ordinary:
    """One client's tries: seconds of each that succeeded, and how many did not."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def quantile(self, part: float) -> float:
        if len(self.seconds) < 2:
            return self.seconds[0] if self.seconds else float("inf")
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[round(part * 100) - 1]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one attack. Milliseconds of ordinary clients; MiB and CPU seconds a second of the attacked service."""

    attack: str
    rounds: int
    smtp: tuple[float, float]
    imap: tuple[float, float]
    pop3: tuple[float, float]
    failed: int
    grown_mib: float
    cpu: float


class Conversation:
    """A line at a time; anything unexpected is a failure."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def expect(self, start: bytes, *, until: bytes = b"") -> None:
        """A line that begins so; with `until`, everything to a line that begins so."""
        line = await self._reader.readline()
        while until and not line.startswith(until):
            if not line:
                raise EOFError
            line = await self._reader.readline()
        if not line.startswith(start):
            raise EOFError(line)

    async def say(self, octets: bytes, start: bytes, *, until: bytes = b"") -> None:
        self._writer.write(octets)
        await self.expect(start, until=until)


async def smtp(talk: Conversation) -> None:
    await talk.expect(b"220")
    await talk.say(b"HELO ordinary.test\r\n", b"250")
    await talk.say(b"MAIL FROM:<someone@ordinary.test>\r\n", b"250")
    await talk.say(b"RCPT TO:<bob@paquebot.test>\r\n", b"250")
    await talk.say(b"DATA\r\n", b"354")
    await talk.say(b"Subject: ordinary\r\n\r\nHello\r\n.\r\n", b"250")


async def imap(talk: Conversation) -> None:
    await talk.expect(b"* OK")
    await talk.say(f"a LOGIN alice@paquebot.test {PASSWORD}\r\n".encode(), b"a OK", until=b"a ")
    await talk.say(b"b SELECT INBOX\r\n", b"b OK", until=b"b ")
    await talk.say(b"c FETCH 1 (FLAGS BODY.PEEK[])\r\n", b"c OK", until=b"c ")
    await talk.say(b"d LOGOUT\r\n", b"d OK", until=b"d ")


async def pop3(talk: Conversation) -> None:
    await talk.expect(b"+OK")
    await talk.say(b"USER alice@paquebot.test\r\n", b"+OK")
    await talk.say(f"PASS {PASSWORD}\r\n".encode(), b"+OK")
    await talk.say(b"STAT\r\n", b"+OK")
    await talk.say(b"QUIT\r\n", b"+OK")


async def work(
    port: int, tls: object, talk_over: Callable[[Conversation], Awaitable[None]], seen: Ordinary, end: asyncio.Event
) -> None:
    while not end.is_set():
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, port, ssl=tls, server_hostname=_name(tls))  # type: ignore[arg-type]
                with contextlib.closing(writer):
                    await talk_over(Conversation(reader, writer))
        except (OSError, EOFError, TimeoutError):
            seen.failed += 1
        else:
            seen.seconds.append(time.perf_counter() - began)


def _name(tls: object) -> str | None:
    return "localhost" if tls is not None else None


def _usage(pid: int) -> tuple[float, float]:
    """Memory in MiB (PSS), and CPU seconds so far, of a service's processes."""
    roots = {"service": pid}
    return pss_mib(roots)["service"], cpu_seconds(roots)["service"]


async def observed(platform: Platform, attack: Attack | None, seconds: float) -> Figures:
    """Ordinary clients for so long, under the attack if there is one."""
    services = platform.plan.ports.services
    tls = platform.tls()
    seen = {name: Ordinary() for name in ("smtp", "imap", "pop3")}
    end = asyncio.Event()
    pid = platform.stack.supervisor.pid(attack.service if attack else "smtp_ingress")
    before, used = _usage(pid)
    async with contextlib.AsyncExitStack() as stack:
        ports = Ports(services.smtp, services.imap, services.pop3)
        rounds = await stack.enter_async_context(under(attack, ports)) if attack else [0]
        clients = [
            asyncio.create_task(work(services.smtp, None, smtp, seen["smtp"], end)),
            asyncio.create_task(work(services.imaps, tls, imap, seen["imap"], end)),
            asyncio.create_task(work(services.pop3s, tls, pop3, seen["pop3"], end)),
        ]
        most = before
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.25)
            most = max(most, _usage(pid)[0])
        cpu = (_usage(pid)[1] - used) / seconds
        end.set()
        await asyncio.gather(*clients)
    latency = {name: (one.quantile(0.5) * 1000, one.quantile(0.99) * 1000) for name, one in seen.items()}
    failed = sum(one.failed for one in seen.values())
    name = attack.name if attack else "none"
    return Figures(name, rounds[0], latency["smtp"], latency["imap"], latency["pop3"], failed, most - before, cpu)


async def first_message(platform: Platform) -> None:
    """For ordinary readers."""

    def send() -> None:
        with platform.submission("bob") as client:
            bob = platform.address("bob")
            letter = f"From: {bob}\r\nSubject: first\r\n\r\n".encode() + b"x\r\n" * 1000
            client.sendmail(bob, [platform.address("alice")], letter)

    await asyncio.to_thread(send)
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while not await asyncio.to_thread(platform.subjects, "alice"):
            await asyncio.sleep(0.05)


def row(one: Figures) -> str:
    times = " | ".join(f"{p50:.0f} / {p99:.0f}" for p50, p99 in (one.smtp, one.imap, one.pop3))
    return f"| {one.attack} | {one.rounds} | {times} | {one.failed} | {one.grown_mib:.0f} | {one.cpu:.2f} |"


HEAD = (
    "| attack | rounds | SMTP p50 / p99 ms | IMAP | POP3 | failed | memory grown, MiB | CPU s/s |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)


async def every_attack(seconds: float) -> list[Figures]:
    """Printed as they come."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory), "paquebot.test") as platform:
            await first_message(platform)
            await observed(platform, None, 2)  # caches, connections
            print(HEAD, flush=True)
            for attack in (None, *ATTACKS, None):
                found.append(await observed(platform, attack, seconds))
                print(row(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    options = parser.parse_args()
    found = asyncio.run(every_attack(options.seconds))
    path = Path("build/attack.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in found], indent=1))


if __name__ == "__main__":
    main()
