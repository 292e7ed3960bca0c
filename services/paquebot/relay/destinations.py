"""Work by destination: fair turns, a bound of concurrency for each, and a rest for one that cannot be reached.

A destination that failed gets a single attempt after its rest; one success brings back its whole concurrency, each
further failure doubles the rest. Nothing is kept of a destination that has no work and no failure.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from paquebot.relay.result import Result
from paquebot.relay.settings import LoadSettings, RetrySettings

T = TypeVar("T")
_MOST_FAILURES = 16
_REMEMBERED = 20_000
_CROWDED_LEAST_SECONDS, _CROWDED_MOST_SECONDS = 2.0, 900.0
_SMOOTH = 0.05


@dataclass(slots=True)
class _Destination(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    running: int = 0
    crowd: int = 0  # jobs sent away because enough waited
    pace: float = 0.05  # seconds from one end of work to the next, smoothed, while more waited
    ended_at: float = 0.0
    failures: int = 0
    rests_until: float = 0.0
    last: Result | None = None


class Destinations(Generic[T]):
    """`clock`: Unix seconds, for the end of a rest is when jobs are scheduled for."""

    def __init__(self, load: LoadSettings, retry: RetrySettings, clock: Callable[[], float]) -> None:
        self._load = load
        self._retry = retry
        self._clock = clock
        self._known: OrderedDict[str, _Destination[T]] = OrderedDict()
        self._turns: deque[str] = deque()  # destinations with waiting work, each once
        self.waiting = 0
        self.running = 0

    def add(self, key: str, work: T) -> bool:
        """Queue work; False: the destination has enough waiting, nothing was queued (see `crowded_for`)."""
        found = self._known.setdefault(key, _Destination())
        if len(found.waiting) >= self._load.waiting_per_destination:
            found.crowd += 1
            return False
        if not found.waiting:
            self._turns.append(key)
        found.waiting.append(work)
        self.waiting += 1
        return True

    def crowded_for(self, key: str) -> float:
        """Seconds after which work that was not queued should come again: when the destination will have done, at
        its present pace, what is before it; so a long queue neither goes round and round nor lies idle."""
        found = self._known[key]
        ahead = (len(found.waiting) + found.crowd) * found.pace
        return min(_CROWDED_MOST_SECONDS, max(_CROWDED_LEAST_SECONDS, ahead))

    def next(self) -> tuple[str, T] | None:
        """The next work that may begin now, destination by destination in turn; then call `done` for it."""
        if self.running >= self._load.attempts:
            return None
        for _ in range(len(self._turns)):
            key = self._turns.popleft()
            found = self._known[key]
            if found.running >= self._limit(found):
                self._turns.append(key)
                continue
            work = found.waiting.popleft()
            if found.waiting:
                self._turns.append(key)
            found.running += 1
            self.running += 1
            self.waiting -= 1
            return key, work
        return None

    def _limit(self, found: _Destination[T]) -> int:
        # Work for a resting destination makes no connection: it is only scheduled again.
        probing = found.failures > 0 and self._clock() >= found.rests_until
        return 1 if probing else self._load.per_destination

    def done(self, key: str) -> None:
        """Work that `next` gave has ended."""
        found = self._known[key]
        found.running -= 1
        found.crowd = max(0, found.crowd - 1)
        now = self._clock()
        if found.waiting and found.ended_at:
            found.pace += _SMOOTH * (min(now - found.ended_at, 60.0) - found.pace)
        found.ended_at = now
        self.running -= 1
        if not (found.running or found.waiting or found.failures):
            del self._known[key]
        while len(self._known) > _REMEMBERED and self._forget_one():
            pass

    def _forget_one(self) -> bool:
        for key, found in self._known.items():
            if not (found.running or found.waiting):
                del self._known[key]
                return True
        return False

    def resting(self, key: str) -> tuple[float, Result] | None:
        """Until when not to try the destination, and what was wrong; None: try."""
        found = self._known.get(key)
        if found is None or found.last is None or self._clock() >= found.rests_until:
            return None
        return found.rests_until, found.last

    def reached(self, key: str) -> None:
        """A host of the destination spoke with us."""
        found = self._known[key]
        found.failures, found.rests_until, found.last = 0, 0.0, None

    def unreachable(self, key: str, why: Result) -> None:
        """No host of the destination could be reached. Attempts that were under way together count as one."""
        found = self._known[key]
        if self._clock() < found.rests_until:
            return
        found.failures = min(found.failures + 1, _MOST_FAILURES)
        rest = min(self._retry.back_off * 2 ** (found.failures - 1), self._retry.back_off_most)
        found.rests_until = self._clock() + rest
        found.last = why
        self._known.move_to_end(key)

    def take_waiting(self) -> Iterator[T]:
        """All that waits, which is then no longer queued."""
        while self._turns:
            found = self._known[self._turns.popleft()]
            while found.waiting:
                self.waiting -= 1
                yield found.waiting.popleft()

    def waiting_by_key(self) -> dict[str, int]:
        """How much waits, destination by destination, where anything does."""
        return {key: len(found.waiting) for key, found in self._known.items() if found.waiting}

    def resting_keys(self) -> frozenset[str]:
        """The destinations that are left alone now."""
        now = self._clock()
        return frozenset(key for key, found in self._known.items() if now < found.rests_until)

    def counts(self) -> dict[str, int]:
        """How many destinations are at work, and how many rest."""
        active = sum(bool(found.running) for found in self._known.values())
        return {"active": active, "resting": len(self.resting_keys())}
