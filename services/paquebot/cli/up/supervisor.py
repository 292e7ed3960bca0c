"""Keeps processes running: one that ends is started again with back-off, as a cluster would do.

Invariant: every process started here ends with the supervisor, by `stop` or, when it is killed itself, by the
kernel's death signal (`engines.process`).
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

_FIRST_DELAY = 0.5
_MAX_DELAY = 30.0
_GOOD_AFTER = 60.0  # a process that lived this long failed anew, not again


@dataclass(slots=True)
class _Kept:
    start: Start
    process: ManagedProcess
    watcher: asyncio.Task[None] | None = None
    ends: int = 0
    code: int = 0
    words: str = ""


@dataclass(slots=True)
class Supervisor:
    """Start processes with `keep`, end them all with `stop`."""

    say: PrintLine
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _stopping: bool = False

    async def keep(self, name: str, start: Start) -> ManagedProcess:
        """Start a process and keep it running. The first start's error is the caller's."""
        process = await start()
        kept = _Kept(start, process)
        self._kept[name] = kept
        kept.watcher = asyncio.create_task(self._watch(name, kept), name=f"watch {name}")
        return process

    async def pause(self, name: str) -> None:
        """Kill `name` as a failing machine would, and leave it away until `resume`."""
        kept = self._kept[name]
        await _unwatch(kept)
        await kept.process.kill()

    async def resume(self, name: str) -> None:
        """Start `name` again after `pause` and keep it running. Raises EngineError, OSError."""
        kept = self._kept[name]
        kept.process = await kept.start()
        kept.watcher = asyncio.create_task(self._watch(name, kept), name=f"watch {name}")

    def pid(self, name: str) -> int:
        """The process id of `name` now."""
        return self._kept[name].process.pid

    def last_end(self, name: str) -> str:
        """How `name` ended the last time, with its last words; empty: it never ended."""
        kept = self._kept[name]
        return f"{exit_text(kept.code)}: {kept.words}" if kept.ends else ""

    async def stop(self, *groups: tuple[str, ...]) -> None:
        """End the named processes, one group after the other, each group at once; then whatever is left."""
        self._stopping = True
        named = {name for group in groups for name in group}
        rest = tuple(name for name in self._kept if name not in named)
        for group in (*groups, rest):
            await asyncio.gather(*(self._end(name) for name in group if name in self._kept))

    async def _end(self, name: str) -> None:
        kept = self._kept.pop(name)
        await _unwatch(kept)
        await kept.process.stop()

    async def _watch(self, name: str, kept: _Kept) -> None:
        delay = _FIRST_DELAY
        while True:
            began = time.monotonic()
            code = await kept.process.wait()
            if self._stopping:
                return
            kept.ends, kept.code, kept.words = kept.ends + 1, code, kept.process.last_words() if code > 0 else ""
            delay = _FIRST_DELAY if time.monotonic() - began > _GOOD_AFTER else delay
            words = f": {kept.words}" if kept.words else ""
            self.say(f"{name} {exit_text(code)}{words}; it starts again in {delay:g} s")
            delay = await self._again(name, kept, delay)

    async def _again(self, name: str, kept: _Kept, delay: float) -> float:
        """Start it, however often that takes; returns the next delay."""
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, _MAX_DELAY)
            try:
                kept.process = await kept.start()
            except (EngineError, OSError) as error:
                self.say(f"{name} cannot start: {error}; next try in {delay:g} s")
                continue
            self.say(f"{name} runs again")
            return delay


async def _unwatch(kept: _Kept) -> None:
    """Its end is meant from now on."""
    if kept.watcher is not None:
        kept.watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await kept.watcher
        kept.watcher = None


def exit_text(code: int) -> str:
    """For a sentence: `was ended by SIGKILL`, `ended with code 1`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
