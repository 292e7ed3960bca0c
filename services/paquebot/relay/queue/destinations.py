"""Attempts by destination and by sender: fair turns, a share of the slots for each, and a rest for destinations that
cannot be reached.

A slot is an attempt under way. A destination that answered lately is proven; all others together have only a part of
the slots, and each of them few, so that a thousand silent ones leave room for those that work. A long attempt
gives its slot back and counts as slow from then on, within its own bound. A destination that failed gets a single
attempt after its rest; one success brings back its whole concurrency, each further failure doubles the rest.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from paquebot.relay.outcome import RelayOutcome
from paquebot.relay.settings import RelayLoadSettings, RetrySettings

T = TypeVar("T")
_MAX_FAILURES = 16
_MAX_KNOWN = 20_000
_MIN_CROWDED_SECONDS, _MAX_CROWDED_SECONDS = 2.0, 900.0
_MIN_UNPROVEN_SECONDS = 5.0
_PACE, _UNPROVEN_PACE = 0.05, 1.0  # seconds
_SMOOTH = 0.05


@dataclass(slots=True)
class _Destination(Generic[T]):
    waiting: OrderedDict[str, deque[T]] = field(default_factory=OrderedDict)  # by sender, first the next one
    count: int = 0  # of waiting attempts
    running: int = 0  # slow ones too
    slow: int = 0
    crowd: int = 0  # jobs put back because enough waited
    pace: float = _PACE  # seconds between two ends of attempts, smoothed, while more waited
    ended_at: float = 0.0
    failures: int = 0
    rests_until: float = 0.0
    busy_until: float = 0.0
    last: RelayOutcome | None = None


@dataclass(slots=True, eq=False)
class AttemptSlot(Generic[T]):
    """An attempt that has begun. `unproven`: in a slot for destinations that have not answered lately."""

    key: str
    sender: str
    attempt: T
    unproven: bool
    slow: bool = False


class Destinations(Generic[T]):
    """`clock`: Unix seconds, for jobs are scheduled for the end of a rest."""

    def __init__(self, load: RelayLoadSettings, retry: RetrySettings, clock: Callable[[], float]) -> None:
        self._load = load
        self._retry = retry
        self._clock = clock
        self._known: OrderedDict[str, _Destination[T]] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()
        self._turns: deque[str] = deque()  # destinations with waiting attempts, each once
        self._waiting_by_sender: Counter[str] = Counter()
        self._running_by_sender: Counter[str] = Counter()
        self.waiting = 0
        self.unproven_waiting = 0
        self.running = 0
        """Without slow ones."""
        self.unproven_running = 0
        self.slow = 0

    # --- waiting ---

    def add(self, key: str, sender: str, attempt: T, *, first: bool = False) -> bool:
        """Queue an attempt. False: the destination or the sender has enough waiting (`crowded_for`).
        `first`: the destination has the next turn if nothing of it waits yet."""
        found = self._known.setdefault(key, _Destination())
        if not self._has_room(key, found, sender):
            found.crowd += 1
            return False
        if not found.count:
            (self._turns.appendleft if first else self._turns.append)(key)
        found.waiting.setdefault(sender, deque()).append(attempt)
        self._count_waiting(key, found, sender, 1)
        return True

    def _has_room(self, key: str, found: _Destination[T], sender: str) -> bool:
        if self._waiting_by_sender[sender] >= self._load.waiting_per_sender:
            return False
        limit = self._load.waiting_per_destination
        idle = not (found.count or found.running)
        left = self._load.waiting - self.waiting
        if left <= self._load.waiting // 4:  # a few slow ones would fill all places together, and stop the claiming
            limit = min(limit, max(left // 8, int(idle)))
        if key not in self._proven:
            if self.unproven_waiting >= self._load.waiting // 4:  # many unproven ones wait: a few attempts of each
                limit = min(limit, self._load.waiting_per_new_destination)
            # A new destination finds room beside the second jobs of others.
            if self.unproven_waiting >= (self._load.waiting if idle else self._load.waiting // 2):
                return False
        # A sender without a waiting attempt finds room beside another sender's many.
        return found.count < limit or (sender not in found.waiting and found.count < 2 * limit)

    def _count_waiting(self, key: str, found: _Destination[T], sender: str, number: int) -> None:
        found.count += number
        self.waiting += number
        if key not in self._proven:
            self.unproven_waiting += number
        _count(self._waiting_by_sender, sender, number)

    def crowded_for(self, key: str) -> float:
        """Seconds after which an attempt that was not queued should return: when the destination, at its present
        pace, has finished the attempts before it; so a long queue neither circulates nor stays idle."""
        found = self._known[key]
        proven = key in self._proven
        pace = found.pace if proven else max(found.pace, _UNPROVEN_PACE)
        minimum = _MIN_CROWDED_SECONDS if proven else _MIN_UNPROVEN_SECONDS
        return min(_MAX_CROWDED_SECONDS, max(minimum, (found.count + found.crowd) * pace))

    # --- turns ---

    def next(self) -> AttemptSlot[T] | None:
        """The next attempt that may begin now, destination by destination and sender by sender in turn; call `done`
        at its end."""
        if self.running >= self._load.attempts:
            return None
        for _ in range(len(self._turns)):
            key = self._turns.popleft()
            found = self._known[key]
            sender = self._sender(found) if self._may_begin(key, found) else None
            if sender is None:
                self._turns.append(key)
                continue
            slot = self._begin(key, found, sender)
            if found.count:
                self._turns.append(key)
            return slot
        return None

    def _may_begin(self, key: str, found: _Destination[T]) -> bool:
        if key not in self._proven and self.unproven_running >= self._load.unproven:
            return False
        return found.running < self._limit(key, found)

    def _limit(self, key: str, found: _Destination[T]) -> int:
        # An attempt for a resting destination makes no connection: it is only scheduled again.
        if found.failures > 0 and self._clock() >= found.rests_until:
            return 1
        if key in self._proven or found.failures:
            return self._load.per_destination
        return min(self._load.per_new_destination, self._load.per_destination)

    def _sender(self, found: _Destination[T]) -> str | None:
        """The sender with the next turn at the destination, of those with a share left."""
        limit = self._load.per_sender
        return next((sender for sender in found.waiting if self._running_by_sender[sender] < limit), None)

    def _begin(self, key: str, found: _Destination[T], sender: str) -> AttemptSlot[T]:
        attempts = found.waiting.pop(sender)
        slot = AttemptSlot(key, sender, attempts.popleft(), unproven=key not in self._proven)
        if attempts:
            found.waiting[sender] = attempts  # behind the others
        self._count_waiting(key, found, sender, -1)
        found.running += 1
        self._count_slot(slot, 1)
        return slot

    def _count_slot(self, slot: AttemptSlot[T], number: int) -> None:
        self.running += number
        if slot.unproven:
            self.unproven_running += number
        _count(self._running_by_sender, slot.sender, number)

    def slowed(self, slot: AttemptSlot[T]) -> bool:
        """The attempt is slow: its slot is free for others. False: too many are slow, and nothing changed."""
        if self.slow >= self._load.slow:
            return False
        slot.slow = True
        self._count_slot(slot, -1)
        self.slow += 1
        self._known[slot.key].slow += 1
        return True

    def done(self, slot: AttemptSlot[T]) -> None:
        """An attempt that `next` gave has ended."""
        found = self._known[slot.key]
        found.running -= 1
        if slot.slow:
            self.slow -= 1
            found.slow -= 1
        else:
            self._count_slot(slot, -1)
        found.crowd = max(0, found.crowd - 1)
        now = self._clock()
        if found.count and found.ended_at:
            found.pace += _SMOOTH * (min(now - found.ended_at, 60.0) - found.pace)
        found.ended_at = now
        if not (found.running or found.count or found.failures or found.busy_until > now):
            del self._known[slot.key]
        while len(self._known) > _MAX_KNOWN and self._forget_one():
            pass

    def _forget_one(self) -> bool:
        for key, found in self._known.items():
            if not (found.running or found.count):
                del self._known[key]
                return True
        return False

    # --- one destination ---

    def resting(self, key: str) -> tuple[float, RelayOutcome] | None:
        """Until when the destination rests, and why; None: it does not."""
        found = self._known.get(key)
        if found is None or found.last is None or self._clock() >= found.rests_until:
            return None
        return found.rests_until, found.last

    def busy_until(self, key: str) -> float:
        """The time until which its hosts have their maximum of attempts; 0: they do not."""
        found = self._known.get(key)
        return found.busy_until if found is not None and self._clock() < found.busy_until else 0.0

    def is_proven(self, key: str) -> bool:
        """It answered lately."""
        return key in self._proven

    def is_idle(self, key: str) -> bool:
        """No job of it is claimed, and it neither rests nor is busy."""
        found = self._known.get(key)
        if found is None:
            return True
        return not (found.running or found.count or self._clock() < max(found.rests_until, found.busy_until))

    def answered(self, key: str) -> None:
        """A host of the destination replied, and soon."""
        found = self._known[key]
        found.failures, found.rests_until, found.last = 0, 0.0, None
        if key not in self._proven:
            self.unproven_waiting -= found.count
            found.pace = _PACE
        self._proven[key] = None
        self._proven.move_to_end(key)
        while len(self._proven) > _MAX_KNOWN:
            self._disprove(next(iter(self._proven)))

    def _disprove(self, key: str) -> None:
        if key in self._proven:
            del self._proven[key]
            found = self._known.get(key)
            self.unproven_waiting += found.count if found is not None else 0

    def hung(self, key: str) -> None:
        """Hosts of the destination replied, but slowly."""
        self._known[key].failures = 0
        self._disprove(key)

    def unreachable(self, key: str, why: RelayOutcome) -> None:
        """No host of the destination could be reached. Attempts that failed together count as one."""
        found = self._known[key]
        self._disprove(key)
        if self._clock() < found.rests_until:
            return
        found.failures = min(found.failures + 1, _MAX_FAILURES)
        rest = min(self._retry.back_off * 2 ** (found.failures - 1), self._retry.back_off_max)
        found.rests_until = self._clock() + rest
        found.last = why
        self._known.move_to_end(key)

    def busy(self, key: str, seconds: float) -> None:
        """The hosts of the destination have their maximum of attempts."""
        self._known[key].busy_until = self._clock() + seconds

    # --- all destinations ---

    def take_waiting(self) -> Iterator[T]:
        """All waiting attempts; they are no longer queued then."""
        while self._turns:
            key = self._turns.popleft()
            found = self._known[key]
            for sender, attempts in list(found.waiting.items()):
                self._count_waiting(key, found, sender, -len(attempts))
                yield from found.waiting.pop(sender)

    def waiting_by_key(self) -> dict[str, int]:
        """The number of waiting attempts by destination, where there are any."""
        return {key: found.count for key, found in self._known.items() if found.count}

    def resting_keys(self) -> frozenset[str]:
        """The destinations that rest now."""
        now = self._clock()
        return frozenset(key for key, found in self._known.items() if now < found.rests_until)

    def counts(self) -> dict[str, int]:
        """The number of destinations with attempts, of those with a slow one, and of those that rest."""
        active = sum(bool(found.running) for found in self._known.values())
        slow = sum(bool(found.slow) for found in self._known.values())
        return {"active": active, "slow": slow, "resting": len(self.resting_keys())}


def _count(counter: Counter[str], name: str, number: int) -> None:
    """A name whose count is 0 is not kept."""
    counter[name] += number
    if not counter[name]:
        del counter[name]
