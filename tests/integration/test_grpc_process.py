"""recipient_validation as a process: it never listens without TLS by accident, and its workers share the TLS port."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paquebot.rpc import open_channel
from paquebot.runtime.engine_settings import DirectoryClientSettings, GrpcTlsSettings
from paquebot.runtime.settings import Seconds, load
from tests.support.grpc_certificates import Authority
from tests.support.loopback import free_port

SECONDS = 45.0


@asynccontextmanager
async def started(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environ = {
        "PATH": os.environ["PATH"],
        "PAQUEBOT_POSTGRES_DSN": f"postgresql://nobody@127.0.0.1:{free_port()}/none",
        "PAQUEBOT_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", "recipient-validation"), stderr=asyncio.subprocess.PIPE, env=environ
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refusal(**settings: str) -> str:
    """Return the output of a process that cannot start."""
    async with started(**settings) as process, asyncio.timeout(SECONDS):
        assert process.stderr is not None
        text = (await process.stderr.read()).decode()
        assert await process.wait() == 2
    return text


async def test_without_tls_it_listens_on_loopback_only(tmp_path: Path) -> None:
    assert "PAQUEBOT_GRPC_INSECURE" in await refusal(PAQUEBOT_GRPC_LISTEN=f"0.0.0.0:{free_port()}")


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key", "ca.crt"])
async def test_a_bad_certificate_is_reported_at_the_start(tmp_path: Path, broken: str) -> None:
    settings = Authority.make().service(tmp_path, "recipient-validation")
    (tmp_path / broken).write_text("no PEM")
    assert "PAQUEBOT_GRPC_TLS_CERTIFICATE=" in await refusal(**settings)


@pytest.mark.parametrize("listen", ["[::]:{port}", "0.0.0.0:{port},[::]:{port}", "127.0.0.1:{port},[::1]:{port}"])
async def test_clients_of_both_families_are_served(listen: str) -> None:
    port = free_port()
    settings = {"PAQUEBOT_GRPC_LISTEN": listen.format(port=port), "PAQUEBOT_GRPC_INSECURE": "true"}
    async with started(**settings), asyncio.timeout(SECONDS):
        for host in ("127.0.0.1", "[::1]"):
            client = DirectoryClientSettings(f"{host}:{port}", Seconds(10.0), load(GrpcTlsSettings, {}))
            channel = open_channel(client)
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS, wait_for_ready=True)  # type: ignore[attr-defined]
            await channel.close()


def workers(pid: int) -> set[int]:
    """Return the worker processes: all children except the first, the health aggregator."""
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[1:]}


async def test_workers_share_the_port_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    authority = Authority.make()
    settings = authority.service(tmp_path / "server", "recipient-validation")
    target = f"127.0.0.1:{free_port()}"
    tls = load(GrpcTlsSettings, authority.service(tmp_path / "client", "imap"))
    client = DirectoryClientSettings(target, Seconds(10.0), tls)

    async def check(times: int) -> None:
        """Call on a new connection each time; the kernel gives it to one worker or the other."""
        for _ in range(times):
            channel = open_channel(client)
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS, wait_for_ready=True)  # type: ignore[attr-defined]
            await channel.close()

    async with (
        started(PAQUEBOT_GRPC_LISTEN=target, PAQUEBOT_WORKERS="2", **settings) as process,
        asyncio.timeout(2 * SECONDS),
    ):
        await check(8)
        before = workers(process.pid)
        while len(before) < 2:
            await check(1)
            before = workers(process.pid)
        os.kill(min(before), signal.SIGKILL)
        while len(workers(process.pid) - before) < 1:
            await check(1)
        await check(8)
