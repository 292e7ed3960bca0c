"""Several workers of one service: from outside they look like one process, even when a worker dies."""

import asyncio
import os
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from paquebot.observability.metrics import Across, gauge
from paquebot.runtime.process.health_aggregator import merged
from tests.support.loopback import free_port
from tests.unit.runtime.test_service_process import ended, start

pytestmark = pytest.mark.slow


@dataclass(slots=True)
class Service:
    process: asyncio.subprocess.Process
    port: int
    workers: int

    async def get(self, path: str) -> tuple[int, str]:
        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except OSError:
                return 0, ""

        return await asyncio.to_thread(ask)

    async def until_ready(self) -> None:
        async with asyncio.timeout(30):
            while (await self.get("/readyz"))[0] != 200:
                await asyncio.sleep(0.02)

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]


@asynccontextmanager
async def service(what: str = "drains", *, workers: int = 3, **settings: str) -> AsyncIterator[Service]:
    port = free_port()
    process = await start(what, WORKERS=str(workers), METRICS_LISTEN=f"127.0.0.1:{port}", **settings)
    try:
        yield Service(process, port, workers)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not in time: {what}")


async def test_all_workers_are_one_service_until_sigterm() -> None:
    async with service() as one:
        await one.until_ready()
        assert len(one.children()) == 4  # three workers and the health aggregator
        assert await one.get("/livez") == (200, "ok\n")
        status, page = await one.get("/metrics")
        assert status == 200
        samples = page.splitlines()
        assert "paquebot_ready 1.0" in samples
        assert 'paquebot_build_info{service="framed",version="' in page
        assert page.count("# TYPE paquebot_event_loop_delay_seconds histogram") == 1
        one.process.send_signal(signal.SIGTERM)
        code, lines, err = await ended(one.process)
    assert (code, err) == (0, "")
    for event in ("service_started", "drain_started", "service_exited"):
        assert sorted(line["worker"] for line in lines if line["event"] == event) == [1, 2, 3]


async def test_worker_killed_by_a_signal_is_replaced() -> None:
    async with service() as one:
        await one.until_ready()
        before = one.children()
        os.kill(before[-1], signal.SIGKILL)
        await until(lambda: len(set(one.children()) - set(before)) == 1, "another worker")
        await one.until_ready()
        assert set(before[:-1]) <= set(one.children())
        one.process.send_signal(signal.SIGTERM)
        code, lines, _ = await ended(one.process)
    assert code == 0
    assert [(line["worker"], line["signal"]) for line in lines if line["event"] == "worker_exited"] == [(3, 9)]


async def test_aggregator_killed_by_a_signal_is_replaced() -> None:
    async with service(workers=2) as one:
        await one.until_ready()
        os.kill(one.children()[0], signal.SIGKILL)
        await until(lambda: len(one.children()) == 3, "another front")
        await one.until_ready()


async def test_workers_exit_with_a_killed_parent() -> None:
    async with service() as one:
        await one.until_ready()
        children = one.children()
        one.process.kill()
        await until(lambda: not any(running(pid) for pid in children), "the end of all workers")


async def test_a_worker_s_own_exit_code_becomes_the_service_s(tmp_path: Path) -> None:
    """A fault of one worker is a fault of all, so no loop of restarts hides it."""
    (tmp_path / "tls.crt").write_text("no PEM")
    files = {"TLS_CERTIFICATE": str(tmp_path / "tls.crt"), "TLS_KEY": str(tmp_path / "tls.key")}
    async with service(workers=3, **files) as one:
        code, _, err = await ended(one.process)
    assert code == 2
    assert "PAQUEBOT_TLS_CERTIFICATE" in err


async def test_busy_metrics_port_ends_the_service_with_code_1() -> None:
    async with service() as first:
        await first.until_ready()
        other = await start("drains", WORKERS="2", METRICS_LISTEN=f"127.0.0.1:{first.port}")
        code, lines, _ = await ended(other)
    assert code == 1
    assert "metrics_listen_failed" in [line["event"] for line in lines]


async def test_a_stopped_worker_is_reported() -> None:
    async with service(workers=2) as one:
        await one.until_ready()
        victim = one.children()[-1]
        os.kill(victim, signal.SIGSTOP)
        try:
            for path in ("/livez", "/readyz"):
                assert await one.get(path) == (503, "worker 2: no answer within 3 s\n")
        finally:
            os.kill(victim, signal.SIGCONT)
        await one.until_ready()


@pytest.mark.parametrize("count", ["0", "-1", "1000", "two"])
async def test_number_of_workers_is_checked(count: str) -> None:
    code, lines, err = await ended(await start(WORKERS=count))
    assert (code, lines) == (2, [])
    assert "PAQUEBOT_WORKERS" in err


LEAST = gauge("paquebot_test_least", "of workers", across=Across.MIN)
MOST = gauge("paquebot_test_most", "of workers", across=Across.MAX)


def test_merged_adds_counters_and_combines_gauges() -> None:
    def page(number: int) -> str:
        return (
            "# HELP paquebot_test_total a {b} 1 2\n# TYPE paquebot_test_total counter\n"
            f'paquebot_test_total{{text="a b"}} {number}.0\n'
            f"# HELP paquebot_test_least of workers\n# TYPE paquebot_test_least gauge\npaquebot_test_least {number}.0\n"
            f"# HELP paquebot_test_most of workers\n# TYPE paquebot_test_most gauge\npaquebot_test_most {number}.0\n"
            f"# HELP sessions now\n# TYPE sessions gauge\nsessions {number}.0\n"
            "# HELP seconds s\n# TYPE seconds histogram\n"
            f'seconds_bucket{{le="+Inf"}} {number}.0\nseconds_count {number}.0\nseconds_sum 0.5\n'
        )

    assert merged([page(2), page(5)]).decode().splitlines() == [
        "# HELP paquebot_test_total a {b} 1 2",
        "# TYPE paquebot_test_total counter",
        'paquebot_test_total{text="a b"} 7.0',
        "# HELP paquebot_test_least of workers",
        "# TYPE paquebot_test_least gauge",
        "paquebot_test_least 2.0",
        "# HELP paquebot_test_most of workers",
        "# TYPE paquebot_test_most gauge",
        "paquebot_test_most 5.0",
        "# HELP sessions now",
        "# TYPE sessions gauge",
        "sessions 7.0",
        "# HELP seconds s",
        "# TYPE seconds histogram",
        'seconds_bucket{le="+Inf"} 7.0',
        "seconds_count 7.0",
        "seconds_sum 1.0",
    ]


def test_merged_keeps_series_of_one_worker_only() -> None:
    head = "# HELP x x\n# TYPE x counter\n"
    lines = merged([head + 'x{a="1"} 1.0\n', head + 'x{a="2"} 4.0\n', ""]).decode().splitlines()
    assert lines == ["# HELP x x", "# TYPE x counter", 'x{a="1"} 1.0', 'x{a="2"} 4.0']
