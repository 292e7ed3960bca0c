"""The real POP3 service on the real engines and the real directory, in this process, and accounts to log in to.

`pop3_stack` lives as long as the test session: one database, bucket and directory service for all. Each test takes
a new account of it, so that tests cannot see each other's mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import poplib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg
import urllib3

from paquebot.blobs import BlobStore
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.cli.up.certificate import ensure_certificate
from paquebot.mailstore import Delivery, NewMessage
from paquebot.pop3.server import Pop3Server
from paquebot.pop3.service import Pop3Settings, open_server
from paquebot.queue import Queue
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import Seconds, Secret, load
from paquebot.spool import Spool, SpoolSettings
from tests.dialogues.dialogue import client_tls
from tests.support.directory_service import DirectoryService, directory_service, nats_login
from tests.support.mailstores import Mailstore
from tests.support.roles import let_roles_log_in, role_dsn

PASSWORD = "secret of tests"
DOMAIN = "pop3.test"
PREFIX = b"Return-Path: <sender@example.org>\r\nDelivered-To: reader@pop3.test\r\n"
INBOX = 1
_DATABASE = "pop3_tests"
_BUCKET = "pop3-tests"
_ROLE = "paquebot_pop3"
_numbers = itertools.count(1)

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Reader:
    """An account of a test."""

    account_id: int
    address: str


@dataclass(slots=True)
class Pop3Stack:
    """The stack that all POP3 tests share."""

    environ: dict[str, str]
    directory: DirectoryService
    postgres: Postgres
    mailstore: Mailstore
    blobs: BlobStore
    spool: Spool
    queue: Queue

    async def reader(self) -> Reader:
        """A new account with its mailboxes."""
        address = f"reader{next(_numbers)}@{DOMAIN}"
        account_id = await self.directory.account(address, PASSWORD)
        await self.mailstore.accounts.ensure(account_id)
        return Reader(account_id, address)

    async def deliver(self, reader: Reader, *messages: bytes, prefix: bytes = PREFIX) -> None:
        """Put messages into INBOX, in this order, as delivery does."""
        stored = await asyncio.gather(*(self.spool.store(raw, account_id=reader.account_id) for raw in messages))
        new = [
            NewMessage(
                email_id=one.queue_id,
                blob=one.blob,
                summary=one.summary.SerializeToString(),
                thread_key=one.summary.thread_key,
                internal_date=datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC),
                prefix=prefix,
            )
            for one in stored
        ]
        await self.mailstore.deliveries.deliver([Delivery(reader.account_id, "", 0, message) for message in new])

    async def uids(self, reader: Reader) -> list[int]:
        """The UIDs of INBOX."""
        return list((await self.mailstore.mailbox_reader.state(reader.account_id, INBOX)).rows.uids)

    async def flags(self, reader: Reader) -> list[int]:
        return list((await self.mailstore.mailbox_reader.state(reader.account_id, INBOX)).rows.flags)

    async def leases(self, reader: Reader) -> list[str]:
        """Return the owners of leases on the account's maildrop: none or one."""
        sql = "SELECT owner FROM mailstore.maildrop_locks WHERE account_id = $1 AND expires_at > now()"
        return [row["owner"] for row in await self.postgres.fetch("test", sql, reader.account_id)]

    @contextlib.asynccontextmanager
    async def serving(self, draining: asyncio.Event | None = None, /, **environ: str) -> AsyncIterator[Pop3Server]:
        """One POP3 service in this process, on free ports, drained at the end."""
        settings = load(Pop3Settings, {**self.environ, **environ})
        draining = draining or asyncio.Event()
        async with open_server(settings, Health()) as server:
            task = asyncio.create_task(server.run(draining))
            try:
                yield server
            finally:
                draining.set()
                await asyncio.wait_for(task, 10.0)


def poplib_client(server: Pop3Server, reader: Reader | None = None) -> poplib.POP3_SSL:
    """A client over implicit TLS, logged in when `reader` is given. Call it in a thread."""
    client = poplib.POP3_SSL("127.0.0.1", server.port("pop3s"), context=client_tls(), timeout=20.0)
    if reader is not None:
        client.user(reader.address)
        client.pass_(PASSWORD)
    return client


async def until(condition: Callable[[], Awaitable[T]], deadline: float = 10.0) -> T:
    """The first true result of the awaitable condition."""
    async with asyncio.timeout(deadline):
        while not (answer := await condition()):
            await asyncio.sleep(0.01)
    return answer


def _environ(nats: NatsEngine, s3: S3Engine, dsn: str, directory: str, certificates: Path) -> dict[str, str]:
    s3_login = s3.accesses[0]
    return {
        **nats_login(nats),
        "PAQUEBOT_S3_ENDPOINT": f"http://{s3.endpoint}",
        "PAQUEBOT_S3_BUCKET": _BUCKET,
        "PAQUEBOT_S3_ACCESS_KEY": s3_login.access_key,
        "PAQUEBOT_S3_SECRET_KEY": s3_login.secret_key,
        "PAQUEBOT_POSTGRES_DSN": dsn,
        "PAQUEBOT_RECIPIENT_VALIDATION": directory,
        "PAQUEBOT_TLS_CERTIFICATE": str(certificates / "certificate.pem"),
        "PAQUEBOT_TLS_KEY": str(certificates / "key.pem"),
        "PAQUEBOT_POP3_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_POP3S_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_POP3_LOGIN_DELAY": "0s",
        "PAQUEBOT_DRAIN": "5s",
    }


@contextlib.asynccontextmanager
async def pop3_stack_on(
    nats_engine: NatsEngine, s3_engine: S3Engine, postgres_engine: PostgresEngine, certificates: Path
) -> AsyncIterator[Pop3Stack]:
    """The directory, a database and a bucket; at the end the mailstore's invariants are checked."""
    ensure_certificate(certificates / "certificate.pem", certificates / "key.pem", ("localhost", "127.0.0.1"))
    await _administer(postgres_engine, f"CREATE DATABASE {_DATABASE}")
    dsn = postgres_engine.dsn(_DATABASE)
    with urllib3.PoolManager() as pool:
        await asyncio.to_thread(s3_engine.client(pool).make_bucket, _BUCKET)
    async with contextlib.AsyncExitStack() as stack:
        directory = await stack.enter_async_context(
            directory_service(
                dsn,
                PAQUEBOT_LOGIN_FAILURES_ACCOUNT="1000",
                PAQUEBOT_LOGIN_FAILURES_CLIENT="100000",
                PAQUEBOT_LOGIN_DELAY="0s",
                **nats_login(nats_engine),
            )
        )
        await let_roles_log_in(dsn, _ROLE)
        await directory.domain(DOMAIN)
        environ = _environ(nats_engine, s3_engine, role_dsn(dsn, _ROLE), directory.target, certificates)
        postgres = await open_postgres(PostgresSettings(Secret(dsn)), "pop3-tests")
        stack.push_async_callback(postgres.close)
        blobs = BlobStore(load(S3Settings, environ))
        stack.push_async_callback(blobs.close)
        queue = await Queue.open(load(NatsSettings, environ), "pop3-tests")
        stack.push_async_callback(queue.close)
        spool = Spool(blobs, None, SpoolSettings(linger=Seconds(0.002)))
        stack.push_async_callback(spool.close)
        mailstore = Mailstore.of(postgres)
        yield Pop3Stack(environ, directory, postgres, mailstore, blobs, spool, queue)
        assert await mailstore.broken_invariants() == []
    await _administer(postgres_engine, f"DROP DATABASE {_DATABASE} WITH (FORCE)")


async def _administer(engine: PostgresEngine, statement: str) -> None:
    connection = await asyncpg.connect(engine.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
