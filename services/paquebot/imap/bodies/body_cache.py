"""Message bodies from S3: each read once however many sessions ask, the last ones kept within a bound.

Messages that lie near each other in a pack are one request, so that a sync of a mailbox costs few. A read belongs
to the process, not to the session that asked first: it goes on when that session ends.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from paquebot.blobs import BadPack, BlobMissing, BlobStore, BlobsUnavailable
from paquebot.blobs.range_reads import RangeReads
from paquebot.blobs.ranges import PackRange, plan_ranges
from paquebot.blobs.store import RangeOutcome
from paquebot.imap import metrics
from paquebot.imap.metrics import Lookup
from paquebot.observability.log import Log
from paquebot.v1.mail_pb2 import BlobRef

_log = Log("paquebot.imap.bodies.body_cache")
_LARGE_SHARE = 8  # a body above this fraction of the cache is not worth what it would push out

BodyError = BlobMissing | BadPack | BlobsUnavailable
Key = tuple[str, int]
Coming = asyncio.Future[Mapping[int, bytes | Exception]]
"""A request under way: its messages by offset, each or why it cannot be read."""


class BodyCache:
    """One for a process."""

    def __init__(self, blobs: BlobStore, *, cache_bytes: int) -> None:
        self._blobs = blobs
        self._limit = cache_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._under_way: dict[Key, Coming] = {}
        self._reads: set[asyncio.Task[None]] = set()

    async def load(self, refs: Sequence[BlobRef]) -> list[bytes | BodyError]:
        """The messages, in the order of `refs`, each or why it cannot be read."""
        return [await body(ref, begun) for ref, begun in zip(refs, self.begin(refs), strict=True)]

    def begin(self, refs: Sequence[BlobRef]) -> list[bytes | Coming]:
        """Start to read what is neither kept nor under way; in the order of `refs`, for `body`."""
        begun: list[bytes | Coming | Key] = []
        missing: dict[Key, BlobRef] = {}
        hits = shared = 0
        for ref in refs:
            key = (ref.pack, ref.offset)
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                begun.append(kept)
                hits += 1
            elif (coming := self._under_way.get(key)) is not None:
                begun.append(coming)
                shared += 1
            else:
                missing[key] = ref
                begun.append(key)
        metrics.CACHED[Lookup.HIT].inc(hits)
        metrics.CACHED[Lookup.SHARED].inc(shared)
        metrics.CACHED[Lookup.MISS].inc(len(refs) - hits - shared)
        self._start(missing)
        return [self._under_way[item] if isinstance(item, tuple) else item for item in begun]

    def keep(self, ref: BlobRef, body: bytes) -> None:
        """A message that was just written: other sessions of its account will soon ask for it."""
        if (ref.pack, ref.offset) not in self._kept:
            self._keep((ref.pack, ref.offset), body)
            metrics.BODY_CACHE_BYTES.set(self._bytes)

    async def close(self) -> None:
        """Wait for the reads under way."""
        if self._reads:
            await asyncio.wait(self._reads)

    def _start(self, missing: Mapping[Key, BlobRef]) -> None:
        planned = plan_ranges(missing.values())
        loop = asyncio.get_running_loop()
        for span in planned:
            coming: Coming = loop.create_future()
            for ref in span.refs:
                self._under_way[ref.pack, ref.offset] = coming
        reads = RangeReads(self._blobs, planned, self._came)
        for _ in range(reads.workers):
            task = loop.create_task(reads.work())
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)

    def _came(self, span: PackRange, outcome: RangeOutcome | Exception) -> None:
        """A request ended: keep what it brought, and wake those who wait."""
        bodies = outcome if isinstance(outcome, list) else [outcome] * len(span.refs)
        found: dict[int, bytes | Exception] = {}
        for ref, read in zip(span.refs, bodies, strict=True):
            coming = self._under_way.pop((ref.pack, ref.offset))
            found[ref.offset] = read
            if isinstance(read, bytes):
                self._keep((ref.pack, ref.offset), read)
            else:
                _log.error("body_not_read", pack=ref.pack, offset=ref.offset, reason=f"{type(read).__name__}: {read}")
        metrics.BODY_CACHE_BYTES.set(self._bytes)
        coming.set_result(found)

    def _keep(self, key: Key, body: bytes) -> None:
        if len(body) > self._limit // _LARGE_SHARE:
            return
        self._kept[key] = body
        self._bytes += len(body)
        while self._bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)


async def body(ref: BlobRef, begun: bytes | Coming) -> bytes | BodyError:
    """One of the messages that `begin` told of. Raises what was not foreseen."""
    if isinstance(begun, bytes):
        return begun
    found = begun.result() if begun.done() else await asyncio.shield(begun)
    read = found[ref.offset]
    if isinstance(read, bytes | BlobMissing | BadPack | BlobsUnavailable):
        return read
    raise read
