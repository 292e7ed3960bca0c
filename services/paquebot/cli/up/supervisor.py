"""Keeps processes running: restarts one that exits, with back-off, as a cluster does.

Invariant: no process outlives the supervisor. `stop` stops them all, and when the supervisor is killed, the kernel's
death signal does (`engines.process`).
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from paquebot.cli.engines.engine import EngineError
from paquebot.cli.engines.process import ManagedProcess

Start = Callable[[], Awaitable[ManagedProcess]]
PrintLine = Callable[[str], None]
"""Prints one line for the user."""

_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
_STABLE_SECONDS = 60.0  # after a run of this length the back-off starts from the beginning


@dataclass(slots=True)
class _Supervised:
    start: Start
    process: ManagedProcess
    watcher: asyncio.Task[None] | None = None
    exits: int = 0
    code: int = 0
    """Of the last exit."""
    words: str = ""
    """The last line of its log at the last exit."""


@dataclass(slots=True)
class Supervisor:
    """Starts processes with `keep_running` and stops them all with `stop`."""

    say: PrintLine
    _supervised: dict[str, _Supervised] = field(default_factory=dict)
    _stopping: bool = False

    async def keep_running(self, name: str, start: Start) -> ManagedProcess:
        """Start a process and keep it running. Raises what the first start raises."""
        process = await start()
        kept = _Supervised(start, process)
        self._supervised[name] = kept
        kept.watcher = asyncio.create_task(self._watch(name, kept), name=f"watch {name}")
        return process

    async def pause(self, name: str) -> None:
        """Kill `name` as a failing machine would, and do not restart it until `resume`."""
        kept = self._supervised[name]
        await _unwatch(kept)
        await kept.process.kill()

    async def resume(self, name: str) -> None:
        """Start `name` again after `pause` and keep it running. Raises EngineError, OSError."""
        kept = self._supervised[name]
        kept.process = await kept.start()
        kept.watcher = asyncio.create_task(self._watch(name, kept), name=f"watch {name}")

    def pid(self, name: str) -> int:
        """The process id of `name` now."""
        return self._supervised[name].process.pid

    def last_exit(self, name: str) -> str:
        """How `name` exited the last time, with the last line of its log; empty: it never exited."""
        kept = self._supervised[name]
        return f"{exit_text(kept.code)}: {kept.words}" if kept.exits else ""

    async def stop(self, *groups: tuple[str, ...]) -> None:
        """Stop the named processes, one group after the other, each group at once; then the others."""
        self._stopping = True
        named = {name for group in groups for name in group}
        rest = tuple(name for name in self._supervised if name not in named)
        for group in (*groups, rest):
            await asyncio.gather(*(self._stop(name) for name in group if name in self._supervised))

    async def _stop(self, name: str) -> None:
        kept = self._supervised.pop(name)
        await _unwatch(kept)
        await kept.process.stop()

    async def _watch(self, name: str, kept: _Supervised) -> None:
        delay = _FIRST_DELAY
        while True:
            began = time.monotonic()
            code = await kept.process.wait()
            if self._stopping:
                return
            kept.exits, kept.code, kept.words = kept.exits + 1, code, kept.process.last_words() if code > 0 else ""
            delay = _FIRST_DELAY if time.monotonic() - began > _STABLE_SECONDS else delay
            words = f": {kept.words}" if kept.words else ""
            self.say(f"{name} {exit_text(code)}{words}; restarting in {delay:g} s")
            delay = await self._restart(name, kept, delay)

    async def _restart(self, name: str, kept: _Supervised, delay: float) -> float:
        """Start it, trying until it succeeds; returns the next delay."""
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY)
            try:
                kept.process = await kept.start()
            except (EngineError, OSError) as error:
                self.say(f"{name} cannot start: {error}; trying again in {delay:g} s")
                continue
            self.say(f"{name} restarted")
            return delay


async def _unwatch(kept: _Supervised) -> None:
    """Stop watching it, before it is stopped on purpose."""
    if kept.watcher is not None:
        kept.watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await kept.watcher
        kept.watcher = None


def exit_text(code: int) -> str:
    """For a sentence: `was killed by SIGKILL`, `exited with code 1`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"
