"""Marks beside packs: small objects with what an immutable pack cannot say about its messages.

A mark `<kind>/<pack>` holds queue ids, one a line. `refused/`: their senders got 451, so they still have these messages
and send them again. `orphaned/`: these messages were accepted, and were neither served nor queued while the records
that show it still existed.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from paquebot.blobs.errors import BlobMissing
from paquebot.blobs.store import BlobStore
from paquebot.runtime.ulid import is_ulid

REFUSED = "refused/"
ORPHANED = "orphaned/"


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one kind. Each call raises BlobsUnavailable."""

    blobs: BlobStore
    kind: str

    async def put(self, pack: str, queue_ids: Collection[str]) -> None:
        await self.blobs.put_object(self.kind + pack, "\n".join(queue_ids).encode())

    async def packs(self) -> set[str]:
        """The packs that have a mark."""
        names = [key.removeprefix(self.kind) async for key, _ in self.blobs.list_objects(self.kind)]
        return set(filter(is_ulid, names))

    async def queue_ids(self, pack: str) -> set[str]:
        """Empty when the pack has no mark. Raises BadPack too."""
        try:
            return set((await self.blobs.read_object(self.kind + pack)).decode("utf-8", "replace").split("\n"))
        except BlobMissing:
            return set()

    async def delete(self, packs: Iterable[str]) -> None:
        await self.blobs.delete_objects([self.kind + pack for pack in packs])
