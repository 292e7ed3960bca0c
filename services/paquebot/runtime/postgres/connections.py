"""Connections to PostgreSQL between two calls: kept here while calls follow each other, else left to asyncpg's pool.

To acquire a connection from that pool and to release it costs twice as much as a small statement: tasks, a proxy,
timers. So a connection whose call ended well goes to the first waiter, or stays idle here for the next call. The last
one released is the first one acquired; those that no call used for `SPARE_SECONDS` go back to the pool, which closes
them when they stay idle.

A connection outlives a take-over when a proxy or a virtual address stands between. Its server may then refuse every
write, or answer reads from an older state. So each one is asked after `CHECK_SECONDS` whether it still takes writes,
and a single "no" ends all of them. A call that failed never waits for the clean-up of its connection: a frozen server
would make it wait for a long time.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from paquebot.observability.log import Log
from paquebot.observability.metrics import FAST, counter, gauge, histogram
from paquebot.runtime.process.tasks import background

POOL = gauge(
    "paquebot_postgres_pool_connections", "Connections of this process to PostgreSQL", {"state": ("used", "idle")}
)
POOL_LIMIT = gauge(
    "paquebot_postgres_pool_limit_connections", "Maximum connections of this process (PAQUEBOT_POSTGRES_POOL)"
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

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
PooledConnection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

TakesWrites = Callable[[PooledConnection], Awaitable[bool]]
"""Asks the server of a connection. Raises what asyncpg does."""


class ServerReadOnly(Exception):
    """Every server that can be reached takes no writes."""


class Connections:
    """The connections of one pool, which it closes."""

    def __init__(self, pool: Pool, acquire_timeout: float, takes_writes: TakesWrites | None = None) -> None:
        """`acquire_timeout`: seconds to wait for a connection, and for the pool to make one. Without `takes_writes`
        any server will do."""
        self._pool = pool
        self._takes_writes = takes_writes
        self._acquire_timeout = acquire_timeout
        self._maximum = pool.get_max_size()
        self._owned = 0
        """Connections that are not in the pool: idle here, used by a call, or between the two."""
        self._checked: dict[PooledConnection, float] = {}
        """When each of them last said that it takes writes, by `time.monotonic`. A missing one has expired."""
        self._idle: list[PooledConnection] = []
        self._spare = 0
        """How many of the oldest idle ones no call used since the last cleaning."""
        self._waiters: deque[asyncio.Future[PooledConnection | None]] = deque()
        """Each gets a connection, or None: the pool has one for it."""
        self._cleaning: asyncio.TimerHandle | None = None
        self._closing = False
        self._observe_wait = POOL_WAIT.observe
        POOL_LIMIT.set(self._maximum)
        POOL.labels("idle").set_function(self._count_idle)
        POOL.labels("used").set_function(lambda: pool.get_size() - self._count_idle())

    def _count_idle(self) -> int:
        return self._pool.get_idle_size() + sum(map(_is_open, self._idle))

    async def acquire(self) -> PooledConnection:
        """Raises what asyncpg does, TimeoutError, ServerReadOnly."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._acquire_timeout):
                for _ in range(self._maximum + 2):
                    connection = await self._next()
                    if _is_open(connection) and (
                        self._is_checked(connection) or await self._takes_writes_now(connection)
                    ):
                        return connection
                    self._end(connection)
            raise ServerReadOnly
        finally:
            self._observe_wait(time.perf_counter() - start)

    def _is_checked(self, connection: PooledConnection) -> bool:
        checked = self._checked.setdefault(connection, -CHECK_SECONDS)
        return self._takes_writes is None or time.monotonic() - checked < CHECK_SECONDS

    async def _takes_writes_now(self, connection: PooledConnection) -> bool:
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

    def release(self, connection: PooledConnection, *, ok: bool) -> None:
        """`ok`: the call ended without an error, so the connection is as it was."""
        if connection not in self._checked:
            self._end(connection)
        elif ok and not self._closing:
            self._pass_on(connection)
        else:
            self._return_later(connection)

    def expire(self) -> None:
        """End every connection: now, or when its call has ended. Calls from now on get new ones."""
        READ_ONLY.inc()
        _log.warning("postgres_read_only", connections=self._owned)
        self._checked.clear()
        self._expire_pool()
        idle, self._idle = self._idle, []
        for connection in idle:
            self._end(connection)

    def _expire_pool(self) -> None:
        """asyncpg's method is a coroutine, but waits for nothing."""
        with contextlib.suppress(StopIteration):
            self._pool.expire_connections().send(None)

    async def _next(self) -> PooledConnection:
        if self._idle:
            self._spare = min(self._spare, len(self._idle) - 1)
            return self._idle.pop()
        if self._owned < self._maximum:
            self._owned += 1
        elif (connection := await self._wait()) is not None:
            return connection
        try:
            return await self._pool.acquire(timeout=self._acquire_timeout)
        except BaseException:
            self._disown()
            raise

    async def _wait(self) -> "PooledConnection | None":
        waiter: asyncio.Future[PooledConnection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        POOL_WAITING.set(len(self._waiters))
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # it has its answer and is cancelled: the next one's turn
                connection = waiter.result()
                if connection is None:
                    self._disown()
                else:
                    self._pass_on(connection)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            POOL_WAITING.set(len(self._waiters))

    def _next_waiter(self) -> "asyncio.Future[PooledConnection | None] | None":
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():  # one that is cancelled is about to leave
                return waiter
        return None

    def _pass_on(self, connection: PooledConnection) -> None:
        """To the first waiter; without one it becomes idle."""
        if (waiter := self._next_waiter()) is not None:
            waiter.set_result(connection)
            return
        self._idle.append(connection)
        if self._cleaning is None:
            self._spare = 0
            self._clean_later()

    def _return_later(self, connection: PooledConnection) -> None:
        background(self._return(connection), "postgres_connection")

    async def _return(self, connection: PooledConnection) -> None:
        """To the pool, which closes it when a cancelled statement does not end in time."""
        self._checked.pop(connection, None)
        try:
            await self._pool.release(connection, timeout=_RELEASE_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _log.debug("connection_closed", reason=type(error).__name__)
        finally:
            self._disown()

    def _end(self, connection: PooledConnection) -> None:
        """Close it without a message to its server, which may be frozen."""
        self._checked.pop(connection, None)
        with contextlib.suppress(asyncpg.InterfaceError):  # lost, and so released to the pool already
            connection.terminate()
        self._disown()

    def _disown(self) -> None:
        """The pool may lend one more: to the first waiter, if there is one."""
        if (waiter := self._next_waiter()) is not None:
            waiter.set_result(None)
        else:
            self._owned -= 1

    def _clean_later(self) -> None:
        self._cleaning = asyncio.get_running_loop().call_later(SPARE_SECONDS, self._clean)

    def _clean(self) -> None:
        self._cleaning = None
        spare, self._idle = self._idle[: self._spare], self._idle[self._spare :]
        self._spare = len(self._idle)
        for connection in spare:
            self._return_later(connection)
        if self._idle:
            self._clean_later()

    async def close(self, timeout: float) -> None:
        """Wait for the calls under way, at most `timeout` seconds, then close every connection."""
        self._closing = True
        if self._cleaning is not None:
            self._cleaning.cancel()
        try:
            async with asyncio.timeout(timeout):
                while self._idle:
                    self._return_later(self._idle.pop())
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def _is_open(connection: PooledConnection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # lost, and so released to the pool already
        return False
