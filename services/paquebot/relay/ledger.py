"""The engines as an attempt needs them: the recorded outcomes of recipients, and the content of messages.

Attempts that run at the same time share their calls (a statement, a ranged read of a pack), so that PostgreSQL and S3
get a call for each batch and not for each message.
"""

from collections.abc import Sequence

from paquebot.blobs import BlobStore
from paquebot.runtime.batching import Batcher
from paquebot.runtime.postgres.pool import Postgres
from paquebot.spool import outcomes
from paquebot.v1.mail_pb2 import BlobRef

_MAX_BATCH = 200
_LARGE_BYTES = 16 * 2**20  # a larger message shares no call
Rows = list[tuple[str, str, outcomes.RecipientOutcome]]


class Ledger:
    """The recorded outcomes of recipients."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._done: Batcher[str, set[str]] = Batcher(self._ask, calls=2, limit=_MAX_BATCH)
        self._record: Batcher[Rows, None] = Batcher(self._write, calls=2, limit=_MAX_BATCH)

    async def done(self, queue_id: str) -> set[str]:
        """Forward-paths of the message that need nothing more. Raises PostgresUnavailable."""
        return await self._done.ask(queue_id)

    async def record(self, rows: Rows) -> None:
        """(queue id, forward-path, outcome) each; returns when they are durable. Raises PostgresUnavailable."""
        await self._record.ask(rows)

    async def _ask(self, queue_ids: Sequence[str]) -> list[set[str]]:
        found: dict[str, set[str]] = {queue_id: set() for queue_id in queue_ids}
        for queue_id, forward_path in await outcomes.finished_recipients(self._postgres, found):
            found[queue_id].add(forward_path)
        return [found[queue_id] for queue_id in queue_ids]

    async def _write(self, batch: Sequence[Rows]) -> list[None]:
        await outcomes.record(self._postgres, [row for rows in batch for row in rows])
        return [None] * len(batch)


class MessageReader:
    """Reads messages; those asked for at the same time share requests."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._read: Batcher[BlobRef, bytes] = Batcher(blobs.read_each, calls=8, limit=_MAX_BATCH)

    async def read(self, ref: BlobRef) -> bytes:
        """Raises BlobMissing, BadPack, BlobsUnavailable."""
        return await (self._blobs.read(ref) if ref.size > _LARGE_BYTES else self._read.ask(ref))
