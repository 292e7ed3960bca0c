"""The engines that upkeep works on, opened together."""

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
    """The engines' clients."""

    blobs: BlobStore
    queue: Queue
    postgres: Postgres
    mailstore: Mailstore


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
        yield Stores(blobs, queue, postgres, Mailstore(postgres))
