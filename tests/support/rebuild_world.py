"""A platform that will lose its mailstore: the work of services, janitor and operator on the real engines."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from paquebot.blobs import BlobStore
from paquebot.delivery import entries
from paquebot.janitor.rebuild.packs import RebuildResult
from paquebot.janitor.rebuild.rebuild import rebuild
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.snapshots.snapshot import SnapshotResult, snapshot
from paquebot.janitor.stores import Stores
from paquebot.janitor.verification.verify import verify
from paquebot.mailstore import Flag, FlagOp, NewMessage, SpecialUse
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.queue import Consumer, Queue
from paquebot.queue.subjects import DELIVER
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import Seconds, Secret
from paquebot.spool import Spool
from paquebot.v1.mail_pb2 import Envelope, LocalRecipient, RemoteRecipient
from paquebot.v1.queue_pb2 import DeliverJob
from tests.support.mailstores import Mailstore
from tests.support.roles import let_roles_log_in, role_dsn

ALICE, BOB = 1, 2
WEEK = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Platform:
    """The operations of tests on mail, as the services do them."""

    stores: Stores
    janitor: Stores
    """The pools use the janitor's role: its work must need no other right."""
    spool: Spool
    settings: JanitorSettings
    output: list[str] = field(default_factory=list)

    @property
    def mailstore(self) -> Mailstore:
        return Mailstore.of(self.stores.postgres)

    async def accept(self, subject: str, *accounts: int, remote: Sequence[str] = ()) -> str:
        """Accept a message into the spool without delivering it."""
        local = [
            LocalRecipient(account_id=n, address=f"u{n}@paquebot.test", forward_path=f"u{n}@paquebot.test")
            for n in accounts
        ]
        out = [RemoteRecipient(forward_path=path, domain=path.partition("@")[2]) for path in remote]
        raw = f"From: a@example.org\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\nHow do you do?\r\n"
        return await self.spool.accept(Envelope(reverse_path="a@example.org", local=local, remote=out), raw.encode())

    async def deliver(self) -> None:
        """Deliver all waiting jobs with the prefix and the dates of the delivery service."""
        consumer = Consumer(self.stores.queue, "delivery", DELIVER)
        for job in await consumer.fetch(100, 0.1):
            for entry in DeliverJob.FromString(job.payload).entries:
                await self.mailstore.deliveries.deliver([one.delivery for one in entries.deliveries_of(entry)])
            await job.ack()
        await consumer.close()

    async def arrive(self, subject: str, *accounts: int) -> str:
        queue_id = await self.accept(subject, *accounts)
        await self.deliver()
        return queue_id

    async def append(self, account_id: int, mailbox: str, subject: str, *words: str) -> None:
        """Do what IMAP APPEND does."""
        await self.mailstore.accounts.ensure(account_id)
        box = await self.mailstore.mailboxes.find(account_id, mailbox)
        stored = await self.spool.store(f"Subject: {subject}\r\n\r\ndraft\r\n".encode(), account_id=account_id)
        message = NewMessage(
            email_id=stored.queue_id,
            blob=stored.blob,
            summary=stored.summary.SerializeToString(),
            thread_key=stored.summary.thread_key,
            internal_date=datetime.datetime(2020, 2, 29, 1, 2, 3, 456789, tzinfo=datetime.UTC),
            flags=Flag.SEEN | Flag.DRAFT,
            keywords=words,
        )
        await self.mailstore.messages.append(account_id, box.mailbox_id, [message], quota_bytes=0)

    async def snapshot(self) -> SnapshotResult:
        return await snapshot(self.janitor, self.settings)

    async def rebuild_only(self, *, merge: bool = False) -> RebuildResult:
        return await rebuild(self.janitor, merge=merge, say=self.output.append, settle=0)

    async def rebuild(self, *, merge: bool = False) -> RebuildResult:
        """Rebuild the mailstore and check its invariants."""
        result = await self.rebuild_only(merge=merge)
        assert await self.mailstore.broken_invariants() == []
        assert (await verify(self.stores, settle=0)).faults == []
        return result

    async def lose_mailstore(self) -> None:
        """Delete all rows, and the mailstore's name with them, as if the schema had been dropped and migrated again."""
        tables = await self.stores.postgres.fetch(
            "test",
            "SELECT relname FROM pg_class WHERE relnamespace = 'mailstore'::regnamespace AND relkind = 'r'"
            " AND relname <> 'schema_version'",
        )
        names = ", ".join(f"mailstore.{row['relname']}" for row in tables)
        await self.stores.postgres.execute("test", f"TRUNCATE {names}")
        await self.stores.postgres.execute(
            "test", "INSERT INTO mailstore.identity (name) VALUES (gen_random_uuid()::text)"
        )

    async def contents(self, account_id: int) -> dict[str, dict[int, tuple[object, ...]]]:
        """Return, by mailbox and UID, all facts of a message that a rebuild must restore, with its content."""
        found: dict[str, dict[int, tuple[object, ...]]] = {}
        for box in await self.mailstore.mailboxes.list_all(account_id):
            if not box.selectable:
                continue
            view = await self.mailstore.mailbox_reader.state(account_id, box.mailbox_id)
            found[box.name] = {
                message.uid: (
                    message.email_id,
                    message.flags,
                    frozenset(message.keywords),
                    message.internal_date,
                    message.save_date,
                    message.thread_id,
                    message.summary,
                    hashlib.sha256(message.prefix + await self.stores.blobs.read(message.blob)).hexdigest(),
                )
                async for message in self.mailstore.mailbox_reader.messages(
                    account_id, box.mailbox_id, view.rows.uids, with_summary=True
                )
            }
        return found

    async def tree(self, account_id: int) -> dict[str, tuple[object, ...]]:
        boxes = await self.mailstore.mailboxes.list_all(account_id)
        return {
            box.name: (box.mailbox_id, box.uid_validity, box.special_use, box.selectable, set(box.keywords))
            for box in boxes
        }

    async def subjects(self, account_id: int, mailbox: str = "INBOX") -> list[str]:
        box = await self.mailstore.mailboxes.find(account_id, mailbox)
        uids = (await self.mailstore.mailbox_reader.state(account_id, box.mailbox_id)).rows.uids
        messages = self.mailstore.mailbox_reader.messages
        found = [m async for m in messages(account_id, box.mailbox_id, uids, with_summary=False)]
        raw = [await self.stores.blobs.read(message.blob) for message in found]
        return [text.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for text in raw]

    async def expunge(self, account_id: int, mailbox_id: int, *uids: int) -> None:
        await self.mailstore.messages.remove(account_id, mailbox_id, uids)


@pytest.fixture
async def platform(
    blobs: BlobStore,
    queue: Queue,
    migrated: Postgres,
    spool: Spool,
    nats_settings: NatsSettings,
    s3_settings: S3Settings,
    postgres_settings: PostgresSettings,
) -> AsyncIterator[Platform]:
    settings = JanitorSettings(nats_settings, s3_settings, postgres_settings, min_age=Seconds(0.0))
    await let_roles_log_in(str(postgres_settings.dsn), "paquebot_janitor")
    dsn = Secret(role_dsn(str(postgres_settings.dsn), "paquebot_janitor"))
    own = await open_postgres(PostgresSettings(dsn=dsn, pool_size=4), "tests")
    stores = Stores.of(blobs, queue, migrated)
    yield Platform(stores, Stores.of(blobs, queue, own), spool, settings)
    await own.close()


async def furnish(platform: Platform) -> None:
    """Two accounts with shared and own mail, nested mailboxes, flags, keywords, an APPEND, a copy, an expunge."""
    for number in range(5):
        await platform.arrive(f"shared-{number}", ALICE, BOB)
    store = platform.mailstore
    nested = await store.mailboxes.create(ALICE, "Projekte/Büro 2024/日本語")
    await store.mailboxes.create(ALICE, "Lists", special_use=SpecialUse.JUNK)
    await store.mailboxes.delete(ALICE, "Projekte")  # stays, not selectable
    await store.mailboxes.unsubscribe(ALICE, "Junk")
    await store.mailboxes.subscribe(ALICE, "gone/for good")
    words = ["$Forwarded", "Wichtig"]
    await store.messages.store_flags(ALICE, INBOX_ID, [1, 2], FlagOp.ADD, flags=Flag.SEEN, keywords=words)
    await store.messages.store_flags(ALICE, INBOX_ID, [3], FlagOp.ADD, flags=Flag.FLAGGED | Flag.DELETED)
    await store.messages.copy(ALICE, INBOX_ID, [1, 2], nested.mailbox_id, quota_bytes=0)
    await store.messages.move(ALICE, INBOX_ID, [4], nested.mailbox_id)
    await platform.append(ALICE, "Drafts", "draft", "$Label1")
    await platform.expunge(BOB, INBOX_ID, 2)
