"""The requests of one window under way: several at once, and few enough that other sessions get theirs."""

from collections import deque
from collections.abc import Callable, Sequence

from paquebot.blobs import BlobStore, BlobsUnavailable
from paquebot.blobs.ranges import PackRange
from paquebot.blobs.store import RangeOutcome

_LANES = 4  # threads that one window keeps busy; S3_THREADS are there for all sessions
_TOGETHER = 16  # spans handed to a thread at once: it reads as many as it can in its turn
_ENOUGH = 4  # failures in a row after which S3 is away: to try what is left would take minutes

Done = Callable[[PackRange, RangeOutcome | Exception], None]


class RangeReads:
    """Run `lane` as so many tasks as `lanes` says: together they call `done` for each span exactly once."""

    def __init__(self, blobs: BlobStore, planned: Sequence[PackRange], done: Done) -> None:
        self._blobs = blobs
        self._waiting = deque(planned)
        self._done = done
        self._failures = 0
        self.lanes = min(_LANES, len(planned))

    async def lane(self) -> None:
        """Raises nothing but cancellation: what goes wrong is an outcome."""
        while self._waiting:
            share = max(1, min(_TOGETHER, len(self._waiting) // _LANES))
            mine = [self._waiting.popleft() for _ in range(share)]
            outcomes = await self._read(mine)
            self._waiting.extendleft(reversed(mine[len(outcomes) :]))
            for span, outcome in zip(mine, outcomes, strict=False):
                self._failures = self._failures + 1 if isinstance(outcome, BlobsUnavailable) else 0
                self._done(span, outcome)
                if self._failures >= _ENOUGH:
                    self._give_up(outcome)

    async def _read(self, mine: list[PackRange]) -> list[RangeOutcome] | list[Exception]:
        try:
            return await self._blobs.read_ranges(mine)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            return [error] * len(mine)

    def _give_up(self, outcome: RangeOutcome | Exception) -> None:
        while self._waiting:
            self._done(self._waiting.popleft(), outcome)
