"""`recover --restored`: advance the counters after PostgreSQL was restored from a backup.

Clients have seen messages newer than the backup. Without this, the next messages would get the UIDs of those. The
newest snapshot in the bucket has the highest UID that may have been assigned; a mailbox that is not in it gets a new
UIDVALIDITY. A second run advances the counters again, which does no harm.
"""

from dataclasses import dataclass, field

from paquebot.blobs import new_ulid, ulid_time_ms
from paquebot.janitor.snapshots import objects
from paquebot.janitor.snapshots.objects import BadSnapshot
from paquebot.janitor.snapshots.snapshot import check_bucket, read_valid_entries
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import is_outage
from paquebot.observability.log import Log
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotEntry

_log = Log("paquebot.restored")


@dataclass(slots=True)
class CountersAdvanced:
    """The counters that were advanced."""

    accounts: int = 0
    mailboxes: int = 0
    renewed: int = 0
    """Mailboxes with a new UIDVALIDITY."""
    failed: list[int] = field(default_factory=list)
    """Accounts whose counters could not be advanced: no service may assign UIDs in them."""


async def advance_all_counters(stores: Stores) -> CountersAdvanced:
    """Advance the counters of every mailbox; run it before any service assigns a UID. Names accounts that fail in
    `failed` and continues. Raises BucketMismatch, UpkeepBusy, BadSnapshot, BlobsUnavailable, PostgresUnavailable."""
    result = CountersAdvanced()
    async with stores.snapshots.exclusive():
        run = await check_bucket(stores)
        marks = [ulid_time_ms(mark) for mark in await objects.list_rebuilds(stores.blobs)]
        # As for a rebuild: a later one advances past the UIDs that are assigned from now on.
        await objects.mark_rebuild(stores.blobs, new_ulid(), run.run if run else "")
        entries = objects.OrderedEntries(read_valid_entries(stores.blobs, run))
        reader = objects.PartReader(stores.blobs)
        async for account_id, _ in stores.snapshots.signatures():
            known = await _account(reader, await entries.entry(account_id))
            times = sum(mark > known.taken_at_ms - objects.MAX_CLOCK_SKEW_MS for mark in marks)
            try:
                mailboxes, renewed = await stores.rebuilds.advance_counters(account_id, known, times)
            except Exception as error:
                if await is_outage(stores, error):
                    raise
                _log.exception("counters_not_advanced", account_id=account_id)
                result.failed.append(account_id)
                continue
            result.accounts += 1
            result.mailboxes += mailboxes
            result.renewed += renewed
    return result


async def _account(reader: objects.PartReader, entry: SnapshotEntry | None) -> AccountSnapshot:
    """The account in the newest snapshot; empty when it is not there."""
    if entry is None:
        return AccountSnapshot()
    try:
        async for part in reader.parts(entry):
            return part.account
    except BadSnapshot as error:
        _log.error("snapshot_damaged", account_id=entry.account_id, reason=str(error))
    return AccountSnapshot()
