"""Free TCP ports on loopback for servers under test, and engines described on them."""

from __future__ import annotations

import itertools
import os
import random
import socket
from dataclasses import dataclass, fields
from pathlib import Path

from paquebot.cli.engines.nats import NatsAccess, NatsEngine
from paquebot.cli.engines.ports import EnginePorts
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Access, S3Engine

# Below the kernel's usual range for outgoing connections (32768 and up), so that no connection takes one.
# Each pytest-xdist worker has its own range of ports, because it binds a free port some time after it found it.
_COUNT = 3_000
_FIRST = 20_000 + _COUNT * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4)
# Each test run begins at another port, so that two runs at the same time seldom collide.
_candidates = itertools.islice(itertools.cycle(range(_COUNT)), random.SystemRandom().randrange(_COUNT), None)


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 without a listener; 3,000 calls return different ports."""
    for candidate in itertools.islice(_candidates, _COUNT):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", _FIRST + candidate))
            except OSError:
                continue
            return _FIRST + candidate
    raise RuntimeError("no free port on loopback")


@dataclass(slots=True, frozen=True)
class EngineSet:
    """The three descriptions; only engines that a collected test needs are running."""

    nats: NatsEngine
    s3: S3Engine
    postgres: PostgresEngine


def engine_set(directory: Path) -> EngineSet:
    """Descriptions of three engines below `directory`, each port free."""
    ports = EnginePorts(**{item.name: free_port() for item in fields(EnginePorts)})
    return EngineSet(
        nats=NatsEngine(directory / "nats", (NatsAccess("test", "nats-secret"),), ports),
        s3=S3Engine(directory / "s3", (S3Access("test", "test-key", "s3-secret-of-tests"),), "paquebot", ports),
        postgres=PostgresEngine(directory / "postgres", "postgres secret", ports),
    )
