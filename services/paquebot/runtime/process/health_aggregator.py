"""Health and metrics of all workers of a service, as of one process.

Liveness and readiness are those of the worst worker. Counters and histograms are added up; each gauge declares how its
values combine (`observability.metrics.Across`).
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paquebot.observability.metrics import DECLARED, Across

_SECONDS = 3.0
_FOREIGN = {"process_start_time_seconds": Across.MIN, "process_max_fds": Across.MIN, "python_info": Across.MAX}
"""Gauges of the Prometheus library."""


@dataclass(frozen=True, slots=True)
class HealthAggregator:
    """A `HealthSource`. `workers`: the addresses of their health sockets."""

    workers: Sequence[bytes]

    async def stuck(self) -> list[str]:
        return await self._faults("/livez")

    async def unready(self) -> list[str]:
        return await self._faults("/readyz")

    async def metrics(self) -> bytes:
        """The sum over the workers that answer."""
        pages = await asyncio.gather(*(self._page(worker, "/metrics") for worker in self.workers))
        return merged(page for found in pages if found is not None for page in [found[1]])

    async def _faults(self, path: str) -> list[str]:
        pages = await asyncio.gather(*(self._page(worker, path) for worker in self.workers))
        return [line for number, page in enumerate(pages, 1) for line in _lines(number, page)]

    async def _page(self, worker: bytes, path: str) -> tuple[bool, str] | None:
        """Whether the status was 200, and the body; None: no answer."""
        with contextlib.suppress(OSError, EOFError, TimeoutError, ValueError):
            async with asyncio.timeout(_SECONDS):
                return await _get(worker, path)
        return None


def _lines(number: int, page: tuple[bool, str] | None) -> list[str]:
    if page is None:
        return [f"worker {number}: no answer within {_SECONDS:g} s"]
    good, body = page
    return [] if good else [f"worker {number}: {line}" for line in body.splitlines()]


async def _get(worker: bytes, path: str) -> tuple[bool, str]:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, worker)  # libuv has no abstract addresses
        reader, writer = await asyncio.open_unix_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
        writer.write_eof()
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        raise EOFError
    return head.split(b" ", 2)[1] == b"200", body.decode()


def merged(pages: Iterable[str]) -> bytes:
    """One exposition (Prometheus text format) made of several with the same metrics."""
    head: dict[str, None] = {}
    lines: dict[str, dict[str, float]] = {}
    rules: dict[str, Across] = {}
    family = ""
    for page in pages:
        for line in page.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                head.setdefault(line)
                lines.setdefault(family, {})
            elif line.startswith("# TYPE "):
                rules.setdefault(family, _rule(family, line.rsplit(" ", 1)[1]))
                lines[family].setdefault(line, 0.0)
            elif line:
                _add(lines[family], line, rules[family])
    texts = (line for found in head for line in (found, *_shown(lines[found.split(" ", 3)[2]])))
    return "".join(f"{text}\n" for text in texts).encode()


def _add(samples: dict[str, float], line: str, rule: Across) -> None:
    series, _, text = line.rpartition(" ")
    value = float(text)
    before = samples.get(series)
    if before is None:
        samples[series] = value
    elif rule is Across.SUM:
        samples[series] = before + value
    else:
        samples[series] = min(before, value) if rule is Across.MIN else max(before, value)


def _rule(family: str, kind: str) -> Across:
    if kind != "gauge":
        return Across.SUM
    declared = DECLARED.get(family)
    return declared.across if declared is not None else _FOREIGN.get(family, Across.SUM)


def _shown(samples: dict[str, float]) -> list[str]:
    return [series if series.startswith("#") else f"{series} {value!r}" for series, value in samples.items()]
