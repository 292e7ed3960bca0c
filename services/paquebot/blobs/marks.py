"""Marks beside packs: small objects that say of messages in a pack what the pack, which never changes, cannot say.

A mark `<kind>/<pack>` has a queue id a line. `refused/`: their senders were told 451, so they still have them and send
them again. `orphaned/`: they were accepted, and neither served nor queued, when records that tell so were still there.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from paquebot.blobs.errors import BlobMissing
from paquebot.blobs.store import BlobStore
from paquebot.blobs.ulid import is_ulid

REFUSED = "refused/"
ORPHANED = "orphaned/"


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one kind. Each call raises BlobsUnavailable."""

    blobs: BlobStore
    kind: str

    async def put(self, pack: str, queue_ids: Collection[str]) -> None:
        await self.blobs.put_object(self.kind + pack, "\n".join(queue_ids).encode())

    async def packs(self) -> set[str]:
        """Those with a mark."""
        names = [key.removeprefix(self.kind) async for key, _ in self.blobs.list_objects(self.kind)]
        return set(filter(is_ulid, names))

    async def queue_ids(self, pack: str) -> set[str]:
        """None when the pack has no mark. Raises BadPack too."""
        try:
            return set((await self.blobs.read_object(self.kind + pack)).decode("utf-8", "replace").split("\n"))
        except BlobMissing:
            return set()

    async def delete(self, packs: Iterable[str]) -> None:
        await self.blobs.delete_objects([self.kind + pack for pack in packs])
