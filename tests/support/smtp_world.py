"""The real smtp_ingress on the real engines and the real directory, in this process, and the messages that it queued.

`SmtpStack` lives as long as a test module: one database, bucket, stream and directory for all its tests. A test
sees only the jobs that entered the stream after the test began.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import urllib3

from paquebot.blobs import BlobStore, decode_entry
from paquebot.cli.engines.nats import NatsEngine
from paquebot.cli.engines.postgres import PostgresEngine
from paquebot.cli.engines.s3 import S3Engine
from paquebot.cli.up.certificate import ensure_certificate
from paquebot.queue import Queue
from paquebot.queue.stream import delete_stream, ensure_stream, jobs
from paquebot.runtime.engine_settings import NatsSettings, S3Settings
from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import load
from paquebot.smtp_ingress.server import SmtpServer
from paquebot.smtp_ingress.service import open_server
from paquebot.smtp_ingress.settings import SmtpIngressSettings
from paquebot.v1 import directory_pb2 as pb
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from paquebot.v1.queue_pb2 import DeliverJob, RelayJob
from tests.support.directory_service import DirectoryService, directory_service, nats_login

PASSWORD = "paquebot of tests"
HOSTNAME = "mx.paquebot.test"
_GUESTS = {"PAQUEBOT_GUEST_DOMAINS": "guests.test", "PAQUEBOT_GUEST_RECIPIENTS": "3"}
_numbers = itertools.count(1)


@dataclass(slots=True, frozen=True)
class QueuedMessage:
    """A message in the bucket whose jobs are in the stream."""

    envelope: Envelope
    content: bytes


@dataclass(slots=True)
class SmtpStack:
    """`environ`: the environment of the service."""

    environ: dict[str, str]
    directory: DirectoryService
    queue: Queue
    blobs: BlobStore

    async def last_sequence(self) -> int:
        """The last sequence of the stream."""
        last = 0
        async for job in jobs(self.queue):
            last = job.sequence
        return last

    async def queued(self, after: int) -> list[QueuedMessage]:
        """Read the messages whose jobs come after that sequence, in order, from the bucket."""
        queued: dict[str, str] = {}  # queue id to pack
        async for job in jobs(self.queue, after=after):
            if job.subject.startswith("deliver."):
                deliver = DeliverJob.FromString(job.payload)
                queued.update((entry.queue_id, deliver.pack) for entry in deliver.entries)
            else:
                relay = RelayJob.FromString(job.payload)
                queued[relay.queue_id] = relay.blob.pack
        return [await self._read(queue_id, pack) for queue_id, pack in queued.items()]

    async def _read(self, queue_id: str, pack: str) -> QueuedMessage:
        index = await self.blobs.read_index(await self.blobs.stat(pack))
        (entry,) = (entry for entry in index.entries if entry.envelope.queue_id == queue_id)
        data = await self.blobs.read_range(pack, entry.offset, entry.length)
        ref = BlobRef(
            pack=pack, offset=entry.offset, length=entry.length, size=entry.size, compression=entry.compression
        )
        return QueuedMessage(entry.envelope, decode_entry(ref, data))

    @contextlib.asynccontextmanager
    async def serving(self, **environ: str) -> AsyncIterator[SmtpServer]:
        """One smtp_ingress in this process on free ports."""
        settings = load(SmtpIngressSettings, {**self.environ, **environ})
        async with open_server(settings, Health()) as server:
            yield server


@contextlib.asynccontextmanager
async def smtp_stack_on(
    nats: NatsEngine, s3: S3Engine, postgres: PostgresEngine, certificates: Path
) -> AsyncIterator[SmtpStack]:
    """The directory with the accounts of the dialogues, a bucket and the stream; removed at the end."""
    name = f"smtp_tests_{next(_numbers)}"
    ensure_certificate(certificates / "certificate.pem", certificates / "key.pem", (HOSTNAME, "127.0.0.1"))
    environ = _environ(nats, s3, name.replace("_", "-"), certificates)
    await _administer(postgres, f"CREATE DATABASE {name}")
    with urllib3.PoolManager() as pool:
        await asyncio.to_thread(s3.client(pool).make_bucket, environ["PAQUEBOT_S3_BUCKET"])
    async with contextlib.AsyncExitStack() as stack:
        directory = await stack.enter_async_context(
            directory_service(postgres.dsn(name), **nats_login(nats), **_GUESTS)
        )
        environ["PAQUEBOT_RECIPIENT_VALIDATION"] = directory.target
        await _populate(directory)
        blobs = BlobStore(load(S3Settings, environ))
        stack.push_async_callback(blobs.close)
        queue = await Queue.open(load(NatsSettings, environ), "smtp-tests")
        stack.push_async_callback(queue.close)
        await ensure_stream(queue)
        stack.push_async_callback(delete_stream, queue)
        yield SmtpStack(environ, directory, queue, blobs)
    await _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def _populate(directory: DirectoryService) -> None:
    for domain in ("paquebot.test", "off.test", "guests.test"):
        await directory.domain(domain)
    for account in ("alice", "bob", "carol", "élise"):
        await directory.account(f"{account}@paquebot.test", PASSWORD)
    await directory.account("gina@guests.test", PASSWORD)
    await directory.account("dave@paquebot.test", PASSWORD, quota_bytes=1000)
    await directory.admin.ask(directory.admin.stub.UpdateDomain, pb.UpdateDomainRequest(name="off.test", enabled=False))
    await directory.set_account("carol@paquebot.test", enabled=False)
    await directory.alias("team@paquebot.test", "alice@paquebot.test", "bob@paquebot.test", "x@elsewhere.example")
    await directory.alias("sales@paquebot.test", "alice@paquebot.test")
    await directory.alias("round@paquebot.test", "about@paquebot.test")
    await directory.alias("about@paquebot.test", "round@paquebot.test")


def _environ(nats: NatsEngine, s3: S3Engine, bucket: str, certificates: Path) -> dict[str, str]:
    s3_login = s3.accesses[0]
    return {
        **nats_login(nats),
        "PAQUEBOT_S3_ENDPOINT": f"http://{s3.endpoint}",
        "PAQUEBOT_S3_BUCKET": bucket,
        "PAQUEBOT_S3_ACCESS_KEY": s3_login.access_key,
        "PAQUEBOT_S3_SECRET_KEY": s3_login.secret_key,
        "PAQUEBOT_TLS_CERTIFICATE": str(certificates / "certificate.pem"),
        "PAQUEBOT_TLS_KEY": str(certificates / "key.pem"),
        "PAQUEBOT_HOSTNAME": HOSTNAME,
        "PAQUEBOT_SMTP_MX_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_SMTP_SUBMISSION_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_SMTP_SUBMISSIONS_LISTEN": "127.0.0.1:0",
        "PAQUEBOT_DRAIN": "10s",
    }


async def _administer(engine: PostgresEngine, statement: str) -> None:
    connection = await asyncpg.connect(engine.dsn())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
