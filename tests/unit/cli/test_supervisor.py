"""The supervisor of a local platform, on real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from paquebot.cli.engines.process import ManagedProcess, ProcessCommand
from paquebot.cli.up.supervisor import Start, Supervisor, exit_text

SHELL = shutil.which("sh") or "/bin/sh"
DEADLINE_SECONDS = 20.0


def running(script: str, directory: Path) -> Start:
    async def start() -> ManagedProcess:
        command = ProcessCommand(argv=(SHELL, "-c", script), cwd=directory, env={"PATH": os.defpath}, stop_seconds=2.0)
        process = ManagedProcess("worker", command, directory / "log")
        await process.start()
        return process

    return start


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Lines:
    """The lines that the supervisor prints, and a way to wait for them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._new = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        self._new.set()

    async def until(self, fits: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not fits(self.lines):
                self._new.clear()
                await self._new.wait()


@pytest.mark.slow
async def test_a_killed_process_is_restarted_and_reported(tmp_path: Path) -> None:
    printed = Lines()
    supervisor = Supervisor(printed)
    first = (await supervisor.keep_running("worker", running("exec sleep 600", tmp_path))).pid
    os.kill(first, signal.SIGKILL)
    await printed.until(lambda lines: "worker restarted" in lines)
    assert printed.lines == ["worker was killed by SIGKILL; restarting in 0.5 s", "worker restarted"]
    assert supervisor.pid("worker") != first
    await supervisor.stop()


@pytest.mark.slow
async def test_repeated_failures_wait_longer(tmp_path: Path) -> None:
    printed = Lines()
    supervisor = Supervisor(printed)
    await supervisor.keep_running("worker", running("echo no database >&2; exit 3", tmp_path))
    await printed.until(lambda lines: sum("exited" in line for line in lines) >= 2)
    exits = [line for line in printed.lines if "exited" in line]
    assert exits[0] == "worker exited with code 3: no database; restarting in 0.5 s"
    assert exits[1] == "worker exited with code 3: no database; restarting in 1 s"
    assert supervisor.last_exit("worker") == "exited with code 3: no database"
    await supervisor.stop()


async def test_stop_stops_all_and_prints_nothing(tmp_path: Path) -> None:
    printed = Lines()
    supervisor = Supervisor(printed)
    pids = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        pids.append((await supervisor.keep_running(name, running("exec sleep 600", tmp_path / name))).pid)
    await supervisor.stop(("second",), ("first",))
    assert not any(alive(pid) for pid in pids)
    assert printed.lines == []


def test_exit_text() -> None:
    assert exit_text(-9) == "was killed by SIGKILL"
    assert exit_text(-300) == "exited with code -300"
    assert exit_text(1) == "exited with code 1"
