"""Reads the indexes of many packs, several at once, because each costs only a round trip."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.blobs.store import PackInfo
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.janitor")

GROUP = 64
"""Packs whose indexes are in memory at once; a full pack has 500 messages."""

IndexOutcome = PackIndex | BadPack | BlobMissing

ReportProgress = Callable[[str], None]
"""Takes a line of progress."""

_REPORT_EVERY = 1000


def ignore_progress(line: str) -> None:
    """The default of callers that show no progress."""


async def read_indexes(blobs: BlobStore, infos: Sequence[PackInfo]) -> list[IndexOutcome]:
    """The index of each pack, or the reason why it cannot be read. Raises BlobsUnavailable."""

    async def read(info: PackInfo) -> IndexOutcome:
        try:
            return await blobs.read_index(info)
        except (BadPack, BlobMissing) as error:
            return error

    return await asyncio.gather(*map(read, infos))


async def read_valid_indexes(
    blobs: BlobStore, infos: Sequence[PackInfo]
) -> tuple[list[tuple[PackInfo, PackIndex]], list[PackInfo]]:
    """(packs with their indexes, packs that cannot be read). Logs the latter; packs that are gone are in neither.
    Raises BlobsUnavailable."""
    found: list[tuple[PackInfo, PackIndex]] = []
    unreadable: list[PackInfo] = []
    for info, outcome in zip(infos, await read_indexes(blobs, infos), strict=True):
        if isinstance(outcome, PackIndex):
            found.append((info, outcome))
        elif isinstance(outcome, BadPack):
            _log.error("pack_unreadable", pack=info.pack, reason=str(outcome))
            unreadable.append(info)
    return found, unreadable


def in_groups(infos: Sequence[PackInfo], say: ReportProgress = ignore_progress) -> Iterator[Sequence[PackInfo]]:
    """All packs, `GROUP` at a time; reports progress."""
    for first in range(0, len(infos), GROUP):
        if first // _REPORT_EVERY != (first - GROUP) // _REPORT_EVERY and first:
            say(f"{first:,} of {len(infos):,} packs examined")
        yield infos[first : first + GROUP]
