"""The bucket of packs, over the synchronous `minio` client in a small thread pool.

Every request has a deadline, and one that failed quickly is repeated. What may pass by itself is `BlobsUnavailable`;
an object that is not there is `BlobMissing`; what is not as it was written, also at a second reading, is `BadPack`.
"""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from paquebot.blobs.bucket import LIST_PAGE, WRITTEN_BYTES, Bucket, ListedObject
from paquebot.blobs.errors import BlobMissing, BlobsUnavailable, s3_call
from paquebot.blobs.pack import PREFIX, BadPack, pack_key
from paquebot.blobs.ranges import MAX_GAP_BYTES, PackRange, plan_ranges
from paquebot.blobs.reading import READ_BYTES, RangeOutcome
from paquebot.blobs.requests import CALLS
from paquebot.blobs.ulid import is_ulid
from paquebot.observability.metrics import EngineLabel, know_calls
from paquebot.runtime.engine_settings import S3Settings
from paquebot.v1.mail_pb2 import BlobRef, PackIndex

__all__ = ["BlobStore", "MessageOutcome", "PackInfo", "RangeOutcome"]

T = TypeVar("T")

_GRACE_SECONDS = 5.0  # the client's own timeouts come first; this one is for a thread that never gets a turn
_TURN_SECONDS = 0.05  # for which one caller's spans keep a thread, while others wait for it
_WRITE_AGE_SECONDS = 60.0  # of the last write that tells that S3 takes them
_SLOW_WRITE_SECONDS = 5.0
_PROBE_KEY = "probe/write"
_PROBE_SECONDS = 1.5  # less than a probe for readiness has

MessageOutcome = bytes | BadPack | BlobMissing | BlobsUnavailable
"""A message, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class PackInfo:
    """A pack in the bucket. `written_ms`: when, by the clock of S3; 0: not asked."""

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
        self._writing: list[float] = []  # when each write under way began
        self._probing: asyncio.Future[None] | None = None

    async def close(self) -> None:
        """Requests under way are waited for."""
        await asyncio.to_thread(self._threads.shutdown)

    async def probe(self) -> None:
        """Raises BlobsUnavailable unless the bucket can be used."""
        if not await self._run("bucket_exists", self._bucket.exists):
            raise BlobsUnavailable(f"bucket {self._settings.bucket} is not there")

    async def probe_writes(self) -> None:
        """Raises BlobsUnavailable unless the bucket takes objects. A small object tells, where the last write failed or
        was long ago, or one goes on for long. One such write is under way at a time, however often this is asked."""
        await self.probe()
        now = time.monotonic()
        slow = any(now - began > _SLOW_WRITE_SECONDS for began in self._writing)
        if not slow and not self._write_fault and now - self._written_at < _WRITE_AGE_SECONDS:
            return
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self.put_object(_PROBE_KEY, b"probe"))
            self._probing.add_done_callback(_seen)
        await asyncio.wait((self._probing,), timeout=_PROBE_SECONDS)
        if not self._probing.done():
            raise BlobsUnavailable(f"a write takes longer than {_PROBE_SECONDS:g} s")
        self._probing.result()

    async def make_bucket(self) -> None:
        """Make the bucket unless it is there."""
        if not await self._run("bucket_exists", self._bucket.exists):
            await self._run("make_bucket", self._bucket.make)

    async def put(self, pack: str, data: bytes) -> None:
        """Write a pack; returns when S3 acknowledged it. No other object is written over, as far as S3 can tell.
        Raises BlobsUnavailable."""
        await self._write(self._bucket.put_new, pack_key(pack), data)

    async def read(self, ref: BlobRef) -> bytes:
        """One message. Raises BlobMissing, BadPack, BlobsUnavailable."""
        return (await self.read_many((ref,)))[0]

    async def read_many(self, refs: Sequence[BlobRef], *, gap: int = MAX_GAP_BYTES) -> list[bytes]:
        """Messages in order of `refs`; neighbours at most `gap` bytes apart in a pack share a request, however long.

        Raises BlobMissing, BadPack, BlobsUnavailable, when one of them cannot be read.
        """
        found: list[bytes] = []
        for outcome in await self.read_each(refs, gap=gap):
            if isinstance(outcome, Exception):
                raise outcome
            found.append(outcome)
        return found

    async def read_each(self, refs: Sequence[BlobRef], *, gap: int = MAX_GAP_BYTES) -> list[MessageOutcome]:
        """The same, each message or why it cannot be read: a damaged one does not take its neighbours with it."""
        found: dict[tuple[str, int], MessageOutcome] = {}
        planned = plan_ranges(refs, gap=gap, longest=sys.maxsize)
        for span, outcome in zip(planned, await asyncio.gather(*map(self._read_span, planned)), strict=True):
            each = outcome if isinstance(outcome, list) else [outcome] * len(span.refs)
            found |= {(ref.pack, ref.offset): message for ref, message in zip(span.refs, each, strict=True)}
        return [found[ref.pack, ref.offset] for ref in refs]

    async def _read_span(self, span: PackRange) -> RangeOutcome:
        return (await self.read_ranges((span,)))[0]

    async def read_ranges(self, waiting: Sequence[PackRange]) -> list[RangeOutcome]:
        """The first of the spans, at least one: those that one thread reads, one after another, in its turn.

        To ask for many at once costs less than a call for each. What is raised elsewhere is here an outcome, of a
        span or of one message in it, so that one that is damaged does not take its neighbours with it.
        """
        try:
            return await self._on_thread(self._messages, waiting)
        except TimeoutError:
            return [BlobsUnavailable("get: no thread came free in time")] * len(waiting)

    async def read_range(self, pack: str, offset: int, length: int) -> bytes:
        """Stored bytes as they are: nothing tells whether they are damaged. Raises BlobMissing, BadPack (it ends
        before them), BlobsUnavailable."""
        if not length:
            return b""
        data = await self.read_object(pack_key(pack), offset, length)
        if len(data) != length:
            raise BadPack(f"pack {pack} ends before the bytes that were asked for")
        return data

    async def read_start(self, pack: str, length: int) -> tuple[bytes, int]:
        """The first `length` stored bytes, fewer when the pack is shorter, and how many the pack has: a small pack in
        one request. Raises BlobMissing, BadPack, BlobsUnavailable."""
        key = pack_key(pack)
        part = await self._run("get", self._bucket.reader.start, key, length, key=key)
        READ_BYTES.inc(len(part.data))
        return part.data, len(part.data) if part.whole is None else part.whole

    async def read_index(self, info: PackInfo) -> PackIndex:
        """What a pack says of itself. Raises BlobMissing, BadPack, BlobsUnavailable."""
        key = pack_key(info.pack)
        return await self._run("get", self._bucket.reader.index, key, info.size, key=key)

    async def stat(self, pack: str) -> PackInfo:
        """Raises BlobMissing, BlobsUnavailable."""
        key = pack_key(pack)
        return PackInfo(pack, await self._run("stat", self._bucket.reader.size, key, key=key))

    async def list_packs(self, after: str = "") -> AsyncIterator[PackInfo]:
        """All packs in order of their ids (so of their time), those after `after` when given."""
        async for item in self._pages(PREFIX, pack_key(after) if after else None):
            if name := _pack_of(item.key):
                yield PackInfo(name, item.size, item.written_ms)

    async def delete(self, packs: Iterable[str]) -> None:
        """Delete packs; one that is not there is no error. Raises BlobsUnavailable."""
        await self.delete_objects([pack_key(pack) for pack in packs])

    # Objects that are no packs, by their keys: snapshots, marks

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
        """(key, bytes) of all objects whose keys begin so, in order. Raises BlobsUnavailable."""
        async for item in self._pages(prefix, None):
            yield item.key, item.size

    async def delete_objects(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error. Raises BlobsUnavailable."""
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

    def _messages(self, waiting: Sequence[PackRange]) -> list[RangeOutcome]:
        end = time.monotonic() + _TURN_SECONDS
        outcomes: list[RangeOutcome] = []
        for span in waiting:
            outcomes.append(self._bucket.reader.messages(span))
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
        """`function(*args)` on a thread. `key`: the object that must be there."""
        with s3_call(call, key):
            return await self._on_thread(function, *args)
        raise AssertionError("unreachable")

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Raises TimeoutError."""
        async with asyncio.timeout(self._settings.timeout + _GRACE_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _seen(probe: asyncio.Future[None]) -> None:
    """Nobody may wait for it any more."""
    if not probe.cancelled():
        probe.exception()


_KEY = re.compile(re.escape(PREFIX) + r"\d{4}/\d\d/\d\d/([0-9A-Z]{26})")


def _pack_of(key: str) -> str | None:
    match = _KEY.fullmatch(key)
    return match[1] if match and is_ulid(match[1]) else None
