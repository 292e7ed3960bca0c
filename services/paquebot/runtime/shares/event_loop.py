"""Fair shares of a process's event loop: no client and no account keeps the others waiting.

Everything that a session does on the event loop is measured, step by step, and charged to one party: the client's
address before login, the account after it. A session yields between pipelined commands, and inside long ones after
`SLICE` seconds. A party that used more than its share of the loop waits before its next command or slice, if somebody
was kept waiting for the loop; alone, or while the loop has time for all, it is never slowed. docs/decisions/0018.
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
from paquebot.runtime.settings import Seconds, setting
from paquebot.runtime.shares.in_flight import counted_as

SLICE = 0.002
"""Seconds for which one session may hold the event loop."""
_BURST = 0.5  # seconds of the loop that a party may use at once before its share counts
_DEBT = 2.5  # seconds of the loop that are remembered beyond the burst, so no wait is without end
_RECENT = 2.0  # seconds for which it counts that a party was there, and that somebody waited
_LOG_AGAIN = 60.0  # seconds until the log names a party again
_SWEEP = 1000  # parties that may come before the rested ones are forgotten

BUSY = counter("paquebot_event_loop_session_seconds_total", "Seconds for which sessions held the event loop")
HELD_BACK = counter(
    "paquebot_event_loop_held_back_total", "Waits of sessions whose client or account used more than its share"
)
HELD_BACK_SECONDS = counter("paquebot_event_loop_held_back_seconds_total", "Seconds that such sessions waited")

_log = Log("paquebot.fairness")
T = TypeVar("T")
Party = str | int
"""Who is charged: a client's address, or an account's id."""


@dataclass(frozen=True, slots=True)
class FairnessSettings:
    """Shares of the event loop."""

    share: float = setting("LOOP_SHARE", 0.25, help="least part of the event loop for one client or account")
    lag: Seconds = setting("LOOP_LAG", Seconds(0.01), help="a wait for the event loop above which it is contended")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 < self.share <= 1:
            raise ValueError("PAQUEBOT_LOOP_SHARE is above 0 and at most 1")


class _Use:
    """What a party used: a bucket of seconds of the loop that fills up at the party's share."""

    __slots__ = ("at", "left", "logged_at", "party", "period", "sessions", "turn_at")

    def __init__(self, party: Party, now: float) -> None:
        self.party = party
        self.logged_at = -math.inf
        self.left = _BURST
        self.at = now
        self.sessions = 0
        self.turn_at = now
        self.period = -1  # in which it was seen last


class LoopShares:
    """One per event loop."""

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
        self._uses: dict[Party, _Use] = {}
        self._sweep_at = _SWEEP
        self._late_at = -math.inf
        self._period = 0
        self._period_ends = clock() + _RECENT
        self._parties = self._parties_before = 0
        self._uncounted = 0.0

    def turns(self, client: str) -> "SessionTurns":
        """For a new session, which is charged to the client's address until it belongs to an account."""
        return SessionTurns(self, self._enter(counted_as(client)))

    def _enter(self, party: Party) -> _Use:
        use = self._uses.get(party)
        if use is None:
            if len(self._uses) >= self._sweep_at:
                self._sweep()
            use = self._uses[party] = _Use(party, self.clock())
        use.sessions += 1
        return use

    @property
    def parties(self) -> int:
        """Parties that are remembered."""
        return len(self._uses)

    def _sweep(self) -> None:
        """Forget who has no session and has rested: a party cannot come back to a new bucket before that."""
        rested = self.clock() - (_BURST + _DEBT) / self._share
        self._uses = {party: use for party, use in self._uses.items() if use.sessions or use.at > rested}
        self._sweep_at = 2 * len(self._uses) + _SWEEP

    def move(self, use: _Use, party: Party) -> _Use:
        """A session of another party from now on."""
        use.sessions -= 1
        return self._enter(party)

    def charge(self, use: _Use, began: float) -> float:
        """The party used the loop from `began` until now; the seconds."""
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
        if self._uncounted >= SLICE:  # a counter's own lock costs more than the rest of this
            BUSY.inc(self._uncounted)
            self._uncounted = 0.0
        return used

    def _begin_period(self, now: float) -> None:
        self._parties_before = self._parties if now < self._period_ends + _RECENT else 0
        self._parties = 0
        self._period += 1
        self._period_ends = now + _RECENT

    def _rate(self) -> float:
        """The share of each party: few parties have more than the least."""
        return max(self._share, 1 / max(self._parties, self._parties_before, 1))

    def late(self, seconds: float) -> None:
        """Somebody waited so long for the loop."""
        if seconds >= self._lag:
            self._late_at = self.clock()

    def wait_of(self, use: _Use) -> float:
        """Seconds that a session must wait until its party is within its share; 0 while nobody suffers.

        Sessions of one party get times of their own, or they would all come back at once.
        """
        now, rate = self.clock(), self._rate()
        missing = -(use.left + (now - use.at) * rate)
        if missing <= 0 or now - self._late_at >= _RECENT:
            return 0.0
        if now - use.logged_at >= _LOG_AGAIN:
            use.logged_at = now
            who = {"account_id": use.party} if isinstance(use.party, int) else {"client": use.party}
            _log.warning("held_back", **who)
        at = max(now + missing / rate, use.turn_at)
        use.turn_at = at + SLICE / rate
        return at - now


class SessionTurns:
    """A session's turns on the event loop. Used by its task only."""

    __slots__ = ("_shares", "_step_began", "_use", "_used")

    def __init__(self, shares: LoopShares, use: _Use) -> None:
        self._shares = shares
        self._use = use
        self._step_began = shares.clock()
        self._used = 0.0

    def belongs_to(self, account_id: int) -> None:
        """The session logged in."""
        self._use = self._shares.move(self._use, account_id)

    async def run(self, session: Awaitable[T]) -> T:
        """Run the session to its end, and charge what it does on the loop."""
        _CURRENT.set(self)
        try:
            return await _Measured(session, self)
        finally:
            self._use.sessions -= 1

    def step_begins(self) -> None:
        """The loop resumes the session."""
        self._step_began = self._shares.clock()

    def step_ends(self) -> None:
        """The session waits, or ended."""
        self._used += self._shares.charge(self._use, self._step_began)

    @property
    def due(self) -> bool:
        """Has the session held the loop for its slice?"""
        return self._shares.clock() - self._step_began >= SLICE

    @property
    def used(self) -> float:
        """Seconds for which this session held the loop."""
        return self._used

    def charge(self, seconds: float) -> None:
        """Count so many seconds as used."""
        self._use.left = max(self._use.left - seconds, -_DEBT)

    async def between_commands(self, *, more: bool) -> None:
        """Let others go first. `more`: the next command is here already, so no wait for it lets them."""
        if more or self._use.left < 0:
            await self.next()

    async def next(self) -> None:
        """Go to the end of the queue, and wait there for as long as the party is over its share."""
        shares = self._shares
        began = shares.clock()
        await sleep(0)
        shares.late(shares.clock() - began)
        wait = shares.wait_of(self._use)
        if wait:
            HELD_BACK.inc()
            HELD_BACK_SECONDS.inc(wait)
            await sleep(wait)


_CURRENT: ContextVar[SessionTurns | None] = ContextVar("turns", default=None)


async def give_way() -> None:
    """Inside long work of a session: let others go first if it has held the loop for its slice."""
    turns = _CURRENT.get()
    if turns is not None and turns.due:
        await turns.next()


def charge(seconds: float) -> None:
    """Work that engines do for the session, and others wait for, counts as if it held the loop for so long."""
    turns = _CURRENT.get()
    if turns is not None:
        turns.charge(seconds)


async def in_slices(items: Iterable[T], *, stride: int = 1) -> AsyncIterator[T]:
    """The items; the session gives way between them, which is looked at after every `stride` of them."""
    count = 0
    for item in items:
        yield item
        count += 1
        if count >= stride:
            count = 0
            await give_way()


class _Measured(Generator[Any, Any, T], Generic[T]):
    """An awaitable that awaits another, and tells `SessionTurns` where each of its steps begins and ends."""

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
        raise AssertionError("the event loop sends nothing")

    def throw(self, *error: Any) -> Any:
        self._turns.step_begins()
        try:
            return self._inner.throw(*error)
        finally:
            self._turns.step_ends()

    def close(self) -> None:
        self._inner.close()
