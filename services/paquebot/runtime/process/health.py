"""Liveness, readiness and metrics over HTTP, on a port of their own without limits.

`/livez` answers 200 while the event loop runs and no watched task is stuck. `/readyz` asks every dependency, and
answers 503 with the reasons while one is away or the process drains.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from paquebot.observability.log import Log
from paquebot.observability.metrics import Across, Bounded, counter, gauge
from paquebot.runtime.net.sockets import bound
from paquebot.runtime.settings import Listen

Probe = Callable[[], Awaitable[None]]
"""Raises, with a reason for the operator, while its dependency cannot be used."""

READY = gauge(
    "paquebot_ready",
    "1 while /readyz answers 200: started, not draining, every dependency answers",
    across=Across.MIN,
)
PROBE_FAILURES = counter(
    "paquebot_probe_failures_total",
    "Readiness probes of a dependency that failed",
    {"probe": Bounded("the dependencies of a service: nats, s3, postgres, recipient_validation, ...")},
)

_log = Log("paquebot.health")
_PROBE_SECONDS = 2.0
_ANSWER_AGE = 1.0  # a kubelet, a load balancer and an operator may ask at once: one round of probes serves all
_METRICS_SHARE = 0.1  # of the event loop, for writing metrics, however often they are requested
_METRICS_BURST = 0.2  # seconds of it at once
_REQUEST_SECONDS = 5.0
_MAX_REQUEST = 8192


class HealthSource(Protocol):
    """What the health port reports: for this process, or for several as for one."""

    async def stuck(self) -> list[str]:
        """Why it should be killed; empty: it is live."""

    async def unready(self) -> list[str]:
        """Why it should get no work now; empty: it is ready."""

    async def metrics(self) -> bytes:
        """In the Prometheus text format."""


@dataclass(slots=True)
class Health:
    """The health of this process."""

    draining: bool = False
    started: bool = False
    _probes: dict[str, Probe] = field(default_factory=dict)
    _beats: dict[str, tuple[float, float]] = field(default_factory=dict)
    _under_way: dict[str, asyncio.Task[str]] = field(default_factory=dict)
    _answer: tuple[float, list[str]] = (-1e9, [])
    _text: bytes = b""
    """The metrics as last written."""
    _metrics_left: float = _METRICS_BURST
    """Seconds that writing them may take, as of `_metrics_at`."""
    _metrics_at: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def depend(self, name: str, probe: Probe) -> None:
        """Be ready only while `probe` returns within 2 s."""
        self._probes[name] = probe
        PROBE_FAILURES.labels(name)

    def beat(self, name: str, *, max_age: float) -> None:
        """The loop `name` runs. Liveness fails when it does not call again within `max_age` seconds."""
        self._beats[name] = (time.monotonic(), max_age)

    def silence(self, name: str) -> None:
        """The loop `name` ended on purpose."""
        self._beats.pop(name, None)

    async def stuck(self) -> list[str]:
        """The names of loops whose last beat is too old."""
        now = time.monotonic()
        return [name for name, (at, age) in self._beats.items() if now - at > age]

    async def unready(self) -> list[str]:
        """Why this process should get no work now; empty: it is ready."""
        reasons = await self._reasons()
        READY.set(0 if reasons else 1)
        return reasons

    async def metrics(self) -> bytes:
        """In the Prometheus text format. Probes first, so that `paquebot_ready` is up to date."""
        await self.unready()
        began = time.monotonic()
        left = min(_METRICS_BURST, self._metrics_left + (began - self._metrics_at) * _METRICS_SHARE)
        if left > 0:
            self._text = generate_latest()
            left -= time.monotonic() - began
        self._metrics_left, self._metrics_at = left, began
        return self._text

    async def _reasons(self) -> list[str]:
        if self.draining:
            return ["draining"]
        if not self.started:
            return ["starting"]
        asked = time.monotonic()
        async with self._asking:
            at, reasons = self._answer
            if asked - at > _ANSWER_AGE:  # a caller that waited for a round takes its answer, however late the loop is
                results = await asyncio.gather(*(self._ask(name) for name in self._probes))
                reasons = [reason for reason in results if reason]
                self._answer = (time.monotonic(), reasons)
        return reasons

    async def _ask(self, name: str) -> str:
        """Why the dependency cannot be used; empty: it can. A probe that is cancelled may run on for a while: it is not
        started again before it has ended."""
        asking = self._under_way.get(name)
        if asking is None:
            asking = self._under_way[name] = asyncio.ensure_future(_outcome(name, self._probes[name]))
            asking.add_done_callback(lambda _: self._under_way.pop(name))
        ended, _ = await asyncio.wait((asking,), timeout=_PROBE_SECONDS)
        if ended and not asking.cancelled():
            return asking.result()
        asking.cancel()
        PROBE_FAILURES.labels(name).inc()
        return f"{name}: no answer within {_PROBE_SECONDS:g} s"


async def _outcome(name: str, probe: Probe) -> str:
    """Why the dependency cannot be used; empty: it can."""
    try:
        await probe()
    except Exception as error:  # noqa: BLE001 - whatever the reason, it is not ready; the operator reads it here
        PROBE_FAILURES.labels(name).inc()
        return f"{name}: {type(error).__name__}: {error}".rstrip(": ")
    return ""


class HealthServer:
    """A minimal HTTP/1.1 server: GET and HEAD of three paths, one request a connection."""

    def __init__(self, source: HealthSource, listen: Sequence[Listen] | socket.socket) -> None:
        """`listen`: the addresses to bind, or a listening UNIX socket."""
        self._source = source
        self.listen = listen
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """The first listener's."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    @property
    def address(self) -> str:
        """Its addresses, for a log line."""
        return self.listen.getsockname() if isinstance(self.listen, socket.socket) else ", ".join(map(str, self.listen))

    async def start(self) -> None:
        """Raises OSError."""
        if isinstance(self.listen, socket.socket):
            self._servers.append(await asyncio.start_unix_server(self._serve, sock=self.listen, limit=_MAX_REQUEST))
            return
        for place in self.listen:
            listener = bound(place, beside=self.listen)
            self._servers.append(await asyncio.start_server(self._serve, sock=listener, limit=_MAX_REQUEST))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                writer.write(await self._answer(reader))
                if writer.can_write_eof():
                    writer.write_eof()
                await writer.drain()
                await _read_rest(reader)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            # RFC 6585 §5
            return _response("431 Request Header Fields Too Large", b"at most 8192 bytes\n", head=False)
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return b""  # a probe of the bare port
            return _response("400 Bad Request", b"not a whole HTTP request\n", head=False)
        return await self._respond(request)

    async def _respond(self, request: bytes) -> bytes:
        # RFC 9112 §3: request-line = method SP request-target SP HTTP-version
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[0].isalpha() or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"not an HTTP/1 request\n", head=False)
        method, path = words[0], words[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            # RFC 9110 §15.5.6: the answer names the allowed methods
            return _response("405 Method Not Allowed", b"only GET and HEAD\n", head=False, more="Allow: GET, HEAD\r\n")
        status, body, kind = await self._page(path)
        return _response(status, body, head=method == b"HEAD", kind=kind)

    async def _page(self, path: bytes) -> tuple[str, bytes, str]:
        text = "text/plain; charset=utf-8"
        if path == b"/metrics":
            return "200 OK", await self._source.metrics(), CONTENT_TYPE_LATEST
        if path == b"/livez":
            stuck = await self._source.stuck()
            return ("503 Service Unavailable", _lines(stuck), text) if stuck else ("200 OK", b"ok\n", text)
        if path == b"/readyz":
            reasons = await self._source.unready()
            if reasons:
                _log.debug("not_ready", reasons=reasons)
                return "503 Service Unavailable", _lines(reasons), text
            return "200 OK", b"ok\n", text
        return "404 Not Found", b"/metrics /livez /readyz\n", text


def _lines(reasons: list[str]) -> bytes:
    return ("\n".join(reasons) + "\n").encode("utf-8", "backslashreplace")


def _response(status: str, body: bytes, *, head: bool, kind: str = "text/plain", more: str = "") -> bytes:
    header = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    ).encode()
    return header if head else header + body


async def _read_rest(reader: asyncio.StreamReader) -> None:
    """Read what the client still sends: closing with unread bytes resets the connection and may lose the answer
    (RFC 9112 §9.6). The request's timeout bounds it."""
    while await reader.read(_MAX_REQUEST):
        pass
