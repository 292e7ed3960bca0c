"""Connections to PostgreSQL between two calls: kept at hand while there is much to do, else left to asyncpg's pool.

To get a connection from that pool and give it back costs twice as much as a small statement: tasks, a proxy, timers. So
a connection whose call ended well goes to the first in line, or waits here for the next call. The last one given back
is the first one taken; those that nobody took for `SPARE_SECONDS` go back to the pool, which closes them when they stay
idle.

A connection outlives a take-over when a proxy or a virtual address stands between. Its server may then refuse every
write, or answer reads with what was true before. So each one is asked after `CHECK_SECONDS` whether it still takes
writes, and a single "no" ends all of them. A call that failed never waits for its connection to be cleaned: a server
that is frozen would make it wait for a long time.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from paquebot.observability.log import Log
from paquebot.observability.metrics import FAST, counter, gauge, histogram
from paquebot.runtime.process.tasks import background

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

READ_ONLY = counter(
    "paquebot_postgres_read_only_total",
    "Times this process found that its PostgreSQL server takes no writes any more, and left it",
)

_log = Log("paquebot.postgres")

SPARE_SECONDS = 2.0
CHECK_SECONDS = 10.0
_RELEASE_SECONDS = 2.0  # for a cancelled statement to end; then its connection is closed

TakesWrites = Callable[[Any], Awaitable[bool]]
"""Asks the server of a connection. Raises what asyncpg does."""


class ServerReadOnly(Exception):
    """Every server that can be reached takes no writes."""


class Connections:
    """Of one pool, which it closes. `take` one, and `give_back` the same."""

    def __init__(self, pool: Any, patience: float, takes_writes: TakesWrites | None = None) -> None:
        """`patience`: seconds to wait in line for a connection, and for the pool to make one. Without `takes_writes`
        any server will do."""
        self._pool = pool
        self._takes_writes = takes_writes
        self._patience = patience
        self._most = int(pool.get_max_size())
        self._owned = 0
        """Connections that are not with the pool: at hand, lent, on their way."""
        self._checked: dict[Any, float] = {}
        """When each of them was last known to take writes, by `time.monotonic`. One that is missing has expired."""
        self._at_hand: list[Any] = []
        self._least = 0
        """So many of the oldest were never taken since the last look."""
        self._line: deque[asyncio.Future[Any]] = deque()
        """Each gets a connection, or None: the pool has one for it."""
        self._cleaning: asyncio.TimerHandle | None = None
        self._closing = False
        POOL_LIMIT.set(self._most)
        POOL.labels("idle").set_function(self._idle)
        POOL.labels("used").set_function(lambda: pool.get_size() - self._idle())

    def _idle(self) -> int:
        return int(self._pool.get_idle_size()) + sum(map(_is_open, self._at_hand))

    async def take(self) -> Any:
        """Raises what asyncpg does, TimeoutError, ServerReadOnly."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience):
                for _ in range(self._most + 2):
                    connection = await self._next()
                    if _is_open(connection) and (
                        self._is_checked(connection) or await self._takes_writes_now(connection)
                    ):
                        return connection
                    self._end(connection)
            raise ServerReadOnly
        finally:
            POOL_WAIT.observe(time.perf_counter() - start)

    def _is_checked(self, connection: Any) -> bool:
        checked = self._checked.setdefault(connection, -CHECK_SECONDS)
        return self._takes_writes is None or time.monotonic() - checked < CHECK_SECONDS

    async def _takes_writes_now(self, connection: Any) -> bool:
        """False: its server takes no writes, or the connection is lost."""
        assert self._takes_writes is not None
        try:
            good = await self._takes_writes(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        except BaseException:
            self._end(connection)
            raise
        if good:
            self._checked[connection] = time.monotonic()
        else:
            self.expire()
        return good

    def give_back(self, connection: Any, *, well: bool) -> None:
        """`well`: the call ended without an error, so that the connection is as it was."""
        if connection not in self._checked:
            self._end(connection)
        elif well and not self._closing:
            self._hand_on(connection)
        else:
            self._return_later(connection)

    def expire(self) -> None:
        """End every connection: now, or when its call has ended. Calls from now on get new ones."""
        READ_ONLY.inc()
        _log.warning("postgres_read_only", connections=self._owned)
        self._checked.clear()
        self._pool_expires()
        at_hand, self._at_hand = self._at_hand, []
        for connection in at_hand:
            self._end(connection)

    def _pool_expires(self) -> None:
        """asyncpg's method waits for nothing, though it is a coroutine."""
        with contextlib.suppress(StopIteration):
            self._pool.expire_connections().send(None)

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

    def _return_later(self, connection: Any) -> None:
        background(self._return(connection), "postgres_connection")

    async def _return(self, connection: Any) -> None:
        """To the pool, which closes it when a cancelled statement does not end in time."""
        self._checked.pop(connection, None)
        try:
            await self._pool.release(connection, timeout=_RELEASE_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.debug("connection_closed", reason=type(error).__name__)
        finally:
            self._let_go()

    def _end(self, connection: Any) -> None:
        """Close it without a word: its server may be frozen."""
        self._checked.pop(connection, None)
        with contextlib.suppress(asyncpg.InterfaceError):  # lost, and so given back to the pool already
            connection.terminate()
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
            self._return_later(connection)
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
                    self._return_later(self._at_hand.pop())
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # lost, and so given back to the pool already
        return False
