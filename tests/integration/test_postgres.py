"""The pool: it opens while the engine is away, reconnects, and raises "unavailable" for temporary failures."""

from __future__ import annotations

import asyncio
import urllib.parse

import asyncpg
import pytest

from paquebot.observability.metrics import Fault
from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.postgres import connections
from paquebot.runtime.postgres import pool as postgres_module
from paquebot.runtime.postgres.connections import POOL_WAIT
from paquebot.runtime.postgres.pool import (
    Connection,
    Postgres,
    PostgresNotReady,
    PostgresRefused,
    PostgresUnavailable,
    dsn_of,
    open_postgres,
)
from paquebot.runtime.settings import Seconds, Secret
from tests.support.counted import errors, value
from tests.support.loopback import free_port
from tests.support.slow_proxy import SlowProxy


def settings(dsn: str, *, timeout: float = 5.0, size: int = 2) -> PostgresSettings:
    return PostgresSettings(dsn=Secret(dsn), pool_size=size, timeout=Seconds(timeout))


async def test_opens_while_the_engine_is_away() -> None:
    postgres = await open_postgres(settings(f"postgresql://x@127.0.0.1:{free_port()}/x"), "tests")
    assert not await postgres.ready()
    with pytest.raises(PostgresUnavailable):
        await postgres.fetchval("test", "SELECT 1")
    await postgres.close()


async def test_lost_connections_are_replaced(database: str) -> None:
    postgres = await open_postgres(settings(database), "lost")
    assert await postgres.ready()
    admin = await asyncpg.connect(database)

    async def lose(connection: Connection) -> None:
        await connection.execute("SELECT 1")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost'")
        await connection.execute("SELECT 1")

    with pytest.raises(PostgresUnavailable):
        await postgres.run("test", lose)
    assert await postgres.fetchval("test", "SELECT 2") == 2
    await admin.close()
    await postgres.close()


async def test_a_statement_has_a_timeout(database: str) -> None:
    postgres = await open_postgres(settings(database, timeout=0.2), "tests")
    with pytest.raises(PostgresUnavailable):
        await postgres.execute("test", "SELECT pg_sleep(30)")
    assert await postgres.ready()
    await postgres.close()


@pytest.mark.parametrize("code", ["08006", "25P03", "53100", "57P02", "58030", "58P01", "XX000", "XX001"])
async def test_failures_of_the_engine_are_temporary(database: str, code: str) -> None:
    """Memory, disk, files, damaged data: failures that an engine reports of itself may pass."""
    postgres = await open_postgres(settings(database), "tests")
    with pytest.raises(PostgresUnavailable):
        await postgres.execute("test", f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END $$")
    assert await postgres.ready()
    await postgres.close()


async def test_faults_of_a_statement_are_no_failures_of_the_engine(database: str) -> None:
    postgres = await open_postgres(settings(database), "tests")
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await postgres.execute("test", "SELECT FROM WHERE")
    with pytest.raises(PostgresNotReady):
        await postgres.execute("test", "SELECT 1 FROM nothing")
    assert await postgres.ready()
    await postgres.close()


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT $1::int", (2**40,)),
        ("SELECT $1::bigint", (2**63,)),
        ("SELECT $1::smallint[]", ([1, 70_000],)),
        ("SELECT $1::text", ("a\0b",)),
        ("SELECT $1::text", ("\ud800",)),
        ("SELECT $1::text::timestamptz", ("31-Feb-2024",)),
        ("SELECT $1::text::int * $1::text::int", (str(2**31 - 1),)),
        ("INSERT INTO values_of VALUES ($1, 'x')", (-1,)),
        ("INSERT INTO values_of VALUES (1, $1)", (None,)),
        ("INSERT INTO values_of VALUES (1, $1)", ("".join(map(chr, range(0x4E00, 0x4E00 + 3000))),)),
    ],
)
async def test_values_that_never_work_are_no_outages(database: str, sql: str, values: tuple[object, ...]) -> None:
    postgres = await open_postgres(settings(database), "tests")
    await postgres.execute("test", "CREATE TABLE values_of (n int CHECK (n >= 0), name text NOT NULL)")
    await postgres.execute("test", "CREATE INDEX by_name ON values_of (name)")
    refused, failed = value("paquebot_postgres_refused_values_total") or 0.0, errors("postgres", "never")
    with pytest.raises(PostgresRefused, match=r"^never"):
        await postgres.fetchval("never", sql, *values)
    assert value("paquebot_postgres_refused_values_total") == refused + 1
    assert errors("postgres", "never") == failed, "the engine is well"

    async def work(connection: Connection) -> None:
        await connection.fetchval(sql, *values)

    with pytest.raises(PostgresRefused):
        await postgres.run("never", work)
    assert await postgres.ready()
    await postgres.close()


async def test_a_transaction_is_all_or_none(database: str) -> None:
    postgres = await open_postgres(settings(database), "tests")
    await postgres.execute("test", "CREATE TABLE t (n int)")

    async def fail(connection: Connection) -> None:
        await connection.execute("INSERT INTO t VALUES (1)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await postgres.run("test", fail)
    assert await postgres.fetch("test", "SELECT n FROM t") == []
    await postgres.close()


async def test_a_transaction_is_retried_after_a_deadlock(database: str) -> None:
    """Two transactions lock two rows in opposite orders: the engine aborts one, which is then retried."""
    postgres = await open_postgres(settings(database, timeout=15.0), "tests")
    await postgres.execute("test", "CREATE TABLE t (id int, n int)")
    await postgres.execute("test", "INSERT INTO t VALUES (1, 0), (2, 0)")
    both = asyncio.Barrier(2)
    tries = 0
    again = value("paquebot_postgres_repeated_transactions_total") or 0.0

    async def add(first: int, second: int) -> None:
        async def work(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            await connection.execute("UPDATE t SET n = n + 1 WHERE id = $1", first)
            if tries <= 2:
                await both.wait()
            await connection.execute("UPDATE t SET n = n + 1 WHERE id = $1", second)

        await postgres.run("test", work)

    await asyncio.gather(add(1, 2), add(2, 1))
    assert [row["n"] for row in await postgres.fetch("test", "SELECT n FROM t ORDER BY id")] == [2, 2]
    assert tries == 3
    assert value("paquebot_postgres_repeated_transactions_total") == again + 1
    await postgres.close()


async def test_a_single_statement_is_retried_after_a_deadlock(database: str) -> None:
    """A statement outside a transaction block is its own transaction."""
    postgres = await open_postgres(settings(database), "tests")
    tries = 0

    async def work(connection: Connection) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            await connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")
        return bool(connection.is_in_transaction())

    assert await postgres.run_statement("test", work) is False
    assert tries == 2
    await postgres.close()


async def test_consecutive_calls_share_one_connection(database: str) -> None:
    postgres = await open_postgres(settings(database), "tests")
    pids = {await postgres.fetchval("test", "SELECT pg_backend_pid()") for _ in range(5)}
    assert len(pids) == 1
    await postgres.close()


async def test_more_calls_than_connections_take_turns(database: str) -> None:
    """Waiting calls get the connections that other calls release."""
    postgres = await open_postgres(settings(database, size=2), "tests")
    answers = await asyncio.gather(
        *(postgres.fetchrow("test", "SELECT $1::int, pg_backend_pid()", n) for n in range(40))
    )
    rows = [tuple(answer) for answer in answers if answer is not None]
    assert [number for number, _ in rows] == list(range(40))
    assert len({backend for _, backend in rows}) == 2
    await postgres.close()


async def test_a_cancelled_waiting_call_takes_no_connection(database: str) -> None:
    postgres = await open_postgres(settings(database, size=1), "tests")
    async with postgres.connection("test"):
        impatient = [asyncio.create_task(postgres.fetchval("test", "SELECT 1")) for _ in range(3)]
        patient = asyncio.create_task(postgres.fetchval("test", "SELECT 2"))
        await asyncio.sleep(0)
        impatient[0].cancel()
        impatient[2].cancel()
        await asyncio.sleep(0)
    impatient[1].cancel()  # it has got its connection already
    assert await patient == 2
    assert await postgres.ready()
    assert value("paquebot_postgres_pool_waiting_calls") == 0
    await postgres.close()


async def test_waiting_for_a_connection_has_a_timeout(database: str) -> None:
    postgres = await open_postgres(settings(database, size=1), "tests")
    async with postgres.connection("test"):
        postgres._connections._acquire_timeout = 0.05
        with pytest.raises(PostgresUnavailable):
            await postgres.fetchval("test", "SELECT 1")
    assert await postgres.ready()
    await postgres.close()


async def test_the_next_waiting_call_continues_after_a_failed_one(database: str) -> None:
    postgres = await open_postgres(settings(database, size=1), "tests")
    failing = [postgres.fetchval("test", "SELECT 1 / 0") for _ in range(3)]
    answers = await asyncio.gather(*failing, postgres.fetchval("test", "SELECT 1"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [PostgresRefused] * 3 + [int]
    await postgres.close()


async def test_a_connection_lost_between_two_calls_is_no_fault(database: str) -> None:
    postgres = await open_postgres(settings(database), "lost")
    used = await postgres.fetchval("test", "SELECT pg_backend_pid()")
    assert value("paquebot_postgres_pool_connections", state="idle") == 1
    admin = await asyncpg.connect(database)
    await admin.execute("SELECT pg_terminate_backend($1)", used)
    async with asyncio.timeout(10):
        while value("paquebot_postgres_pool_connections", state="idle"):
            await asyncio.sleep(0)  # until the client has noticed the loss
    assert await postgres.fetchval("test", "SELECT pg_backend_pid()") != used
    await admin.close()
    await postgres.close()


async def test_a_call_given_up_leaves_nothing_behind(database: str) -> None:
    postgres = await open_postgres(settings(database, size=1), "tests")

    async def work(connection: Connection) -> None:
        await connection.execute("CREATE TABLE given_up ()")
        await connection.execute("SELECT pg_sleep(30)")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(postgres.run("test", work), 0.1)
    assert await postgres.fetchval("test", "SELECT to_regclass('given_up')") is None
    await postgres.close()


async def test_idle_connections_return_to_the_pool(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SPARE_SECONDS", 0.05)
    monkeypatch.setattr(postgres_module, "_IDLE_SECONDS", 0.05)
    postgres = await open_postgres(settings(database, size=4), "few")
    await asyncio.gather(*(postgres.execute("test", "SELECT pg_sleep(0.05)") for _ in range(4)))
    admin = await asyncpg.connect(database)
    async with asyncio.timeout(10):
        while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'few'"):
            await asyncio.sleep(0.01)
    assert await postgres.ready()
    await admin.close()
    await postgres.close()


@pytest.mark.parametrize(
    ("dsn", "password", "whole"),
    [
        ("postgresql://r@h:1/d", "", "postgresql://r@h:1/d"),
        ("postgresql://r@h:1/d", "a b/c", "postgresql://r:a%20b%2Fc@h:1/d"),
        ("postgresql://r:own@h/d", "other", "postgresql://r:own@h/d"),
        ("postgresql://r@h1:1,h2:2/d?x=y", "p", "postgresql://r:p@h1:1,h2:2/d?x=y"),
    ],
)
def test_the_password_is_added_to_a_dsn_without_one(dsn: str, password: str, whole: str) -> None:
    assert dsn_of(PostgresSettings(dsn=Secret(dsn), password=Secret(password))) == whole


async def test_the_pool_and_its_faults_are_measured(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def faults(call: str) -> dict[str, float | None]:
        labels = {"engine": "postgres", "call": call}
        found = {
            fault.value: value("paquebot_engine_errors_total", **labels, **{"class": fault.value}) for fault in Fault
        }
        return {name: number for name, number in found.items() if number}

    postgres = await open_postgres(settings(database, timeout=0.2), "tests")
    waits: list[float] = []  # of this pool alone: the metric counts all pools of the process
    observe = postgres._connections._observe_wait

    def observed(seconds: float) -> None:
        waits.append(seconds)
        observe(seconds)

    monkeypatch.setattr(postgres._connections, "_observe_wait", observed)
    assert value("paquebot_postgres_pool_limit_connections") == 2
    used = "paquebot_postgres_pool_connections"
    async with postgres.connection("measured"):
        assert (value(used, state="used"), value(used, state="idle")) == (1, 0)
        async with postgres.connection("measured"):
            waiting = asyncio.create_task(postgres.fetchval("measured", "SELECT 1"))
            await asyncio.sleep(0)
            assert value("paquebot_postgres_pool_waiting_calls") == 1
    assert await waiting == 1
    assert value("paquebot_postgres_pool_waiting_calls") == 0
    assert (value(used, state="used"), value(used, state="idle")) == (0, 2)
    assert len(waits) == 3
    assert observe == POOL_WAIT.observe
    assert faults("measured") == {}
    with pytest.raises(PostgresUnavailable):
        await postgres.execute("measured_timeout", "SELECT pg_sleep(30)")
    with pytest.raises(PostgresNotReady):
        await postgres.execute("measured_refused", "SELECT 1 FROM nothing")
    assert (faults("measured_timeout"), faults("measured_refused")) == ({"timeout": 1}, {"refused": 1})
    await postgres.close()
    away = await open_postgres(settings(f"postgresql://x@127.0.0.1:{free_port()}/x"), "tests")
    assert not await away.ready()
    assert "connection" in faults("ready")
    await away.close()


async def make_read_only(postgres: Postgres, connections: int) -> set[int]:
    """Make connections read-only, like those of a proxy to a demoted primary; return their server processes."""
    together = asyncio.Barrier(connections)

    async def one() -> int:
        async with postgres.connection("test") as connection:
            await connection.execute("SET default_transaction_read_only = on")
            await together.wait()
            return int(await connection.fetchval("SELECT pg_backend_pid()"))

    return set(await asyncio.gather(*(one() for _ in range(connections))))


async def test_a_refused_write_ends_every_connection_to_that_server(database: str) -> None:
    postgres = await open_postgres(settings(database, size=3), "tests")
    await postgres.execute("test", "CREATE TABLE t (n int)")
    left = value("paquebot_postgres_read_only_total") or 0.0
    stale = await make_read_only(postgres, 3)
    with pytest.raises(PostgresUnavailable):
        await postgres.execute("test", "INSERT INTO t VALUES (1)")
    fresh = await asyncio.gather(
        *(postgres.fetchval("test", "INSERT INTO t VALUES (2) RETURNING pg_backend_pid()") for _ in range(6))
    )
    assert not stale & set(fresh)
    assert value("paquebot_postgres_read_only_total") == left + 1
    await postgres.close()


async def test_a_call_under_way_does_not_bring_a_stale_connection_back(database: str) -> None:
    postgres = await open_postgres(settings(database, size=2), "tests")
    await postgres.execute("test", "CREATE TABLE t (n int)")
    stale = await make_read_only(postgres, 2)
    async with postgres.connection("test") as under_way:
        with pytest.raises(PostgresUnavailable):
            await postgres.execute("test", "INSERT INTO t VALUES (1)")
        assert await under_way.fetchval("SELECT 1") == 1
    pids = await asyncio.gather(*(postgres.fetchval("test", "SELECT pg_backend_pid()") for _ in range(4)))
    assert not stale & set(pids)
    await postgres.close()


async def test_reads_leave_a_stale_server_too(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres = await open_postgres(settings(database), "tests")
    stale = await make_read_only(postgres, 2)
    assert await postgres.fetchval("test", "SELECT pg_backend_pid()") in stale  # checked recently
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.0)
    assert await postgres.fetchval("test", "SELECT pg_backend_pid()") not in stale
    await postgres.close()


async def test_readiness_checks_that_the_server_accepts_writes(database: str) -> None:
    postgres = await open_postgres(settings(database, size=1), "tests")
    await make_read_only(postgres, 1)
    assert not await postgres.ready()
    assert await postgres.ready()
    await postgres.close()


async def test_the_pool_chooses_a_server_that_accepts_writes(database: str) -> None:
    """The first server does not answer, the second looks like a standby."""
    admin = await asyncpg.connect(database)
    parts = urllib.parse.urlsplit(database)
    name = parts.path.removeprefix("/")
    two = parts._replace(netloc=parts.netloc.replace("@", f"@127.0.0.1:{free_port()},")).geturl()
    postgres = await open_postgres(settings(two), "tests")
    assert await postgres.fetchval("test", "SELECT 1") == 1
    await postgres.close()
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    refused = await open_postgres(settings(two), "tests")
    with pytest.raises(PostgresUnavailable):
        await refused.fetchval("test", "SELECT 1")
    assert not await refused.ready()
    await refused.close()
    content = await open_postgres(settings(f"{two}?target_session_attrs=any"), "tests")
    assert await content.fetchval("test", "SELECT 1") == 1
    assert await content.ready()
    await content.close()
    await admin.close()


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_no_call_waits_for_the_clean_up_of_a_frozen_connection(database: str, in_transaction: bool) -> None:
    """A cancelled call, such as a probe after its timeout, ends immediately, not at the end of its statement."""
    parts = urllib.parse.urlsplit(database)
    async with SlowProxy(str(parts.hostname), int(parts.port or 0)) as proxy:
        host, port = urllib.parse.urlsplit(proxy.endpoint).netloc.split(":")
        netloc = f"{parts.netloc.rpartition('@')[0]}@{host}:{port}"
        dsn = parts._replace(netloc=netloc).geturl()
        postgres = await open_postgres(settings(f"{dsn}?sslmode=disable", timeout=100.0, size=1), "tests")
        assert await postgres.ready()
        frozen = asyncio.Event()

        async def ask(connection: Connection) -> None:
            proxy.hold()
            frozen.set()
            await connection.fetchval("SELECT 1")

        frame = postgres.run if in_transaction else postgres.run_statement
        call = asyncio.ensure_future(frame("test", ask))
        await frozen.wait()
        call.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(asyncio.CancelledError):
                await call
        proxy.release()
        assert await postgres.fetchval("test", "SELECT 1") == 1
        await postgres.close()
