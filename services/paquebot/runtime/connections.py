"""Connections to PostgreSQL between two calls: kept at hand while there is much to do, else left to asyncpg's pool.

To get a connection from that pool and give it back costs twice as much as a small statement: tasks, a proxy, timers. So
a connection whose call ended well goes to the first in line, or waits here for the next call. The last one given back
is the first one taken; those that nobody took for `SPARE_SECONDS` go back to the pool, which closes them when they stay
idle.
"""

import asyncio
import time
from collections import deque
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

    def __init__(self, pool: Any, patience: float) -> None:
        """`patience`: seconds to wait in line for a connection, and for the pool to make one."""
        self._pool = pool
        self._patience = patience
        self._most = int(pool.get_max_size())
        self._owned = 0
        """Connections that are not with the pool: at hand, lent, on their way."""
        self._at_hand: list[Any] = []
        self._least = 0
        """So many of the oldest were never taken since the last look."""
        self._line: deque[asyncio.Future[Any]] = deque()
        """Each gets a connection, or None: the pool has one for it."""
        self._cleaning: asyncio.TimerHandle | None = None
        self._returns: set[asyncio.Task[None]] = set()
        self._closing = False
        POOL_LIMIT.set(self._most)
        POOL.labels("idle").set_function(self._idle)
        POOL.labels("used").set_function(lambda: pool.get_size() - self._idle())

    def _idle(self) -> int:
        return int(self._pool.get_idle_size()) + sum(map(_is_open, self._at_hand))

    async def take(self) -> Any:
        """Raises what asyncpg does, TimeoutError."""
        start = time.perf_counter()
        try:
            while True:
                connection = await self._next()
                if _is_open(connection):
                    return connection
                await self._return(connection)
        finally:
            POOL_WAIT.observe(time.perf_counter() - start)

    async def give_back(self, connection: Any, *, well: bool) -> None:
        """`well`: the call ended without an error, so that the connection is as it was."""
        if well and not self._closing:
            self._hand_on(connection)
        else:
            await self._return(connection)

    async def _next(self) -> Any:
        if self._at_hand:
            self._least = min(self._least, len(self._at_hand) - 1)
            return self._at_hand.pop()
        if self._owned < self._most:
            self._owned += 1
        elif (connection := await self._in_line()) is not None:
            return connection
        try:
            return await self._pool.acquire(timeout=self._patience)
        except BaseException:
            self._let_go()
            raise

    async def _in_line(self) -> Any:
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        POOL_WAITING.set(len(self._line))
        try:
            async with asyncio.timeout(self._patience):
                return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # both at once: it is the next one's
                connection = turn.result()
                if connection is None:
                    self._let_go()
                else:
                    self._hand_on(connection)
            raise
        finally:
            if turn in self._line:
                self._line.remove(turn)
            POOL_WAITING.set(len(self._line))

    def _first_in_line(self) -> "asyncio.Future[Any] | None":
        while self._line:
            turn = self._line.popleft()
            if not turn.done():  # given up, and about to leave
                return turn
        return None

    def _hand_on(self, connection: Any) -> None:
        """To the first in line, else it stays at hand."""
        if (turn := self._first_in_line()) is not None:
            turn.set_result(connection)
            return
        self._at_hand.append(connection)
        if self._cleaning is None:
            self._least = 0
            self._clean_later()

    async def _return(self, connection: Any) -> None:
        """To the pool."""
        try:
            await self._pool.release(connection)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """The pool has one more for us: for the first in line, if there is one."""
        if (turn := self._first_in_line()) is not None:
            turn.set_result(None)
        else:
            self._owned -= 1

    def _clean_later(self) -> None:
        self._cleaning = asyncio.get_running_loop().call_later(SPARE_SECONDS, self._clean)

    def _clean(self) -> None:
        self._cleaning = None
        spare, self._at_hand = self._at_hand[: self._least], self._at_hand[self._least :]
        self._least = len(self._at_hand)
        for connection in spare:
            task = asyncio.ensure_future(self._return(connection))
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
                    await self._return(self._at_hand.pop())
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # lost, and so given back to the pool already
        return False
