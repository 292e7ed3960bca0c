"""Message bodies from S3: each read once however many sessions want it, the last ones cached within a bound.

Messages that are near each other in a pack are one request, so that a sync of a mailbox takes few requests. A read
belongs to the process, not to the session that began it: it continues when that session ends.
"""

import asyncio
from collections.abc import Mapping, Sequence

from cachetools import LRUCache

from paquebot.blobs import BadPack, BlobMissing, BlobStore, BlobsUnavailable
from paquebot.blobs.range_reads import RangeReads
from paquebot.blobs.ranges import PackRange, plan_ranges
from paquebot.blobs.store import RangeOutcome
from paquebot.imap import metrics
from paquebot.imap.metrics import Lookup
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import BlobRef

_log = Log("paquebot.imap.bodies.body_cache")
_LARGE_SHARE = 8  # a body above this fraction of the cache would push out too many others

BodyError = BlobMissing | BadPack | BlobsUnavailable
Key = tuple[str, int]
PendingRead = asyncio.Future[Mapping[int, bytes | Exception]]
"""A request under way: its messages by offset, each or the error of reading it."""


class BodyCache:
    """One for a process."""

    def __init__(self, blobs: BlobStore, *, cache_bytes: int) -> None:
        self._blobs = blobs
        self._largest = cache_bytes // _LARGE_SHARE
        self._cached: LRUCache[Key, bytes] = LRUCache(cache_bytes, getsizeof=len)
        self._pending: dict[Key, PendingRead] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, refs: Sequence[BlobRef]) -> list[bytes | BodyError]:
        """The messages, in the order of `refs`, each or the error of reading it."""
        return [await finish_read(ref, begun) for ref, begun in zip(refs, self.begin(refs), strict=True)]

    def begin(self, refs: Sequence[BlobRef]) -> list[bytes | PendingRead]:
        """Start the reads of messages neither cached nor being read; in the order of `refs`, for `finish_read`."""
        begun: list[bytes | PendingRead | Key] = []
        missing: dict[Key, BlobRef] = {}
        hits = shared = 0
        for ref in refs:
            key = (ref.pack, ref.offset)
            if (cached := self._cached.get(key)) is not None:
                begun.append(cached)
                hits += 1
            elif (pending := self._pending.get(key)) is not None:
                begun.append(pending)
                shared += 1
            else:
                missing[key] = ref
                begun.append(key)
        metrics.BODY_CACHE_BY_RESULT[Lookup.HIT].inc(hits)
        metrics.BODY_CACHE_BY_RESULT[Lookup.SHARED].inc(shared)
        metrics.BODY_CACHE_BY_RESULT[Lookup.MISS].inc(len(refs) - hits - shared)
        self._start(missing)
        return [self._pending[item] if isinstance(item, tuple) else item for item in begun]

    def keep(self, ref: BlobRef, body: bytes) -> None:
        """Cache a message that was just written: other sessions of its account will soon ask for it."""
        if (ref.pack, ref.offset) not in self._cached:
            self._keep((ref.pack, ref.offset), body)
            metrics.BODY_CACHE_BYTES.set(self._cached.currsize)

    async def close(self) -> None:
        """Wait for the reads under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, missing: Mapping[Key, BlobRef]) -> None:
        planned = plan_ranges(missing.values())
        loop = asyncio.get_running_loop()
        for pack_range in planned:
            pending: PendingRead = loop.create_future()
            for ref in pack_range.refs:
                self._pending[ref.pack, ref.offset] = pending
        reads = RangeReads(self._blobs, planned, self._finish)
        for _ in range(reads.workers):
            task = loop.create_task(reads.work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _finish(self, pack_range: PackRange, outcome: RangeOutcome | Exception) -> None:
        """A request has ended: cache its messages, and wake the sessions that wait for them."""
        bodies = outcome if isinstance(outcome, list) else [outcome] * len(pack_range.refs)
        by_offset: dict[int, bytes | Exception] = {}
        for ref, body in zip(pack_range.refs, bodies, strict=True):
            pending = self._pending.pop((ref.pack, ref.offset))
            by_offset[ref.offset] = body
            if isinstance(body, bytes):
                self._keep((ref.pack, ref.offset), body)
            else:
                _log.error("body_not_read", pack=ref.pack, offset=ref.offset, reason=f"{type(body).__name__}: {body}")
        metrics.BODY_CACHE_BYTES.set(self._cached.currsize)
        pending.set_result(by_offset)

    def _keep(self, key: Key, body: bytes) -> None:
        if len(body) <= self._largest:
            self._cached[key] = body


async def finish_read(ref: BlobRef, begun: bytes | PendingRead) -> bytes | BodyError:
    """One of the messages of `begin`. Raises errors that no BodyError stands for."""
    if isinstance(begun, bytes):
        return begun
    by_offset = begun.result() if begun.done() else await asyncio.shield(begun)
    body = by_offset[ref.offset]
    if isinstance(body, bytes | BlobMissing | BadPack | BlobsUnavailable):
        return body
    raise body
