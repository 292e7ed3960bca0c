"""Fair shares of a process's event loop: no client and no account keeps the others waiting (decision 18).

Every step of a session on the event loop is measured and charged to one party: the client's address before login, the
account after it. A session yields between pipelined commands, and inside long ones after `SLICE` seconds. While the
loop is contended, a party that used more than its share waits before its next command or slice. A party that is alone
is never slowed.
"""

import math
import time
from asyncio import sleep
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from paquebot.observability.log import Log
from paquebot.observability.metrics import counter
from paquebot.runtime.net.client_keys import client_keys
from paquebot.runtime.settings import Seconds, setting

SLICE = 0.002
"""Seconds of the event loop that a session may use without yielding."""
_BURST = 0.5  # seconds of the loop that a party may use at once before its share limits it
_DEBT = 2.5  # seconds of the loop that are remembered beyond the burst, so no wait is without end
_RECENT = 2.0  # seconds for which a party counts as present, and a late turn as contention
_LOG_AGAIN = 60.0  # seconds until the log names a party again
_SWEEP = 1000  # new parties until those at rest are forgotten

BUSY = counter("paquebot_event_loop_session_seconds_total", "Seconds of the event loop that sessions used")
THROTTLED = counter(
    "paquebot_event_loop_throttled_total",
    "Waits of sessions whose client or account had used more than its share",
)
THROTTLED_SECONDS = counter("paquebot_event_loop_throttled_seconds_total", "Seconds of such waits")

_log = Log("paquebot.fairness")
T = TypeVar("T")
Party = str | int
"""A client's key (`client_keys`), or an account's id."""


@dataclass(frozen=True, slots=True)
class FairnessSettings:
    """Shares of the event loop."""

    share: float = setting("LOOP_SHARE", 0.25, help="minimum part of the event loop for one client or account")
    lag: Seconds = setting("LOOP_LAG", Seconds(0.01), help="wait for the event loop above which it is contended")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 < self.share <= 1:
            raise ValueError("PAQUEBOT_LOOP_SHARE must be above 0 and at most 1")


class _Usage:
    """A party's token bucket: seconds of the loop, which fills at the party's share."""

    __slots__ = ("at", "left", "logged_at", "party", "period", "sessions", "turn_at")

    def __init__(self, party: Party, now: float) -> None:
        self.party = party
        self.logged_at = -math.inf
        self.left = _BURST
        self.at = now
        self.sessions = 0
        self.turn_at = now
        self.period = -1  # the last one in which it used the loop


class LoopShares:
    """One for an event loop."""

    def __init__(
        self,
        settings: FairnessSettings | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        settings = settings or FairnessSettings()
        self._share = settings.share
        self._lag = settings.lag
        self.clock = clock
        self._uses: dict[Party, _Usage] = {}
        self._sweep_at = _SWEEP
        self._contended_at = -math.inf
        self._period = 0
        self._period_ends = clock() + _RECENT
        self._parties = self._parties_before = 0
        self._uncounted = 0.0

    def turns(self, client: str) -> "SessionTurns":
        """The turns of a new session, which is charged to the client until it belongs to an account."""
        return SessionTurns(self, self._enter(client_keys(client).client))

    def _enter(self, party: Party) -> _Usage:
        use = self._uses.get(party)
        if use is None:
            if len(self._uses) >= self._sweep_at:
                self._sweep()
            use = self._uses[party] = _Usage(party, self.clock())
        use.sessions += 1
        return use

    @property
    def parties(self) -> int:
        """Parties that are remembered."""
        return len(self._uses)

    def _sweep(self) -> None:
        """Forget parties without sessions whose buckets are full: forgetting them gives them nothing."""
        rested = self.clock() - (_BURST + _DEBT) / self._share
        self._uses = {party: use for party, use in self._uses.items() if use.sessions or use.at > rested}
        self._sweep_at = 2 * len(self._uses) + _SWEEP

    def move(self, use: _Usage, party: Party) -> _Usage:
        """A session belongs to `party` from now on."""
        use.sessions -= 1
        return self._enter(party)

    def charge(self, use: _Usage, began: float) -> float:
        """Charge the time from `began` until now; returns the seconds."""
        now = self.clock()
        used = now - began
        if now >= self._period_ends:
            self._begin_period(now)
        if use.period != self._period:
            use.period = self._period
            self._parties += 1
        left = min(_BURST, use.left + (now - use.at) * self._rate()) - used
        use.left = max(left, -_DEBT)
        use.at = now
        self._uncounted += used
        if self._uncounted >= SLICE:  # the counter's lock costs more than the rest of this method
            BUSY.inc(self._uncounted)
            self._uncounted = 0.0
        return used

    def _begin_period(self, now: float) -> None:
        self._parties_before = self._parties if now < self._period_ends + _RECENT else 0
        self._parties = 0
        self._period += 1
        self._period_ends = now + _RECENT

    def _rate(self) -> float:
        """The share of each party: more than the minimum while there are few."""
        return max(self._share, 1 / max(self._parties, self._parties_before, 1))

    def note_wait(self, seconds: float) -> None:
        """A session waited `seconds` for the loop."""
        if seconds >= self._lag:
            self._contended_at = self.clock()

    def wait_of(self, use: _Usage) -> float:
        """Seconds that a session must wait until its party is within its share; 0 while the loop is not contended.

        Each session of a party gets a time of its own, or all would resume at once.
        """
        now, rate = self.clock(), self._rate()
        missing = -(use.left + (now - use.at) * rate)
        if missing <= 0 or now - self._contended_at >= _RECENT:
            return 0.0
        if now - use.logged_at >= _LOG_AGAIN:
            use.logged_at = now
            party = {"account_id": use.party} if isinstance(use.party, int) else {"client": use.party}
            _log.warning("session_throttled", **party)
        at = max(now + missing / rate, use.turn_at)
        use.turn_at = at + SLICE / rate
        return at - now


class SessionTurns:
    """The turns of one session on the event loop. For its task only."""

    __slots__ = ("_shares", "_step_began", "_use", "_used")

    def __init__(self, shares: LoopShares, use: _Usage) -> None:
        self._shares = shares
        self._use = use
        self._step_began = shares.clock()
        self._used = 0.0

    def belongs_to(self, account_id: int) -> None:
        """The session logged in."""
        self._use = self._shares.move(self._use, account_id)

    async def run(self, session: Awaitable[T]) -> T:
        """Run the session to its end and charge each of its steps."""
        _CURRENT.set(self)
        try:
            return await _Measured(session, self)
        finally:
            self._use.sessions -= 1

    def step_begins(self) -> None:
        """The event loop resumes the session."""
        self._step_began = self._shares.clock()

    def step_ends(self) -> None:
        """The session waits or has ended."""
        self._used += self._shares.charge(self._use, self._step_began)

    @property
    def is_slice_used(self) -> bool:
        """Has the session used its slice?"""
        return self._shares.clock() - self._step_began >= SLICE

    @property
    def used(self) -> float:
        """Seconds of the loop that this session used."""
        return self._used

    def charge(self, seconds: float) -> None:
        """Charge `seconds` to the party."""
        self._use.left = max(self._use.left - seconds, -_DEBT)

    async def between_commands(self, *, more: bool) -> None:
        """Yield. `more`: the next command was received already, so the session would not wait for it."""
        if more or self._use.left < 0:
            await self.next()

    async def next(self) -> None:
        """Yield, then wait for as long as the party is over its share."""
        shares = self._shares
        began = shares.clock()
        await sleep(0)
        shares.note_wait(shares.clock() - began)
        wait = shares.wait_of(self._use)
        if wait:
            THROTTLED.inc()
            THROTTLED_SECONDS.inc(wait)
            await sleep(wait)


_CURRENT: ContextVar[SessionTurns | None] = ContextVar("turns", default=None)


async def give_way() -> None:
    """Inside long work of a session: yield if it has used its slice."""
    turns = _CURRENT.get()
    if turns is not None and turns.is_slice_used:
        await turns.next()


def charge(seconds: float) -> None:
    """Charge `seconds` to the current session for an engine's work that makes others wait."""
    turns = _CURRENT.get()
    if turns is not None:
        turns.charge(seconds)


async def in_slices(items: Iterable[T], *, stride: int = 1) -> AsyncIterator[T]:
    """The items. After every `stride` of them the session yields if it has used its slice."""
    count = 0
    for item in items:
        yield item
        count += 1
        if count >= stride:
            count = 0
            await give_way()


class _Measured(Generator[Any, Any, T], Generic[T]):
    """An awaitable that awaits another and reports the start and end of each step to `SessionTurns`."""

    __slots__ = ("_inner", "_turns")

    def __init__(self, inner: Awaitable[T], turns: SessionTurns) -> None:
        self._inner = inner.__await__()
        self._turns = turns

    def __await__(self) -> "Generator[Any, Any, T]":
        return self

    def __next__(self) -> Any:
        self._turns.step_begins()
        try:
            return next(self._inner)
        finally:
            self._turns.step_ends()

    def send(self, value: Any) -> Any:
        if value is None:
            return self.__next__()
        raise AssertionError("the event loop sends None only")

    def throw(self, *error: Any) -> Any:
        self._turns.step_begins()
        try:
            return self._inner.throw(*error)
        finally:
            self._turns.step_ends()

    def close(self) -> None:
        self._inner.close()
