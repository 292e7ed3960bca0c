"""`janitor`: gives space back. Deletes mail of removed accounts, packs that nobody needs any more, and records that
have served.

A pack goes when no mailbox row refers to it, no job names it, and every recipient in it is accounted for; a pack
with recipients that nothing accounts for (an orphan, after a refused commit or a lost stream) is kept for
`recover` until a safe age.
"""

import datetime
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from paquebot.blobs import BadPack, BlobMissing
from paquebot.blobs.store import PackInfo
from paquebot.blobs.ulid import ulid_time_ms
from paquebot.directory.removed import purged, removed_accounts
from paquebot.janitor.accounting import Queued, missing, read_stream
from paquebot.janitor.snapshot import known_bucket
from paquebot.janitor.stores import JanitorSettings, Stores
from paquebot.observability.log import Log
from paquebot.spool import outcomes

_log = Log("paquebot.janitor")

_GROUP = 200


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    packs: int = 0
    deleted_packs: int = 0
    deleted_octets: int = 0
    orphans_kept: int = 0
    unreadable: int = 0
    unreadable_jobs: int = 0
    purged_accounts: int = 0
    deliveries: int = 0
    outcomes: int = 0
    expunged: int = 0


async def sweep(stores: Stores, settings: JanitorSettings, *, dry_run: bool = False) -> Swept:
    """Raises StrangeBucket, BadSnapshot, BlobsUnavailable, QueueUnavailable, PostgresUnavailable: what was deleted
    until then stays so."""
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
        await _sweep_group(stores, settings, group, queued, result, dry_run=dry_run)
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
    stores: Stores, settings: JanitorSettings, group: list[PackInfo], queued: Queued, result: Swept, *, dry_run: bool
) -> None:
    live = await stores.mailstore.live_packs([info.pack for info in group])
    doomed: list[PackInfo] = []
    for info in group:
        if info.pack in live or info.pack in queued.packs:
            continue
        if await _may_go(stores, settings, info, queued, result):
            doomed.append(info)
    if doomed and not dry_run:
        await stores.blobs.delete([info.pack for info in doomed])
        _log.info("packs_deleted", packs=len(doomed))
    result.deleted_packs += len(doomed)
    result.deleted_octets += sum(info.octets for info in doomed)


async def _may_go(stores: Stores, settings: JanitorSettings, info: PackInfo, queued: Queued, result: Swept) -> bool:
    age = time.time() - ulid_time_ms(info.pack) / 1000
    if age > settings.orphan_age:
        return True
    try:
        index = await stores.blobs.read_index(info)
    except BlobMissing:
        return False  # another janitor was first
    except BadPack as error:
        _log.error("pack_unreadable", pack=info.pack, reason=str(error))
        result.unreadable += 1
        return False
    if await missing(stores, index, queued):
        result.orphans_kept += 1
        return False
    return True


async def _forget(stores: Stores, settings: JanitorSettings, result: Swept) -> None:
    now = datetime.datetime.now(datetime.UTC)
    records = now - datetime.timedelta(seconds=settings.records_age)
    result.deliveries = await stores.mailstore.forget_deliveries(records)
    result.outcomes = await outcomes.forget(stores.postgres, records)
    result.expunged = await stores.mailstore.forget_expunged(now - datetime.timedelta(seconds=settings.expunged_age))
