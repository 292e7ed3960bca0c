"""`snapshot`: writes the metadata of every account that changed since the last snapshot to the bucket. From it
`recover --rebuild` restores mailboxes, flags and UIDs when PostgreSQL's mailstore is lost."""

import datetime
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from paquebot.blobs import BlobStore, ulid_time_ms
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.snapshots import objects
from paquebot.janitor.snapshots.objects import BadSnapshot
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import Stage, Troubles
from paquebot.mailstore.snapshots.export import AccountExport
from paquebot.mailstore.uid_ceilings import UidCeiling
from paquebot.observability.log import Log
from paquebot.v1.snapshot_pb2 import SnapshotEntry, SnapshotPart, SnapshotPlace, SnapshotRun

_log = Log("paquebot.snapshot")

_PART_MESSAGES = 2000
_PART_DELIVERED = 20_000
_SAFE_AGE_MS = 86_400_000
"""Minimum age of objects to delete: a run that is not complete yet may need younger ones."""


class BucketMismatch(Exception):
    """The bucket holds snapshots of another mailstore: upkeep with this one, empty or foreign, would destroy mail."""


@dataclass(slots=True)
class SnapshotResult:
    """The result of a snapshot."""

    run: str = ""
    accounts: int = 0
    written_accounts: int = 0
    written_messages: int = 0
    written_objects: int = 0
    written_bytes: int = 0
    deleted_objects: int = 0
    bad_accounts: int = 0
    """Accounts that could not be written: their previous snapshot, if there is one, still counts."""
    bad_rows: int = 0
    """Rows that were repaired or left out in the snapshot."""
    mended_rows: int = 0
    """Rows that were repaired in PostgreSQL, too."""


async def check_bucket(stores: Stores) -> SnapshotRun | None:
    """The newest snapshot in the bucket. Raises BucketMismatch when it is of another mailstore: a mailstore that was
    created again after a loss has no rows, so the janitor would delete all packs. Raises BadSnapshot,
    BlobsUnavailable, PostgresUnavailable."""
    run = await objects.newest_run(stores.blobs)
    if run is not None and run.mailstore != await stores.snapshots.identity():
        raise BucketMismatch("the bucket holds the mail of another mailstore")
    return run


async def snapshot(stores: Stores, settings: JanitorSettings, troubles: Troubles | None = None) -> SnapshotResult:
    """Write a new run, then delete what it replaces. After a kill at any point the previous run counts. Skips an
    account that cannot be read and names it in `troubles`.

    Raises BucketMismatch, UpkeepBusy, BadSnapshot, BlobsUnavailable, PostgresUnavailable.
    """
    async with stores.snapshots.exclusive():
        troubles = troubles or Troubles(Stage.SNAPSHOT)
        return await _snapshot(stores, settings, await check_bucket(stores), troubles)


async def _snapshot(
    stores: Stores, settings: JanitorSettings, before: SnapshotRun | None, troubles: Troubles
) -> SnapshotResult:
    writer, manifest = objects.ObjectWriter(stores.blobs), objects.ManifestWriter(stores.blobs)
    result = SnapshotResult(run=manifest.run)
    stale = await _stale_objects(stores.blobs, before)
    previous = objects.OrderedEntries(read_valid_entries(stores.blobs, before))
    ceilings: list[UidCeiling] = []
    async for account_id, signature in stores.snapshots.signatures():
        entry = await previous.entry(account_id)
        if entry is None or entry.signature != signature or any(place.object in stale for place in entry.places):
            written = SnapshotEntry(account_id=account_id, signature=signature)
            bad = troubles.count
            async with troubles.skipping(stores, f"account {account_id}"):
                ceilings += await _write(stores, settings, writer, written, result, troubles)
                entry = written
            result.bad_accounts += entry is not written
            result.bad_rows += troubles.count - bad if entry is written else 0
        if entry is not None:
            await manifest.add(entry)
    await writer.flush()
    run = await manifest.complete(await stores.snapshots.identity(), _now_ms())
    # Only now: services may assign the UIDs that a snapshot promises once it counts.
    await stores.snapshots.raise_ceilings(ceilings)
    finished_at = datetime.datetime.fromtimestamp(run.finished_at_ms / 1000, datetime.UTC)
    await stores.snapshots.record_run(run.run, finished_at, run.accounts)
    result.accounts, result.written_objects, result.written_bytes = run.accounts, writer.objects, writer.size
    result.deleted_objects = await _remove_old(stores.blobs, run)
    _log.info("snapshot_written", run=run.run, accounts=run.accounts, written=result.written_accounts)
    return result


async def _write(
    stores: Stores,
    settings: JanitorSettings,
    writer: objects.ObjectWriter,
    entry: SnapshotEntry,
    result: SnapshotResult,
    troubles: Troubles,
) -> list[UidCeiling]:
    """Write the account and record its places in `entry`. The signature is older than what is written, so a change in
    between is at worst written twice."""
    messages = 0
    await stores.snapshots.lower_ceilings(entry.account_id)
    async with stores.snapshots.export(entry.account_id, _now_ms(), settings.records_age) as export:
        async for part in _parts(entry.account_id, export):
            entry.places.append(await writer.add(part))
            messages += len(part.messages)
        ceilings: list[UidCeiling] = export.ceilings
    for reason in export.bad:
        troubles.add(f"account {entry.account_id}, {reason.partition(':')[0]}", reason)
    if export.bad_dates:
        result.mended_rows += await stores.snapshots.mend_dates(entry.account_id)
    result.written_messages += messages
    result.written_accounts += 1
    return ceilings


async def _parts(account_id: int, export: AccountExport) -> AsyncIterator[SnapshotPart]:
    """The account in parts of limited size; a small account is one part."""
    part = SnapshotPart(account_id=account_id, account=export.account)
    async for messages in export.messages(_PART_MESSAGES):
        if part.messages:
            yield part
            part = SnapshotPart(account_id=account_id, part=part.part + 1)
        part.messages.extend(messages)
    async for delivered in export.delivered(_PART_DELIVERED):
        if part.delivered:
            yield part
            part = SnapshotPart(account_id=account_id, part=part.part + 1)
        part.delivered.extend(delivered)
    yield part


async def read_valid_entries(blobs: BlobStore, run: SnapshotRun | None) -> AsyncIterator[SnapshotEntry]:
    """The entries before the first damaged page of the manifest; later accounts are written again."""
    if run is None:
        return
    try:
        async for entry in objects.read_entries(blobs, run):
            yield entry
    except BadSnapshot as error:
        _log.error("manifest_damaged", run=run.run, reason=str(error))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# Deleting old objects


@dataclass(slots=True)
class _Objects:
    """By object, its size and the bytes of it that a manifest names."""

    all: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)

    def count(self, places: list[SnapshotPlace]) -> None:
        for place in places:
            self.live[place.object] = self.live.get(place.object, 0) + place.length


async def _counted(blobs: BlobStore, run: SnapshotRun) -> _Objects:
    found = _Objects()
    async for key, size in blobs.list_objects(objects.OBJECTS):
        found.all[key.removeprefix(objects.OBJECTS)] = size
    async for entry in read_valid_entries(blobs, run):
        found.count(list(entry.places))
    return found


async def _stale_objects(blobs: BlobStore, run: SnapshotRun | None) -> set[str]:
    """Objects that are mostly outdated: their current accounts are written again, so that they can be deleted."""
    if run is None:
        return set()
    found = await _counted(blobs, run)
    return {name for name, size in found.live.items() if size * 2 < found.all.get(name, 0)}


async def _remove_old(blobs: BlobStore, run: SnapshotRun) -> int:
    """Keep `run` and the run before it. Delete older manifests, and objects that neither of the two names and that are
    older than a safe age."""
    manifests = [key async for key, _ in blobs.list_objects(objects.RUNS)]
    complete = sorted(key.split("/")[-2] for key in manifests if key.endswith("/" + objects.COMPLETE))
    kept = complete[complete.index(run.run) - 1 :] if len(complete) > 1 else complete
    outdated = [key for key in manifests if key.split("/")[-2] < kept[0]]
    # The run's `complete` first, so that a manifest that counts is never there in part.
    await blobs.delete_objects(sorted(outdated, key=lambda key: not key.endswith(objects.COMPLETE)))
    named = _Objects()
    try:
        for name in kept:
            async for entry in objects.read_entries(blobs, await objects.read_run(blobs, name)):
                named.count(list(entry.places))
    except BadSnapshot as error:
        _log.error("manifest_damaged", reason=str(error))
        return len(outdated)  # the objects that it names are unknown
    old_ms = _now_ms() - _SAFE_AGE_MS
    unnamed = [
        key
        async for key, _ in blobs.list_objects(objects.OBJECTS)
        if (name := key.removeprefix(objects.OBJECTS)) not in named.live and ulid_time_ms(name) < old_ms
    ]
    await blobs.delete_objects(unnamed)
    return len(outdated) + len(unnamed)
