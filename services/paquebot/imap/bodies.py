"""Message bodies from S3: each read once however many sessions ask, the last ones kept within a bound.

Messages that lie in one pack are asked for together, so that a sync of a mailbox costs few requests. A read
belongs to the process, not to the session that asked first: it goes on when that session ends.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from paquebot.blobs.pack import BadPack
from paquebot.blobs.store import BlobMissing, BlobStore, BlobsUnavailable
from paquebot.imap import metrics
from paquebot.imap.metrics import Lookup
from paquebot.observability.log import Log
from paquebot.runtime.gate import OctetGate
from paquebot.v1.mail_pb2 import BlobRef

_log = Log("paquebot.imap.bodies")
_LARGE_SHARE = 8  # a body above this fraction of the cache is not worth what it would push out

BodyError = BlobMissing | BadPack | BlobsUnavailable
Key = tuple[str, int]


class Bodies:
    """One for a process. `gate` bounds what readers hold while they write it to their clients."""

    def __init__(self, blobs: BlobStore, *, cache_octets: int, gate: OctetGate) -> None:
        self._blobs = blobs
        self._limit = cache_octets
        self._octets = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._under_way: dict[Key, asyncio.Future[bytes]] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self.gate = gate

    async def load(self, refs: Sequence[BlobRef]) -> list[bytes | BodyError]:
        """The messages, in the order of `refs`, each or why it cannot be read."""
        found = [self._find(ref) for ref in refs]
        self._start(ref for ref, body in zip(refs, found, strict=True) if body is None)
        # All futures are taken before the first is awaited: a read that ends meanwhile leaves the table.
        waiting = [
            self._under_way[ref.pack, ref.offset] if body is None else body
            for ref, body in zip(refs, found, strict=True)
        ]
        return [body if isinstance(body, bytes) else await _result(body) for body in waiting]

    async def close(self) -> None:
        """Wait for the reads under way."""
        if self._reads:
            await asyncio.wait(self._reads)

    def _find(self, ref: BlobRef) -> bytes | asyncio.Future[bytes] | None:
        key = (ref.pack, ref.offset)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            metrics.CACHED[Lookup.HIT].inc()
            return kept
        under_way = self._under_way.get(key)
        metrics.CACHED[Lookup.MISS if under_way is None else Lookup.SHARED].inc()
        return under_way

    def _start(self, refs: Iterable[BlobRef]) -> None:
        packs: dict[str, list[BlobRef]] = {}
        for ref in refs:
            key = (ref.pack, ref.offset)
            if key not in self._under_way:
                future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
                future.add_done_callback(_seen)
                self._under_way[key] = future
                packs.setdefault(ref.pack, []).append(ref)
        for group in packs.values():
            task = asyncio.create_task(self._read(group))
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)

    async def _read(self, refs: list[BlobRef]) -> None:
        """Read messages of one pack and wake those who wait."""
        try:
            found: Sequence[bytes | Exception] = await self._blobs.read_many(refs)
        except (BadPack, BlobMissing) as error:
            found = [error] if len(refs) == 1 else await self._one_by_one(refs)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            found = [error] * len(refs)
        for ref, body in zip(refs, found, strict=True):
            future = self._under_way.pop((ref.pack, ref.offset))
            if isinstance(body, bytes):
                self._keep((ref.pack, ref.offset), body)
                future.set_result(body)
            else:
                _log.error("body_not_read", pack=ref.pack, offset=ref.offset, reason=f"{type(body).__name__}: {body}")
                future.set_exception(body)

    async def _one_by_one(self, refs: list[BlobRef]) -> list[bytes | Exception]:
        """One bad entry must not take its neighbours with it."""
        found: list[bytes | Exception] = []
        for ref in refs:
            try:
                found.append(await self._blobs.read(ref))
            except Exception as error:  # noqa: BLE001 - reported for its message alone
                found.append(error)
        return found

    def _keep(self, key: Key, body: bytes) -> None:
        if len(body) > self._limit // _LARGE_SHARE:
            return
        self._kept[key] = body
        self._octets += len(body)
        while self._octets > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._octets -= len(dropped)
        metrics.BODY_CACHE_BYTES.set(self._octets)


async def _result(future: asyncio.Future[bytes]) -> bytes | BodyError:
    try:
        return await asyncio.shield(future)
    except (BlobMissing, BadPack, BlobsUnavailable) as error:
        return error


def _seen(future: asyncio.Future[bytes]) -> None:
    """A failure that nobody waits for any more is logged already."""
    if not future.cancelled():
        future.exception()
