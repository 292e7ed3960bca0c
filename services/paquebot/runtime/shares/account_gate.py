"""A gate whose room accounts share: none may hold, or wait for, more than its share, however many sessions it has.

So in the gate's line at most a share of each account stands before anybody, and an account that holds much waits for
itself alone. A part of the room is for reservations of few bytes: a long message needs nearly all of the rest, and
whoever stands behind it in a line waits for everybody who reads slowly before it.
"""

import asyncio
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Gauge

from paquebot.runtime.shares.gate import ByteGate
from paquebot.runtime.shares.in_flight import OverBudget

_FEW = 8  # the part of `few` that one reservation of few bytes has at most
_FEW_OF_ACCOUNT = 4  # the part of `few` that an account has at most
_PATIENCE = 30.0  # seconds that a reader may hold anything, while others wait
_RATE = 256 * 1024  # bytes a second, for which it gets more
_NEXT = 1.0  # seconds from the end of one late reader to that of the next


@dataclass(slots=True, eq=False)
class _Room:
    """Bytes with a line of their own."""

    gate: ByteGate
    limit: int
    share: int
    """Of an account."""
    _holds: "dict[AccountReservation, None]" = field(default_factory=dict)
    """That may be ended when they are late."""
    _waiting: int = 0
    _timer: asyncio.TimerHandle | None = None
    _timer_at: float = 0.0
    _not_before: float = 0.0
    """When the next late reader may be ended: the last one's bytes come back in a moment."""

    async def take(self, octets: int) -> None:
        if self.gate.try_take(octets):
            return
        self._waiting += 1
        self._look_later()
        try:
            await self.gate.take(octets)
        finally:
            self._waiting -= 1

    def give_back(self, own: ByteGate, before: int, after: int) -> None:
        """A reservation of `before` bytes becomes one of `after`. What is longer than a limit counts there as it."""
        for gate, limit in ((own, self.share), (self.gate, self.limit)):
            gate.give_back(min(before, limit) - min(after, limit))

    def watch(self, hold: "AccountReservation") -> None:
        self._holds[hold] = None
        if self._waiting:
            self._look_later()

    def forget(self, hold: "AccountReservation") -> None:
        self._holds.pop(hold, None)

    def _look_later(self) -> None:
        if not self._holds:
            return
        at = max(self._not_before, min(hold.due for hold in self._holds))
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._look), at

    def _look(self) -> None:
        """Somebody waits: end the largest of those who are late."""
        self._timer = None
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        late = [hold for hold in self._holds if hold.due <= now]
        if late:
            largest = max(late, key=lambda hold: hold.octets)
            self.forget(largest)
            self._not_before = now + _NEXT
            largest.end()
        self._look_later()


@dataclass(slots=True, weakref_slot=True, eq=False)
class AccountShare:
    """One account's."""

    _shares: "AccountShares"
    _own: dict[_Room, ByteGate]

    @property
    def used(self) -> int:
        return sum(own.used for own in self._own.values())

    async def take(self, octets: int, seconds: float | None = None) -> "AccountReservation":
        """Reserve, after those of the account, and then of all, who asked before. Raises OverBudget after `seconds`.

        Who waits in the second line holds nothing there, and who holds waits for nobody: no two wait for each other, as
        long as a reader asks for a second reservation only by `try_take`.
        """
        room = self._shares.room_for(octets)
        own = self._own[room]
        try:
            async with asyncio.timeout(seconds):
                await own.take(octets)
                try:
                    await room.take(octets)
                except BaseException:
                    own.give_back(octets)
                    raise
        except TimeoutError:
            raise OverBudget from None
        return AccountReservation(self, room, own, octets)

    def try_take(self, octets: int) -> "AccountReservation | None":
        """Reserve now, or not at all."""
        room = self._shares.room_for(octets)
        own = self._own[room]
        if not own.try_take(octets):
            return None
        if not room.gate.try_take(octets):
            own.give_back(octets)
            return None
        return AccountReservation(self, room, own, octets)


def _go_on() -> None:
    """Nobody ends it."""


@dataclass(slots=True, eq=False)
class AccountReservation:
    """Bytes that a reader has reserved; its share lives as long as it does."""

    _share: AccountShare
    _room: _Room
    _own: ByteGate
    octets: int
    due: float = math.inf
    """From then on it is late, by the loop's clock."""
    end: Callable[[], None] = _go_on

    def until_late(self, end: Callable[[], None]) -> None:
        """They are on their way to a client. While others wait, it has so much time for them; then `end` is called,
        which must not raise."""
        if self.octets:
            self.due = asyncio.get_running_loop().time() + _PATIENCE + self.octets / _RATE
            self.end = end
            self._room.watch(self)

    def shrink(self, octets: int) -> None:
        """Keep this many of them at most."""
        before, self.octets = self.octets, min(self.octets, octets)
        if not self.octets:
            self._room.forget(self)
        self._room.give_back(self._own, before, self.octets)

    def release(self) -> None:
        """Give back all; idempotent."""
        self.shrink(0)


@dataclass(slots=True)
class AccountShares:
    """Of one process: `limit` bytes for all, of which an account may hold `share`. `few` of them are for reservations
    of few bytes alone, and those have no others; 0: all stand in one line."""

    limit: int
    share: int
    few: int = 0
    gauge: Gauge | None = None
    """Shows what is held."""
    _rooms: tuple[_Room, ...] = field(init=False)
    """The first is for all that is too long for the others."""
    _accounts: weakref.WeakValueDictionary[int, AccountShare] = field(default_factory=weakref.WeakValueDictionary)

    def __post_init__(self) -> None:
        rooms = [self._room(self.limit - self.few, self.share)]
        if self.few:
            rooms.append(self._room(self.few, min(self.share, self.few // _FEW_OF_ACCOUNT)))
        self._rooms = tuple(rooms)

    @classmethod
    def of_readers(cls, limit: int, share: int, gauge: Gauge) -> "AccountShares":
        """For messages that are read and written to clients: a quarter is for few bytes at once."""
        return cls(limit, share, limit // 4, gauge)

    def _room(self, limit: int, share: int) -> _Room:
        return _Room(ByteGate(limit, gauge=self.gauge), limit, min(share, limit))

    @property
    def used(self) -> int:
        return sum(room.gate.used for room in self._rooms)

    def room_for(self, octets: int) -> _Room:
        return self._rooms[-1 if octets <= self.few // _FEW else 0]

    def of(self, account_id: int) -> AccountShare:
        """The share of an account: one for all that hold of it, or wait for it, now."""
        share = self._accounts.get(account_id)
        if share is None:
            own = {room: ByteGate(room.share) for room in self._rooms}
            share = self._accounts[account_id] = AccountShare(self, own)
        return share
