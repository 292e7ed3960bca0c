"""One supervised child: its log, its exit, its process group."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from paquebot.cli.engines.process import ManagedProcess, ProcessCommand, run_to_end

_WAIT_SECONDS = 60.0


def python(code: str, directory: Path, *, stop_seconds: float = 5.0) -> ManagedProcess:
    command = ProcessCommand(argv=(sys.executable, "-c", code), cwd=directory, stop_seconds=stop_seconds)
    return ManagedProcess("child", command, directory / "log")


async def started(process: ManagedProcess) -> str:
    """Start a child that writes to the pipe `ready` in its directory; return what it wrote."""
    pipe = process.command.cwd / "ready"
    os.mkfifo(pipe)
    await process.start()
    async with asyncio.timeout(_WAIT_SECONDS):
        return await asyncio.to_thread(pipe.read_text)


async def test_output_and_errors_go_to_the_log_and_runs_are_rotated(tmp_path: Path) -> None:
    process = python("import sys; print('out', flush=True); sys.exit('fault')", tmp_path)
    for _ in range(5):
        await process.start()
        assert await process.wait() == 1
    log = tmp_path / "log" / "child.log"
    assert process.log == str(log)
    assert log.read_text() == "out\nfault\n"
    assert process.last_words() == "fault"
    names = sorted(path.name for path in log.parent.iterdir())
    assert names == ["child.log", "child.log.1", "child.log.2", "child.log.3"]


async def test_stop_sends_the_stop_signal_first(tmp_path: Path) -> None:
    process = python("import time; open('ready', 'w').close(); time.sleep(60)", tmp_path)
    await started(process)
    assert await process.stop() == -signal.SIGTERM
    assert await process.stop() == -signal.SIGTERM  # and again without effect


async def test_a_child_that_does_not_exit_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w').close(); time.sleep(60)"
    process = python(code, tmp_path, stop_seconds=0.1)
    await started(process)
    assert await process.stop() == -signal.SIGKILL


async def test_the_child_leads_a_process_group_and_keeps_its_pid(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), os.getpgrp(), file=open('ready', 'w')); time.sleep(60)"
    process = python(code, tmp_path)
    assert await started(process) == f"{process.pid} {process.pid}\n"
    assert process.pid != os.getpgrp()
    await process.kill()
    assert not process.running


async def test_the_child_gets_only_the_given_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SUPERVISOR", "x")
    process = python("import os; print('SECRET_OF_THE_SUPERVISOR' in os.environ)", tmp_path)
    await process.start()
    await process.wait()
    assert process.last_words() == "False"


async def test_starting_twice_is_a_fault(tmp_path: Path) -> None:
    process = python("import time; time.sleep(60)", tmp_path)
    with pytest.raises(RuntimeError, match="never started"):
        await process.wait()
    await process.start()
    with pytest.raises(RuntimeError, match="runs already"):
        await process.start()
    await process.kill()


async def test_a_short_program_is_killed_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await run_to_end((sys.executable, "-c", code), tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
