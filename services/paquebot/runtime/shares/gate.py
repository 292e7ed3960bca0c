"""A bounded number of message bytes for which callers wait in turn (invariant 7)."""

import asyncio
from collections import deque

from prometheus_client import Gauge


class ByteGate:
    """First come, first served. A reservation that is larger than the limit counts as the limit, so it is alone.

    A caller that waits with `reserve` must not have another reservation, or two callers could wait for each other; it
    gets a second one by `try_reserve` only.
    """

    def __init__(self, limit: int, *, gauge: Gauge | None = None) -> None:
        """`gauge`: shows the sum of the reserved bytes of all gates that have it."""
        self._limit = limit
        self._gauge = gauge
        self._used = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        return self._used

    def try_reserve(self, size: int) -> bool:
        """Reserve now; False: nothing is reserved, as there is no room or others wait for it."""
        size = min(size, self._limit)
        if self._waiters or self._used + size > self._limit:
            return False
        self._add(size)
        return True

    async def reserve(self, size: int) -> None:
        """Reserve after all that asked before. Cancelled while it waits, it has reserved nothing."""
        if self.try_reserve(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (min(size, self._limit), turn)
        self._waiters.append(waiter)
        try:
            await turn
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def release(self, size: int) -> None:
        """End a reservation of `size` bytes."""
        self._add(-min(size, self._limit))
        self._admit()

    def _withdraw(self, waiter: tuple[int, asyncio.Future[None]]) -> None:
        size, turn = waiter
        if turn.done() and not turn.cancelled():
            self.release(size)  # it was admitted at the moment of its cancellation
        else:
            self._waiters.remove(waiter)
            self._admit()

    def _add(self, size: int) -> None:
        self._used += size
        if self._gauge is not None:
            self._gauge.inc(size)

    def _admit(self) -> None:
        while self._waiters and self._used + self._waiters[0][0] <= self._limit:
            size, turn = self._waiters.popleft()
            if turn.cancelled():
                self._waiters.appendleft((size, turn))  # its caller is about to remove it
                return
            self._add(size)
            turn.set_result(None)
