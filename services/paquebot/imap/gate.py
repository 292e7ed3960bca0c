"""How many message octets the readers of a process hold at once (invariant 7): who wants more waits in line."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class OctetGate:
    """A first-come semaphore over octets. Hold one reservation at a time, or waiting readers lock each other."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        return self._used

    def try_take(self, octets: int) -> bool:
        """Reserve now, or not at all. What is longer than the whole limit counts as the limit."""
        octets = min(octets, self._limit)
        if self._line or self._used + octets > self._limit:
            return False
        self._used += octets
        return True

    async def take(self, octets: int) -> None:
        """Reserve, after those who asked before."""
        if self.try_take(octets):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (min(octets, self._limit), turn)
        self._line.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(octets)
            else:
                self._line.remove(entry)
                self._admit()
            raise

    def give_back(self, octets: int) -> None:
        """End a reservation of `octets`."""
        self._used -= min(octets, self._limit)
        self._admit()

    @asynccontextmanager
    async def holding(self, octets: int) -> AsyncIterator[None]:
        """A reservation for the time of the block."""
        await self.take(octets)
        try:
            yield
        finally:
            self.give_back(octets)

    def _admit(self) -> None:
        while self._line and self._used + self._line[0][0] <= self._limit:
            octets, turn = self._line.popleft()
            if not turn.done():
                self._used += octets
                turn.set_result(None)
