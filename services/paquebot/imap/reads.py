"""The requests of one window under way: several at once, and few enough that other sessions get theirs."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from paquebot.blobs import BlobStore, BlobsUnavailable
from paquebot.blobs.spans import Span
from paquebot.blobs.store import SpanOutcome

LANES = 4  # threads that one window keeps busy; S3_THREADS are there for all sessions
_TOGETHER = 16  # spans handed to a thread at once: it reads as many as it can in its turn
_ENOUGH = 4  # failures in a row after which S3 is away: to try what is left would take minutes

Done = Callable[[Span, SpanOutcome | Exception], None]


class Reads:
    """`run` reads every span, in order as far as lanes allow, and calls `done` for each exactly once."""

    def __init__(self, blobs: BlobStore, planned: Iterable[Span], done: Done) -> None:
        self._blobs = blobs
        self._waiting = deque(planned)
        self._done = done
        self._failures = 0

    async def run(self) -> None:
        """Raises nothing but cancellation: what goes wrong is an outcome."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(LANES, len(self._waiting))):
                lanes.create_task(self._lane())

    async def _lane(self) -> None:
        while self._waiting:
            share = max(1, min(_TOGETHER, len(self._waiting) // LANES))
            mine = [self._waiting.popleft() for _ in range(share)]
            outcomes = await self._read(mine)
            self._waiting.extendleft(reversed(mine[len(outcomes) :]))
            for span, outcome in zip(mine, outcomes, strict=False):
                self._failures = self._failures + 1 if isinstance(outcome, BlobsUnavailable) else 0
                self._done(span, outcome)
                if self._failures >= _ENOUGH:
                    self._give_up(outcome)

    async def _read(self, mine: list[Span]) -> list[SpanOutcome] | list[Exception]:
        try:
            return await self._blobs.read_spans(mine)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            return [error] * len(mine)

    def _give_up(self, outcome: SpanOutcome | Exception) -> None:
        while self._waiting:
            self._done(self._waiting.popleft(), outcome)
