"""What the three engines have in common: ports, preparation, start and readiness.

An engine is a frozen description (`NatsEngine`, `S3Engine`, `PostgresEngine`); `start_engine` runs it.
A fault that the user can repair is an `EngineError`, whose text is one sentence that says what to do.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paquebot.cli.engines.process import ManagedProcess, ProcessCommand

POLL_SECONDS = 0.02  # between two probes of an engine that is starting
_STUCK_SECONDS = 5.0
_PORT_GRACE_SECONDS = 3.0  # an engine that is stopping may hold its port a moment longer


class EngineError(Exception):
    """An engine cannot run; the text is one sentence for the user."""


class EngineNotReady(Exception):
    """The engine does not answer yet; probe it again."""


@dataclass(slots=True, frozen=True)
class PortClaim:
    """One listener: its owner, its address, and the option that changes its port."""

    owner: str
    host: str
    number: int
    option: str


class Engine(Protocol):
    """The description of one engine process."""

    @property
    def name(self) -> str:
        """Short name, also of the log file: nats, s3, postgres."""

    def ports(self) -> Sequence[PortClaim]:
        """Every listener that the engine will open."""

    async def prepare(self) -> None:
        """Create or check the data directory and the configuration; may be repeated. Raises EngineError."""

    def command(self) -> ProcessCommand:
        """The command that runs it, after `prepare`. Raises EngineError when the program is missing."""

    async def probe(self) -> None:
        """Try the engine's real work once. Raises EngineNotReady, or EngineError when waiting cannot help."""

    async def stuck(self) -> str:
        """The fault of the running engine that only a restart can repair; empty: none."""


async def start_engine(engine: Engine, log_dir: Path | None, deadline_seconds: float = 60.0) -> ManagedProcess:
    """Prepare and start the engine, and wait until it is ready. Stops it again after an error.

    Raises EngineError: busy port, unusable data directory, missing program, early exit, or not ready in time.
    """
    command = engine.command()
    await check_ports(engine.ports())
    await engine.prepare()
    process = ManagedProcess(engine.name, command, log_dir)
    try:
        await process.start()
        await wait_ready(engine, process, deadline_seconds)
    except BaseException:
        await process.kill()
        raise
    return process


async def wait_ready(engine: Engine, process: ManagedProcess, deadline_seconds: float) -> None:
    """Probe until the engine works. Raises EngineError when it exited, or when the deadline passed."""
    reason = "no answer"
    try:
        async with asyncio.timeout(deadline_seconds):
            while process.running:
                try:
                    return await engine.probe()
                except EngineNotReady as fault:
                    reason = str(fault)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        text = f"{engine.name} was not ready after {deadline_seconds:g} s ({reason}); see {process.log}"
        raise EngineError(text) from None
    raise EngineError(f"{engine.name} exited at start: {process.last_words()} (see {process.log})")


async def kill_when_stuck(engine: Engine, process: ManagedProcess, say: Callable[[str], None]) -> None:
    """While it runs, kill it when only a restart can help; its supervisor then restarts it."""
    while process.running:
        if why := await engine.stuck():
            say(f"{engine.name} is stuck and will be restarted: {why}")
            await process.kill()
        await asyncio.sleep(_STUCK_SECONDS)


async def check_ports(claims: Sequence[PortClaim]) -> None:
    """Raise EngineError for the first port that stays busy."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PORT_GRACE_SECONDS
    for claim in claims:
        while _is_busy(claim):
            if loop.time() > deadline:
                raise EngineError(
                    f"port {claim.number} on {claim.host} is in use, so {claim.owner} cannot listen there: "
                    f"stop the program that uses it or give another port with {claim.option}"
                )
            await asyncio.sleep(POLL_SECONDS)


def _is_busy(claim: PortClaim) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in claim.host else socket.AF_INET) as trial:
        # As the engines do it, so that a port in TIME_WAIT counts as free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((claim.host, claim.number))
        except OSError as fault:
            if fault.errno == errno.EADDRINUSE:
                return True
            raise EngineError(
                f"{claim.owner} cannot listen on {claim.host} port {claim.number} "
                f"({os.strerror(fault.errno or 0)}): give another port with {claim.option}"
            ) from fault
    return False
