"""The mailstore is lost and the bucket remains: snapshots, and `recover --rebuild` from them, on the real engines."""

from __future__ import annotations

import asyncio

import pytest

from paquebot.blobs import PackWriter, new_ulid
from paquebot.blobs.marks import REFUSED, Marks
from paquebot.blobs.pack import Frame
from paquebot.delivery import entries
from paquebot.janitor.rebuild import packs
from paquebot.janitor.rebuild.counters import CountersAdvanced, advance_all_counters
from paquebot.janitor.rebuild.rebuild import MailstoreNotEmpty, rebuild
from paquebot.janitor.recovery.accounting import read_stream
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.snapshots import objects
from paquebot.janitor.snapshots.snapshot import BucketMismatch
from paquebot.janitor.sweep import sweep
from paquebot.mailstore import Delivery, Flag, FlagOp
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.snapshots.snapshots import UpkeepBusy
from paquebot.mailstore.uid_ceilings import UID_ROOM
from paquebot.queue import Consumer, stream
from paquebot.queue.subjects import DELIVER
from paquebot.runtime.postgres.pool import Postgres
from paquebot.spool import outcomes
from paquebot.spool.outcomes import RecipientOutcome
from paquebot.v1.queue_pb2 import DeliverJob
from tests.support.rebuild_world import ALICE, BOB, WEEK, Platform, furnish


async def test_everything_in_a_snapshot_is_restored(platform: Platform) -> None:
    await furnish(platform)
    before = {account: await platform.contents(account) for account in (ALICE, BOB)}
    trees = {account: await platform.tree(account) for account in (ALICE, BOB)}
    subscriptions = await platform.mailstore.mailboxes.subscriptions(ALICE)
    usage = await platform.mailstore.accounts.usage(ALICE)
    await platform.snapshot()
    await platform.lose_mailstore()

    result = await platform.rebuild()
    assert (result.accounts, result.arrived, result.gone, result.unreadable) == (2, 0, 0, 0)
    for account in (ALICE, BOB):
        assert await platform.contents(account) == before[account]
        assert await platform.tree(account) == trees[account]
    assert await platform.mailstore.mailboxes.subscriptions(ALICE) == subscriptions
    assert await platform.mailstore.accounts.usage(ALICE) == usage
    # The records of deliveries are restored too: nothing is delivered a second time.
    assert (await recover(platform.janitor, since=WEEK, settle=0)).messages == 0
    with pytest.raises(MailstoreNotEmpty):
        await platform.rebuild()


async def test_no_uid_is_assigned_twice(platform: Platform) -> None:
    await furnish(platform)
    await platform.snapshot()
    seen = {(ALICE, "INBOX", uid): facts[0] for uid, facts in (await platform.contents(ALICE))["INBOX"].items()}
    box = await platform.mailstore.mailboxes.find(ALICE, "INBOX")
    later = [await platform.arrive(f"later-{number}", ALICE) for number in range(3)]
    await platform.mailstore.messages.copy(
        ALICE, INBOX_ID, [1, 2, 3], INBOX_ID, quota_bytes=0
    )  # leaves no trace in a pack
    for uid, facts in (await platform.contents(ALICE))["INBOX"].items():
        seen[ALICE, "INBOX", uid] = facts[0]
    mod_seq = (await platform.mailstore.mailboxes.find(ALICE, "INBOX")).highest_mod_seq
    await platform.expunge(ALICE, INBOX_ID, 1)

    for _ in range(2):  # lost twice, from the same snapshot
        await platform.lose_mailstore()
        await platform.rebuild()
        later.append(await platform.arrive("new", ALICE))
        now = (await platform.contents(ALICE))["INBOX"]
        again = await platform.mailstore.mailboxes.find(ALICE, "INBOX")
        assert again.uid_validity == box.uid_validity
        for uid, facts in now.items():
            assert seen.setdefault((ALICE, "INBOX", uid), facts[0]) == facts[0], "another message under a known UID"
        assert 1 in now, "a message expunged after the snapshot is restored with its UID"
        assert [facts[0] for facts in now.values()][-len(later) :] == later
        # A client with its old mod-sequence gets every message, and must compare UIDs.
        changes = await platform.mailstore.mailbox_reader.changes_since(ALICE, INBOX_ID, mod_seq)
        assert set(changes.rows.uids) == set(now)
        assert changes.expunged is None
        mod_seq = again.highest_mod_seq
        made = await platform.mailstore.mailboxes.create(ALICE, "Made after it")
        validities = [facts[1] for facts in (await platform.tree(ALICE)).values()]
        assert validities.count(made.uid_validity) == 1


async def test_a_mailbox_without_free_uids_gets_a_new_uid_validity(platform: Platform) -> None:
    await platform.arrive("one", ALICE)
    await platform.stores.postgres.execute(
        "test", "UPDATE mailstore.mailboxes SET uid_next = 4294967000 WHERE mailbox_id = 1"
    )
    before = await platform.mailstore.mailboxes.find(ALICE, "INBOX")
    await platform.snapshot()
    await platform.lose_mailstore()
    await platform.rebuild()
    after = await platform.mailstore.mailboxes.find(ALICE, "INBOX")
    assert after.uid_validity > before.uid_validity
    assert list(await platform.contents(ALICE)) == [b.name for b in await platform.mailstore.mailboxes.list_all(ALICE)]


async def test_mail_without_a_snapshot_goes_to_inbox(platform: Platform) -> None:
    await platform.arrive("one", ALICE, BOB)
    await platform.append(BOB, "Sent", "sent")
    await platform.mailstore.mailboxes.create(ALICE, "Folder")
    before = (await platform.contents(ALICE))["INBOX"]
    validity = (await platform.mailstore.mailboxes.find(ALICE, "INBOX")).uid_validity
    await platform.lose_mailstore()
    await stream.delete_stream(platform.stores.queue)  # lost too: it is created anew
    result = await platform.rebuild()
    assert (result.snapshot, result.accounts, result.arrived) == ("", 2, 3)
    assert await platform.subjects(BOB) == ["one", "sent"]
    assert (await platform.mailstore.mailboxes.find(ALICE, "INBOX")).uid_validity > validity
    [was], [now] = before.values(), (await platform.contents(ALICE))["INBOX"].values()
    changing = {4}  # the save date
    assert [v for n, v in enumerate(was) if n not in changing] == [v for n, v in enumerate(now) if n not in changing]


async def test_messages_expunged_before_the_snapshot_stay_expunged(platform: Platform) -> None:
    await platform.arrive("kept", ALICE, BOB)
    await platform.arrive("expunged", ALICE, BOB)
    await platform.expunge(ALICE, INBOX_ID, 2)
    refused = await platform.accept("refused", ALICE, BOB)
    consumer = Consumer(platform.stores.queue, "delivery", DELIVER)
    [job] = await consumer.fetch(1, 5)
    [entry] = DeliverJob.FromString(job.payload).entries
    first, second = (one.delivery for one in entries.deliveries_of(entry))
    over = Delivery(first.account_id, "", 1, first.message)
    await platform.mailstore.deliveries.deliver([over, second], refuse_over_quota=True)
    await job.ack()
    await consumer.close()
    await platform.mailstore.accounts.delete(3)  # a tombstone
    tombstone = await platform.accept("for the dead", 3)
    await stream.delete_stream(platform.stores.queue)
    await stream.ensure_stream(platform.stores.queue)

    await platform.snapshot()
    await platform.lose_mailstore()
    await platform.rebuild()
    assert await platform.subjects(ALICE) == ["kept"]
    assert await platform.subjects(BOB) == ["kept", "expunged", "refused"]
    assert await platform.mailstore.deliveries.delivered([(ALICE, refused), (3, tombstone)]) == {
        (ALICE, refused),
        (3, tombstone),
    }
    assert await platform.mailstore.mailboxes.list_all(3) == ()


async def test_jobs_in_the_stream_stay_there(platform: Platform) -> None:
    await platform.arrive("delivered", ALICE)
    await platform.snapshot()
    await platform.accept("waiting", ALICE)
    await platform.lose_mailstore()
    result = await platform.rebuild()
    assert result.arrived == 0
    await platform.deliver()
    assert await platform.subjects(ALICE) == ["delivered", "waiting"]


async def test_a_job_delivered_again_changes_nothing(platform: Platform) -> None:
    await platform.arrive("one", ALICE)
    await platform.snapshot()
    await platform.arrive("two", ALICE)
    await platform.lose_mailstore()
    await platform.rebuild()
    await stream.delete_stream(platform.stores.queue)
    assert (await recover(platform.janitor, since=WEEK, settle=0)).messages == 0
    assert await platform.subjects(ALICE) == ["one", "two"]


async def test_relayed_mail_is_not_relayed_again(platform: Platform) -> None:
    """The outcomes have their own schema: whether it is kept or lost, jobs that left the stream do not return to it."""
    done = await platform.accept("relayed", ALICE, remote=["x@example.net"])
    await platform.deliver()
    for job in [stored async for stored in stream.jobs(platform.stores.queue)]:
        await stream.delete(platform.stores.queue, job.sequence)
    waiting = await platform.accept("waiting", remote=["y@example.net"])
    await outcomes.record(platform.stores.postgres, [(done, "x@example.net", RecipientOutcome.RELAYED)])

    await platform.lose_mailstore()
    assert (await platform.rebuild()).assumed_relayed == 0
    assert (await recover(platform.janitor, since=WEEK, settle=0)).messages == 0

    await platform.lose_mailstore()
    await platform.stores.postgres.execute("test", "TRUNCATE spool.outcomes")
    assert (await platform.rebuild()).assumed_relayed == 1
    assert (await recover(platform.janitor, since=WEEK, settle=0)).messages == 0
    queued = await read_stream(platform.stores.queue)
    assert queued.remote == {(waiting, "y@example.net")}
    assert await outcomes.finished_recipients(platform.stores.postgres, [done, waiting]) == {(done, "x@example.net")}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("step", range(1, 9))
async def test_killed_at_any_statement_and_run_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    await furnish(platform)
    await platform.snapshot()
    await platform.arrive("later", ALICE)
    before = {account: await platform.contents(account) for account in (ALICE, BOB)}
    await platform.lose_mailstore()
    count = 0
    run = Postgres.run
    execute = Postgres.execute

    def count_statement(postgres: object) -> None:
        """Count no statements of other services, whose pools this process may have too."""
        nonlocal count
        count += postgres is platform.janitor.postgres
        if postgres is platform.janitor.postgres and count == step:
            raise Killed

    async def counted(*args: object, **kwargs: object) -> object:
        count_statement(args[0])
        return await run(*args, **kwargs)  # type: ignore[arg-type]

    async def counted_too(*args: object, **kwargs: object) -> None:
        count_statement(args[0])
        await execute(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Postgres, "run", counted)
        patch.setattr(Postgres, "execute", counted_too)
        with pytest.raises(Killed):
            await rebuild(platform.janitor, merge=False, say=platform.output.append, settle=0)
    with pytest.raises(BucketMismatch):  # upkeep waits until the mailstore is complete
        await sweep(platform.janitor, platform.settings)
    await platform.rebuild()
    for account in (ALICE, BOB):
        found = await platform.contents(account)
        late = before[account]["INBOX"].popitem() if account == ALICE else None
        if late:
            arrived = found["INBOX"].popitem()
            assert arrived[1][0] == late[1][0]
            assert arrived[0] > UID_ROOM
        assert found == before[account]


async def test_a_compacted_or_deleted_pack_is_found_by_the_queue_id(platform: Platform) -> None:
    await platform.arrive("moved", ALICE)
    await platform.arrive("gone", ALICE)
    await platform.snapshot()
    first, second = [info async for info in platform.stores.blobs.list_packs()]
    index = await platform.stores.blobs.read_index(first)
    raw = await platform.stores.blobs.read_range(first.pack, 0, index.entries[0].length)
    writer, entry = PackWriter(new_ulid()), index.entries[0]
    writer.add(entry.envelope, Frame(raw, entry.size, entry.sha256, entry.compression))
    await platform.stores.blobs.put(writer.pack, writer.finish(0))
    await platform.stores.blobs.delete([first.pack, second.pack])
    await platform.lose_mailstore()
    result = await platform.rebuild()
    assert (result.restored, result.gone, result.arrived) == (1, 1, 0)
    assert await platform.subjects(ALICE) == ["moved"]


async def test_refused_messages_do_not_come_back(platform: Platform) -> None:
    """The sender got a 451 and sent the message again."""
    await platform.snapshot()
    await platform.arrive("first try", ALICE)
    await platform.arrive("second try", ALICE)
    blobs = platform.stores.blobs
    first, _ = [info async for info in blobs.list_packs()]
    index = await blobs.read_index(first)
    await Marks(blobs, REFUSED).put(first.pack, [entry.envelope.queue_id for entry in index.entries])
    await platform.lose_mailstore()
    await platform.rebuild()
    assert await platform.subjects(ALICE) == ["second try"]


async def test_mail_that_arrived_before_the_rebuild_is_kept(platform: Platform) -> None:
    await furnish(platform)
    subjects = {box: await platform.subjects(ALICE, box) for box in ("INBOX", "Projekte/Büro 2024/日本語", "Drafts")}
    await platform.snapshot()
    await platform.lose_mailstore()
    await platform.mailstore.accounts.ensure(BOB)  # a login: an account without mail does not prevent a rebuild
    await platform.arrive("early bird", ALICE)
    await platform.mailstore.messages.store_flags(ALICE, INBOX_ID, [1], FlagOp.ADD, keywords=["wichtig"])
    early = (await platform.contents(ALICE))["INBOX"][1]
    with pytest.raises(BucketMismatch):
        await platform.snapshot()
    with pytest.raises(BucketMismatch):
        await sweep(platform.janitor, platform.settings)
    with pytest.raises(MailstoreNotEmpty):
        await platform.rebuild()
    bob = await platform.mailstore.mailboxes.find(BOB, "INBOX")
    await platform.rebuild(merge=True)
    assert (await platform.contents(ALICE))["INBOX"][1] == early
    assert await platform.subjects(ALICE) == ["early bird", *subjects["INBOX"]]
    assert await platform.subjects(ALICE, "Drafts") == subjects["Drafts"]
    assert await platform.subjects(ALICE, "Projekte/Büro 2024/日本語") == subjects["Projekte/Büro 2024/日本語"]
    assert {m[2] for m in (await platform.contents(ALICE))["INBOX"].values()} == {
        frozenset({"wichtig"}),
        frozenset({"$Forwarded", "wichtig"}),
        frozenset(),
    }
    assert (await platform.mailstore.mailboxes.find(BOB, "INBOX")).uid_validity <= bob.uid_validity
    await platform.rebuild(merge=True)  # once more: each message is there already
    assert await platform.subjects(ALICE) == ["early bird", *subjects["INBOX"]]
    await platform.snapshot()


async def test_a_restored_backup_assigns_no_uid_twice(platform: Platform) -> None:
    """PostgreSQL was restored from a backup that is older than the newest snapshot."""
    await furnish(platform)
    await platform.snapshot()
    tables = ("accounts", "mailboxes", "messages", "subscriptions", "deliveries", "expunged")
    for table in tables:
        await platform.stores.postgres.execute("test", f"CREATE TABLE public.{table} AS TABLE mailstore.{table}")
    before = await platform.contents(ALICE)
    seen = {uid: facts[0] for uid, facts in before["INBOX"].items()}
    validity = (await platform.mailstore.mailboxes.find(ALICE, "INBOX")).uid_validity
    unknown = await platform.mailstore.mailboxes.create(BOB, "Made after the snapshot")
    later = [await platform.arrive(f"later-{number}", ALICE) for number in range(3)]
    await platform.mailstore.messages.store_flags(ALICE, INBOX_ID, [1], FlagOp.REMOVE, flags=Flag.SEEN)
    seen |= {uid: facts[0] for uid, facts in (await platform.contents(ALICE))["INBOX"].items()}
    mod_seq = (await platform.mailstore.mailboxes.find(ALICE, "INBOX")).highest_mod_seq
    for table in tables:
        await platform.stores.postgres.execute("test", f"TRUNCATE mailstore.{table}")
        await platform.stores.postgres.execute("test", f"INSERT INTO mailstore.{table} TABLE public.{table}")
    extra = await platform.mailstore.mailboxes.create(BOB, "Not in the snapshot")

    assert await advance_all_counters(platform.janitor) == CountersAdvanced(accounts=2, mailboxes=17, renewed=1)
    await recover(platform.janitor, since=WEEK, settle=0)
    await platform.deliver()
    now = (await platform.contents(ALICE))["INBOX"]
    assert {uid: facts for uid, facts in now.items() if uid in before["INBOX"]} == before["INBOX"]
    assert [facts[0] for facts in now.values()][-3:] == later
    for uid, facts in now.items():
        assert seen.setdefault(uid, facts[0]) == facts[0], "another message under a known UID"
    assert (await platform.mailstore.mailboxes.find(ALICE, "INBOX")).uid_validity == validity
    assert (await platform.mailstore.mailboxes.find(BOB, extra.name)).uid_validity > extra.uid_validity
    made = await platform.mailstore.mailboxes.create(BOB, unknown.name)
    assert made.uid_validity > unknown.uid_validity
    assert made.mailbox_id > unknown.mailbox_id
    changes = await platform.mailstore.mailbox_reader.changes_since(ALICE, INBOX_ID, mod_seq)
    assert set(changes.rows.uids) == set(now)
    assert changes.expunged is None
    assert await platform.mailstore.broken_invariants() == []


async def test_a_large_account_takes_several_parts_and_objects(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paquebot.janitor.snapshots.snapshot._PART_MESSAGES", 7)
    monkeypatch.setattr("paquebot.janitor.snapshots.snapshot._PART_DELIVERED", 3)
    monkeypatch.setattr("paquebot.janitor.snapshots.objects._OBJECT_BYTES", 2000)
    monkeypatch.setattr("paquebot.janitor.rebuild.packs._CHUNK_PACKS", 3)
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(platform.accept(f"m{number}", ALICE))
    await platform.deliver()
    await platform.expunge(ALICE, INBOX_ID, *range(1, 12))
    before = await platform.contents(ALICE)
    made = await platform.snapshot()
    assert made.written_messages == 49
    assert made.written_objects > 1
    run = await objects.newest_run(platform.stores.blobs)
    assert run is not None
    [entry] = [entry async for entry in objects.read_entries(platform.stores.blobs, run)]
    parts = [part async for part in objects.PartReader(platform.stores.blobs).parts(entry)]
    assert max(len(part.messages) for part in parts) == 7
    assert len(parts) == 7 + 3
    await platform.lose_mailstore()
    await platform.rebuild()
    assert await platform.contents(ALICE) == before


async def test_a_damaged_snapshot_costs_folders_but_no_mail(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paquebot.janitor.snapshots.snapshot._PART_MESSAGES", 2)
    await furnish(platform)
    bob = await platform.contents(BOB)
    await platform.snapshot()
    run = await objects.newest_run(platform.stores.blobs)
    assert run is not None
    alice, _ = [entry async for entry in objects.read_entries(platform.stores.blobs, run)]
    last = alice.places[-1]
    key = objects.OBJECTS + last.object
    data = bytearray(await platform.stores.blobs.read_object(key))
    data[last.offset + last.length - 1] ^= 1
    await platform.stores.blobs.put_object(key, bytes(data))
    await platform.lose_mailstore()
    result = await platform.rebuild()
    assert result.damaged_accounts == 1
    assert sorted(await platform.subjects(ALICE)) == ["draft", *(f"shared-{n}" for n in range(5))]
    assert any("cannot be used" in line for line in platform.output)
    assert await platform.contents(BOB) == bob


async def test_two_at_once_are_refused(platform: Platform) -> None:
    async with platform.stores.snapshots.exclusive():
        with pytest.raises(UpkeepBusy):
            await platform.snapshot()
        with pytest.raises(UpkeepBusy):
            await rebuild(platform.janitor, merge=False, say=platform.output.append)
    await platform.snapshot()


def test_trace_lines_are_those_of_delivery() -> None:
    for path, address in (("", "u@example.org"), ("a\r\n@b", "ü@例.test")):
        assert packs.trace_lines(path, address) == entries.prefix(path, address)
