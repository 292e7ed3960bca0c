"""The supervisor of a local platform, on real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

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


class Said:
    """What the supervisor says, and a way to wait for it."""

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


async def test_a_killed_process_runs_again_and_is_told_in_one_sentence(tmp_path: Path) -> None:
    said = Said()
    supervisor = Supervisor(said)
    first = (await supervisor.keep("worker", running("exec sleep 600", tmp_path))).pid
    os.kill(first, signal.SIGKILL)
    await said.until(lambda lines: "worker runs again" in lines)
    assert said.lines == ["worker was ended by SIGKILL; it starts again in 0.5 s", "worker runs again"]
    assert supervisor.pid("worker") != first
    await supervisor.stop()


async def test_one_that_fails_again_and_again_waits_longer(tmp_path: Path) -> None:
    said = Said()
    supervisor = Supervisor(said)
    await supervisor.keep("worker", running("echo no database >&2; exit 3", tmp_path))
    await said.until(lambda lines: sum("ended" in line for line in lines) >= 2)
    ends = [line for line in said.lines if "ended" in line]
    assert ends[0] == "worker ended with code 3: no database; it starts again in 0.5 s"
    assert ends[1] == "worker ended with code 3: no database; it starts again in 1 s"
    assert supervisor.last_end("worker") == "ended with code 3: no database"
    await supervisor.stop()


async def test_stop_ends_all_and_says_nothing(tmp_path: Path) -> None:
    said = Said()
    supervisor = Supervisor(said)
    pids = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        pids.append((await supervisor.keep(name, running("exec sleep 600", tmp_path / name))).pid)
    await supervisor.stop(("second",), ("first",))
    assert not any(alive(pid) for pid in pids)
    assert said.lines == []


def test_an_end_in_words() -> None:
    assert exit_text(-9) == "was ended by SIGKILL"
    assert exit_text(-300) == "ended with code -300"
    assert exit_text(1) == "ended with code 1"
