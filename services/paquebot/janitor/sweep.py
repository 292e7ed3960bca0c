"""`janitor`: gives space back. Deletes mail of removed accounts, packs that nobody needs any more, and records that
have served.

A pack goes when no mailbox row refers to it, no job names it, and every recipient in it is accounted for; a pack
with recipients that nothing accounts for (an orphan, after a refused commit or a lost stream) is kept for
`recover` until a safe age. A pack that a compaction left is kept as long for those who read from it.
"""

import datetime
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from paquebot.blobs import new_ulid
from paquebot.blobs.store import PackInfo
from paquebot.blobs.ulid import ulid_time_ms
from paquebot.directory.removed import purged, removed_accounts
from paquebot.janitor.accounting import Queued, missing, read_stream
from paquebot.janitor.indexes import in_groups, readable
from paquebot.janitor.snapshot import known_bucket
from paquebot.janitor.sparse import SparsePacks
from paquebot.janitor.stores import JanitorSettings, Stores
from paquebot.observability.log import Log
from paquebot.spool import outcomes
from paquebot.v1.mail_pb2 import PackIndex

_log = Log("paquebot.janitor")

_GROUP = 200


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    packs: int = 0
    deleted_packs: int = 0
    deleted_octets: int = 0
    left_packs: int = 0
    """Free, but a reader may still hold a reference from before a compaction."""
    orphans_kept: int = 0
    unreadable: int = 0
    unreadable_jobs: int = 0
    purged_accounts: int = 0
    deliveries: int = 0
    outcomes: int = 0
    expunged: int = 0


async def sweep(
    stores: Stores, settings: JanitorSettings, *, sparse: SparsePacks | None = None, dry_run: bool = False
) -> Swept:
    """Packs that are alive and perhaps mostly dead are noted in `sparse`. Raises StrangeBucket, BadSnapshot,
    BlobsUnavailable, QueueUnavailable, PostgresUnavailable: what was deleted until then stays so."""
    result = Swept()
    await known_bucket(stores)  # or all packs would look dead after a loss of the mailstore
    if not dry_run:
        await _purge(stores, settings, result)
    # The stream before the tables: a job that ends in between has committed its rows by then.
    queued = await read_stream(stores.queue)
    result.unreadable_jobs = len(queued.unreadable)
    async for group in _old_packs(stores, settings.min_age):
        if queued.unreadable:
            break  # such a job may need any pack
        result.packs += len(group)
        await _sweep_group(stores, settings, group, queued, result, sparse, dry_run=dry_run)
    if not dry_run:
        await _forget(stores, settings, result)
    return result


async def _purge(stores: Stores, settings: JanitorSettings, result: Swept) -> None:
    """Delete the mail of accounts that were removed; its packs go when they are empty."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.min_age)
    for account_id in await removed_accounts(stores.postgres, before):
        await stores.mailstore.delete_account(account_id)
        await purged(stores.postgres, [account_id])
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


async def _sweep_group(
    stores: Stores,
    settings: JanitorSettings,
    group: list[PackInfo],
    queued: Queued,
    result: Swept,
    sparse: SparsePacks | None,
    *,
    dry_run: bool,
) -> None:
    packs = [info.pack for info in group]
    live = await stores.mailstore.live_packs(packs)
    # After the rows: what is not live then was left before.
    safe = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.min_age)
    left = await stores.mailstore.left_since(packs, safe)
    unused: list[PackInfo] = []
    for info in group:
        if info.pack in live:
            if sparse is not None and info.pack not in queued.packs:
                sparse.consider(info, live[info.pack])
        elif info.pack in left:
            result.left_packs += 1
        elif info.pack not in queued.packs:
            unused.append(info)
    doomed = [info async for info in _free(stores, settings, unused, queued, result, dry_run=dry_run)]
    if doomed and not dry_run:
        await stores.blobs.delete([info.pack for info in doomed])
        _log.info("packs_deleted", packs=len(doomed))
    result.deleted_packs += len(doomed)
    result.deleted_octets += sum(info.octets for info in doomed)


async def _free(
    stores: Stores,
    settings: JanitorSettings,
    unused: Sequence[PackInfo],
    queued: Queued,
    result: Swept,
    *,
    dry_run: bool,
) -> AsyncIterator[PackInfo]:
    """Those of the packs without a row or a job that may go."""
    now = time.time()
    ages = {info.pack: now - ulid_time_ms(info.pack) / 1000 for info in unused}
    doubtful: list[PackInfo] = []
    for info in unused:
        if ages[info.pack] > settings.orphan_age and ages[info.pack] > 2 * settings.compaction.lease:
            yield info
        else:
            doubtful.append(info)
    for few in in_groups(doubtful):
        found, unreadable = await readable(stores.blobs, few)  # what is not there was another janitor's
        result.unreadable += unreadable
        for info, index in found:
            if index.account_id and await _is_garbage(stores, settings, index, dry_run=dry_run):
                yield info
        accepted = [(info, index) for info, index in found if not index.account_id]
        orphaned = await missing(stores, [index for _, index in accepted], queued)
        for (info, _), messages in zip(accepted, orphaned, strict=True):
            if messages and ages[info.pack] <= settings.orphan_age:
                result.orphans_kept += 1
            else:
                yield info


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


async def _forget(stores: Stores, settings: JanitorSettings, result: Swept) -> None:
    now = datetime.datetime.now(datetime.UTC)
    records = now - datetime.timedelta(seconds=settings.records_age)
    result.deliveries = await stores.mailstore.forget_deliveries(records)
    result.outcomes = await outcomes.forget(stores.postgres, records)
    result.expunged = await stores.mailstore.forget_expunged(now - datetime.timedelta(seconds=settings.expunged_age))
