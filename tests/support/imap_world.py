"""The real IMAP service on the real engines and the real directory, in this process, and accounts to log in to.

`imap_stack` lives as long as the test session: one database, bucket and directory service for all. Each test takes
a new account of it, so that tests cannot see each other's mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import urllib3

from paquebot.blobs import BlobStore
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.cli.up.certificate import ensure_certificate
from paquebot.imap.server import ImapServer
from paquebot.imap.service import open_server
from paquebot.imap.settings import ImapSettings
from paquebot.mailstore import Delivery, NewMessage
from paquebot.queue import Queue
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import Seconds, Secret, load
from paquebot.spool import Spool, SpoolSettings
from tests.support.directory_service import DirectoryService, directory_service, nats_login
from tests.support.mailstores import Mailstore
from tests.support.roles import let_roles_log_in, role_dsn

PASSWORD = "secret of tests"
DOMAIN = "imap.test"
PREFIX = b"Return-Path: <sender@example.org>\r\nDelivered-To: reader@imap.test\r\n"
_ROLE = "paquebot_imap"
_numbers = itertools.count(1)


@dataclass(slots=True, frozen=True)
class Reader:
    """An account of a test."""

    account_id: int
    address: str


@dataclass(slots=True)
class ImapStack:
    """The stack that all IMAP tests share."""

    environ: dict[str, str]
    directory: DirectoryService
    mailstore: Mailstore
    spool: Spool
    queue: Queue
    postgres: Postgres

    async def reader(self, *, quota: int = 0) -> Reader:
        """A new account with its mailboxes."""
        address = f"reader{next(_numbers)}@{DOMAIN}"
        account_id = await self.directory.account(address, PASSWORD, quota_bytes=quota)
        await self.mailstore.accounts.ensure(account_id)
        return Reader(account_id, address)

    async def deliver(self, reader: Reader, *messages: bytes, prefix: bytes = PREFIX) -> None:
        """Deliver messages to INBOX as delivery does: store them, record them, then publish a hint."""
        await self.deliver_many([(reader, raw) for raw in messages], prefix=prefix)
        await self.queue.hint_mailbox(reader.account_id)

    async def deliver_many(self, messages: Sequence[tuple[Reader, bytes]], *, prefix: bytes = PREFIX) -> None:
        """Messages in one transaction, without a hint."""
        stored = await asyncio.gather(
            *(self.spool.store(raw, account_id=reader.account_id) for reader, raw in messages)
        )
        await self.mailstore.deliveries.deliver(
            [
                Delivery(
                    reader.account_id,
                    "",
                    0,
                    NewMessage(
                        email_id=one.queue_id,
                        blob=one.blob,
                        summary=one.summary.SerializeToString(),
                        thread_key=one.summary.thread_key,
                        internal_date=datetime.datetime(2026, 3, 1, 12, 0, index % 60, tzinfo=datetime.UTC),
                        prefix=prefix,
                    ),
                )
                for index, ((reader, _), one) in enumerate(zip(messages, stored, strict=True))
            ]
        )

    @contextlib.asynccontextmanager
    async def serving(self, draining: asyncio.Event | None = None, /, **environ: str) -> AsyncIterator[ImapServer]:
        """One IMAP service in this process, on free ports, ended by its drain."""
        settings = load(ImapSettings, {**self.environ, **environ})
        draining = draining or asyncio.Event()
        async with open_server(settings, Health()) as server:
            task = asyncio.create_task(server.run(draining))
            try:
                yield server
            finally:
                draining.set()
                await asyncio.wait_for(task, 10.0)


def _environ(
    nats: NatsEngine, s3: S3Engine, bucket: str, dsn: str, directory: str, certificates: Path
) -> dict[str, str]:
    s3_login = s3.accesses[0]
    return {
        **nats_login(nats),
        "PAQUEBOT_S3_ENDPOINT": f"http://{s3.endpoint}",
        "PAQUEBOT_S3_BUCKET": bucket,
        "PAQUEBOT_S3_ACCESS_KEY": s3_login.access_key,
        "PAQUEBOT_S3_SECRET_KEY": s3_login.secret_key,
        "PAQUEBOT_POSTGRES_DSN": dsn,
        "PAQUEBOT_RECIPIENT_VALIDATION": directory,
        "PAQUEBOT_TLS_CERTIFICATE": str(certificates / "certificate.pem"),
        "PAQUEBOT_TLS_KEY": str(certificates / "key.pem"),
        "PAQUEBOT_IMAP_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_IMAPS_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_IMAP_LOGIN_DELAY": "0s",
        "PAQUEBOT_DRAIN": "5s",
    }


@contextlib.asynccontextmanager
async def imap_stack_on(
    nats_engine: NatsEngine, s3_engine: S3Engine, postgres_engine: PostgresEngine, certificates: Path
) -> AsyncIterator[ImapStack]:
    """The directory, a database and a bucket; at the end the mailstore's invariants are checked."""
    ensure_certificate(certificates / "certificate.pem", certificates / "key.pem", ("localhost", "127.0.0.1"))
    await _administer(postgres_engine, "CREATE DATABASE imap_tests")
    dsn = postgres_engine.dsn("imap_tests")
    with urllib3.PoolManager() as pool:
        await asyncio.to_thread(s3_engine.client(pool).make_bucket, "imap-tests")
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
        environ = _environ(nats_engine, s3_engine, "imap-tests", role_dsn(dsn, _ROLE), directory.target, certificates)
        postgres = await open_postgres(PostgresSettings(Secret(dsn)), "imap-tests")
        stack.push_async_callback(postgres.close)
        blobs = BlobStore(load(S3Settings, environ))
        stack.push_async_callback(blobs.close)
        queue = await Queue.open(load(NatsSettings, environ), "imap-tests")
        stack.push_async_callback(queue.close)
        spool = Spool(blobs, None, SpoolSettings(linger=Seconds(0.002)))
        stack.push_async_callback(spool.close)
        mailstore = Mailstore.of(postgres)
        yield ImapStack(environ, directory, mailstore, spool, queue, postgres)
        assert await mailstore.broken_invariants() == []
    await _administer(postgres_engine, "DROP DATABASE imap_tests WITH (FORCE)")


async def _administer(engine: PostgresEngine, statement: str) -> None:
    connection = await asyncpg.connect(engine.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
