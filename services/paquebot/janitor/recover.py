"""`recover`: the bucket is enough (invariant 2). What recent packs hold and nobody delivered, relayed or queued is
queued again."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.blobs.ulid import ulid_at, ulid_time_ms
from paquebot.janitor.accounting import Missing, missing, packed, read_stream
from paquebot.janitor.indexes import Say, in_groups, readable, silent
from paquebot.janitor.stores import Stores
from paquebot.observability.log import Log
from paquebot.queue import Publication
from paquebot.queue.client import MAX_BATCH
from paquebot.queue.stream import ensure_stream, move, passed_over
from paquebot.spool.jobs import publications
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.recover")

_ACKNOWLEDGED_SECONDS = 2.0  # in which a job that was acknowledged has left the stream

SETTLE_SECONDS = 60.0
"""Younger packs may still be on their way from the bucket to the stream."""


@dataclass(slots=True)
class Recovered:
    """What `recover` found and did."""

    packs: int = 0
    messages: int = 0
    recipients: int = 0
    jobs: int = 0
    passed_over: int = 0
    """Jobs that were in the stream but that their consumer took for done; they are queued under new numbers."""
    unreadable: int = 0
    unreadable_jobs: int = 0


async def recover(
    stores: Stores, *, since: float, settle: float = SETTLE_SECONDS, dry_run: bool = False, say: Say = silent
) -> Recovered:
    """Look at packs written in the last `since` seconds, except the last `settle`; queue again what is missing.

    A stream that is gone is made anew. May be repeated: what is queued is not missing. Raises BlobsUnavailable,
    QueueUnavailable, PostgresUnavailable.
    """
    if not dry_run:
        await ensure_stream(stores.queue)
    now_ms = int(time.time() * 1000)
    start = ulid_at(max(0, now_ms - int(since * 1000)))
    infos = [
        info async for info in stores.blobs.list_packs(after=start) if ulid_time_ms(info.pack) <= now_ms - settle * 1000
    ]
    queued = await read_stream(stores.queue)
    result = Recovered(unreadable_jobs=len(queued.unreadable))
    result.passed_over = await _queue_passed_over(stores, dry_run=dry_run)
    for group in in_groups(infos, say):
        result.packs += len(group)
        found, unreadable = await readable(stores.blobs, group)
        result.unreadable += unreadable
        indexes = [index for _, index in found]
        for index, messages in zip(indexes, await missing(stores, indexes, queued), strict=True):
            if messages:
                await _queue_again(stores, index, messages, result, dry_run=dry_run)
    return result


async def _queue_again(
    stores: Stores, index: PackIndex, messages: Sequence[Missing], result: Recovered, *, dry_run: bool
) -> None:
    result.messages += len(messages)
    result.recipients += sum(message.recipients() for message in messages)
    jobs = publications(index.pack, await packed(stores, index, messages))
    result.jobs += len(jobs)
    if dry_run:
        return
    for first in range(0, len(jobs), MAX_BATCH):
        await stores.queue.publish(jobs[first : first + MAX_BATCH])
    _log.info("queued_again", pack=index.pack, messages=len(messages), jobs=len(jobs))


async def _queue_passed_over(stores: Stores, *, dry_run: bool) -> int:
    first = {stored.sequence: stored.published_at for stored in await passed_over(stores.queue)}
    if not first:
        return 0
    await asyncio.sleep(_ACKNOWLEDGED_SECONDS)
    again = [s for s in await passed_over(stores.queue) if first.get(s.sequence) == s.published_at]
    for stored in () if dry_run else again:
        await move(stores.queue, stored, Publication(stored.subject, stored.payload))
        _log.info("queued_again", sequence=stored.sequence, subject=stored.subject)
    return len(again)
