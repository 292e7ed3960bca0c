"""`janitor`: gives space back. Deletes mail of removed accounts, packs that nobody needs any more, and records that
have served.

A pack goes when no mailbox row refers to it, no job names it, and every recipient in it is accounted for. A pack with
recipients that nothing accounts for (an orphan: after a lost stream, or a process that died before the jobs were
queued) is kept until `recover` has queued it or an operator gives it up, and marked, for the records that tell it from
a pack whose mail was served and expunged are forgotten one day. Where a mark says that its mail was refused, it goes
after a safe age. A pack that a compaction left is kept as long for those who read from it.
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
from paquebot.janitor.troubles import Stage, Troubles, is_away
from paquebot.observability.log import Log
from paquebot.runtime.ulid import ulid_at, ulid_time_ms
from paquebot.spool import outcomes
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.janitor")

_GROUP = 200
_LOOKED_TO = ORPHANED + "looked-to"


@dataclass(slots=True)
class SweepResult:
    """What a sweep did."""

    packs: int = 0
    deleted_packs: int = 0
    deleted_bytes: int = 0
    left_packs: int = 0
    """Free, but a reader may still hold a reference from before a compaction."""
    orphans_kept: int = 0
    """With accepted mail that is neither served nor queued: paquebot recover queues it."""
    refused_kept: int = 0
    """With mail that was refused, which its senders have; not old enough to go."""
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
    """Packs that were marked as such before."""
    looked_before: str
    """What the sweep before left as `looked_to`; empty: nothing."""
    looked_to: str
    """Of packs with lower ids the records are forgotten; a sweep looked at each before, and marked the orphans."""
    forget_to: str
    """Of packs with lower ids this sweep forgets the records."""
    result: SweepResult
    troubles: Troubles
    drop_orphans: bool
    dry_run: bool
    passed_over: list[str] = field(default_factory=list)
    """Packs that could not be looked at."""


async def sweep(
    stores: Stores,
    settings: JanitorSettings,
    *,
    sparse: SparsePacks | None = None,
    drop_orphans: bool = False,
    dry_run: bool = False,
    troubles: Troubles | None = None,
) -> SweepResult:
    """Packs that are alive and perhaps mostly dead are noted in `sparse`. With `drop_orphans` accepted mail that is
    older than the safe age, and neither served nor queued, is given up. A pack or an account that fails is passed over,
    and named in `troubles`. Raises BucketMismatch, BadSnapshot, BlobsUnavailable, BadPack (a mark cannot be read),
    QueueUnavailable, PostgresUnavailable: what was deleted until then stays so."""
    result, troubles = SweepResult(), troubles or Troubles(Stage.SWEEP)
    await check_bucket(stores)  # or all packs would look dead after a loss of the mailstore
    if not dry_run:
        await _purge(stores, settings, result, troubles)
    # The stream before the tables: a job that ends in between has committed its rows by then.
    queued = await read_stream(stores.queue)
    result.unreadable_jobs = len(queued.unreadable)
    orphaned = Marks(stores.blobs, ORPHANED)
    refused, orphans = await read_refused(stores.blobs), frozenset(await orphaned.packs())
    forget_before = time.time() - settings.records_age
    forget_to = ulid_at(max(0, int(forget_before * 1000)))
    looked_before = await read_records_start(stores.blobs)
    looked_to = looked_before or forget_to
    run = _Sweep(
        *(stores, settings, queued, refused, orphaned, orphans, looked_before, looked_to, forget_to, result, troubles),
        drop_orphans,
        dry_run,
    )
    async for group in _old_packs(stores, settings.min_age):
        if queued.unreadable:
            break  # such a job may need any pack
        result.packs += len(group)
        await _sweep_all(run, group, sparse)
    if not dry_run:
        if not queued.unreadable:
            await _forget(run, forget_before)
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.expunged_age)
        async with troubles.apart(stores, "records of expunges"):
            result.expunged = await stores.mailstore.forget_expunged(before, troubles.note)
    return result


async def _sweep_all(run: _Sweep, group: list[PackInfo], sparse: SparsePacks | None) -> None:
    """The group at once, and where that fails each of its packs: one that fails alone is passed over."""
    before = dataclasses.asdict(run.result)
    try:
        await _sweep_group(run, group, sparse)
        return
    except Exception as error:
        if await is_away(run.stores, error):
            raise
    for name, number in before.items():
        setattr(run.result, name, number)
    for info in group:
        failures = run.troubles.count
        async with run.troubles.apart(run.stores, f"pack {info.pack}"):
            await _sweep_group(run, [info], sparse)
        if run.troubles.count > failures:
            run.passed_over.append(info.pack)


async def _forget(run: _Sweep, before_seconds: float) -> None:
    """Old records and marks. Those of a pack that could not be looked at are kept: they tell whom it was not served
    to."""
    stores, forget_to = run.stores, run.forget_to
    needed = [pack for pack in run.passed_over if pack >= run.looked_before]
    if needed:
        forget_to = min(forget_to, *needed)
        before_seconds = min(before_seconds, ulid_time_ms(forget_to) / 1000)
    await stores.blobs.put_object(_LOOKED_TO, max(forget_to, run.looked_before).encode())
    async with run.troubles.apart(stores, "marks of refused mail"):
        await _forget_refused(run)
    async with run.troubles.apart(stores, "records of deliveries"):
        await _forget_records(stores, before_seconds, run.result)


async def read_records_start(blobs: BlobStore) -> str:
    """The lowest id of a pack of which all records are there; empty: no sweep has forgotten any. Raises
    BlobsUnavailable, BadPack."""
    try:
        return (await blobs.read_object(_LOOKED_TO)).decode()
    except BlobMissing:
        return ""


async def _purge(stores: Stores, settings: JanitorSettings, result: SweepResult, troubles: Troubles) -> None:
    """Delete the mail of accounts that were removed; its packs go when they are empty."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.min_age)
    for account_id in await removed_accounts(stores.postgres, before):
        async with troubles.apart(stores, f"removed account {account_id}"):
            await stores.mailstore.delete_account(account_id)
            await delete_removed(stores.postgres, [account_id])
            result.purged_accounts += 1


async def _old_packs(stores: Stores, min_age: float) -> AsyncIterator[list[PackInfo]]:
    limit_ms = (time.time() - min_age) * 1000
    group: list[PackInfo] = []
    async for info in stores.blobs.list_packs():
        if ulid_time_ms(info.pack) > limit_ms:
            break  # packs come in order of their time
        group.append(info)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


async def _sweep_group(run: _Sweep, group: list[PackInfo], sparse: SparsePacks | None) -> None:
    stores, packs = run.stores, [info.pack for info in group]
    live = await stores.mailstore.live_packs(packs)
    # After the rows: what is not live then was left before.
    safe = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=run.settings.min_age)
    left = await stores.mailstore.left_since(packs, safe)
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
    await _look_before_forgetting(run, used)
    doomed = [info async for info in _free(run, unused)]
    if doomed and not run.dry_run:
        await stores.blobs.delete([info.pack for info in doomed])
        await run.orphaned.delete(run.orphans.intersection(info.pack for info in doomed))
        _log.info("packs_deleted", packs=len(doomed))
    run.result.deleted_packs += len(doomed)
    run.result.deleted_bytes += sum(info.size for info in doomed)


async def _free(run: _Sweep, unused: Sequence[PackInfo]) -> AsyncIterator[PackInfo]:
    """Those of the packs without a row or a job that may go."""
    stores, settings = run.stores, run.settings
    now = time.time()
    ages = {info.pack: now - ulid_time_ms(info.pack) / 1000 for info in unused}
    doubtful: list[PackInfo] = []
    for info in unused:
        if info.pack >= run.looked_to or ages[info.pack] <= max(settings.records_age, 2 * settings.compaction.lease):
            doubtful.append(info)
        elif info.pack not in run.orphans or run.drop_orphans:
            yield info  # an orphan would be marked: only sweeps forget records, and they look at packs before
        else:
            run.result.orphans_kept += 1
    for few in in_groups(doubtful):
        found, unreadable = await read_valid_indexes(stores.blobs, few)  # what is not there was another janitor's
        run.result.unreadable += len(unreadable)
        for info in unreadable:
            await _keep(run, info.pack, ())  # nobody knows whether it holds mail that was never delivered
        for info, index in found:
            if index.account_id and await _is_garbage(stores, settings, index, dry_run=run.dry_run):
                yield info
        accepted = [(info, index) for info, index in found if not index.account_id]
        orphaned = await find_missing(stores, [index for _, index in accepted], run.queued)
        for (info, _), messages in zip(accepted, orphaned, strict=True):
            if not messages or await _may_go(run, info.pack, messages, ages[info.pack]):
                yield info


async def _look_before_forgetting(run: _Sweep, used: Sequence[PackInfo]) -> None:
    """At packs that others need: when nobody does any more, no record tells whom they were not served to."""
    for few in in_groups([info for info in used if run.looked_to <= info.pack < run.forget_to]):
        found, _ = await read_valid_indexes(run.stores.blobs, few)
        orphaned = await find_missing(run.stores, [index for _, index in found], run.queued)
        for (info, _), messages in zip(found, orphaned, strict=True):
            if orphans := await run.refused.accepted(info.pack, messages):
                await _keep_orphans(run, info.pack, orphans)


async def _may_go(run: _Sweep, pack: str, messages: Sequence[MissingMessage], age: float) -> bool:
    """A pack with mail that is neither served nor queued."""
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
    await _keep(run, pack, [message.envelope.queue_id for message in orphans])


async def _keep(run: _Sweep, pack: str, queue_ids: Sequence[str]) -> None:
    """Also when the records that tell of it are forgotten. While they are there, each look says what is missing: a
    pack may have been marked before anybody could read it."""
    if not run.dry_run and (queue_ids or pack not in run.orphans):
        await run.orphaned.put(pack, queue_ids)


async def _forget_refused(run: _Sweep) -> None:
    """Marks that are older than the packs they speak of can be, or that no look at these needs any more."""
    limit_ms = (time.time() - 2 * max(run.settings.orphan_age, run.settings.records_age)) * 1000
    old = [pack for pack in run.refused.packs if ulid_time_ms(pack) < limit_ms]
    await run.refused.marks.delete(old)


async def _is_garbage(stores: Stores, settings: JanitorSettings, index: PackIndex, *, dry_run: bool) -> bool:
    """Whether a pack written again for an account is of no use for ever. Its janitor may be about to point rows at
    it, but only as long as it has the account's lease."""
    if dry_run:
        return True
    owner = new_ulid()
    if not await stores.mailstore.take_compaction(index.account_id, owner, settings.compaction.lease):
        return False
    try:
        return not await stores.mailstore.live_packs([index.pack])
    finally:
        await stores.mailstore.give_back_compaction(index.account_id, owner)


async def _forget_records(stores: Stores, before_seconds: float, result: SweepResult) -> None:
    before = datetime.datetime.fromtimestamp(before_seconds, datetime.UTC)
    result.deliveries = await stores.mailstore.forget_deliveries(before)
    result.outcomes = await outcomes.delete_before(stores.postgres, before)
