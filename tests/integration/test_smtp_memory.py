"""The memory of smtp_ingress while it holds the maximum bytes of messages: less than the limit of its pod.

The service is a separate process with the settings of the chart. The test measures its peak memory (VmHWM of proc(5)),
not its speed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from paquebot.runtime.settings import parse_bytes
from tests.support.smtp_world import SmtpStack

_CHART = Path(__file__).parents[2] / "charts" / "paquebot" / "values.yaml"
_MIB = 2**20


@dataclass(slots=True)
class Service:
    """An smtp_ingress process."""

    process: asyncio.subprocess.Process
    port: int

    @property
    def peak(self) -> int:
        """Return its maximum resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kib) * 1024


@contextlib.asynccontextmanager
async def service(stack: SmtpStack, **environ: str) -> AsyncIterator[Service]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "smtp-ingress"),
        env={
            **stack.environ,
            "PAQUEBOT_METRICS_LISTEN": "127.0.0.1:0",
            "PAQUEBOT_SMTP_SUBMISSION_LISTEN": "",
            "PAQUEBOT_SMTP_SUBMISSIONS_LISTEN": "",
            **environ,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = 0
            while (event := json.loads(await process.stdout.readline()))["event"] != "service_started":
                port = event.get("port", port)
        reading = asyncio.create_task(_read_on(process.stdout))  # a full pipe would block the service
        yield Service(process, port)
        process.terminate()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _read_on(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


class Sender:
    """A mail server with its own address."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, address: str) -> Sender:
        sender = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
        await sender.reply()
        await sender.say("EHLO client.example")
        return sender

    async def reply(self) -> int:
        """Return the code of the next reply."""
        async with asyncio.timeout(120):
            while (line := await self._reader.readline())[3:4] == b"-":
                pass
        return int(line[:3])

    async def say(self, line: str) -> int:
        self._writer.write(f"{line}\r\n".encode())
        return await self.reply()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(120):
            self._writer.write(data)
            await self._writer.drain()

    async def begin(self) -> int:
        """Begin a transaction, up to the reply to DATA."""
        await self.say("MAIL FROM:<smith@bar.example>")
        await self.say("RCPT TO:<alice@paquebot.test>")
        return await self.say("DATA")

    def close(self) -> None:
        self._writer.close()


def incompressible(size: int) -> bytes:
    """A message with an attachment that zstd makes no smaller than base64 is; some lines begin with a dot."""
    header = b"Subject: a film\r\nContent-Type: application/octet-stream\r\n\r\n"
    lines = base64.encodebytes(random.Random(7).randbytes(size * 3 // 4)).replace(b"\n", b"\r\n.")
    return header + lines[: size - len(header) - 2] + b"\r\n"


@pytest.mark.parametrize("name", ["values", "values-minimal", "values-production"])
def test_every_memory_limit_of_the_chart_covers_the_memory_in_the_docs(name: str) -> None:
    """docs/hostile-input.md, "Memory of smtp_ingress"."""
    values = yaml.safe_load(_CHART.read_text())["smtpIngress"]
    values |= yaml.safe_load(_CHART.with_name(f"{name}.yaml").read_text())["smtpIngress"]
    limit = parse_bytes(values["resources"]["limits"]["memory"].replace("Mi", "MiB"))
    assert limit >= 100 * _MIB + 2 * (parse_bytes(values["inFlight"]) + parse_bytes(values["maxMessageSize"]))


async def test_memory_stays_below_the_limit_of_the_pod(smtp_stack: SmtpStack) -> None:
    chart = yaml.safe_load(_CHART.read_text())["smtpIngress"]
    limit = parse_bytes(chart["resources"]["limits"]["memory"].replace("Mi", "MiB"))
    in_flight = parse_bytes(chart["inFlight"])
    settings = {
        "PAQUEBOT_IN_FLIGHT": chart["inFlight"],
        "PAQUEBOT_SMTP_MAX_SIZE": chart["maxMessageSize"],
        "PAQUEBOT_IN_FLIGHT_RESERVED": "0",  # unauthenticated clients may use all of it here
    }
    size = 12 * _MIB
    content = incompressible(size)
    async with service(smtp_stack, **settings) as running:
        senders = [await Sender.connect(running.port, f"127.0.{number + 1}.1") for number in range(in_flight // size)]
        for _ in range(2):  # memory that the first round leaves must not accumulate
            assert {await sender.begin() for sender in senders} == {354}
            await asyncio.gather(*(sender.send(content) for sender in senders))
            await asyncio.gather(*(sender.send(b".\r\n") for sender in senders))
            assert set(await asyncio.gather(*(sender.reply() for sender in senders))) == {250}
        for sender in senders:
            sender.close()
        assert running.peak < limit, f"{running.peak // _MIB} MiB for {len(senders) * size // _MIB} in flight"
