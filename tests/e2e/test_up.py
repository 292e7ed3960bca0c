"""`paquebot up` as a person runs it: the first message, busy ports, Ctrl-C, kill -9, a second start."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest

from paquebot.cli.engines.ports import LOOPBACK
from paquebot.cli.up.layout import Ports
from tests.e2e.platforms import free_ports, until

START_SECONDS = 90.0


class Up:
    """One data directory with ports of its own, on which `paquebot up` is run again and again."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.ports: Ports = free_ports()
        self.process: asyncio.subprocess.Process | None = None

    def options(self) -> list[str]:
        numbers = {**asdict(self.ports.services), **asdict(self.ports.engines)}
        moved = [f"--port={name.replace('_', '-')}={number}" for name, number in numbers.items() if number]
        return ["--data", str(self.data), *moved]

    async def start(self, *more: str) -> asyncio.subprocess.Process:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "paquebot", "up", *self.options(), *more),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200", "PAQUEBOT_ARGON2_PASSES": "1"},
        )
        return self.process

    async def run(self, *more: str) -> tuple[int, str]:
        process = await self.start(*more)
        async with asyncio.timeout(START_SECONDS):
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def read_until(self, text: str) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        seen = ""
        async with asyncio.timeout(START_SECONDS):
            while text not in seen:
                line = await self.process.stdout.readline()
                assert line, seen
                seen += line.decode()
        return seen

    def children(self) -> list[int]:
        """Processes that work below the data directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    if str(self.data) in os.readlink(entry / "cwd"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()
        await until(lambda: not self.children(), "no process left behind")


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    instance = Up(tmp_path / "data")
    yield instance
    await instance.end()


async def test_once_sends_a_message_and_ends_and_a_second_start_keeps_it(up: Up) -> None:
    code, output = await up.run("--once")
    assert code == 0, output
    for words in ("submitted a message over TLS", "reads it over IMAP", "reads it over POP3", "in total"):
        assert words in output
    assert up.children() == []

    await up.start()
    shown = await up.read_until("Ctrl-C stops the platform")
    assert "account alice" not in shown
    assert f"{LOOPBACK}:{up.ports.services.imaps}" in shown
    assert f"unix:{up.data}/run/grpc.sock" in shown
    trusted = re.search(r"certificate authority +(/\S+) ", shown)
    assert trusted
    asking = ssl.create_default_context(cafile=trusted[1])
    for server in ("IMAP", "POP3", "SMTP"):
        port = re.search(rf"{server} +localhost, port (\d+), SSL/TLS", shown)
        assert port
        assert await asyncio.to_thread(ssl_version, int(port[1]), asking)
    assert (up.data / "run").stat().st_mode & 0o777 == 0o700
    listed = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "account", "list", "--data", str(up.data)), stdout=asyncio.subprocess.PIPE
    )
    accounts, _ = await asyncio.wait_for(listed.communicate(), START_SECONDS)
    assert b"alice@paquebot.test" in accounts
    assert up.process is not None
    up.process.send_signal(signal.SIGINT)
    output_rest, _ = await asyncio.wait_for(up.process.communicate(), START_SECONDS)
    assert up.process.returncode == 0, output_rest.decode()
    assert up.children() == []


def ssl_version(port: int, asking: ssl.SSLContext) -> str | None:
    """What a mail program that was set up with the printed lines gets."""
    with (
        socket.create_connection((LOOPBACK, port), timeout=START_SECONDS) as plain,
        asking.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        return client.version()


async def test_killed_supervisor_leaves_no_children_and_the_next_start_works(up: Up) -> None:
    await up.start("--no-demo")
    await up.read_until("Ctrl-C stops the platform")
    assert len(up.children()) >= 9
    assert up.process is not None
    up.process.kill()
    await up.process.communicate()
    await until(lambda: not up.children(), "the children end with their supervisor")
    code, output = await up.run("--once")
    assert code == 0, output


async def test_busy_port_is_one_sentence_and_leaves_nothing(up: Up) -> None:
    with socket.create_server((LOOPBACK, up.ports.services.imap)):
        code, output = await up.run("--once")
    assert code == 1
    assert f"port {up.ports.services.imap} on 127.0.0.1 is in use" in output
    assert "--port imap=NUMBER" in output
    assert "Traceback" not in output
    assert up.children() == []


async def test_busy_engine_port_is_one_sentence_and_leaves_nothing(up: Up) -> None:
    with socket.create_server((LOOPBACK, up.ports.engines.postgres)):
        code, output = await up.run("--once")
    assert code == 1
    assert f"port {up.ports.engines.postgres} on 127.0.0.1 is in use" in output
    assert "Traceback" not in output
    assert up.children() == []


async def test_stale_data_directory_is_one_sentence(up: Up) -> None:
    cluster = up.data / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9.6\n")
    code, output = await up.run("--once")
    assert code == 1
    assert "was made by PostgreSQL 9.6" in output
    assert "Traceback" not in output
    assert up.children() == []


async def test_wrong_port_option_says_which_there_are(up: Up) -> None:
    code, output = await up.run("--port", "nonsense=1")
    assert code == 1
    assert "there is no port nonsense" in output
    assert "submission" in output
