"""The engines as upkeep sees them, opened together."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from paquebot.blobs import BlobStore
from paquebot.janitor.compaction.settings import CompactionSettings
from paquebot.mailstore import (
    Accounts,
    Compactions,
    Deliveries,
    Messages,
    PackUses,
    Rebuilds,
    RowChecks,
    Snapshots,
)
from paquebot.queue import Queue
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import Seconds, setting


@dataclass(frozen=True, slots=True)
class JanitorSettings:
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    min_age: Seconds = setting("JANITOR_MIN_AGE", Seconds(86400.0), help="younger packs are left alone")
    orphan_age: Seconds = setting(
        "JANITOR_ORPHAN_AGE",
        Seconds(14 * 86400.0),
        help="a pack of mail that was refused, which its senders have, is deleted then",
    )
    records_age: Seconds = setting(
        "JANITOR_RECORDS_AGE", Seconds(30 * 86400.0), help="records of deliveries and relays are kept this long"
    )
    expunged_age: Seconds = setting(
        "JANITOR_EXPUNGED_AGE", Seconds(90 * 86400.0), help="how long IMAP clients can learn what was expunged"
    )
    snapshot: bool = setting(
        "JANITOR_SNAPSHOT", True, help="write the mailboxes' metadata into the bucket, for recover --rebuild"
    )
    compaction: CompactionSettings = CompactionSettings()

    def __post_init__(self) -> None:
        if self.records_age < self.orphan_age:
            raise ValueError("PAQUEBOT_JANITOR_RECORDS_AGE must be at least PAQUEBOT_JANITOR_ORPHAN_AGE")


@dataclass(frozen=True, slots=True)
class Stores:
    """What upkeep works on."""

    blobs: BlobStore
    queue: Queue
    postgres: Postgres
    accounts: Accounts
    messages: Messages
    deliveries: Deliveries
    compactions: Compactions
    pack_uses: PackUses
    row_checks: RowChecks
    snapshots: Snapshots
    rebuilds: Rebuilds

    @classmethod
    def of(cls, blobs: BlobStore, queue: Queue, postgres: Postgres) -> "Stores":
        """On open engines."""
        return cls(
            blobs=blobs,
            queue=queue,
            postgres=postgres,
            accounts=Accounts(postgres),
            messages=Messages(postgres),
            deliveries=Deliveries(postgres),
            compactions=Compactions(postgres),
            pack_uses=PackUses(postgres),
            row_checks=RowChecks(postgres),
            snapshots=Snapshots(postgres),
            rebuilds=Rebuilds(postgres),
        )


@contextlib.asynccontextmanager
async def open_stores(settings: JanitorSettings) -> AsyncIterator[Stores]:
    """All three engines; closed at the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        blobs = BlobStore(settings.s3)
        stack.push_async_callback(blobs.close)
        queue = await Queue.open(settings.nats, "paquebot janitor")
        stack.push_async_callback(queue.close)
        postgres = await open_postgres(settings.postgres, "paquebot janitor")
        stack.push_async_callback(postgres.close)
        yield Stores.of(blobs, queue, postgres)
