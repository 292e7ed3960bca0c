"""One pool of PostgreSQL connections per process, which opens without the engine and reconnects by itself.

Every call is counted and timed (`engine_call`), has a deadline on both sides, and turns each trouble with the
engine itself (away, starting, full, too slow) into `PostgresUnavailable`: a temporary failure. Values that it can
never take (NUL in a text, a number or a key that is too large, a broken CHECK) are `PostgresRefused`: the same call
never works. All other faults of a statement stay asyncpg's own exceptions: they are ours.

A DSN may name several servers; only one that takes writes will do, unless the DSN asks for another with
`target_session_attrs`. When a server stops taking writes (a take-over), all connections to it are left.
"""

import asyncio
import contextlib
import random
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy

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
from paquebot.runtime.postgres.connections import Connections, ServerReadOnly

T = TypeVar("T")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
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
    """For work given to `Postgres.run`: others changed what it had found, so it is to be done again from the start."""


_NOT_READY = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""The database is not as this code needs it: a migration will come, or a grant."""
_OF_ONE_STATEMENT = (asyncpg.PostgresSystemError, asyncpg.InternalServerError)
"""Troubles that the engine has with some of its data, and maybe with no other."""
_AGAIN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.exceptions.InvalidCachedStatementError,  # a migration changed what a statement of ours was planned for
    asyncpg.exceptions.OutdatedSchemaCacheError,
    ChangedMeanwhile,
)
_UNSURE = (OSError, asyncio.CancelledError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)
"""Ends of a call after which the state of its connection is not known. TimeoutError is an OSError."""
_READ_WRITE = "read-write"
_WRITABLE = (_READ_WRITE, "primary")
_TRIES = 4
_AGAIN_SECONDS = 0.05
_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 300.0


AGAIN = counter(
    "paquebot_postgres_repeated_transactions_total", "Transactions done again after a deadlock or serialization failure"
)


REFUSED = counter(
    "paquebot_postgres_refused_values_total", "Calls with values that PostgreSQL can never take: none is tried again"
)
_log = Log("paquebot.postgres")


class PostgresUnavailable(EngineUnavailable):
    """PostgreSQL cannot answer now; the same call may succeed later. The cause is chained, never shown to
    peers.
    """


class PostgresNotReady(PostgresUnavailable):
    """The database lacks what this code needs: it was not migrated yet, or a role has not its rights."""


class PostgresTroubled(PostgresUnavailable):
    """The engine answered this call with a trouble of its own: damaged data, a file. Calls about other data may well
    succeed meanwhile.
    """


class PostgresRefused(EngineRefused):
    """PostgreSQL can never take the values of this call: to try again is of no use. `str()` names the call and, where
    a constraint was broken, the constraint; no value.
    """

    def __init__(self, call: str, constraint: str = "") -> None:
        super().__init__(f"{call}: {constraint}" if constraint else call)
        self.call = call
        self.constraint = constraint


def _refused(call: str, error: BaseException) -> PostgresRefused:
    """Counted and logged, without the values: they may be a person's."""
    constraint = getattr(error, "constraint_name", None) or ""
    state = getattr(error, "sqlstate", None) or ""
    REFUSED.inc()
    _log.warning("values_refused", statement=call, reason=type(error).__name__, state=state, constraint=constraint)
    return PostgresRefused(call, constraint)


def _is_unsure(error: BaseException) -> bool:
    return isinstance(error, _UNSURE) and not isinstance(error, ValueError)  # an argument that does not fit is ours


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
    """`async with`: a connection in autocommit for the time of the block, which is one call, counted and timed."""

    __slots__ = ("_call", "_connection", "_connections")

    def __init__(self, connections: Connections, call: str) -> None:
        self._connections = connections
        self._call = engine_call("postgres", call, _fault_of)
        self._connection: Connection

    async def __aenter__(self) -> Connection:
        self._call.begin()
        try:
            self._connection = await self._connections.take()
        except BaseException as error:
            self._end(error)
            raise
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            self._connections.expire()
        self._connections.give_back(self._connection, well=error is None)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Raises PostgresUnavailable or PostgresRefused when that is what the error means."""
        if isinstance(error, _REFUSED):
            self._call.end(None)  # an answer, about values: the engine is well
            raise _refused(self._call.name, error) from error
        self._call.end(error)
        if isinstance(error, _NOT_READY):
            _log.error("database_not_ready", statement=self._call.name, reason=f"{type(error).__name__}: {error}")
            raise PostgresNotReady(self._call.name) from error
        if isinstance(error, _AWAY) and not isinstance(error, ValueError):  # an argument that does not fit is ours
            raise (PostgresTroubled if isinstance(error, _OF_ONE_STATEMENT) else PostgresUnavailable)(
                self._call.name
            ) from error


class Postgres:
    """A pool. Open with `open_postgres`; share one per process."""

    __slots__ = ("_connections", "_wants_writes")

    def __init__(self, pool: Any, attribute: str = "any") -> None:
        """`attribute`: which servers the pool connects to, see `session_attribute`."""
        wants_writes = attribute in _WRITABLE
        self._connections = Connections(pool, _CONNECT_SECONDS, _takes_writes if wants_writes else None)
        self._wants_writes = wants_writes

    def connection(self, call: str) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A connection in autocommit, for the time of the block, counted as `call`."""
        return _Lent(self._connections, call)

    @contextlib.asynccontextmanager
    async def transaction(self, call: str, *, snapshot: bool = False) -> AsyncIterator[Connection]:
        """A connection inside one transaction, committed at the end of the block and rolled back by an
        exception.

        With `snapshot` it is read-only and all its statements see one state of the database.
        """
        async with self.connection(call) as connection:
            if snapshot:  # as its first statement ever, a new session sometimes refuses to choose an isolation level
                await connection.execute("SELECT")
            transaction = connection.transaction(isolation="repeatable_read" if snapshot else None, readonly=snapshot)
            await transaction.start()
            try:
                yield connection
            except BaseException as error:
                if _is_unsure(error):
                    # The server may be frozen. It rolls back by itself when the connection ends; nobody waits for it.
                    connection.terminate()
                else:
                    await transaction.rollback()
                raise
            await transaction.commit()

    async def run(self, call: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """`work` in one transaction; done again, from the start, when the engine asks for it (deadlock,
        serialization failure)."""
        return await self._repeated(call, self.transaction, work)

    async def run_statement(self, call: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The same for work that is one statement: its own transaction, without the round trips of another."""
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
            # Whoever won needs a moment to go on, or both would meet again.
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

    async def execute(self, call: str, sql: str, *args: object) -> None:
        """One statement whose rows do not matter."""
        async with self.connection(call) as connection:
            await connection.execute(sql, *args)

    async def ready(self) -> bool:
        """Whether the engine answers now, and takes writes where they are wanted; for /readyz."""
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
    """Which server of those in `dsn` will do: libpq's `target_session_attrs`, by default one that takes writes."""
    asked = urllib.parse.parse_qs(urllib.parse.urlsplit(dsn).query).get("target_session_attrs", [_READ_WRITE])[-1]
    return cast(SessionAttribute, asked)  # asyncpg checks the word when it connects


async def _takes_writes(connection: Connection) -> bool:
    """A standby, and a server that was set to refuse writes, says "on"."""
    return bool(await connection.fetchval("SHOW transaction_read_only") == "off")


async def _keep(connection: Connection) -> None:
    """No round trip when a connection goes back to the pool: nothing here changes a session's state, and an open
    transaction is ended before."""


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
            # A plan made anew for each call costs more than most of our statements do.
            "plan_cache_mode": "force_generic_plan",
            # Such a plan is made once, maybe while the tables are empty and have no statistics, and is kept when they
            # have grown: it must not read a whole table where there is an index, and must choose among indexes by the
            # order they give, not by how high each happens to be (decision 43).
            "enable_seqscan": "off",
            "enable_mergejoin": "off",
            "cpu_operator_cost": "0.0001",
        },
    )
    know_calls(EngineLabel.POSTGRES, ("ready",))
    return Postgres(pool, attribute)
