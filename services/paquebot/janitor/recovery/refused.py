"""The marks of refused messages: their senders got a 451 and still have them."""

from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.blobs import BlobStore
from paquebot.blobs.marks import REFUSED, Marks
from paquebot.janitor.recovery.accounting import MissingMessage


@dataclass(frozen=True, slots=True)
class RefusedMessages:
    """The marks at the start of a run."""

    marks: Marks
    packs: frozenset[str]

    async def accepted(self, pack: str, messages: Sequence[MissingMessage]) -> list[MissingMessage]:
        """The messages without a mark. Raises BlobsUnavailable, BadPack."""
        if not messages:
            return []
        refused = await self.queue_ids(pack)
        return [message for message in messages if message.envelope.queue_id not in refused]

    async def queue_ids(self, pack: str) -> frozenset[str]:
        """The refused messages of a pack. Raises BlobsUnavailable, BadPack."""
        return frozenset(await self.marks.queue_ids(pack) if pack in self.packs else ())


async def read_refused(blobs: BlobStore) -> RefusedMessages:
    """Raises BlobsUnavailable."""
    marks = Marks(blobs, REFUSED)
    return RefusedMessages(marks, frozenset(await marks.packs()))
