"""Connections to PostgreSQL between two calls: kept at hand while there is much to do, else left to asyncpg's pool.

To get a connection from that pool and give it back costs twice as much as a small statement: tasks, a proxy, timers. So
a connection whose call ended well waits here for the next one, unless somebody is in line for it at the pool. The last
one given back is the first one taken; those that nobody took for `SPARE_SECONDS` go back to the pool, which closes
them when they stay idle.
"""

import asyncio
import time
from typing import Any

import asyncpg

from paquebot.observability.metrics import FAST, gauge, histogram

POOL = gauge(
    "paquebot_postgres_pool_connections", "Connections of this process to PostgreSQL", {"state": ("used", "idle")}
)
POOL_LIMIT = gauge(
    "paquebot_postgres_pool_limit_connections", "Most connections of this process (PAQUEBOT_POSTGRES_POOL)"
)
POOL_WAITING = gauge("paquebot_postgres_pool_waiting_calls", "Calls that wait for a connection of the pool")
POOL_WAIT = histogram(
    "paquebot_postgres_pool_wait_seconds", "Wait of one call for a connection of the pool", buckets=FAST
)

SPARE_SECONDS = 2.0


class Connections:
    """Of one pool, which it closes. `take` one, and `give_back` the same."""

    __slots__ = ("_at_hand", "_cleaning", "_closing", "_least", "_patience", "_pool", "_returns", "_waiting")

    def __init__(self, pool: Any, patience: float) -> None:
        """`patience`: seconds to wait for a connection of the pool, a new one included."""
        self._pool = pool
        self._patience = patience
        self._at_hand: list[Any] = []
        self._least = 0
        """So many of the oldest were never taken since the last look."""
        self._cleaning: asyncio.TimerHandle | None = None
        self._returns: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._closing = False
        POOL_LIMIT.set(pool.get_max_size())
        POOL.labels("idle").set_function(self._idle)
        POOL.labels("used").set_function(lambda: pool.get_size() - self._idle())

    def _idle(self) -> int:
        return int(self._pool.get_idle_size()) + sum(map(_is_open, self._at_hand))

    async def take(self) -> Any:
        """Raises what asyncpg does, TimeoutError."""
        while self._at_hand:
            connection = self._at_hand.pop()
            self._least = min(self._least, len(self._at_hand))
            if _is_open(connection):
                POOL_WAIT.observe(0.0)
                return connection
            await self._pool.release(connection)
        start = time.perf_counter()
        self._waiting += 1
        POOL_WAITING.set(self._waiting)
        try:
            return await self._pool.acquire(timeout=self._patience)
        finally:
            self._waiting -= 1
            POOL_WAITING.set(self._waiting)
            POOL_WAIT.observe(time.perf_counter() - start)

    async def give_back(self, connection: Any, *, well: bool) -> None:
        """`well`: the call ended without an error, so that the connection is as it was."""
        if not well or self._waiting or self._closing:
            await self._pool.release(connection)
            return
        self._at_hand.append(connection)
        if self._cleaning is None:
            self._least = 0
            self._clean_later()

    def _clean_later(self) -> None:
        self._cleaning = asyncio.get_running_loop().call_later(SPARE_SECONDS, self._clean)

    def _clean(self) -> None:
        self._cleaning = None
        spare, self._at_hand = self._at_hand[: self._least], self._at_hand[self._least :]
        self._least = len(self._at_hand)
        for connection in spare:
            task = asyncio.ensure_future(self._pool.release(connection))
            self._returns.add(task)
            task.add_done_callback(self._returns.discard)
        if self._at_hand:
            self._clean_later()

    async def close(self, timeout: float) -> None:
        """Wait for the calls under way, at most `timeout` seconds, then close every connection."""
        self._closing = True
        if self._cleaning is not None:
            self._cleaning.cancel()
        try:
            async with asyncio.timeout(timeout):
                while self._at_hand:
                    await self._pool.release(self._at_hand.pop())
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # lost, and so given back to the pool already
        return False
