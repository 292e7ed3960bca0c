"""Bytes for readers, with a share for each account (invariant 7): no account has, or waits for, more than its share.

An account may have many sessions. As each waits within its account first, at most one share of each account stands in
the line of all, and an account that has its share waits for itself alone. A part of the bytes is for small reservations
only: a long message needs nearly all of the rest, and what stands behind it waits for every slow client before it.
"""

import asyncio
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import Gauge

from paquebot.runtime.shares.budget import OverBudget
from paquebot.runtime.shares.gate import ByteGate

_SMALL_PARTS = 8  # a small reservation has at most this fraction of `small`
_ACCOUNT_PARTS = 4  # an account has at most this fraction of `small`
_GRACE_SECONDS = 30.0  # for any reservation, while others wait
_RATE = 256 * 1024  # bytes; each adds a second to the grace
_REVOKE_SECONDS = 1.0  # between two reservations that are revoked


@dataclass(slots=True, eq=False)
class _Pool:
    """Bytes with one line of waiters."""

    gate: ByteGate
    limit: int
    share: int
    """Maximum bytes of an account."""
    _revocable: "dict[AccountReservation, None]" = field(default_factory=dict)
    _waiting: int = 0
    _timer: asyncio.TimerHandle | None = None
    _timer_at: float = 0.0
    _not_before: float = 0.0
    """When the next reservation may be revoked: the bytes of the last one are released in a moment."""

    async def reserve(self, size: int) -> None:
        if self.gate.try_reserve(size):
            return
        self._waiting += 1
        self._set_timer()
        try:
            await self.gate.reserve(size)
        finally:
            self._waiting -= 1

    def resize(self, account: ByteGate, before: int, after: int) -> None:
        """A reservation of `before` bytes becomes one of `after`. Each counts as the limit at most."""
        for gate, limit in ((account, self.share), (self.gate, self.limit)):
            gate.release(min(before, limit) - min(after, limit))

    def may_revoke(self, reservation: "AccountReservation") -> None:
        self._revocable[reservation] = None
        if self._waiting:
            self._set_timer()

    def forget(self, reservation: "AccountReservation") -> None:
        self._revocable.pop(reservation, None)

    def _set_timer(self) -> None:
        if not self._revocable:
            return
        at = max(self._not_before, min(reservation.due for reservation in self._revocable))
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = asyncio.get_running_loop().call_at(at, self._revoke_one), at

    def _revoke_one(self) -> None:
        """While callers wait, revoke the largest of the reservations that are late."""
        self._timer = None
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        late = [reservation for reservation in self._revocable if reservation.due <= now]
        if late:
            largest = max(late, key=lambda reservation: reservation.size)
            self.forget(largest)
            self._not_before = now + _REVOKE_SECONDS
            largest.on_revoked()
        self._set_timer()


@dataclass(slots=True, weakref_slot=True, eq=False)
class AccountShare:
    """The share of one account."""

    _shares: "AccountShares"
    _gates: dict[_Pool, ByteGate]

    @property
    def used(self) -> int:
        return sum(gate.used for gate in self._gates.values())

    async def reserve(self, size: int, timeout: float | None = None) -> "AccountReservation":
        """Reserve after the account's earlier callers, and then after those of all accounts. Raises OverBudget after
        `timeout` seconds.

        No two callers wait for each other: one that waits in the line of all has nothing there yet, and one that has a
        reservation asks for a second one only by `try_reserve`.
        """
        pool = self._shares.pool_for(size)
        gate = self._gates[pool]
        try:
            async with asyncio.timeout(timeout):
                await gate.reserve(size)
                try:
                    await pool.reserve(size)
                except BaseException:
                    gate.release(size)
                    raise
        except TimeoutError:
            raise OverBudget from None
        return AccountReservation(self, pool, gate, size)

    def try_reserve(self, size: int) -> "AccountReservation | None":
        """Reserve now; None: there is no room."""
        pool = self._shares.pool_for(size)
        gate = self._gates[pool]
        if not gate.try_reserve(size):
            return None
        if not pool.gate.try_reserve(size):
            gate.release(size)
            return None
        return AccountReservation(self, pool, gate, size)


def _nothing() -> None:
    """For a reservation that cannot be revoked."""


@dataclass(slots=True, eq=False)
class AccountReservation:
    """Bytes that a reader has reserved. It keeps its account's share alive."""

    _share: AccountShare
    _pool: _Pool
    _gate: ByteGate
    size: int
    due: float = math.inf
    """When it is late, by the loop's clock."""
    on_revoked: Callable[[], None] = _nothing

    def revoke_when_late(self, on_revoked: Callable[[], None]) -> None:
        """The bytes are on their way to a client, which has a time for them that grows with their number. When that is
        over and others wait, `on_revoked` is called. It must not raise."""
        if self.size:
            self.due = asyncio.get_running_loop().time() + _GRACE_SECONDS + self.size / _RATE
            self.on_revoked = on_revoked
            self._pool.may_revoke(self)

    def shrink(self, size: int) -> None:
        """Release what is more than `size` bytes."""
        before, self.size = self.size, min(self.size, size)
        if not self.size:
            self._pool.forget(self)
        self._pool.resize(self._gate, before, self.size)

    def release(self) -> None:
        """Release all of it; idempotent."""
        self.shrink(0)


@dataclass(slots=True)
class AccountShares:
    """One for a process: `limit` bytes for all, of which an account may have `share`. `small`: how many of them are
    for small reservations, which have no others; 0: all reservations stand in one line."""

    limit: int
    share: int
    small: int = 0
    gauge: Gauge | None = None
    """Shows the reserved bytes."""
    _pools: tuple[_Pool, ...] = field(init=False)
    """The last is for small reservations."""
    _accounts: weakref.WeakValueDictionary[int, AccountShare] = field(default_factory=weakref.WeakValueDictionary)

    def __post_init__(self) -> None:
        pools = [self._pool(self.limit - self.small, self.share)]
        if self.small:
            pools.append(self._pool(self.small, min(self.share, self.small // _ACCOUNT_PARTS)))
        self._pools = tuple(pools)

    @classmethod
    def of_readers(cls, limit: int, share: int, gauge: Gauge) -> "AccountShares":
        """For messages that are read and written to clients: a quarter is for small reservations."""
        return cls(limit, share, limit // 4, gauge)

    def _pool(self, limit: int, share: int) -> _Pool:
        return _Pool(ByteGate(limit, gauge=self.gauge), limit, min(share, limit))

    @property
    def used(self) -> int:
        return sum(pool.gate.used for pool in self._pools)

    def pool_for(self, size: int) -> _Pool:
        return self._pools[-1 if size <= self.small // _SMALL_PARTS else 0]

    def of(self, account_id: int) -> AccountShare:
        """The share of an account. While reservations of it or callers that wait exist, it is the same object."""
        share = self._accounts.get(account_id)
        if share is None:
            gates = {pool: ByteGate(pool.share) for pool in self._pools}
            share = self._accounts[account_id] = AccountShare(self, gates)
        return share
