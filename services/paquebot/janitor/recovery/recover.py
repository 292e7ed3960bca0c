"""`recover`: the bucket alone is enough (invariant 2). Queues again the messages of recent packs that are neither
delivered nor relayed nor queued."""

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from paquebot.blobs import BlobMissing, BlobStore
from paquebot.blobs.marks import ORPHANED, Marks
from paquebot.blobs.store import PackInfo
from paquebot.janitor.indexes import ReportProgress, ignore_progress, in_groups, read_valid_indexes
from paquebot.janitor.recovery.accounting import MissingMessage, find_missing, read_packed, read_stream
from paquebot.janitor.recovery.refused import read_refused
from paquebot.janitor.stores import Stores
from paquebot.janitor.sweep import read_records_start
from paquebot.observability.log import Log
from paquebot.queue import MAX_BATCH, Publication
from paquebot.queue.stream import ensure_stream, move, skipped_jobs
from paquebot.runtime.ulid import ulid_at, ulid_time_ms
from paquebot.spool.jobs import publications
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.recover")

_ACKNOWLEDGED_SECONDS = 2.0  # after which an acknowledged job has left the stream

SETTLE_SECONDS = 60.0
"""Younger packs may still be on their way from the bucket to the stream."""


@dataclass(slots=True)
class RecoveryResult:
    """The result of `recover`."""

    packs: int = 0
    messages: int = 0
    recipients: int = 0
    jobs: int = 0
    refused: int = 0
    """Messages that were left alone: their senders got a 451 and send them again."""
    skipped_jobs: int = 0
    """Jobs that were in the stream but that their consumer took for done; they are queued under new numbers."""
    unreadable: int = 0
    unreadable_messages: int = 0
    unreadable_jobs: int = 0


async def recover(
    stores: Stores,
    *,
    since: float,
    settle: float = SETTLE_SECONDS,
    refused_too: bool = False,
    dry_run: bool = False,
    say: ReportProgress = ignore_progress,
) -> RecoveryResult:
    """Examine the packs of the last `since` seconds, except the last `settle`, and older ones that the janitor marked
    as orphaned. Queue again what is missing, except refused messages unless `refused_too`.

    Creates a missing stream. May be repeated: what is queued is not missing. Raises BlobsUnavailable, BadPack (a mark
    cannot be read), QueueUnavailable, PostgresUnavailable.
    """
    if not dry_run:
        await ensure_stream(stores.queue)
    now_ms = int(time.time() * 1000)
    orphaned = Marks(stores.blobs, ORPHANED)
    kept = await orphaned.packs()
    start = ulid_at(max(0, now_ms - int(since * 1000)))
    if start < await read_records_start(stores.blobs):
        say("the janitor has deleted the records of the oldest of these packs: their mail may be delivered again")
    infos = [info async for info in _packs(stores.blobs, start, now_ms - settle * 1000, kept)]
    refused = await read_refused(stores.blobs)
    queued = await read_stream(stores.queue)
    result = RecoveryResult(unreadable_jobs=len(queued.unreadable))
    result.skipped_jobs = await _requeue_skipped(stores, dry_run=dry_run)
    for group in in_groups(infos, say):
        result.packs += len(group)
        found, unreadable = await read_valid_indexes(stores.blobs, group)
        result.unreadable += len(unreadable)
        indexes = [index for _, index in found]
        for index, messages in zip(indexes, await find_missing(stores, indexes, queued), strict=True):
            wanted = messages
            if index.pack in kept and index.pack <= start:  # the records of its other messages may be deleted
                known = await orphaned.queue_ids(index.pack)
                wanted = [message for message in messages if message.envelope.queue_id in known]
            accepted = wanted if refused_too else await refused.accepted(index.pack, wanted)
            result.refused += len(wanted) - len(accepted)
            if accepted and await _queue_again(stores, index, accepted, result, say, dry_run=dry_run):
                await orphaned.delete([index.pack])
    return result


async def _packs(blobs: BlobStore, start: str, until_ms: float, kept: Collection[str]) -> AsyncIterator[PackInfo]:
    for pack in sorted(pack for pack in kept if pack <= start):
        with contextlib.suppress(BlobMissing):
            yield await blobs.stat(pack)
    async for info in blobs.list_packs(after=start):
        if ulid_time_ms(info.pack) <= until_ms:
            yield info


async def _queue_again(
    stores: Stores,
    index: PackIndex,
    messages: Sequence[MissingMessage],
    result: RecoveryResult,
    say: ReportProgress,
    *,
    dry_run: bool,
) -> bool:
    """True: all of them were queued."""
    result.messages += len(messages)
    result.recipients += sum(message.recipients() for message in messages)
    found = await read_packed(stores, index, messages)
    result.unreadable_messages += len(messages) - len(found)
    jobs = publications(index.pack, found)
    result.jobs += len(jobs)
    if dry_run:
        for message in messages:
            say(_sentence(index.pack, message))
        return False
    for first in range(0, len(jobs), MAX_BATCH):
        await stores.queue.publish(jobs[first : first + MAX_BATCH])
    _log.info("jobs_requeued", pack=index.pack, messages=len(found), jobs=len(jobs))
    return len(found) == len(messages)


def _sentence(pack: str, message: MissingMessage) -> str:
    """For the operator, who decides whether the sender may have sent it again since."""
    envelope = message.envelope
    accepted = datetime.datetime.fromtimestamp(envelope.accepted_at_ms / 1000, datetime.UTC)
    return (
        f"pack {pack}: {envelope.queue_id}, received {accepted:%Y-%m-%d %H:%M:%S} UTC from "
        f"{envelope.client.address or envelope.client.listener}, {message.recipients()} recipients"
    )


async def _requeue_skipped(stores: Stores, *, dry_run: bool) -> int:
    first = {stored.sequence: stored.published_at for stored in await skipped_jobs(stores.queue)}
    if not first:
        return 0
    await asyncio.sleep(_ACKNOWLEDGED_SECONDS)
    again = [s for s in await skipped_jobs(stores.queue) if first.get(s.sequence) == s.published_at]
    for stored in () if dry_run else again:
        await move(stores.queue, stored, Publication(stored.subject, stored.payload))
        _log.info("jobs_requeued", sequence=stored.sequence, subject=stored.subject)
    return len(again)
