"""The answers of the port of health and metrics to a kubelet, Prometheus and other clients, over real connections."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from paquebot.runtime.process import health as health_module
from paquebot.runtime.process.health import Health, HealthServer
from paquebot.runtime.settings import Listen


@contextlib.asynccontextmanager
async def serving(health: Health) -> AsyncIterator[int]:
    server = HealthServer(health, [Listen("127.0.0.1", 0)])
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop()


async def exchange(port: int, data: bytes, *, eof: bool = False) -> bytes:
    """Send the data; return all that the server answers."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        if eof:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


async def get(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    """(status, header, body)"""
    answer = await exchange(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    header, _, body = answer.partition(b"\r\n\r\n")
    return int(header.split()[1]), header.decode(), body


async def test_readiness_goes_from_starting_to_ready_to_draining() -> None:
    health = Health()
    async with serving(health) as port:
        assert (await get(port, "/readyz"))[::2] == (503, b"starting\n")
        health.started = True
        assert (await get(port, "/readyz?verbose"))[::2] == (200, b"ok\n")
        health.draining = True
        assert (await get(port, "/readyz"))[::2] == (503, b"draining\n")
        assert (await get(port, "/livez"))[::2] == (200, b"ok\n")


async def test_failed_probe_gives_its_reason_in_any_characters() -> None:
    async def away() -> None:
        raise ConnectionError("no route \udcff")

    health = Health(started=True)
    health.depend("nats", away)
    async with serving(health) as port:
        assert (await get(port, "/readyz"))[::2] == (503, b"nats: ConnectionError: no route \\udcff\n")


@pytest.mark.slow
async def test_slow_probe_runs_once_for_all_and_does_not_delay_liveness() -> None:
    asked = 0
    begun = asyncio.Event()

    async def slow() -> None:
        nonlocal asked
        asked += 1
        begun.set()
        await asyncio.Event().wait()

    health = Health(started=True)
    health.depend("s3", slow)
    async with serving(health) as port:
        waiting = [asyncio.ensure_future(get(port, "/readyz")) for _ in range(3)]
        await begun.wait()
        assert (await get(port, "/livez"))[0] == 200
        assert not any(task.done() for task in waiting)
        for answer in await asyncio.gather(*waiting):
            assert answer[::2] == (503, b"s3: no answer within 2 s\n")
    assert asked == 1


async def test_silent_loop_fails_liveness_unless_it_ended_on_purpose() -> None:
    health = Health()
    async with serving(health) as port:
        health.beat("consumer", max_age=60)
        assert (await get(port, "/livez"))[0] == 200
        health.beat("consumer", max_age=-1)
        assert (await get(port, "/livez"))[::2] == (503, b"consumer\n")
        health.silence("consumer")
        assert (await get(port, "/livez"))[0] == 200


async def test_metrics_and_unknown_paths() -> None:
    async with serving(Health()) as port:
        status, header, body = await get(port, "/metrics")
        assert status == 200
        assert "Content-Type: text/plain; version=" in header
        assert b"paquebot_build_info" in body
        assert (await get(port, "/"))[0] == 404


async def test_head_has_the_header_of_get_and_no_body() -> None:
    async with serving(Health(started=True)) as port:
        status, header, body = await get(port, "/readyz", "HEAD")
        assert (status, body) == (200, b"")
        assert "Content-Length: 3" in header


@pytest.mark.parametrize("method", ["POST", "DELETE", "get"])
async def test_other_methods_are_not_allowed(method: str) -> None:
    async with serving(Health()) as port:
        status, header, _ = await get(port, "/livez", method)
        assert status == 405
        assert "Allow: GET, HEAD" in header


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET /livez SMTP/1.1\r\n\r\n",
        b"GET  /livez HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00 \xff HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_is_a_bad_request(data: bytes) -> None:
    async with serving(Health()) as port:
        assert (await exchange(port, data)).startswith(b"HTTP/1.1 400 ")


async def test_half_a_request_is_a_bad_request_and_none_is_no_answer() -> None:
    async with serving(Health()) as port:
        assert (await exchange(port, b"GET /livez HTTP/1.1\r\n", eof=True)).startswith(b"HTTP/1.1 400 ")
        assert await exchange(port, b"", eof=True) == b""


@pytest.mark.parametrize("length", [10_000, 1_000_000])
async def test_too_long_a_request_is_refused_and_the_answer_arrives(length: int) -> None:
    async with serving(Health()) as port:
        answer = await exchange(port, b"GET /livez HTTP/1.1\r\nCookie: " + b"x" * length + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert (await get(port, "/livez"))[0] == 200


async def test_answer_does_not_wait_for_the_client_to_close() -> None:
    async with serving(Health()) as port:
        at = time.monotonic()
        await get(port, "/livez")
        assert time.monotonic() - at < 4


async def test_readiness_and_failed_probes_are_measured_also_when_only_prometheus_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine takes long for each page, and would get the previous page.
    monkeypatch.setattr(health_module, "_METRICS_BURST", 1e9)
    faults: list[Exception] = []

    async def dependency() -> None:
        if faults:
            raise faults[0]

    def page_value(page: bytes, series: str) -> float:
        return next(float(line.split()[-1]) for line in page.decode().splitlines() if line.startswith(series + " "))

    health = Health()
    health.depend("measured", dependency)
    failures = 'paquebot_probe_failures_total{probe="measured"}'
    async with serving(health) as port:
        page = (await get(port, "/metrics"))[2]
        assert (page_value(page, "paquebot_ready"), page_value(page, failures)) == (0, 0)
        health.started = True
        assert page_value((await get(port, "/metrics"))[2], "paquebot_ready") == 1
        faults.append(ConnectionError("away"))
        health._answer = (-1e9, [])  # the last answer is too old
        page = (await get(port, "/metrics"))[2]
        assert (page_value(page, "paquebot_ready"), page_value(page, failures)) == (0, 1)
        faults.clear()
        health._answer = (-1e9, [])
        assert (await get(port, "/readyz"))[0] == 200
        health.draining = True
        page = (await get(port, "/metrics"))[2]
        assert (page_value(page, "paquebot_ready"), page_value(page, failures)) == (0, 1)


@pytest.mark.slow
async def test_probe_that_exceeds_its_timeout_delays_no_answer() -> None:
    """A cancelled call may wait for a frozen engine. The probe does not run again before it has ended."""
    asked, end = 0, asyncio.Event()

    async def frozen() -> None:
        nonlocal asked
        asked += 1
        try:
            await end.wait()
        finally:
            await end.wait()

    health = Health(started=True)
    health.depend("postgres", frozen)
    async with serving(health) as port:
        for path, status in (("/readyz", 503), ("/metrics", 200), ("/livez", 200)):
            assert (await get(port, path))[0] == status
        assert asked == 1
        end.set()
        while (await get(port, "/readyz"))[0] != 200:
            pass


async def test_endless_requests_for_metrics_use_a_tenth_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, written = 1000.0, 0

    def write() -> bytes:
        nonlocal now, written
        now += 0.02
        written += 1
        return b"paquebot_written %d\n" % written

    monkeypatch.setattr(health_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(health_module, "generate_latest", write)
    health = Health(started=True)
    assert await health.metrics() == b"paquebot_written 1\n"
    for _ in range(1000):
        now += 0.001
        await health.metrics()
    # 10 immediately, and then one in each 0.2 s of the 1.2 s.
    assert 12 <= written <= 17
    now += 0.3
    before = written
    assert await health.metrics() == b"paquebot_written %d\n" % (before + 1)
