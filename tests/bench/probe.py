"""How long a message takes from the end of DATA until a reader sees it, while others load the server.

A message with a tag goes to an account of its own at fixed times, whether or not earlier ones have arrived. A reader
that has the INBOX selected asks with NOOP, soon at first and then after a tenth of the time it has waited, so the
error is a tenth at most; IDLE is not used, because Dovecot announces up to half a second late on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import smtplib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.bench.letters import letter
from tests.bench.rows import LOOPBACK, Side
from tests.bench.watch import Reader

_EVERY_SECONDS = 0.1
_SOONEST_SECONDS = 0.004
_DEADLINE_SECONDS = 120.0
_TIMEOUT = 60.0
_TAG = re.compile(rb"Subject: probe-(\d+)")


@dataclass(slots=True)
class Probe:
    """`delays`: seconds, of each message that was seen."""

    side: Side
    account: int
    size: int
    ended: dict[int, float] = field(default_factory=dict)
    """When DATA ended, of messages that no reader has seen yet."""
    delays: list[float] = field(default_factory=list)
    sent: int = 0
    _known: int = 0

    async def send_all(self, stop: asyncio.Event) -> None:
        """One message each time, until `stop`."""
        sends: list[asyncio.Task[None]] = []
        while not stop.is_set():
            self.sent += 1
            sends.append(asyncio.create_task(asyncio.to_thread(self._send, self.sent)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _EVERY_SECONDS)
        await asyncio.gather(*sends)

    def _send(self, number: int) -> None:
        text = letter(self.side.address(self.account), f"probe-{number}", self.size, number).encode()
        with smtplib.SMTP(LOOPBACK, self.side.smtp_port, timeout=_TIMEOUT) as client:
            client.ehlo()
            client.mail("prober@example.org")
            client.rcpt(self.side.address(self.account))
            client.docmd("DATA")
            client.send(text.replace(b"\n", b"\r\n"))
            self.ended[number] = time.perf_counter()
            client.send(b".\r\n")
            code, said = client.getreply()
        if code != 250:
            raise RuntimeError(f"{self.side.name} refused a probe: {code} {said!r}")

    async def see_all(self, reader: Reader, sending: asyncio.Task[None]) -> None:
        """Note each arrival, until everything sent has been seen."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while not sending.done() or len(self.delays) < self.sent:
                if sending.done():
                    sending.result()  # raises what went wrong
                lines = await reader.ask("NOOP")
                if exists := [int(line.split()[1]) for line in lines if line.rstrip().endswith(b" EXISTS")]:
                    await self._note(reader, exists[-1])
                oldest = min(self.ended.values(), default=time.perf_counter())
                await asyncio.sleep(max(_SOONEST_SECONDS, (time.perf_counter() - oldest) / 10))

    async def _note(self, reader: Reader, exists: int) -> None:
        """The messages after those that are known; they were there when EXISTS came."""
        at = time.perf_counter()
        if exists <= self._known:
            return
        items = "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
        lines = await reader.ask(f"FETCH {self._known + 1}:{exists} ({items})")
        self._known = exists
        for line in lines:
            if (found := _TAG.match(line)) and (ended := self.ended.pop(int(found[1]), None)):
                self.delays.append(at - ended)


@asynccontextmanager
async def probing(side: Side, account: int, size: int) -> AsyncIterator[Probe]:
    """Probe during the block; after it everything has been seen, exactly once."""
    reader = await Reader.open(side, account)
    try:
        lines = await reader.ask("SELECT INBOX")
        before = next(int(line.split()[1]) for line in lines if line.rstrip().endswith(b" EXISTS"))
        probe, stop = Probe(side, account, size, _known=before), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(probe.send_all(stop))
            group.create_task(probe.see_all(reader, sending))
            try:
                yield probe
            finally:
                stop.set()
        if probe._known - before != probe.sent:
            raise RuntimeError(f"{side.name}: {probe.sent} probes were sent, {probe._known - before} arrived")
    finally:
        await reader.close()


def percentile(values: list[float], part: float) -> float:
    """The nearest-rank percentile; `part` from 0 to 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
