"""Stored messages with their index entries, for writing them into another pack: envelope and frame of each.

A small pack is one request for its entries and its index; of a large pack the index and ranges of neighbours are read.
The last packs read are cached: the next account's messages often lie in the same ones.
"""

import asyncio
import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from paquebot.blobs.errors import BlobMissing
from paquebot.blobs.pack import BadPack, Frame, compress, decode_entry, entry_ref, is_at, is_checked, parse_index
from paquebot.blobs.ranges import plan_ranges
from paquebot.blobs.store import BlobStore, PackInfo
from paquebot.v1.mail_pb2 import BlobRef, Envelope, PackEntry, PackIndex

_START_BYTES = 256 * 1024
_CACHE_BYTES = 48 * 2**20
_PACKS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A message as it is stored at `ref`, ready for another pack."""

    ref: BlobRef
    envelope: Envelope
    frame: Frame


StoredOutcome = StoredEntry | BadPack | BlobMissing
"""A stored message, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class _Pack:
    """A pack that was read: its index by offset, and its first bytes."""

    entries: dict[int, PackEntry]
    start: bytes
    cost: int
    """Bytes of memory."""


class StoredEntries:
    """Reads stored entries; one for a run."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        # One pack always fits, however large it is.
        self._packs: LRUCache[str, _Pack] = LRUCache(_CACHE_BYTES, lambda pack: min(pack.cost, _CACHE_BYTES))
        self._slots = asyncio.Semaphore(_PACKS_AT_ONCE)
        self._backwards = False

    async def read_each(self, refs: Sequence[BlobRef]) -> list[StoredOutcome]:
        """The messages in the order of `refs`. Each is compared with its SHA-256, and read again where it differs.
        Raises BlobsUnavailable."""
        by_pack: dict[str, list[BlobRef]] = {}
        for ref in refs:
            by_pack.setdefault(ref.pack, []).append(ref)
        # The order alternates, so that the last packs of one call are cached for the next call: in one order, packs
        # that do not all fit would each be evicted before their next use.
        self._backwards = not self._backwards
        packs = sorted(by_pack, reverse=self._backwards)
        outcomes = await asyncio.gather(*(self._of_pack(pack, by_pack[pack]) for pack in packs))
        found: dict[tuple[str, int], StoredOutcome] = {}
        for pack, group in zip(packs, outcomes, strict=True):
            found |= {(pack, ref.offset): outcome for ref, outcome in zip(by_pack[pack], group, strict=True)}
        return [found[ref.pack, ref.offset] for ref in refs]

    async def _of_pack(self, name: str, refs: list[BlobRef]) -> list[StoredOutcome]:
        try:
            async with self._slots:
                pack = await self._pack(name)
                stored = await self._stored(name, pack, refs)
                return [await self._entry(pack, ref, stored[ref.offset]) for ref in refs]
        except (BlobMissing, BadPack) as error:
            return [error] * len(refs)
        except ValueError:
            return [BlobMissing(name)] * len(refs)  # not the name of a pack

    async def _pack(self, name: str) -> _Pack:
        cached = self._packs.get(name)
        if cached is not None:
            return cached
        start, size = await self._blobs.read_start(name, _START_BYTES)
        index = _index_of(start) if size == len(start) else None
        if index is None:
            index = await self._blobs.read_index(PackInfo(name, size))
        cost = len(start) + 4 * index.ByteSize() + 4096
        pack = self._packs[name] = _Pack({entry.offset: entry for entry in index.entries}, start, cost)
        return pack

    async def _stored(self, name: str, pack: _Pack, refs: Iterable[BlobRef]) -> dict[int, bytes]:
        """Stored bytes by offset."""
        found: dict[int, bytes] = {}
        far: list[BlobRef] = []
        for ref in refs:
            if ref.offset + ref.length <= len(pack.start):
                found[ref.offset] = pack.start[ref.offset : ref.offset + ref.length]
            else:
                far.append(ref)
        for wanted in plan_ranges(far, max_bytes=sys.maxsize):
            data = await self._blobs.read_range(name, wanted.start, wanted.end - wanted.start)
            for ref in wanted.refs:
                at = ref.offset - wanted.start
                found[ref.offset] = data[at : at + ref.length]
        return found

    async def _entry(self, pack: _Pack, ref: BlobRef, stored: bytes) -> StoredOutcome:
        """Never content that differs from what was accepted. Raises BlobMissing, BlobsUnavailable."""
        entry = pack.entries.get(ref.offset)
        if entry is None or not is_at(ref, entry):
            return BadPack("the index has no such entry")
        known = entry_ref(ref.pack, entry)
        try:
            try:
                frame = _frame(ref, stored, decode_entry(known, stored))
            except BadPack:
                frame = compress(await self._blobs.read(known))
        except BadPack as error:
            return error
        return StoredEntry(ref, entry.envelope, frame)


def _index_of(pack: bytes) -> PackIndex | None:
    """None: it is damaged, perhaps only in this answer of S3."""
    try:
        return parse_index(pack)
    except BadPack:
        return None


def _frame(ref: BlobRef, stored: bytes, content: bytes) -> Frame:
    """The frame as it is stored; a frame of an older program, without a checksum, is made anew with one."""
    if not is_checked(ref, stored):
        return compress(content)
    return Frame(stored, len(content), hashlib.sha256(content).digest(), ref.compression)
