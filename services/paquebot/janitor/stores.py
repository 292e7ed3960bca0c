"""The engines as upkeep sees them, opened together."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from paquebot.blobs import BlobStore
from paquebot.janitor.settings import JanitorSettings
from paquebot.mailstore import Mailstore
from paquebot.queue import Queue
from paquebot.runtime.postgres.pool import Postgres, open_postgres


@dataclass(frozen=True, slots=True)
class Stores:
    """What upkeep works on."""

    blobs: BlobStore
    queue: Queue
    postgres: Postgres
    mailstore: Mailstore


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
        yield Stores(blobs, queue, postgres, Mailstore(postgres))
