"""The bucket of packs, over the synchronous `minio` client in a small thread pool.

Every request has a timeout, and one that failed quickly is retried. A failure that may pass is `BlobsUnavailable`; an
object that does not exist is `BlobMissing`; bytes that differ from what was written, also at a second reading, are
`BadPack`.

Stored messages are read with `read` (one), `read_many` (all, or raise) and `read_each` (each, or why not); for a reader
that takes messages as they come there is `RangeReads`, and for one that needs their index entries `StoredEntries`.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from paquebot.blobs.bucket import LIST_PAGE, WRITTEN_BYTES, Bucket, ListedObject
from paquebot.blobs.errors import BlobMissing, BlobsUnavailable, s3_call
from paquebot.blobs.pack import PREFIX, BadPack, pack_key
from paquebot.blobs.range_reads import RangeReads
from paquebot.blobs.ranges import PackRange, plan_ranges
from paquebot.blobs.reading import READ_BYTES, RangeOutcome
from paquebot.blobs.requests import CALLS
from paquebot.observability.metrics import EngineLabel, know_calls
from paquebot.runtime.engine_settings import S3Settings
from paquebot.runtime.ulid import is_ulid
from paquebot.v1.mail_pb2 import BlobRef, PackIndex

__all__ = ["BlobStore", "MessageOutcome", "PackInfo", "RangeOutcome"]

T = TypeVar("T")

_GRACE_SECONDS = 5.0  # after the client's own timeouts: for a call that never gets a thread
_TURN_SECONDS = 0.05  # for which the ranges of one caller may use a thread while others wait
_WRITE_AGE_SECONDS = 60.0  # the last write is younger: no probe is needed
_SLOW_WRITE_SECONDS = 5.0
_PROBE_KEY = "probe/write"
_PROBE_SECONDS = 1.5  # shorter than the timeout of a readiness probe
_MAX_READ_BYTES = 16 * 2**20  # of one request of `read_each`, unless a single entry is longer

MessageOutcome = bytes | BadPack | BlobMissing | BlobsUnavailable
"""A message, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class PackInfo:
    """A pack in the bucket. `written_ms`: when, by the clock of S3; 0: unknown."""

    pack: str
    size: int
    written_ms: int = field(default=0, compare=False)


class BlobStore:
    """Write, read, list and delete packs."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        know_calls(EngineLabel.S3, CALLS)
        self._bucket = Bucket(settings)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="s3")
        self._written_at = -_WRITE_AGE_SECONDS
        self._write_fault = ""
        self._writing: list[float] = []  # start of each write under way
        self._probing: asyncio.Future[None] | None = None

    async def close(self) -> None:
        """Waits for the requests under way."""
        await asyncio.to_thread(self._threads.shutdown)

    async def probe(self) -> None:
        """Raises BlobsUnavailable unless the bucket can be used."""
        if not await self._run("bucket_exists", self._bucket.exists):
            raise BlobsUnavailable(f"no bucket {self._settings.bucket}")

    async def probe_writes(self) -> None:
        """Raises BlobsUnavailable unless the bucket accepts objects. Writes a small object when the last write failed
        or was long ago, or a write is slow. Only one such write is under way at a time."""
        await self.probe()
        now = time.monotonic()
        slow = any(now - began > _SLOW_WRITE_SECONDS for began in self._writing)
        if not slow and not self._write_fault and now - self._written_at < _WRITE_AGE_SECONDS:
            return
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self.put_object(_PROBE_KEY, b"probe"))
            self._probing.add_done_callback(_retrieve_exception)
        await asyncio.wait((self._probing,), timeout=_PROBE_SECONDS)
        if not self._probing.done():
            raise BlobsUnavailable(f"a write takes longer than {_PROBE_SECONDS:g} s")
        self._probing.result()

    async def make_bucket(self) -> None:
        """Create the bucket unless it exists."""
        if not await self._run("bucket_exists", self._bucket.exists):
            await self._run("make_bucket", self._bucket.make)

    async def put(self, pack: str, data: bytes) -> None:
        """Write a pack; returns when S3 acknowledged it. Overwrites no other object, where S3 supports the condition.
        Raises BlobsUnavailable."""
        await self._write(self._bucket.put_new, pack_key(pack), data)

    async def read(self, ref: BlobRef) -> bytes:
        """One message. Raises BlobMissing, BadPack, BlobsUnavailable."""
        return (await self.read_many((ref,)))[0]

    async def read_many(self, refs: Sequence[BlobRef]) -> list[bytes]:
        """Messages in order of `refs`. Raises BlobMissing, BadPack, BlobsUnavailable when one cannot be read."""
        found: list[bytes] = []
        for outcome in await self.read_each(refs):
            if isinstance(outcome, Exception):
                raise outcome
            found.append(outcome)
        return found

    async def read_each(self, refs: Sequence[BlobRef]) -> list[MessageOutcome]:
        """Messages in order of `refs`, each of them or why it cannot be read: a damaged message does not affect its
        neighbours. Neighbours in a pack share a request, and a message is read once however often `refs` names it."""
        unique = {(ref.pack, ref.offset): ref for ref in refs}
        found: dict[tuple[str, int], RangeOutcome | bytes | Exception] = {}

        def done(wanted: PackRange, outcome: RangeOutcome | Exception) -> None:
            each = outcome if isinstance(outcome, list) else [outcome] * len(wanted.refs)
            found.update({(ref.pack, ref.offset): message for ref, message in zip(wanted.refs, each, strict=True)})

        await RangeReads(self, plan_ranges(unique.values(), max_bytes=_MAX_READ_BYTES), done).run()
        return [_known_outcome(found[ref.pack, ref.offset]) for ref in refs]

    async def read_ranges(self, ranges: Sequence[PackRange]) -> list[RangeOutcome]:
        """The first of these ranges, at least one: those that one thread reads, one after another, in its turn.

        One call for many ranges costs less than a call for each. Errors are outcomes, of a range or of one message in
        it, so that a damaged one does not affect the others.
        """
        try:
            return await self._on_thread(self._messages, ranges)
        except TimeoutError:
            return [BlobsUnavailable("get: no thread became free in time")] * len(ranges)

    async def read_range(self, pack: str, offset: int, length: int) -> bytes:
        """Stored bytes as they are, without a check for damage. Raises BlobMissing, BadPack (the pack ends before
        them), BlobsUnavailable."""
        if not length:
            return b""
        data = await self.read_object(pack_key(pack), offset, length)
        if len(data) != length:
            raise BadPack(f"pack {pack} ends before the requested bytes")
        return data

    async def read_start(self, pack: str, length: int) -> tuple[bytes, int]:
        """The first `length` stored bytes, fewer when the pack is shorter, and the size of the pack: reads a small pack
        in one request. Raises BlobMissing, BadPack, BlobsUnavailable."""
        key = pack_key(pack)
        part = await self._run("get", self._bucket.reader.start, key, length, key=key)
        READ_BYTES.inc(len(part.data))
        return part.data, len(part.data) if part.object_size is None else part.object_size

    async def read_index(self, info: PackInfo) -> PackIndex:
        """The index of a pack. Raises BlobMissing, BadPack, BlobsUnavailable."""
        key = pack_key(info.pack)
        return await self._run("get", self._bucket.reader.index, key, info.size, key=key)

    async def stat(self, pack: str) -> PackInfo:
        """Raises BlobMissing, BlobsUnavailable."""
        key = pack_key(pack)
        return PackInfo(pack, await self._run("stat", self._bucket.reader.size, key, key=key))

    async def list_packs(self, after: str = "") -> AsyncIterator[PackInfo]:
        """All packs in order of their ids, and so of their time; only those after `after` when given."""
        async for item in self._pages(PREFIX, pack_key(after) if after else None):
            if name := _pack_of(item.key):
                yield PackInfo(name, item.size, item.written_ms)

    async def delete(self, packs: Iterable[str]) -> None:
        """Delete packs; a missing one is no error. Raises BlobsUnavailable."""
        await self.delete_objects([pack_key(pack) for pack in packs])

    # Objects that are not packs, by their keys: snapshots, marks

    async def put_object(self, key: str, data: bytes) -> None:
        """Write an object; returns when S3 acknowledged it. Raises BlobsUnavailable."""
        await self._write(self._bucket.put, key, data)

    async def read_object(self, key: str, offset: int = 0, length: int = 0) -> bytes:
        """`length` bytes at `offset`, fewer where it ends before; the whole object when `length` is 0.
        Raises BlobMissing, BadPack, BlobsUnavailable."""
        if length:
            part = await self._run("get", self._bucket.reader.part, key, offset, length, key=key)
        else:
            part = await self._run("get", self._bucket.reader.whole, key, key=key)
        READ_BYTES.inc(len(part.data))
        return part.data

    async def list_objects(self, prefix: str) -> AsyncIterator[tuple[str, int]]:
        """(key, size) of all objects whose keys begin with `prefix`, in order. Raises BlobsUnavailable."""
        async for item in self._pages(prefix, None):
            yield item.key, item.size

    async def delete_objects(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is no error. Raises BlobsUnavailable."""
        for start in range(0, len(keys), LIST_PAGE):
            await self._run("delete", self._bucket.delete, keys[start : start + LIST_PAGE])

    async def _pages(self, prefix: str, start: str | None) -> AsyncIterator[ListedObject]:
        while True:
            page = await self._run("list", self._bucket.page, start, prefix)
            for item in page:
                start = item.key
                yield item
            if len(page) < LIST_PAGE:
                return

    def _messages(self, ranges: Sequence[PackRange]) -> list[RangeOutcome]:
        end = time.monotonic() + _TURN_SECONDS
        outcomes: list[RangeOutcome] = []
        for wanted in ranges:
            outcomes.append(self._bucket.reader.messages(wanted))
            if time.monotonic() > end:
                break
        return outcomes

    async def _write(self, write: Callable[[str, bytes], None], key: str, data: bytes) -> None:
        began = time.monotonic()
        self._writing.append(began)
        try:
            await self._run("put", write, key, data)
        except BlobsUnavailable as error:
            self._write_fault = str(error)
            raise
        finally:
            self._writing.remove(began)
        self._write_fault = ""
        self._written_at = time.monotonic()
        WRITTEN_BYTES.inc(len(data))

    async def _run(self, call: str, function: Callable[..., T], *args: Any, key: str = "") -> T:
        """`function(*args)` on a thread. `key`: the object that must exist."""
        with s3_call(call, key):
            return await self._on_thread(function, *args)
        raise AssertionError("unreachable")

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Raises TimeoutError."""
        async with asyncio.timeout(self._settings.timeout + _GRACE_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _retrieve_exception(probe: asyncio.Future[None]) -> None:
    """The caller of the probe may be gone."""
    if not probe.cancelled():
        probe.exception()


def _known_outcome(outcome: RangeOutcome | bytes | Exception) -> MessageOutcome:
    """Raises an error that is not one of S3: a fault of our code."""
    if isinstance(outcome, bytes | BadPack | BlobMissing | BlobsUnavailable):
        return outcome
    assert isinstance(outcome, Exception)
    raise outcome


_KEY = re.compile(re.escape(PREFIX) + r"\d{4}/\d\d/\d\d/([0-9A-Z]{26})")


def _pack_of(key: str) -> str | None:
    match = _KEY.fullmatch(key)
    return match[1] if match and is_ulid(match[1]) else None
