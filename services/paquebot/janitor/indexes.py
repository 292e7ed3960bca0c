"""What packs say of themselves, for many packs: several are read at once, as each costs a round trip and no more."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.blobs.store import PackInfo
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.janitor")

GROUP = 64
"""Packs whose indexes are in memory at once: a full one is of 500 messages."""

IndexOutcome = PackIndex | BadPack | BlobMissing

ReportProgress = Callable[[str], None]
"""Takes a line of progress."""

_SAY_EVERY = 1000


def ignore_progress(line: str) -> None:
    """For callers that show no progress."""


async def read_indexes(blobs: BlobStore, infos: Sequence[PackInfo]) -> list[IndexOutcome]:
    """The index of each pack, or why there is none. Raises BlobsUnavailable."""

    async def read(info: PackInfo) -> IndexOutcome:
        try:
            return await blobs.read_index(info)
        except (BadPack, BlobMissing) as error:
            return error

    return await asyncio.gather(*map(read, infos))


async def read_valid_indexes(
    blobs: BlobStore, infos: Sequence[PackInfo]
) -> tuple[list[tuple[PackInfo, PackIndex]], list[PackInfo]]:
    """The packs that are there and can be read, and those that cannot: they are logged. Raises BlobsUnavailable."""
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
    """All packs, `GROUP` at a time; tells how far it is."""
    for first in range(0, len(infos), GROUP):
        if first // _SAY_EVERY != (first - GROUP) // _SAY_EVERY and first:
            say(f"{first:,} of {len(infos):,} packs looked at")
        yield infos[first : first + GROUP]
