"""The engines that upkeep works on, opened together."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from paquebot.blobs import BlobStore
from paquebot.janitor.settings import JanitorSettings
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
from paquebot.runtime.postgres.pool import Postgres, open_postgres


@dataclass(frozen=True, slots=True)
class Stores:
    """The engines' clients."""

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
    """Open all three engines; they are closed at the end of the block."""
    async with contextlib.AsyncExitStack() as stack:
        blobs = BlobStore(settings.s3)
        stack.push_async_callback(blobs.close)
        queue = await Queue.open(settings.nats, "paquebot janitor")
        stack.push_async_callback(queue.close)
        postgres = await open_postgres(settings.postgres, "paquebot janitor")
        stack.push_async_callback(postgres.close)
        yield Stores.of(blobs, queue, postgres)
