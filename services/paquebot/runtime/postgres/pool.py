"""One pool of PostgreSQL connections for a process. It opens without the engine and reconnects by itself.

Every call is counted and timed (`engine_call`) and has a deadline on both sides. A failure of the engine itself (away,
starting, full, too slow) is `PostgresUnavailable`: temporary. Values that PostgreSQL can never take (NUL in a text, a
number or a key that is too large, a broken CHECK) are `PostgresRefused`: the same call never works. All other errors of
a statement stay asyncpg's own exceptions: they are faults of our code.

A DSN may name several servers. The pool connects to one that takes writes, unless the DSN asks for another with
`target_session_attrs`. When a server stops taking writes (a take-over), the pool leaves all connections to it.
"""

import asyncio
import contextlib
import random
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from paquebot.observability.log import Log
from paquebot.observability.metrics import (
    EngineLabel,
    Fault,
    causes,
    counter,
    engine_call,
    fault_of,
    know_calls,
)
from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.runtime.postgres.connections import Connections, Pool, PooledConnection, ServerReadOnly

T = TypeVar("T")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PooledConnection"
"""An asyncpg connection, inside or outside a transaction."""

_AWAY = (
    OSError,
    TimeoutError,
    ServerReadOnly,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # shutdown, crash recovery, statement timeout
    asyncpg.InsufficientResourcesError,  # connections, memory, disk
    asyncpg.PostgresSystemError,  # a file that cannot be read or written
    asyncpg.InternalServerError,  # its own fault, damaged data
    asyncpg.IdleInTransactionSessionTimeoutError,  # we were too slow: frozen, or starved
    asyncpg.ReadOnlySQLTransactionError,  # a primary that became a standby
    asyncpg.InvalidAuthorizationSpecificationError,  # a password that is being changed
    asyncpg.InvalidCatalogNameError,  # a database that is not made yet
)
_REFUSED = (
    asyncpg.DataError,  # class 22, and what asyncpg itself cannot encode as the parameter's type
    asyncpg.CheckViolationError,
    asyncpg.NotNullViolationError,
    asyncpg.ProgramLimitExceededError,  # class 54: an index row, a nesting, a number of arguments is too large
)


class ChangedMeanwhile(Exception):
    """Work given to `Postgres.run` raises it when another transaction changed what it had read: `run` starts it
    again."""


_NOT_READY = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""The database lacks a migration, or a role lacks a grant."""
_OF_ONE_STATEMENT = (asyncpg.PostgresSystemError, asyncpg.InternalServerError)
"""Failures that may concern only some of the engine's data."""
_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.exceptions.InvalidCachedStatementError,  # a migration changed what a prepared statement was planned for
    asyncpg.exceptions.OutdatedSchemaCacheError,
    ChangedMeanwhile,
)
_UNSURE = (OSError, asyncio.CancelledError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
"""Errors after which the state of a connection is not known. TimeoutError is an OSError."""
_READ_WRITE = "read-write"
_WRITABLE = (_READ_WRITE, "primary")
_TRIES = 4
_AGAIN_SECONDS = 0.05
_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 300.0


AGAIN = counter(
    "paquebot_postgres_repeated_transactions_total", "Transactions repeated after a deadlock or serialization failure"
)


REFUSED = counter(
    "paquebot_postgres_refused_values_total", "Calls with values that PostgreSQL can never take; they are not repeated"
)
_log = Log("paquebot.postgres")


class PostgresUnavailable(EngineUnavailable):
    """PostgreSQL cannot answer now; the same call may succeed later. The cause is chained."""


class PostgresNotReady(PostgresUnavailable):
    """The database lacks what this code needs: it was not migrated yet, or a role lacks a grant."""


class PostgresTroubled(PostgresUnavailable):
    """The engine failed on the data of this call: damaged data, a file. Calls about other data may succeed."""


class PostgresRefused(EngineRefused):
    """PostgreSQL can never take the values of this call. `str()` names the call and, where one was broken, the
    constraint; no value."""

    def __init__(self, call: str, constraint: str = "") -> None:
        super().__init__(f"{call}: {constraint}" if constraint else call)
        self.call = call
        self.constraint = constraint


def _refused(call: str, error: BaseException) -> PostgresRefused:
    """Count and log it, without the values: they may be private."""
    constraint = getattr(error, "constraint_name", None) or ""
    state = getattr(error, "sqlstate", None) or ""
    REFUSED.inc()
    _log.warning("values_refused", statement=call, reason=type(error).__name__, state=state, constraint=constraint)
    return PostgresRefused(call, constraint)


def _is_unsure(error: BaseException) -> bool:
    # an argument that does not fit is our code's fault
    return isinstance(error, _UNSURE) and not isinstance(error, ValueError)


def _fault_of(error: BaseException) -> Fault:
    for cause in causes(error):
        if isinstance(cause, asyncpg.QueryCanceledError):  # the statement's own timeout
            return Fault.TIMEOUT
        if isinstance(cause, asyncpg.PostgresConnectionError | asyncpg.InterfaceError):
            return Fault.CONNECTION
        if isinstance(cause, asyncpg.PostgresError | ServerReadOnly):
            return Fault.REFUSED
    return fault_of(error)


class _Lent:
    """`async with`: a connection in autocommit for the time of the block, which is counted and timed as one call."""

    __slots__ = ("_call", "_connection", "_connections")

    def __init__(self, connections: Connections, call: str) -> None:
        self._connections = connections
        self._call = engine_call("postgres", call, _fault_of)
        self._connection: PooledConnection

    async def __aenter__(self) -> Connection:
        self._call.begin()
        try:
            self._connection = await self._connections.acquire()
        except BaseException as error:
            self._end(error)
            raise
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._connections.expire()
        self._connections.release(self._connection, ok=error is None)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Raises PostgresUnavailable or PostgresRefused where the error means that."""
        if isinstance(error, _REFUSED):
            self._call.end(None)  # the engine answered, about the values
            raise _refused(self._call.name, error) from error
        self._call.end(error)
        if isinstance(error, _NOT_READY):
            _log.error("database_not_ready", statement=self._call.name, reason=f"{type(error).__name__}: {error}")
            raise PostgresNotReady(self._call.name) from error
        # an argument that does not fit is our code's fault
        if isinstance(error, _AWAY) and not isinstance(error, ValueError):
            raise (PostgresTroubled if isinstance(error, _OF_ONE_STATEMENT) else PostgresUnavailable)(
                self._call.name
            ) from error


class Postgres:
    """A pool. Open with `open_postgres`; share one per process."""

    __slots__ = ("_connections", "_wants_writes")

    def __init__(self, pool: Pool, attribute: str = "any") -> None:
        """`attribute`: which servers the pool connects to, see `session_attribute`."""
        wants_writes = attribute in _WRITABLE
        self._connections = Connections(pool, _CONNECT_SECONDS, _takes_writes if wants_writes else None)
        self._wants_writes = wants_writes

    def connection(self, call: str) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A connection in autocommit, for the time of the block, counted as `call`."""
        return _Lent(self._connections, call)

    @contextlib.asynccontextmanager
    async def transaction(self, call: str, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """A connection inside one transaction: committed at the end of the block, rolled back by an exception.

        With `snapshot` it is read-only and all its statements see one state of the database.
        """
        async with self.connection(call) as connection:
            if snapshot:  # a new session may refuse to set an isolation level in its first statement
                await connection.execute("SELECT")
            transaction = connection.transaction(isolation="repeatable_read" if snapshot else None, readonly=snapshot)
            await transaction.start()
            try:
                yield connection
            except BaseException as error:
                if _is_unsure(error):
                    # The server may be frozen. It rolls back by itself when the connection ends.
                    connection.terminate()
                else:
                    await transaction.rollback()
                raise
            await transaction.commit()

    async def run(self, call: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in one transaction; again from the start after a deadlock or serialization failure."""
        return await self._repeated(call, self.transaction, work)

    async def run_statement(self, call: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """`run` for work that is one statement, which is a transaction of its own and saves two round trips."""
        return await self._repeated(call, self.connection, work)

    async def _repeated(
        self,
        call: str,
        frame: Callable[[str], contextlib.AbstractAsyncContextManager[Connection]],
        work: Callable[[Connection], Awaitable[T]],
    ) -> T:
        for attempt in range(1, _TRIES + 1):
            try:
                async with frame(call) as connection:
                    return await work(connection)
            except _AGAIN as error:
                if attempt == _TRIES:
                    raise PostgresUnavailable(call) from error
            AGAIN.inc()
            # The other transaction needs a moment to end, or both would collide again.
            await asyncio.sleep(_AGAIN_SECONDS * attempt * random.uniform(0.5, 1.5))  # noqa: S311
        raise AssertionError("unreachable")

    async def fetch(self, call: str, sql: str, *args: object) -> "list[asyncpg.Record]":
        """Rows of one statement."""
        async with self.connection(call) as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, call: str, sql: str, *args: object) -> "asyncpg.Record | None":
        """The first row of one statement, or None."""
        async with self.connection(call) as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, call: str, sql: str, *args: object) -> Any:
        """The first column of the first row of one statement, or None."""
        async with self.connection(call) as connection:
            return await connection.fetchval(sql, *args)

    async def probe(self) -> None:
        """Raises what `fetchval` does unless the engine answers."""
        await self.fetchval("ready", "SELECT 1")

    async def execute(self, call: str, sql: str, *args: object) -> None:
        """One statement without rows."""
        async with self.connection(call) as connection:
            await connection.execute(sql, *args)

    async def ready(self) -> bool:
        """Whether the engine answers now, and takes writes if the pool needs them; for /readyz."""
        try:
            async with self.connection("ready") as connection:
                if not await _takes_writes(connection) and self._wants_writes:
                    self._connections.expire()
                    return False
        except PostgresUnavailable:
            return False
        return True

    async def close(self, *, timeout: float = 5.0) -> None:
        """Wait for the calls under way, at most `timeout` seconds, then close every connection."""
        await self._connections.close(timeout)


def sole_row(row: asyncpg.Record | None) -> asyncpg.Record:
    """The row of a statement that always has one, such as an aggregate or an INSERT with RETURNING."""
    assert row is not None
    return row


def dsn_of(settings: PostgresSettings) -> str:
    """The DSN, with the password put in where it has none."""
    parts = urllib.parse.urlsplit(settings.dsn)
    if not settings.password or parts.password is not None:
        return str(settings.dsn)
    credentials, at, hosts = parts.netloc.rpartition("@")
    password = urllib.parse.quote(settings.password, safe="")
    return parts._replace(netloc=f"{credentials}:{password}{at or '@'}{hosts}").geturl()


def session_attribute(dsn: str) -> SessionAttribute:
    """Which of the servers in `dsn` to use: libpq's `target_session_attrs`; by default one that takes writes."""
    asked = urllib.parse.parse_qs(urllib.parse.urlsplit(dsn).query).get("target_session_attrs", [_READ_WRITE])[-1]
    return cast(SessionAttribute, asked)  # asyncpg checks the word when it connects


async def _takes_writes(connection: Connection) -> bool:
    """A standby, and a server set to refuse writes, answers "on"."""
    return bool(await connection.fetchval("SHOW transaction_read_only") == "off")


async def _keep(connection: Connection) -> None:
    """No round trip when a connection is released: no call changes a session's state, and `transaction` ends its
    transaction before."""


async def open_postgres(settings: PostgresSettings, application: str) -> Postgres:
    """A pool of at most `settings.pool_size` connections, named `application` in pg_stat_activity.

    No connection is made yet, so a service starts while the engine is away (invariant 9).
    """
    attribute = session_attribute(settings.dsn)
    pool = await asyncpg.create_pool(
        dsn_of(settings),
        target_session_attrs=attribute,
        min_size=0,
        max_size=settings.pool_size,
        max_inactive_connection_lifetime=_IDLE_SECONDS,
        timeout=_CONNECT_SECONDS,
        reset=_keep,
        command_timeout=settings.timeout + 1.0,  # the server's own timeout comes first
        server_settings={
            "application_name": application,
            "statement_timeout": str(int(settings.timeout * 1000)),
            "idle_in_transaction_session_timeout": str(int(settings.timeout * 1000)),
            "jit": "off",
            # Planning each call anew costs more than most of our statements.
            "plan_cache_mode": "force_generic_plan",
            # A generic plan is made once, perhaps while the tables are empty and have no statistics, and kept while
            # they grow: it must not read a whole table where there is an index, and must choose among indexes by the
            # order they give, not by their height at that moment (decision 43).
            "enable_seqscan": "off",
            "enable_mergejoin": "off",
            "cpu_operator_cost": "0.0001",
        },
    )
    know_calls(EngineLabel.POSTGRES, ("ready",))
    return Postgres(pool, attribute)
