"""The objects of snapshots in the bucket, below `snapshots/`: self-describing, checksummed, compressed.

- `objects/<ulid>`: zstd frames of `SnapshotPart`, each one account or a part of one, then their sealed index;
- `runs/<ulid>/<page>`: the run's manifest, accounts in order of their ids, with the places of their newest frames,
  and `runs/<ulid>/complete`, written last: without it the run does not count;
- `rebuilds/<ulid>`: a mark for each rebuild.

A sealed object is one zstd frame of a message, its length, the first 8 bytes of its SHA-256 and `MAGIC`.
"""

import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import zstandard
from google.protobuf.message import DecodeError, Message

from paquebot.blobs import BadPack, BlobMissing, BlobStore, new_ulid, ulid_time_ms
from paquebot.v1.snapshot_pb2 import (
    RebuildMark,
    SnapshotEntry,
    SnapshotFrame,
    SnapshotIndex,
    SnapshotManifest,
    SnapshotPart,
    SnapshotPlace,
    SnapshotRun,
)

M = TypeVar("M", bound=Message)

FORMAT_VERSION = 1
MAGIC = b"PAQUEBS1"
PREFIX = "snapshots/"
OBJECTS = PREFIX + "objects/"
RUNS = PREFIX + "runs/"
REBUILDS = PREFIX + "rebuilds/"
COMPLETE = "complete"

MAX_CLOCK_SKEW_MS = 600_000
"""How far the clocks of two hosts may differ: a rebuild that may be newer than a snapshot counts as newer."""

_TRAILER = struct.Struct("<I8s8s")
_MAX_FRAME = 64 * 2**20
_OBJECT_BYTES = 8 * 2**20
_PAGE_ENTRIES = 5000
_READ_AHEAD = 256 * 1024
_LEVEL = 3


class BadSnapshot(Exception):
    """An object below `snapshots/` is damaged or has another format."""


def compress(message: Message) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(message.SerializeToString())


def decompress(kind: type[M], frame: bytes) -> M:
    """Raises BadSnapshot."""
    try:
        if not 0 <= zstandard.get_frame_parameters(frame).content_size <= _MAX_FRAME:
            raise BadSnapshot("a frame is over the limit")
        return kind.FromString(zstandard.ZstdDecompressor().decompress(frame, max_output_size=_MAX_FRAME))
    except (zstandard.ZstdError, DecodeError) as error:
        raise BadSnapshot(f"a frame cannot be read: {error}") from None


def seal(message: Message) -> bytes:
    frame = compress(message)
    return frame + _TRAILER.pack(len(frame), hashlib.sha256(frame).digest()[:8], MAGIC)


def unseal(kind: type[M], data: bytes) -> M:
    """The message at the end of `data`. Raises BadSnapshot."""
    if len(data) < _TRAILER.size:
        raise BadSnapshot("shorter than a trailer")
    length, checksum, magic = _TRAILER.unpack(data[-_TRAILER.size :])
    frame = data[-_TRAILER.size - length : -_TRAILER.size]
    if magic != MAGIC or len(frame) != length or hashlib.sha256(frame).digest()[:8] != checksum:
        raise BadSnapshot("truncated or changed")
    found = decompress(kind, frame)
    if (version := getattr(found, "version", None)) != FORMAT_VERSION:
        raise BadSnapshot(f"format version {version}; this program reads {FORMAT_VERSION}")
    return found


# Accounts


class ObjectWriter:
    """Writes frames of accounts to objects of about 8 MiB."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.objects = self.size = 0
        self._start()

    def _start(self) -> None:
        self._object, self._frames, self._length = new_ulid(), list[bytes](), 0
        self._index = SnapshotIndex(version=FORMAT_VERSION, object=self._object)

    async def add(self, part: SnapshotPart) -> SnapshotPlace:
        """Add a part; returns its place, which exists after the next `flush`. Raises BlobsUnavailable."""
        frame = compress(part)
        digest = hashlib.sha256(frame).digest()
        place = SnapshotPlace(object=self._object, offset=self._length, length=len(frame), sha256=digest)
        self._index.frames.append(SnapshotFrame(account_id=part.account_id, part=part.part, place=place))
        self._frames.append(frame)
        self._length += len(frame)
        if self._length >= _OBJECT_BYTES:
            await self.flush()
        return place

    async def flush(self) -> None:
        """Write the current object. Raises BlobsUnavailable."""
        if self._frames:
            self._index.written_at_ms = ulid_time_ms(self._object)
            data = b"".join((*self._frames, seal(self._index)))
            await self._blobs.put_object(OBJECTS + self._object, data)
            self.objects += 1
            self.size += len(data)
            self._start()


class PartReader:
    """Reads accounts. Accounts that follow each other in an object, as most do, share a request."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._object, self._start, self._data = "", 0, b""

    async def parts(self, entry: SnapshotEntry) -> AsyncIterator[SnapshotPart]:
        """The account's parts in order, one at a time. Raises BadSnapshot, BlobsUnavailable."""
        for number, place in enumerate(entry.places):
            frame = await self._frame(place)
            if hashlib.sha256(frame).digest() != place.sha256:
                raise BadSnapshot(f"a frame of object {place.object} does not match its SHA-256")
            part = decompress(SnapshotPart, frame)
            if part.account_id != entry.account_id or part.part != number or part.HasField("account") != (number == 0):
                raise BadSnapshot(f"a frame of object {place.object} belongs to another account")
            yield part

    async def _frame(self, place: SnapshotPlace) -> bytes:
        end = self._start + len(self._data)
        if self._object != place.object or not self._start <= place.offset <= end - place.length:
            wanted = max(place.length, _READ_AHEAD)
            try:
                self._data = await self._blobs.read_object(OBJECTS + place.object, place.offset, wanted)
            except (BlobMissing, BadPack) as error:
                raise BadSnapshot(str(error)) from None
            self._object, self._start = place.object, place.offset
        at = place.offset - self._start
        return self._data[at : at + place.length]


# Runs


@dataclass(slots=True)
class ManifestWriter:
    """Writes the manifest of a run; `complete` makes the run count."""

    blobs: BlobStore
    run: str = field(default_factory=new_ulid)
    pages: int = 0
    accounts: int = 0
    _page: SnapshotManifest = field(default_factory=lambda: SnapshotManifest(version=FORMAT_VERSION))

    async def add(self, entry: SnapshotEntry) -> None:
        """Raises BlobsUnavailable."""
        self._page.entries.append(entry)
        self.accounts += 1
        if len(self._page.entries) == _PAGE_ENTRIES:
            await self._put()

    async def _put(self) -> None:
        await self.blobs.put_object(page_key(self.run, self.pages), seal(self._page))
        self.pages += 1
        self._page = SnapshotManifest(version=FORMAT_VERSION)

    async def complete(self, mailstore: str, now_ms: int) -> SnapshotRun:
        """Raises BlobsUnavailable."""
        if self._page.entries:
            await self._put()
        run = SnapshotRun(
            version=FORMAT_VERSION,
            run=self.run,
            mailstore=mailstore,
            pages=self.pages,
            accounts=self.accounts,
            finished_at_ms=now_ms,
        )
        await self.blobs.put_object(f"{RUNS}{self.run}/{COMPLETE}", seal(run))
        return run


def page_key(run: str, page: int) -> str:
    return f"{RUNS}{run}/{page:08}"


async def read_run(blobs: BlobStore, run: str) -> SnapshotRun:
    """Raises BadSnapshot, BlobsUnavailable."""
    key = f"{RUNS}{run}/{COMPLETE}"
    try:
        return unseal(SnapshotRun, await blobs.read_object(key))
    except (BlobMissing, BadPack, BadSnapshot) as error:
        raise BadSnapshot(f"{key}: {error}") from None


async def newest_run(blobs: BlobStore) -> SnapshotRun | None:
    """The newest complete run. Raises BadSnapshot, BlobsUnavailable."""
    complete = [key async for key, _ in blobs.list_objects(RUNS) if key.endswith("/" + COMPLETE)]
    return await read_run(blobs, complete[-1].split("/")[-2]) if complete else None


async def read_entries(blobs: BlobStore, run: SnapshotRun, after: int = 0) -> AsyncIterator[SnapshotEntry]:
    """The entries of accounts with a greater id than `after`, in order. Raises BadSnapshot, BlobsUnavailable."""
    for number in range(run.pages):
        try:
            page = unseal(SnapshotManifest, await blobs.read_object(page_key(run.run, number)))
        except (BlobMissing, BadPack, BadSnapshot) as error:
            raise BadSnapshot(f"page {number} of run {run.run}: {error}") from None
        for entry in page.entries:
            if entry.account_id > after:
                yield entry


@dataclass(slots=True)
class OrderedEntries:
    """Entries that are read one by one, in order of the accounts' ids."""

    source: AsyncIterator[SnapshotEntry]
    waiting: SnapshotEntry | None = None

    async def entry(self, account_id: int) -> SnapshotEntry | None:
        """The account's entry; None: it has none."""
        while self.waiting is None or self.waiting.account_id < account_id:
            self.waiting = await anext(self.source, None)
            if self.waiting is None:
                return None
        return self.waiting if self.waiting.account_id == account_id else None


# Rebuilds


async def mark_rebuild(blobs: BlobStore, rebuild: str, run: str) -> None:
    """Raises BlobsUnavailable."""
    mark = RebuildMark(version=FORMAT_VERSION, rebuild=rebuild, run=run)
    await blobs.put_object(REBUILDS + rebuild, seal(mark))


async def list_rebuilds(blobs: BlobStore) -> Sequence[str]:
    """The ids of all rebuilds that were ever started, in order of time. Raises BlobsUnavailable."""
    return [key.removeprefix(REBUILDS) async for key, _ in blobs.list_objects(REBUILDS)]
