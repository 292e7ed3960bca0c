"""How many message bytes the readers of a process hold at once (invariant 7): who wants more waits in line."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import Gauge

from paquebot.runtime.shares.in_flight import OverBudget


class ByteGate:
    """First come, first served. What is longer than the whole limit counts as the limit, and so goes alone.

    Hold one reservation at a time, or waiting readers lock each other; a second one only by `try_take`.
    """

    def __init__(self, limit: int, *, gauge: Gauge | None = None) -> None:
        self._limit = limit
        self._gauge = gauge
        """Shows what is held, in all gates that have it."""
        self._used = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        return self._used

    def try_take(self, octets: int) -> bool:
        """Reserve now, or not at all."""
        octets = min(octets, self._limit)
        if self._line or self._used + octets > self._limit:
            return False
        self._add(octets)
        return True

    async def take(self, octets: int, seconds: float | None = None) -> None:
        """Reserve, after those who asked before. Raises OverBudget after `seconds`, with nothing reserved."""
        if self.try_take(octets):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (min(octets, self._limit), turn)
        self._line.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            self._withdraw(entry)
            raise OverBudget from None
        except asyncio.CancelledError:
            self._withdraw(entry)
            raise

    def give_back(self, octets: int) -> None:
        """End a reservation of `bytes`."""
        self._add(-min(octets, self._limit))
        self._admit()

    @asynccontextmanager
    async def holding(self, octets: int) -> AsyncIterator[None]:
        """A reservation for the time of the block."""
        await self.take(octets)
        try:
            yield
        finally:
            self.give_back(octets)

    def _withdraw(self, entry: tuple[int, asyncio.Future[None]]) -> None:
        octets, turn = entry
        if turn.done() and not turn.cancelled():
            self.give_back(octets)  # admitted in the moment in which the wait ended
        else:
            self._line.remove(entry)
            self._admit()

    def _add(self, octets: int) -> None:
        self._used += octets
        if self._gauge is not None:
            self._gauge.inc(octets)

    def _admit(self) -> None:
        while self._line and self._used + self._line[0][0] <= self._limit:
            octets, turn = self._line.popleft()
            if turn.cancelled():
                self._line.appendleft((octets, turn))  # its waiter is about to take it out of the line
                return
            self._add(octets)
            turn.set_result(None)
