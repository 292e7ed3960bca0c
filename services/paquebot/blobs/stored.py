"""Stored messages read from the packs in which they lie, as they are and with what those packs say of them.

A small pack is one request for its entries and its index; of a large one the index and runs of neighbours are read.
What was read last is kept within a bound: the next account's messages often lie in the same packs.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paquebot.blobs import BadPack, BlobMissing, BlobStore
from paquebot.blobs.pack import Frame, compress, decode_entry, entry_ref, is_at, is_checked, parse_index
from paquebot.blobs.store import PackInfo
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import BlobRef, Envelope, PackEntry, PackIndex

_log = Log("paquebot.janitor")

_START_BYTES = 256 * 1024
_GAP_BYTES = 64 * 1024
_CACHE_BYTES = 48 * 2**20
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A message as it is stored, ready for another pack."""

    old: BlobRef
    envelope: Envelope
    frame: Frame


@dataclass(frozen=True, slots=True)
class _Source:
    """A pack, read: its index by offset and its first bytes."""

    entries: dict[int, PackEntry]
    start: bytes
    octets: int
    """What keeping it costs."""


class StoredEntries:
    """One for a run."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._kept: OrderedDict[str, _Source] = OrderedDict()
        self._bytes = 0
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._backwards = False

    async def copies(self, refs: Sequence[BlobRef]) -> list[StoredEntry]:
        """The messages of `refs` in their order, each compared with its SHA-256 and read again where it differs; one
        that cannot be read is logged and left out. Raises BlobsUnavailable."""
        by_pack: dict[str, list[BlobRef]] = {}
        for ref in refs:
            by_pack.setdefault(ref.pack, []).append(ref)
        # To and fro, so that what an account read last is there for the next: in one direction only, packs that do not
        # all fit would each be gone before they are asked for again.
        self._backwards = not self._backwards
        in_turn = sorted(by_pack, reverse=self._backwards)
        groups = await asyncio.gather(*(self._of_pack(pack, by_pack[pack]) for pack in in_turn))
        found = {(copy.old.pack, copy.old.offset): copy for group in groups for copy in group}
        places = ((ref.pack, ref.offset) for ref in refs)
        return [found[place] for place in places if place in found]

    async def _of_pack(self, pack: str, refs: list[BlobRef]) -> list[StoredEntry]:
        try:
            async with self._turn:
                source = await self._source(pack)
                stored = await self._stored(pack, source, refs)
                copies = [await self._copy(source, ref, stored[ref.offset]) for ref in refs]
                return [copy for copy in copies if copy is not None]
        except (BlobMissing, BadPack, ValueError) as error:  # ValueError: no name of a pack
            _log.error("pack_not_compacted", pack=pack, reason=str(error))
            return []

    async def _source(self, pack: str) -> _Source:
        kept = self._kept.get(pack)
        if kept is not None:
            self._kept.move_to_end(pack)
            return kept
        start, octets = await self._blobs.read_start(pack, _START_BYTES)
        whole = octets == len(start)
        index = _index_of(start) if whole else None
        if index is None:
            index = await self._blobs.read_index(PackInfo(pack, octets))
        cost = len(start) + 4 * index.ByteSize() + 4096
        source = _Source({entry.offset: entry for entry in index.entries}, start, cost)
        self._keep(pack, source)
        return source

    async def _copy(self, source: _Source, ref: BlobRef, data: bytes) -> StoredEntry | None:
        """None: it cannot be read. Nothing is copied that is not what was accepted. Raises BlobMissing,
        BlobsUnavailable."""
        entry = source.entries.get(ref.offset)
        if entry is None or not is_at(ref, entry):
            _not_compacted(ref, "the index knows no such entry")
            return None
        known = entry_ref(ref.pack, entry)
        try:
            try:
                frame = _frame(ref, data, decode_entry(known, data))
            except BadPack:
                frame = compress(await self._blobs.read(known))
        except BadPack as error:
            _not_compacted(ref, str(error))
            return None
        return StoredEntry(ref, entry.envelope, frame)

    def _keep(self, pack: str, source: _Source) -> None:
        if pack not in self._kept:
            self._kept[pack] = source
            self._bytes += source.octets
        while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.octets

    async def _stored(self, pack: str, source: _Source, refs: Iterable[BlobRef]) -> dict[int, bytes]:
        """Stored bytes by offset."""
        found: dict[int, bytes] = {}
        far: list[BlobRef] = []
        for ref in refs:
            if ref.offset + ref.length <= len(source.start):
                found[ref.offset] = source.start[ref.offset : ref.offset + ref.length]
            else:
                far.append(ref)
        for run in _runs(far):
            first, end = run[0].offset, run[-1].offset + run[-1].length
            data = await self._blobs.read_range(pack, first, end - first)
            found |= {ref.offset: data[ref.offset - first : ref.offset - first + ref.length] for ref in run}
        return found


def _runs(refs: Iterable[BlobRef]) -> list[list[BlobRef]]:
    """Neighbours to read together; entries do not overlap."""
    runs: list[list[BlobRef]] = []
    end = 0
    for ref in sorted(refs, key=lambda ref: ref.offset):
        if runs and ref.offset - end <= _GAP_BYTES:
            runs[-1].append(ref)
        else:
            runs.append([ref])
        end = ref.offset + ref.length
    return runs


def _not_compacted(ref: BlobRef, reason: str) -> None:
    _log.error("message_not_compacted", pack=ref.pack, offset=ref.offset, reason=reason)


def _index_of(pack: bytes) -> PackIndex | None:
    """None: it is damaged, perhaps only in this answer of S3."""
    try:
        return parse_index(pack)
    except BadPack:
        return None


def _frame(ref: BlobRef, data: bytes, raw: bytes) -> Frame:
    """As it is stored; one of an older program, without a checksum, gets one."""
    checked = is_checked(ref, data)
    return Frame(data, len(raw), hashlib.sha256(raw).digest(), ref.compression) if checked else compress(raw)
