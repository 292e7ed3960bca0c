"""`recover --rebuild`: rebuild a lost mailstore from the bucket. A message that is in a snapshot comes back to its
folder with its flags and UID, every other message to INBOX of its account.

It keeps its progress in PostgreSQL, not in the process: when it is killed, the next run continues. It relays nothing
and creates no job; jobs in the stream stay there.
"""

import asyncio
import time

from paquebot.blobs import new_ulid, ulid_time_ms
from paquebot.janitor.indexes import ReportProgress
from paquebot.janitor.rebuild.packs import RebuildPackReader, RebuildResult
from paquebot.janitor.recovery.accounting import read_stream
from paquebot.janitor.recovery.recover import SETTLE_SECONDS
from paquebot.janitor.snapshots import objects
from paquebot.janitor.snapshots.objects import BadSnapshot
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import is_outage
from paquebot.mailstore.snapshots.rebuild_types import CounterAdvance, Rebuild
from paquebot.observability.log import Log
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.postgres.pool import PostgresRefused
from paquebot.spool import outcomes
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotEntry, SnapshotPart, SnapshotRun

_log = Log("paquebot.rebuild")

_SKEW_MS = 60_000
"""How far the clock of a host that wrote packs may be ahead of ours. A pack too many does no harm."""


class MailstoreNotEmpty(Exception):
    """The mailstore holds mail, and `--merge` was not given."""


async def rebuild(stores: Stores, *, merge: bool, say: ReportProgress, settle: float = SETTLE_SECONDS) -> RebuildResult:
    """`merge`: add to what the mailstore holds. `settle`: seconds that the jobs of a pack may need to reach the stream.

    Raises NotEmpty, UpkeepBusy, BadSnapshot, BlobsUnavailable, QueueUnavailable, PostgresUnavailable.
    """
    async with stores.snapshots.exclusive():
        work = await stores.rebuilds.unfinished()
        if work is None:
            if not merge and await stores.snapshots.holds_mail():
                raise MailstoreNotEmpty("the mailstore holds mail")
            work = await _begin(stores)
        else:
            say(f"continuing rebuild {work.rebuild}")
        run = await objects.read_run(stores.blobs, work.run) if work.run else None
        result = RebuildResult(snapshot=work.run, snapshot_at_ms=run.finished_at_ms if run else 0)
        if run is not None:
            await _read_snapshot(stores, work, run, result, say)
        # Later packs are left to their jobs, also when this run continues another's rebuild.
        began_ms = ulid_time_ms(work.rebuild)
        await _settle(began_ms / 1000 + settle, say)
        await ensure_stream(stores.queue)
        queued = await read_stream(stores.queue)
        await RebuildPackReader(stores, work, queued, began_ms + _SKEW_MS).read(result, say)
        await _restore_accounts(stores, work, result, say)
        if not result.failed_accounts:  # otherwise another run continues with those
            await stores.rebuilds.end(work, run.mailstore if run else "")
    return result


async def _settle(until: float, say: ReportProgress) -> None:
    """Wait until packs from before the rebuild have their jobs in the stream, if they will ever have them."""
    wait = until - time.time()
    if wait > 0:
        say(f"waiting {wait:.0f} s for jobs on their way to the stream")
        await asyncio.sleep(wait)


async def _begin(stores: Stores) -> Rebuild:
    """Write the mark in the bucket first: with it, a later rebuild advances past the UIDs that this one assigns."""
    run = await objects.newest_run(stores.blobs)
    lost = await outcomes.is_empty(stores.postgres)
    work = Rebuild(rebuild=new_ulid(), run=run.run if run else "", outcomes_lost=lost)
    await objects.mark_rebuild(stores.blobs, work.rebuild, work.run)
    await stores.rebuilds.begin(work)
    return work


# Snapshots


async def _read_snapshot(
    stores: Stores, work: Rebuild, run: SnapshotRun, result: RebuildResult, say: ReportProgress
) -> None:
    await stores.rebuilds.forget_accounts(work.accounts_to + 1)
    reader, count = objects.PartReader(stores.blobs), 0
    async for entry in objects.read_entries(stores.blobs, run, after=work.accounts_to):
        try:
            await _read_account(stores, work, reader, entry)
        except (BadSnapshot, LookupError, ValueError, PostgresRefused) as error:
            _log.error("snapshot_damaged", account_id=entry.account_id, reason=str(error))
            say(f"the snapshot of account {entry.account_id} cannot be used ({error}): its mail goes to INBOX")
            await stores.rebuilds.forget_damaged(entry.account_id)
            result.damaged_accounts += 1
        count += 1
        if count % 1000 == 0:
            say(f"snapshots of {count} of {run.accounts} accounts read")
    say(f"snapshots of {count} accounts read")


async def _read_account(stores: Stores, work: Rebuild, reader: objects.PartReader, entry: SnapshotEntry) -> None:
    """Raises BadSnapshot."""
    account = AccountSnapshot()
    async for part in reader.parts(entry):
        account = part.account if part.part == 0 else account
        last = part.part == len(entry.places) - 1
        await stores.rebuilds.add_part(account, part, _delivered(account, part), last_of=work if last else None)


def _delivered(account: AccountSnapshot, part: SnapshotPart) -> list[str]:
    """Queue ids that need a record. Older messages than the records need none: no job and no pack refers to them."""
    present = (message.queue_id for message in part.messages)
    young = (queue_id for queue_id in present if ulid_time_ms(queue_id) >= account.records_since_ms)
    return [*part.delivered, *young]


# Accounts


async def _restore_accounts(stores: Stores, work: Rebuild, result: RebuildResult, say: ReportProgress) -> None:
    marks = [ulid_time_ms(mark) for mark in await objects.list_rebuilds(stores.blobs) if mark != work.rebuild]
    after = 0
    while page := await stores.rebuilds.waiting_accounts(after):
        rules = await stores.rebuilds.snapshot_times(page)
        for account_id in page:
            taken_ms = rules[account_id].taken_at.timestamp() * 1000 if account_id in rules else 0
            newer = sum(mark > taken_ms - objects.MAX_CLOCK_SKEW_MS for mark in marks)
            try:
                restored = await stores.rebuilds.restore(account_id, CounterAdvance(newer, len(marks)))
            except Exception as error:
                if await is_outage(stores, error):
                    raise
                _log.exception("account_not_restored", account_id=account_id)
                say(f"account {account_id} could not be restored ({type(error).__name__}): the next run tries again")
                result.failed_accounts += 1
                continue
            result.accounts += 1
            result.restored += restored.restored
            result.arrived += restored.arrived
            result.gone += restored.gone
        after = page[-1]
        say(f"{result.accounts} accounts restored: {result.restored + result.arrived} messages")
