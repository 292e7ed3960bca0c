"""Runs the ranged GETs of one reader: several at once, and few enough that other readers get threads too."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from paquebot.blobs.errors import BlobsUnavailable
from paquebot.blobs.ranges import PackRange
from paquebot.blobs.reading import RangeOutcome

_WORKERS = 4  # threads that one reader uses at once; S3_THREADS are there for all readers
_MAX_TOGETHER = 16  # ranges passed to a thread at once: it reads as many as it can in its turn
_MAX_FAILURES = 4  # in a row; then S3 is away, and trying the rest would take minutes

Done = Callable[[PackRange, RangeOutcome | Exception], None]


class RangeSource(Protocol):
    """`BlobStore`."""

    async def read_ranges(self, ranges: Sequence[PackRange]) -> list[RangeOutcome]:
        """The first of these ranges, at least one."""


class RangeReads:
    """Calls `done` exactly once for each range. Await `run`, or run `work` as `workers` tasks."""

    def __init__(self, source: RangeSource, planned: Sequence[PackRange], done: Done) -> None:
        self._source = source
        self._waiting = deque(planned)
        self._done = done
        self._failures = 0
        self.workers = min(_WORKERS, len(planned))

    async def run(self) -> None:
        """Returns when all ranges are done."""
        if self.workers == 1:
            await self.work()
        else:
            await asyncio.gather(*(self.work() for _ in range(self.workers)))

    async def work(self) -> None:
        """Raises only CancelledError: every failure is an outcome."""
        while self._waiting:
            share = max(1, min(_MAX_TOGETHER, len(self._waiting) // _WORKERS))
            mine = [self._waiting.popleft() for _ in range(share)]
            outcomes = await self._read(mine)
            self._waiting.extendleft(reversed(mine[len(outcomes) :]))
            for wanted, outcome in zip(mine, outcomes, strict=False):
                self._failures = self._failures + 1 if isinstance(outcome, BlobsUnavailable) else 0
                self._done(wanted, outcome)
                if self._failures >= _MAX_FAILURES:
                    self._give_up(outcome)

    async def _read(self, mine: list[PackRange]) -> list[RangeOutcome] | list[Exception]:
        try:
            return await self._source.read_ranges(mine)
        except Exception as error:  # noqa: BLE001 - every waiter must get an outcome
            return [error] * len(mine)

    def _give_up(self, outcome: RangeOutcome | Exception) -> None:
        while self._waiting:
            self._done(self._waiting.popleft(), outcome)
