"""Run one program as a supervised child: start, log, wait, stop.

Invariants:
- the child is in a process group of its own, so Ctrl-C on the terminal reaches only the supervisor;
- the kernel sends the child `ProcessCommand.death_signal` when the supervisor dies, in whatever way (see `guard`);
- its output goes to a file or to the supervisor's own output, never to a pipe: a slow supervisor cannot block it.

The kernel watches the *thread* that started the child: call `ManagedProcess.start` on a thread that runs as long
as the process, normally the main thread's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

_GUARD = Path(__file__).with_name("guard.py")
LOGS_KEPT = 3
"""Earlier runs of a process whose logs are kept."""
_TAIL_BYTES = 4096


@dataclass(slots=True, frozen=True)
class ProcessCommand:
    """What to run and how to stop it.

    `argv[0]` is an absolute path. `prefix` is a command that changes credentials and then runs the rest.
    `env` is the complete environment of the child. `stop_seconds` is the timeout for a stop, before a kill.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL

    def guarded_argv(self, parent: int) -> tuple[str, ...]:
        """The full command line for a child of process `parent`."""
        guard = (sys.executable, "-I", "-S", str(_GUARD), str(parent), str(int(self.death_signal)))
        return (*self.prefix, *guard, *self.argv)


class ManagedProcess:
    """One child process. It can be started again after it exited.

    Its output goes to `<log_dir>/<name>.log`, or without a directory to our own output, as in a container.
    """

    def __init__(self, name: str, command: ProcessCommand, log_dir: Path | None) -> None:
        self.name = name
        self.command = command
        self._log_path = None if log_dir is None else log_dir / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the last start; raises RuntimeError before the first one."""
        return self._started().pid

    @property
    def returncode(self) -> int | None:
        """None while it runs or was never started; negative: killed by that signal."""
        return None if self._process is None else self._process.returncode

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Rotate the log and start the child. Raises OSError when the program cannot be run."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        if self._log_path is None:
            self._process = await self._spawn(None)
            return
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        rotate(self._log_path)
        with open(self._log_path, "ab") as log:  # noqa: ASYNC230  (a local file, once per start)
            self._process = await self._spawn(log)

    async def _spawn(self, log: BinaryIO | None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command.guarded_argv(os.getpid()),
            cwd=self.command.cwd,
            env=dict(self.command.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=None if log is None else asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def wait(self) -> int:
        """Wait until the child exits; its code as in `returncode`."""
        return await self._started().wait()

    async def stop(self) -> int | None:
        """Send the stop signal, kill it after `stop_seconds`, and return its code. Does nothing when it has exited."""
        if not self.running:
            return self.returncode
        self.send(self.command.stop_signal)
        try:
            async with asyncio.timeout(self.command.stop_seconds):
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int | None:
        """Kill it and everything in its process group with SIGKILL, and wait for it."""
        if not self.running:
            return self.returncode
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child alone. Does nothing when it has exited."""
        with contextlib.suppress(ProcessLookupError):
            self._started().send_signal(number)

    def last_words(self) -> str:
        """The last line of its log that has text, for a message to the user."""
        if self._log_path is None:
            return "see its output above"
        with contextlib.suppress(FileNotFoundError), open(self._log_path, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return last_line(log.read())
        return ""

    @property
    def log(self) -> str:
        """Where its output is, for a message to the user."""
        return "the lines above" if self._log_path is None else str(self._log_path)

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process


def rotate(log: Path) -> None:
    """Keep the last `LOGS_KEPT` runs: x.log becomes x.log.1, x.log.1 becomes x.log.2, and so on."""
    for number in range(LOGS_KEPT, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        newer = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)


def last_line(output: bytes) -> str:
    """The last line that has text."""
    lines = output.decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


async def run_to_end(argv: tuple[str, ...], cwd: Path, prefix: tuple[str, ...] = ()) -> tuple[int, bytes]:
    """Run a short-lived program; its return code and its output. It is killed when we are cancelled or killed."""
    guarded = ProcessCommand(argv=argv, cwd=cwd, prefix=prefix).guarded_argv(os.getpid())
    process = await asyncio.create_subprocess_exec(
        *guarded,
        cwd=cwd,
        env={"LC_ALL": "C", "TZ": "UTC", "HOME": str(cwd)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return process.returncode or 0, output
