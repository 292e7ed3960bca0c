"""Compaction on the real engines: readers get the right content at all times, and compact packs stay as they are."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from paquebot.blobs import BlobStore, PackWriter, new_ulid
from paquebot.blobs.pack import compress, pack_key
from paquebot.janitor.compaction.compact import CompactionResult, compact
from paquebot.janitor.compaction.sparse import SparsePacks
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.settings import JanitorSettings
from paquebot.janitor.stores import Stores
from paquebot.janitor.sweep import SweepResult, sweep
from paquebot.janitor.verification.verify import verify
from paquebot.mailstore import Flag, FlagOp, MailboxReader
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.upkeep import figures
from paquebot.queue import Queue
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import ByteSize, Seconds, Secret
from paquebot.v1.mail_pb2 import Envelope
from tests.support.compaction_world import DAY, Scatterer, all_packs, everything, packs_of, read, uses
from tests.support.counted import value
from tests.support.mailstores import Mailstore
from tests.support.roles import let_roles_log_in, role_dsn

SENT = 3
EVER = 365 * DAY


@pytest.fixture
async def stores(blobs: BlobStore, queue: Queue, migrated: Postgres, migrated_database: str) -> AsyncIterator[Stores]:
    """PostgreSQL with the janitor's rights only. The invariants must hold after each test."""
    await let_roles_log_in(migrated_database, "paquebot_janitor")
    dsn = Secret(role_dsn(migrated_database, "paquebot_janitor"))
    postgres = await open_postgres(PostgresSettings(dsn=dsn, pool_size=4), "janitor")
    yield Stores.of(blobs, queue, postgres)
    assert (await verify(Stores.of(blobs, queue, migrated), settle=0)).faults == []
    await postgres.close()


@pytest.fixture
def mail(blobs: BlobStore, queue: Queue, migrated: Postgres) -> Scatterer:
    """Delivers with the rights of the superuser."""
    return Scatterer(Stores.of(blobs, queue, migrated))


@pytest.fixture
def settings(
    nats_settings: NatsSettings, s3_settings: S3Settings, postgres_settings: PostgresSettings
) -> JanitorSettings:
    return JanitorSettings(nats_settings, s3_settings, postgres_settings)


def with_compaction(settings: JanitorSettings, **changes: object) -> JanitorSettings:
    return replace(settings, compaction=dataclasses.replace(settings.compaction, **changes))  # type: ignore[arg-type]


async def janitor(stores: Stores, settings: JanitorSettings) -> tuple[SweepResult, CompactionResult]:
    """Run the janitor as the command does."""
    sparse = SparsePacks(settings.compaction.live_share)
    return await sweep(stores, settings, sparse=sparse), await compact(stores, settings, sparse)


async def test_scattered_messages_are_read_from_few_packs(
    stores: Stores, mail: Scatterer, settings: JanitorSettings, migrated: Postgres
) -> None:
    old = await mail.packs(20, [1], [1, 2], [3])
    young = await Scatterer(mail.stores, age=0.5 * DAY).pack([1], [2], [3])
    await mail.stores.messages.copy(1, INBOX_ID, [5, 6], SENT, quota_bytes=0)
    before, snapshot = await everything(stores), await MailboxReader(migrated).state(1, INBOX_ID)

    dry = await compact(stores, settings, dry_run=True)
    assert (dry.compacted_accounts, dry.compacted_messages, dry.written_packs) == (3, 80, 3)
    assert await all_packs(stores) == [*old, young]

    swept, done = await janitor(stores, settings)
    assert swept.deleted_packs == 0
    assert (done.compacted_accounts, done.compacted_messages, done.source_packs, done.written_packs) == (3, 80, 60, 3)
    assert (done.backlog_messages, done.unreadable_messages, done.busy_accounts) == (0, 0, 0)
    assert done.compaction_requests == 20 + 3  # small packs that all accounts share: each is read once
    assert await everything(stores) == before
    assert (await MailboxReader(migrated).state(1, INBOX_ID)).rows == snapshot.rows
    for account in (1, 2, 3):
        assert len(await packs_of(stores, account)) == 2
    inbox = [use.blob for use in await uses(stores) if use.account_id == 1 and use.mailbox_id == INBOX_ID][:40]
    assert [ref.offset for ref in inbox] == sorted({ref.offset for ref in inbox})  # in the order of their UIDs

    swept, again = await janitor(stores, settings)
    assert (swept.left_packs, swept.deleted_packs) == (20, 0)
    assert (again.compacted_messages, again.written_packs, again.compaction_requests) == (0, 0, 0)
    swept, _ = await janitor(stores, replace(settings, min_age=Seconds(0.0)))
    assert swept.deleted_packs == 20
    assert await everything(stores) == before


async def test_recover_ignores_packs_of_compaction(stores: Stores, mail: Scatterer, settings: JanitorSettings) -> None:
    await mail.packs(20, [1], [2, 3])
    await janitor(stores, settings)
    await janitor(stores, replace(settings, min_age=Seconds(0.0)))
    [pack] = await packs_of(stores, 2)
    index = await stores.blobs.read_index(await stores.blobs.stat(pack))
    assert (index.version, index.account_id, len(index.entries)) == (2, 2, 20)
    assert {recipient.account_id for entry in index.entries for recipient in entry.envelope.local} == {2}
    # Much later: the records of deliveries have expired, and messages were removed.
    await stores.deliveries.forget(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1))
    await mail.stores.messages.remove(2, INBOX_ID, [1, 2])
    recovered = await recover(stores, since=EVER, settle=0)
    assert (recovered.messages, recovered.unreadable) == (0, 0)


async def test_a_shared_message_is_copied_for_one_account_and_stays_for_the_other(
    stores: Stores, mail: Scatterer, settings: JanitorSettings
) -> None:
    old = await mail.packs(10, [1, 2])
    await mail.packs(10, [1])
    before = await everything(stores)
    _, done = await janitor(stores, settings)
    assert done.compacted_accounts == 1
    assert await packs_of(stores, 2) == old
    swept, _ = await janitor(stores, replace(settings, min_age=Seconds(0.0)))
    assert swept.deleted_packs == 10
    assert set(old) <= set(await all_packs(stores))
    assert await everything(stores) == before


async def test_readers_during_compaction_get_the_right_content(
    stores: Stores, mail: Scatterer, settings: JanitorSettings
) -> None:
    """A session with old references can read every message until a safe age, through several compactions."""
    small = with_compaction(
        settings, age=Seconds(0.0), pack_bytes=ByteSize(8192), max_bytes=ByteSize(9000), saved_packs=2
    )
    await mail.packs(40, [1], [1, 2])
    known, before = await uses(stores), await everything(stores)
    done = asyncio.Event()

    async def reader() -> int:
        rounds = 0
        while not done.is_set() or not rounds:
            assert await read(stores, known) == before
            assert await everything(stores) == before
            rounds += 1
        return rounds

    async with asyncio.TaskGroup() as group:
        group.create_task(reader())
        moved, backlog = 0, 1
        while backlog:
            _, run = await janitor(stores, small)
            moved, backlog = moved + run.compacted_messages, run.backlog_messages
        done.set()
    assert moved >= 120
    assert len(await packs_of(stores, 1)) < 12


async def test_mail_delivered_and_expunged_during_compaction(
    stores: Stores, mail: Scatterer, settings: JanitorSettings
) -> None:
    """Delivery, COPY, MOVE, STORE and EXPUNGE beside two janitors: counts, references and contents stay right."""
    await mail.packs(60, [1], [1, 2])
    before = await everything(stores)
    limits = with_compaction(settings, age=Seconds(0.0), pack_bytes=ByteSize(4096), saved_packs=2)
    mailstore = Mailstore.of(mail.stores.postgres)

    async def change() -> None:
        new = Scatterer(mail.stores, age=-60.0)  # too young for any janitor
        for uid in range(1, 40):
            await new.pack([1, 2])
            await mailstore.messages.copy(1, INBOX_ID, [uid, uid + 40], SENT, quota_bytes=0)
            await mailstore.messages.move(1, INBOX_ID, [uid + 80], SENT)
            await mailstore.messages.store_flags(1, INBOX_ID, [uid], FlagOp.ADD, flags=Flag.DELETED)
            await mailstore.messages.expunge(1, INBOX_ID)

    async def two_janitors(changes: asyncio.Task[None]) -> None:
        while not changes.done():
            await asyncio.gather(*(janitor(stores, replace(limits, min_age=Seconds(0.0))) for _ in range(2)))

    async with asyncio.TaskGroup() as group:
        await two_janitors(group.create_task(change()))
    await janitor(stores, limits)
    assert await mailstore.broken_invariants() == []
    after = await everything(stores)
    contents = dict(before.values())
    assert all(contents.get(queue_id, raw) == raw for queue_id, raw in after.values())
    # All messages that were not expunged are there: 81 of account 1's 120 in INBOX or Sent, and all of account 2's.
    gone = {before[1, INBOX_ID, uid][0] for uid in range(1, 40)}
    kept = {queue_id for (account, _, _), (queue_id, _) in after.items() if account == 1}
    assert kept >= {queue_id for (account, _, _), (queue_id, _) in before.items() if account == 1}
    assert gone <= kept  # each was copied before
    assert len([place for place in after if place[0] == 2]) == 60 + 39


async def test_two_janitors_share_the_work(stores: Stores, mail: Scatterer, settings: JanitorSettings) -> None:
    await mail.packs(20, [1], [2], [3], [4])
    before = await everything(stores)
    runs = await asyncio.gather(*(compact(stores, settings) for _ in range(3)))
    assert sum(run.compacted_messages for run in runs) == 80
    assert sum(run.written_packs for run in runs) == 4
    assert await everything(stores) == before


async def test_a_budget_ends_a_run_and_the_next_continues(
    stores: Stores, mail: Scatterer, settings: JanitorSettings, migrated: Postgres
) -> None:
    await mail.packs(20, [1], [2])
    limits = with_compaction(settings, max_bytes=ByteSize(1))
    first = await compact(stores, limits)
    assert (first.compacted_messages, first.backlog_messages) == (20, 20)
    await figures.observe(migrated)
    assert value("paquebot_mailstore_compaction_backlog_messages") == 20
    assert value("paquebot_mailstore_compaction_backlog_bytes") == first.backlog_bytes > 20 * 300
    assert (await compact(stores, with_compaction(settings, max_seconds=Seconds(0.0)))).compacted_messages == 0
    assert (await compact(stores, limits)).backlog_messages == 0
    await figures.observe(migrated)
    assert value("paquebot_mailstore_compaction_backlog_messages") == 0


async def test_slowly_arriving_mail_is_moved_a_few_times_only(
    stores: Stores, mail: Scatterer, settings: JanitorSettings
) -> None:
    """64 messages in rounds of 4, a janitor after each: a message moves each time its pack doubles, at most."""
    limits = with_compaction(settings, age=Seconds(0.0), saved_packs=3, message_bytes=ByteSize(400))
    moved = 0
    for _ in range(16):
        await mail.packs(4, [1])
        moved += (await compact(stores, limits)).compacted_messages
    assert 64 <= moved <= 64 * 5
    assert len(await packs_of(stores, 1)) <= 8


async def test_live_messages_leave_a_mostly_dead_pack(
    stores: Stores, mail: Scatterer, settings: JanitorSettings
) -> None:
    large = [700_000, 100_000, 100_000]
    dead = await mail.pack([1], [1], [1, 2], sizes=large)
    shared = await mail.pack([1], *([[1, 2, 3]] * 2), sizes=large)  # copying the rest three times saves nothing
    alive = await mail.pack([1], sizes=[300_000])
    await mail.stores.messages.remove(1, INBOX_ID, [1, 2, 4])
    before = await everything(stores)
    swept, done = await janitor(stores, settings)
    assert (done.sparse_packs, done.compacted_messages, done.written_packs) == (1, 2, 2)
    assert swept.deleted_packs == 0
    assert [pack for pack in await packs_of(stores, 1) if pack in (dead, shared, alive)] == [shared, alive]
    swept, again = await janitor(stores, replace(settings, min_age=Seconds(0.0)))
    assert (swept.deleted_packs, again.written_packs) == (1, 0)
    assert await everything(stores) == before


async def test_a_damaged_message_stays_where_it_is(
    stores: Stores, mail: Scatterer, settings: JanitorSettings, blobs: BlobStore
) -> None:
    packs = await mail.packs(20, [1])
    info = await blobs.stat(packs[3])
    whole = await blobs.read_range(info.pack, 0, info.size)
    damaged = bytearray(whole)
    damaged[40] ^= 1
    await blobs.put_object(pack_key(info.pack), bytes(damaged))
    broken = packs[5:8]
    await blobs.put_object(pack_key(broken[0]), b"no pack at all")
    await blobs.put_object(pack_key(broken[1]), b"")
    await blobs.delete([broken[2]])
    done = await compact(stores, settings)
    assert (done.compacted_messages, done.unreadable_messages) == (16, 4)
    assert [pack for pack in await packs_of(stores, 1) if pack in packs] == [packs[3], *broken]
    uids = [use.uid for use in await uses(stores) if use.blob.pack in broken]
    await mail.stores.messages.remove(1, INBOX_ID, uids)
    await blobs.put_object(pack_key(info.pack), whole)
    await blobs.delete(broken)


async def test_an_unused_new_pack_is_deleted_after_its_lease(stores: Stores, settings: JanitorSettings) -> None:
    """A janitor that has just written the pack may soon change rows to refer to it."""
    now = replace(settings, min_age=Seconds(0.0))
    assert await stores.compactions.take_lease(7, "writer", 60.0)
    writer = PackWriter(new_ulid(), account_id=7)
    writer.add(Envelope(queue_id=new_ulid()), compress(b"Subject: x\r\n\r\n"))
    await stores.blobs.put(writer.pack, writer.finish(1))
    assert (await sweep(stores, now)).deleted_packs == 0
    await stores.compactions.release_lease(7, "writer")
    assert (await sweep(stores, now, dry_run=True)).deleted_packs == 1
    assert (await sweep(stores, now)).deleted_packs == 1


async def test_verify_reports_a_row_in_another_accounts_pack(
    stores: Stores, mail: Scatterer, settings: JanitorSettings, migrated: Postgres
) -> None:
    await mail.packs(20, [1])
    await compact(stores, settings)
    await migrated.execute("test", "UPDATE mailstore.messages SET account_id = 2 WHERE uid = 3")
    faults = (await verify(mail.stores, settle=0)).faults
    assert any("account 2" in fault and "written for account 1" in fault for fault in faults)
    await migrated.execute("test", "UPDATE mailstore.messages SET account_id = 1 WHERE uid = 3")
