"""A service process as its supervisor sees it: output, signals, exit codes, and a timely exit."""

import asyncio
import json
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.loopback import free_port

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("framed_process.py")


async def start(what: str = "drains", **settings: str) -> asyncio.subprocess.Process:
    environ = {"PAQUEBOT_METRICS_LISTEN": "127.0.0.1:0", **{f"PAQUEBOT_{k}": v for k, v in settings.items()}}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(sys.executable, PROGRAM, what, env=environ, stdout=pipe, stderr=pipe)


async def ended(process: asyncio.subprocess.Process) -> tuple[int, list[dict[str, Any]], str]:
    """Wait until the process exits; return (exit code, the lines of the log, standard error)."""
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


async def terminated(what: str, **settings: str) -> tuple[int, list[dict[str, Any]], str, float]:
    """Start it, wait for `service_started`, send SIGTERM. Return what `ended` does, and the seconds until the exit."""
    process = await start(what, **settings)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert json.loads(await process.stdout.readline())["event"] == "service_started"
    process.send_signal(signal.SIGTERM)
    at = time.monotonic()
    return *(await ended(process)), time.monotonic() - at


async def test_all_wrong_settings_are_reported_with_exit_code_2() -> None:
    code, lines, err = await ended(await start(DRAIN="soon", LOG_ADDRESSES="perhaps", IN_FLIGHT="much"))
    assert (code, lines) == (2, [])
    assert len(err.splitlines()) == 3
    assert all(name in err for name in ("PAQUEBOT_DRAIN", "PAQUEBOT_LOG_ADDRESSES", "PAQUEBOT_IN_FLIGHT"))


async def test_broken_certificate_is_one_sentence_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("no PEM")
    files = {"TLS_CERTIFICATE": str(tmp_path / "tls.crt"), "TLS_KEY": str(tmp_path / "tls.key")}
    code, lines, err = await ended(await start(**files))
    assert (code, lines) == (2, [])
    assert len(err.splitlines()) == 1
    assert "PAQUEBOT_TLS_CERTIFICATE" in err


async def test_sigterm_drains_and_every_line_is_json() -> None:
    code, lines, err, _ = await terminated("drains")
    assert (code, err) == (0, "")
    assert [line["event"] for line in lines] == ["drain_started", "service_exited"]
    assert all(line["service"] == "framed" and line["level"] == "info" for line in lines)


@pytest.mark.parametrize("what", ["never_ends", "ignores_cancellation", "leaves_a_thread"])
async def test_long_drain_is_cancelled_in_time(what: str) -> None:
    code, lines, _, seconds = await terminated(what, DRAIN="300ms")
    assert code == 1
    assert lines[-1]["event"] == "drain_timed_out"
    assert 0.3 <= seconds < 10


@pytest.mark.parametrize("what", ["leaves_a_thread_behind", "blocks_the_loop"])
async def test_work_after_the_drain_is_cancelled_too(what: str) -> None:
    code, _, _, seconds = await terminated(what, DRAIN="100ms")
    assert code == 1
    assert seconds < 12


async def test_busy_metrics_port_is_one_line_with_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        code, lines, err = await ended(await start(METRICS_LISTEN=listen))
    assert (code, err) == (1, "")
    (line,) = lines
    assert (line["event"], line["level"], line["address"]) == ("metrics_listen_failed", "error", listen)


async def test_health_serves_clients_of_both_families() -> None:
    port = free_port()
    process = await start(METRICS_LISTEN=f"127.0.0.1:{port}, [::]:{port}")
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["event"] == "service_started"
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    process.terminate()
    code, _, _ = await ended(process)
    assert code == 0


async def test_a_thread_does_not_keep_the_interpreter_for_long() -> None:
    _, lines, _, _ = await terminated("tells_the_switch_interval")
    [seconds] = [line["seconds"] for line in lines if line["event"] == "switch_interval"]
    assert seconds <= 0.001
