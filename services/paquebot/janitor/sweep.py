"""`janitor`: frees space. Deletes mail of removed accounts, packs that are not needed any more, and old records.

A pack is deleted when no mailbox row refers to it, no job names it, and every recipient in it is accounted for. A pack
with recipients that nothing accounts for is an orphan: its stream was lost, or a process died before it queued the
jobs. It is kept until `recover` has queued it or an operator drops it. It is also marked as orphaned, because later
the records are deleted that distinguish it from a pack whose mail was delivered and expunged. A pack whose mark
records that its mail was refused is deleted after a safe age. A pack that compaction has emptied is kept as long, for
sessions that still read from it.
"""

import dataclasses
import datetime
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from paquebot.blobs import BlobMissing, BlobStore, new_ulid
from paquebot.blobs.marks import ORPHANED, Marks
from paquebot.blobs.store import PackInfo
from paquebot.directory.accounts import delete_removed, removed_accounts
from paquebot.janitor.compaction.sparse import SparsePacks
from paquebot.janitor.indexes import in_groups, read_valid_indexes
from paquebot.janitor.recovery.accounting import MissingMessage, StreamContents, find_missing, read_stream
from paquebot.janitor.recovery.refused import RefusedMessages, read_refused
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.snapshots.snapshot import check_bucket
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import Stage, Troubles, is_outage
from paquebot.observability.log import Log
from paquebot.runtime.ulid import ulid_at, ulid_time_ms
from paquebot.spool import outcomes
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.janitor")

_GROUP = 200
_RECORDS_START = ORPHANED + "looked-to"


@dataclass(slots=True)
class SweepResult:
    """The result of a sweep."""

    packs: int = 0
    deleted_packs: int = 0
    deleted_bytes: int = 0
    left_packs: int = 0
    """Unused, but a reader may still have a reference from before a compaction."""
    orphans_kept: int = 0
    """With accepted mail that is neither delivered nor queued: paquebot recover queues it."""
    refused_kept: int = 0
    """With refused mail, which its senders still have; not old enough to be deleted."""
    unreadable: int = 0
    unreadable_jobs: int = 0
    purged_accounts: int = 0
    deliveries: int = 0
    outcomes: int = 0
    expunged: int = 0


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One run."""

    stores: Stores
    settings: JanitorSettings
    queued: StreamContents
    refused: RefusedMessages
    orphaned: Marks
    orphans: frozenset[str]
    """Packs that an earlier sweep marked as orphaned."""
    previous_start: str
    """`records_start` as the previous sweep stored it; empty: no sweep has deleted records."""
    records_start: str
    """The records of packs with lower ids are deleted; a sweep examined these before, and marked the orphans."""
    delete_before: float
    """This sweep deletes older records; Unix seconds."""
    delete_records_to: str
    """The pack id of that time: this sweep deletes the records of packs with lower ids."""
    result: SweepResult
    troubles: Troubles
    drop_orphans: bool
    dry_run: bool
    skipped: list[str] = field(default_factory=list)
    """Packs that could not be examined."""


async def sweep(
    stores: Stores,
    settings: JanitorSettings,
    *,
    sparse: SparsePacks | None = None,
    drop_orphans: bool = False,
    dry_run: bool = False,
    troubles: Troubles | None = None,
) -> SweepResult:
    """Collects packs in use that may be mostly dead in `sparse`. With `drop_orphans`, deletes accepted mail that is
    older than the safe age and neither delivered nor queued. Skips a pack or an account that fails and names it in
    `troubles`. Raises BucketMismatch, BadSnapshot, BlobsUnavailable, BadPack (a mark cannot be read),
    QueueUnavailable, PostgresUnavailable; what was deleted before that stays deleted."""
    result, troubles = SweepResult(), troubles or Troubles(Stage.SWEEP)
    await check_bucket(stores)  # otherwise all packs would look unused after a loss of the mailstore
    if not dry_run:
        await _purge(stores, settings, result, troubles)
    run = await _begin(stores, settings, result, troubles, drop_orphans=drop_orphans, dry_run=dry_run)
    if not run.queued.unreadable:  # such a job may need any pack
        async for group in _old_packs(stores, settings.min_age):
            result.packs += len(group)
            await _sweep_all(run, group, sparse)
    if not dry_run:
        if not run.queued.unreadable:
            await _delete_records(run)
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.expunged_age)
        async with troubles.skipping(stores, "records of expunges"):
            result.expunged = await stores.messages.forget_expunged(before, troubles.add)
    return result


async def _begin(
    stores: Stores,
    settings: JanitorSettings,
    result: SweepResult,
    troubles: Troubles,
    *,
    drop_orphans: bool,
    dry_run: bool,
) -> _Sweep:
    # The stream before the tables: a job that is acknowledged in between has committed its rows by then.
    queued = await read_stream(stores.queue)
    result.unreadable_jobs = len(queued.unreadable)
    orphaned = Marks(stores.blobs, ORPHANED)
    refused, orphans = await read_refused(stores.blobs), frozenset(await orphaned.packs())
    delete_before = time.time() - settings.records_age
    delete_records_to = ulid_at(max(0, int(delete_before * 1000)))
    previous_start = await read_records_start(stores.blobs)
    return _Sweep(
        stores=stores,
        settings=settings,
        queued=queued,
        refused=refused,
        orphaned=orphaned,
        orphans=orphans,
        previous_start=previous_start,
        records_start=previous_start or delete_records_to,
        delete_before=delete_before,
        delete_records_to=delete_records_to,
        result=result,
        troubles=troubles,
        drop_orphans=drop_orphans,
        dry_run=dry_run,
    )


async def _sweep_all(run: _Sweep, group: list[PackInfo], sparse: SparsePacks | None) -> None:
    """Sweep the group at once; after a failure each of its packs alone, and skip those that fail."""
    before = dataclasses.asdict(run.result)
    try:
        await _sweep_group(run, group, sparse)
        return
    except Exception as error:
        if await is_outage(run.stores, error):
            raise
    for name, number in before.items():
        setattr(run.result, name, number)
    for info in group:
        failures = run.troubles.count
        async with run.troubles.skipping(run.stores, f"pack {info.pack}"):
            await _sweep_group(run, [info], sparse)
        if run.troubles.count > failures:
            run.skipped.append(info.pack)


async def _delete_records(run: _Sweep) -> None:
    """Delete old records and marks. Keeps those of a pack that could not be examined: they say to whom it was not
    delivered."""
    stores, delete_to, before_seconds = run.stores, run.delete_records_to, run.delete_before
    needed = [pack for pack in run.skipped if pack >= run.previous_start]
    if needed:
        delete_to = min(delete_to, *needed)
        before_seconds = min(before_seconds, ulid_time_ms(delete_to) / 1000)
    await stores.blobs.put_object(_RECORDS_START, max(delete_to, run.previous_start).encode())
    async with run.troubles.skipping(stores, "marks of refused mail"):
        await _delete_refused_marks(run)
    async with run.troubles.skipping(stores, "records of deliveries"):
        await _delete_delivery_records(stores, before_seconds, run.result)


async def read_records_start(blobs: BlobStore) -> str:
    """The lowest pack id whose records are complete; empty: no sweep has deleted any. Raises BlobsUnavailable,
    BadPack."""
    try:
        return (await blobs.read_object(_RECORDS_START)).decode()
    except BlobMissing:
        return ""


async def _purge(stores: Stores, settings: JanitorSettings, result: SweepResult, troubles: Troubles) -> None:
    """Delete the mail of removed accounts; their packs are deleted when nothing else uses them."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.min_age)
    for account_id in await removed_accounts(stores.postgres, before):
        async with troubles.skipping(stores, f"removed account {account_id}"):
            await stores.accounts.delete(account_id)
            await delete_removed(stores.postgres, [account_id])
            result.purged_accounts += 1


async def _old_packs(stores: Stores, min_age: float) -> AsyncIterator[list[PackInfo]]:
    limit_ms = (time.time() - min_age) * 1000
    group: list[PackInfo] = []
    async for info in stores.blobs.list_packs():
        if ulid_time_ms(info.pack) > limit_ms:
            break  # packs are listed in order of time
        group.append(info)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


async def _sweep_group(run: _Sweep, group: list[PackInfo], sparse: SparsePacks | None) -> None:
    stores, packs = run.stores, [info.pack for info in group]
    live = await stores.pack_uses.liveness(packs)
    # After the rows: a pack that is not live by then was emptied before.
    safe = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=run.settings.min_age)
    left = await stores.compactions.left_since(packs, safe)
    unused: list[PackInfo] = []
    used: list[PackInfo] = []
    for info in group:
        if info.pack in live:
            if sparse is not None and info.pack not in run.queued.packs:
                sparse.consider(info, live[info.pack])
        elif info.pack in left:
            run.result.left_packs += 1
        elif info.pack not in run.queued.packs:
            unused.append(info)
            continue
        used.append(info)
    await _mark_used_orphans(run, used)
    to_delete = [info async for info in _deletable(run, unused)]
    if to_delete and not run.dry_run:
        await stores.blobs.delete([info.pack for info in to_delete])
        await run.orphaned.delete(run.orphans.intersection(info.pack for info in to_delete))
        _log.info("packs_deleted", packs=len(to_delete))
    run.result.deleted_packs += len(to_delete)
    run.result.deleted_bytes += sum(info.size for info in to_delete)


async def _deletable(run: _Sweep, unused: Sequence[PackInfo]) -> AsyncIterator[PackInfo]:
    """Those of the packs without a row or a job that may be deleted."""
    stores, settings = run.stores, run.settings
    now = time.time()
    ages = {info.pack: now - ulid_time_ms(info.pack) / 1000 for info in unused}
    doubtful: list[PackInfo] = []
    for info in unused:
        if info.pack >= run.records_start or ages[info.pack] <= max(
            settings.records_age, 2 * settings.compaction.lease
        ):
            doubtful.append(info)
        elif info.pack not in run.orphans or run.drop_orphans:
            yield info  # an orphan would be marked: sweeps examine packs before they delete their records
        else:
            run.result.orphans_kept += 1
    for few in in_groups(doubtful):
        found, unreadable = await read_valid_indexes(
            stores.blobs, few
        )  # one that is gone was deleted by another janitor
        run.result.unreadable += len(unreadable)
        for info in unreadable:
            await _mark_orphan(run, info.pack, ())  # it may hold mail that was never delivered
        for info, index in found:
            if index.account_id and await _is_garbage(stores, settings, index, dry_run=run.dry_run):
                yield info
        accepted = [(info, index) for info, index in found if not index.account_id]
        orphaned = await find_missing(stores, [index for _, index in accepted], run.queued)
        for (info, _), messages in zip(accepted, orphaned, strict=True):
            if not messages or await _may_be_deleted(run, info.pack, messages, ages[info.pack]):
                yield info


async def _mark_used_orphans(run: _Sweep, used: Sequence[PackInfo]) -> None:
    """Examine packs in use before their records are deleted. Without the records it is unknown, once the packs are
    unused, which recipients did not get them."""
    for few in in_groups([info for info in used if run.records_start <= info.pack < run.delete_records_to]):
        found, _ = await read_valid_indexes(run.stores.blobs, few)
        orphaned = await find_missing(run.stores, [index for _, index in found], run.queued)
        for (info, _), messages in zip(found, orphaned, strict=True):
            if orphans := await run.refused.accepted(info.pack, messages):
                await _keep_orphans(run, info.pack, orphans)


async def _may_be_deleted(run: _Sweep, pack: str, messages: Sequence[MissingMessage], age: float) -> bool:
    """Whether to delete a pack with mail that is neither delivered nor queued."""
    old = age > run.settings.orphan_age
    orphans = await run.refused.accepted(pack, messages)
    if not orphans:
        run.result.refused_kept += not old
        return old
    if old and run.drop_orphans:
        return True
    await _keep_orphans(run, pack, orphans)
    return False


async def _keep_orphans(run: _Sweep, pack: str, orphans: Sequence[MissingMessage]) -> None:
    run.result.orphans_kept += 1
    _log.error("orphan_kept", pack=pack, messages=len(orphans))
    await _mark_orphan(run, pack, [message.envelope.queue_id for message in orphans])


async def _mark_orphan(run: _Sweep, pack: str, queue_ids: Sequence[str]) -> None:
    """Keep a pack after its records are deleted. While there are records, each sweep writes the mark again, because an
    earlier one may have marked the pack when it could not be read."""
    if not run.dry_run and (queue_ids or pack not in run.orphans):
        await run.orphaned.put(pack, queue_ids)


async def _delete_refused_marks(run: _Sweep) -> None:
    """Delete marks whose packs are deleted, or old enough that no sweep needs the marks."""
    limit_ms = (time.time() - 2 * max(run.settings.orphan_age, run.settings.records_age)) * 1000
    old = [pack for pack in run.refused.packs if ulid_time_ms(pack) < limit_ms]
    await run.refused.marks.delete(old)


async def _is_garbage(stores: Stores, settings: JanitorSettings, index: PackIndex, *, dry_run: bool) -> bool:
    """Whether a pack that compaction wrote will never be used. The janitor that wrote it may be about to point rows to
    it, but only while it has the account's lease."""
    if dry_run:
        return True
    owner = new_ulid()
    if not await stores.compactions.take_lease(index.account_id, owner, settings.compaction.lease):
        return False
    try:
        return not await stores.pack_uses.liveness([index.pack])
    finally:
        await stores.compactions.release_lease(index.account_id, owner)


async def _delete_delivery_records(stores: Stores, before_seconds: float, result: SweepResult) -> None:
    before = datetime.datetime.fromtimestamp(before_seconds, datetime.UTC)
    result.deliveries = await stores.deliveries.forget(before)
    result.outcomes = await outcomes.delete_before(stores.postgres, before)
