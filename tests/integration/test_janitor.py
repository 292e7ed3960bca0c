"""`verify`, `recover`, `sweep` and the operator's view of the queue, on the real engines."""

import datetime
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

import pytest

from paquebot.blobs import BlobStore, PackWriter, new_ulid
from paquebot.blobs.marks import REFUSED, Marks
from paquebot.blobs.pack import compress, pack_key
from paquebot.blobs.stored import StoredEntries, StoredEntry
from paquebot.directory.accounts import create_account, delete_account
from paquebot.directory.domains import create_domain
from paquebot.janitor.compaction.rewriting import account_lease, write_new_pack
from paquebot.janitor.indexes import GROUP
from paquebot.janitor.recovery.accounting import read_stream
from paquebot.janitor.recovery.recover import recover
from paquebot.janitor.settings import CompactionSettings, JanitorSettings
from paquebot.janitor.stores import Stores
from paquebot.janitor.sweep import sweep
from paquebot.janitor.verification.verify import verify
from paquebot.mailstore import BlobUse, Delivery, NewMessage
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.queue import Consumer, Publication, Queue, backlog, deliver_later, stream
from paquebot.queue.subjects import DELIVER
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.settings import Seconds
from paquebot.runtime.ulid import ulid_at
from paquebot.spool import Spool, outcomes
from paquebot.spool.outcomes import RecipientOutcome
from paquebot.v1.mail_pb2 import Envelope, LocalRecipient, RemoteRecipient
from paquebot.v1.queue_pb2 import DeliverJob

RAW = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: hello\r\n\r\nHow do you do?\r\n"
WEEK = 7 * 86400.0
SHORT_LEASE = CompactionSettings(lease=Seconds(0.0))


@pytest.fixture
def stores(blobs: BlobStore, queue: Queue, migrated: Postgres) -> Stores:
    return Stores.of(blobs, queue, migrated)


@pytest.fixture
def settings(
    nats_settings: NatsSettings, s3_settings: S3Settings, postgres_settings: PostgresSettings
) -> JanitorSettings:
    return JanitorSettings(nats_settings, s3_settings, postgres_settings, min_age=Seconds(0.0))


def envelope(*, accounts: Sequence[int] = (), remote: Sequence[str] = ()) -> Envelope:
    return Envelope(
        reverse_path="a@example.org",
        local=[
            LocalRecipient(account_id=n, address=f"u{n}@paquebot.test", forward_path=f"u{n}@paquebot.test")
            for n in accounts
        ],
        remote=[RemoteRecipient(forward_path=path, domain=path.partition("@")[2]) for path in remote],
    )


async def deliver(stores: Stores) -> int:
    """Deliver all waiting jobs as the delivery service does; return the recipients."""
    consumer = Consumer(stores.queue, "delivery", DELIVER)
    served = 0
    for job in await consumer.fetch(100, 0.1):
        for entry in DeliverJob.FromString(job.payload).entries:
            message = NewMessage(
                email_id=entry.queue_id,
                blob=entry.blob,
                prefix=b"Return-Path: <a@example.org>\r\n",
                summary=entry.summary.SerializeToString(),
                thread_key=entry.summary.thread_key,
                internal_date=datetime.datetime.now(datetime.UTC),
            )
            await stores.deliveries.deliver([Delivery(r.account_id, "", 0, message) for r in entry.recipients])
            served += len(entry.recipients)
        await job.ack()
    await consumer.close()
    return served


async def test_recover_queues_the_messages_of_a_lost_stream(stores: Stores, spool: Spool) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    assert await deliver(stores) == 1
    await spool.accept(envelope(accounts=[1, 2], remote=["x@example.net", "y@example.net"]), RAW)
    (job,) = [item async for item in backlog.list_jobs(stores.queue) if item.kind == "relay"]
    done = [recipient for recipient in job.recipients() if recipient[1].startswith("x@")]
    await outcomes.record(stores.postgres, [(*recipient, RecipientOutcome.RELAYED) for recipient in done])

    await stream.delete_stream(stores.queue)
    result = await recover(stores, since=WEEK, settle=0)
    assert (result.packs, result.messages, result.recipients, result.jobs) == (2, 1, 3, 2)
    queued = await read_stream(stores.queue)
    assert {account for account, _ in queued.local} == {1, 2}
    assert {path for _, path in queued.remote} == {"y@example.net"}

    again = await recover(stores, since=WEEK, settle=0)
    assert again.messages == 0
    assert await deliver(stores) == 2


async def test_recover_examines_more_packs_than_it_keeps_in_memory(stores: Stores, spool: Spool) -> None:
    for number in range(GROUP + 6):
        await spool.accept(envelope(accounts=[number % 2 + 1]), RAW)
        if number % 10:
            assert await deliver(stores) == 1
        else:
            await stream.delete_stream(stores.queue)
            await stream.ensure_stream(stores.queue)
    result = await recover(stores, since=WEEK, settle=0)
    assert (result.packs, result.messages, result.unreadable) == (GROUP + 6, 7, 0)
    assert await deliver(stores) == 7
    verified = await verify(stores, settle=0)
    assert (verified.packs, verified.entries, verified.faults) == (GROUP + 6, GROUP + 6, [])


async def test_recover_requeues_jobs_that_their_consumer_skips(stores: Stores, spool: Spool) -> None:
    """A server lost unwritten data: the consumer's recorded position is past a job in the stream."""
    await spool.accept(envelope(accounts=[1]), RAW)  # of domain paquebot.test
    await stores.queue.publish(
        [Publication("deliver.ready.elsewhere", DeliverJob(domain="elsewhere").SerializeToString())]
    )
    narrow = Consumer(stores.queue, "delivery", "deliver.ready.elsewhere")
    (other,) = await narrow.fetch(10, 1)
    await other.ack()
    await narrow.close()

    assert await deliver(stores) == 0
    assert len([job async for job in stream.jobs(stores.queue, DELIVER)]) == 1
    assert (await recover(stores, since=WEEK, settle=0, dry_run=True)).skipped_jobs == 1
    result = await recover(stores, since=WEEK, settle=0)
    assert (result.skipped_jobs, result.messages) == (1, 0)
    assert await deliver(stores) == 1
    assert (await recover(stores, since=WEEK, settle=0)).skipped_jobs == 0


async def test_recover_leaves_packs_whose_jobs_are_on_their_way(stores: Stores, spool: Spool) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await stream.delete_stream(stores.queue)
    assert (await recover(stores, since=WEEK)).packs == 0
    dry = await recover(stores, since=WEEK, settle=0)
    assert dry.messages == 1


async def test_verify_finds_nothing_wrong_on_a_sound_platform(stores: Stores, spool: Spool) -> None:
    await spool.accept(envelope(accounts=[1, 2], remote=["x@example.net"]), RAW)
    await deliver(stores)
    result = await verify(stores, settle=0)
    assert result.faults == []
    assert (result.packs, result.rows, result.entries, result.read_bytes) == (1, 2, 1, len(RAW))


async def test_verify_finds_a_lost_pack_and_a_lost_job(stores: Stores, spool: Spool, blobs: BlobStore) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await deliver(stores)
    (first,) = [info.pack async for info in blobs.list_packs()]
    await spool.accept(envelope(accounts=[2]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    await blobs.delete([first])
    faults = (await verify(stores, settle=0)).faults
    assert len(faults) == 2
    assert f"pack {first} is not in the bucket" in faults[0]
    assert "run paquebot recover" in faults[1]


async def test_verify_finds_a_changed_message(stores: Stores, spool: Spool, blobs: BlobStore) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await deliver(stores)
    (info,) = [info async for info in blobs.list_packs()]
    index = await blobs.read_index(info)
    whole = bytearray(await blobs.read_range(info.pack, 0, info.size))
    whole[index.entries[0].offset + 20] ^= 1
    await blobs.put_object(pack_key(info.pack), bytes(whole))
    (fault,) = (await verify(stores, settle=0)).faults
    assert index.entries[0].envelope.queue_id in fault
    assert (await verify(stores, contents=False, settle=0)).faults == []


async def test_verify_reports_a_changed_pack(stores: Stores, spool: Spool, blobs: BlobStore) -> None:
    """An attacker with write access to the bucket stored another message there, with a matching index."""
    await spool.accept(envelope(accounts=[1]), RAW)
    await deliver(stores)
    (info,) = [info async for info in blobs.list_packs()]
    index = await blobs.read_index(info)
    writer = PackWriter(info.pack)
    other = Envelope()
    other.CopyFrom(index.entries[0].envelope)
    other.queue_id = new_ulid()
    writer.add(other, compress(RAW.replace(b"hello", b"olleh")))
    await blobs.put_object(pack_key(info.pack), writer.finish(index.written_at_ms))
    assert any("the pack was changed" in fault for fault in (await verify(stores, settle=0)).faults)


async def test_verify_reports_overwritten_packs(stores: Stores, blobs: BlobStore) -> None:
    """A matching index and matching rows prove nothing when an attacker could write both."""
    for age in (7200, 60):
        writer = PackWriter(ulid_at(int((time.time() - age) * 1000)))
        writer.add(Envelope(queue_id=new_ulid()), compress(RAW))
        await blobs.put(writer.pack, writer.finish(1))
    lines: list[str] = []
    assert (await verify(stores, settle=0, say=lines.append)).written_later == 1
    assert "1 packs were written more than an hour after their id's time" in lines[0]


async def test_verify_repairs_from_another_pack(stores: Stores, spool: Spool, blobs: BlobStore) -> None:
    """Two accounts have one message, and one of them has a copy after a compaction; another message has no copy."""
    await spool.accept(envelope(accounts=[1, 2]), RAW)
    await spool.accept(envelope(accounts=[1]), RAW + b"alone\r\n")
    await deliver(stores)
    infos = [info async for info in blobs.list_packs()]
    (blob,) = [use.blob async for use in stores.pack_uses.of_packs([infos[0].pack]) if use.account_id == 2]
    (entry,) = await StoredEntries(blobs).read_each([blob])
    assert isinstance(entry, StoredEntry)
    async with account_lease(stores, 2, 60.0) as owner:
        await write_new_pack(stores, 2, owner, 60.0, [entry])
    for info in infos:
        whole = bytearray(await blobs.read_range(info.pack, 0, info.size))
        whole[30] ^= 1
        await blobs.put_object(pack_key(info.pack), bytes(whole))

    found = await verify(stores, settle=0)
    assert (len(found.faults), found.mended) == (2, 0)
    mended = await verify(stores, mend=60.0, settle=0)
    assert mended.mended == 1
    assert len(mended.faults) == 3
    assert f"restore pack {infos[1].pack} from a backup" in mended.faults[2]
    (fault,) = (await verify(stores, mend=60.0, settle=0)).faults[:-1]
    assert infos[1].pack in fault
    (moved,) = [use.blob async for use in _uses(stores, 1) if use.blob.pack != infos[1].pack]
    assert await blobs.read(moved) == RAW


async def _uses(stores: Stores, account_id: int) -> AsyncIterator[BlobUse]:
    async for use in stores.pack_uses.of_accounts():
        if use.account_id == account_id:
            yield use


async def test_sweep_deletes_only_unused_packs(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await deliver(stores)
    (kept,) = [info.pack async for info in blobs.list_packs()]
    await spool.accept(envelope(accounts=[2]), RAW)
    await deliver(stores)
    await spool.accept(envelope(remote=["x@example.net"]), RAW)
    packs = [info.pack async for info in blobs.list_packs()]
    assert (await sweep(stores, settings)).deleted_packs == 0

    await stores.messages.remove(2, INBOX_ID, [1])
    assert (await sweep(stores, replace(settings, min_age=Seconds(3600.0)))).packs == 0
    assert (await sweep(stores, settings, dry_run=True)).deleted_packs == 1
    assert (await sweep(stores, settings)).deleted_packs == 1
    assert [info.pack async for info in blobs.list_packs()] == [kept, packs[2]]


async def test_sweep_keeps_orphans_until_a_safe_age(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    await spool.accept(envelope(remote=["x@example.net"]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    assert (await sweep(stores, settings)).orphans_kept == 1
    old = replace(settings, orphan_age=Seconds(0.0))
    assert (await sweep(stores, settings, drop_orphans=True)).orphans_kept == 1
    assert (await sweep(stores, old)).orphans_kept == 1
    # The records of deliveries have expired, so only the mark distinguishes it from such a pack.
    ancient = replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE)
    swept = [await sweep(stores, ancient) for _ in range(2)]
    assert [(one.orphans_kept, one.deleted_packs) for one in swept] == [(1, 0), (1, 0)]
    assert (await sweep(stores, old, drop_orphans=True)).deleted_packs == 1
    assert [key async for key, _ in blobs.list_objects("") if key.startswith(("packs/", "orphaned/0"))] == []


async def test_a_requeued_orphan_is_no_orphan(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    assert (await sweep(stores, settings)).orphans_kept == 1
    dry = await recover(stores, since=0, settle=0, dry_run=True)
    assert (dry.packs, dry.messages) == (1, 1)  # however old it is
    assert (await recover(stores, since=0, settle=0)).jobs == 1
    assert await deliver(stores) == 1
    assert (await recover(stores, since=0, settle=0)).packs == 0
    await stores.messages.remove(1, INBOX_ID, [1])
    assert (await sweep(stores, settings)).deleted_packs == 1


async def test_a_sweep_after_a_long_pause_examines_packs_before_it_deletes(
    stores: Stores, spool: Spool, settings: JanitorSettings
) -> None:
    """No sweep ran during the time for which the records of the pack were kept."""
    await sweep(stores, settings)
    await spool.accept(envelope(accounts=[1]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    ancient = replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE)
    swept = await sweep(stores, ancient)
    assert (swept.orphans_kept, swept.deleted_packs) == (1, 0)


async def test_undelivered_recipients_of_a_used_pack_are_marked(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    """One recipient has the message until its records expire; the relay's job is lost."""
    await spool.accept(envelope(accounts=[1], remote=["x@example.net"]), RAW)
    assert await deliver(stores) == 1
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    await sweep(stores, settings)
    ancient = replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE)
    assert (await sweep(stores, ancient)).orphans_kept == 1
    await stores.messages.remove(1, INBOX_ID, [1])
    swept = await sweep(stores, ancient)
    assert (swept.orphans_kept, swept.deleted_packs) == (1, 0)
    await recover(stores, since=0, settle=0)
    queued = await read_stream(stores.queue)
    assert {path for _, path in queued.remote} == {"x@example.net"}


async def test_mail_whose_records_are_deleted_is_no_fault(
    stores: Stores, spool: Spool, settings: JanitorSettings
) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    assert await deliver(stores) == 1
    await sweep(stores, settings)
    ancient = replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE)
    assert (await sweep(stores, ancient)).deliveries == 1
    assert (await verify(stores, settle=0)).faults == []
    lines: list[str] = []
    await recover(stores, since=WEEK, settle=0, dry_run=True, say=lines.append)
    assert "has deleted the records" in lines[0]


async def test_records_are_kept_while_packs_cannot_be_examined(
    stores: Stores, spool: Spool, settings: JanitorSettings
) -> None:
    """An unreadable job may need any pack."""
    await spool.accept(envelope(accounts=[1]), RAW)
    assert await deliver(stores) == 1
    await stores.queue.publish([Publication("relay.ready.unreadable", b"\xff")])
    ancient = replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE)
    swept = await sweep(stores, ancient)
    assert (swept.unreadable_jobs, swept.deliveries) == (1, 0)


async def test_an_orphan_marked_as_unreadable_is_recovered_later(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    (info,) = [info async for info in blobs.list_packs()]
    whole = await blobs.read_range(info.pack, 0, info.size)
    await blobs.put_object(pack_key(info.pack), whole[:-1] + b"?")
    assert (await sweep(stores, settings)).unreadable == 1
    await blobs.put_object(pack_key(info.pack), whole)
    assert (await sweep(stores, settings)).orphans_kept == 1
    assert (await recover(stores, since=0, settle=0)).jobs == 1


async def test_an_unreadable_pack_is_kept(stores: Stores, blobs: BlobStore, settings: JanitorSettings) -> None:
    await blobs.put(new_ulid(), b"no pack, or one that was damaged")
    ancient = replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE)
    swept = [await sweep(stores, one) for one in (settings, ancient, ancient)]
    assert [(one.unreadable, one.orphans_kept, one.deleted_packs) for one in swept] == [(1, 0, 0), (1, 0, 0), (0, 1, 0)]
    assert (await sweep(stores, ancient, drop_orphans=True)).deleted_packs == 1


async def test_refused_messages_are_not_recovered(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    """Two messages in a bucket without jobs: the sender of one got a 451 and sends it again."""
    for _ in range(2):
        await spool.accept(envelope(accounts=[1]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    refused, lost = [info.pack async for info in blobs.list_packs()]
    index = await blobs.read_index(await blobs.stat(refused))
    await Marks(blobs, REFUSED).put(refused, [entry.envelope.queue_id for entry in index.entries])

    verified = await verify(stores, settle=0)
    (fault,) = verified.faults
    assert f"pack {lost}: 1 recipients are neither delivered nor queued" in fault
    assert verified.refused == 1
    lines: list[str] = []
    dry = await recover(stores, since=WEEK, settle=0, dry_run=True, say=lines.append)
    assert (dry.messages, dry.refused) == (1, 1)
    assert [line.split(":")[0] for line in lines] == [f"pack {lost}"]
    assert (await recover(stores, since=WEEK, settle=0)).messages == 1
    assert await deliver(stores) == 1

    swept = await sweep(stores, settings)
    assert (swept.refused_kept, swept.orphans_kept, swept.deleted_packs) == (1, 0, 0)
    assert (await recover(stores, since=WEEK, settle=0, refused_too=True, dry_run=True)).messages == 1
    assert (await sweep(stores, replace(settings, orphan_age=Seconds(0.0)))).deleted_packs == 1
    assert [info.pack async for info in blobs.list_packs()] == [lost]
    assert await Marks(blobs, REFUSED).packs() == {refused}, "examining a needed pack would report it as needed"
    await sweep(stores, replace(settings, orphan_age=Seconds(0.0), records_age=Seconds(0.0), compaction=SHORT_LEASE))
    assert await Marks(blobs, REFUSED).packs() == set()


async def test_operator_sees_and_moves_jobs(stores: Stores, spool: Spool) -> None:
    await spool.accept(envelope(remote=["x@example.net", "y@example.com"]), RAW)
    (net,) = [item async for item in backlog.list_jobs(stores.queue, domain="example.net")]
    at = time.time() + 3600
    await stream.move(
        stores.queue, net.stored, Publication(net.subject, net.payload, later_subject="relay.later.1", at=at)
    )
    found = await backlog.count_destinations(backlog.list_jobs(stores.queue))
    assert {(item.state, item.domain, item.jobs, bool(item.next_at)) for item in found} == {
        ("later", "example.net", 1, True),
        ("ready", "example.com", 1, False),
    }
    everything = [item async for item in backlog.list_jobs(stores.queue)]
    assert await backlog.hold(stores.queue, everything) == 2
    held = [item async for item in backlog.list_jobs(stores.queue, state="held")]
    assert [item.reason for item in held] == ["operator", "operator"]
    assert await backlog.release(stores.queue, held) == 2
    ready = [item async for item in backlog.list_jobs(stores.queue, state="ready")]
    assert sorted(item.job.domain for item in ready) == ["example.com", "example.net"]
    assert await backlog.drop(stores.queue, ready, partial(outcomes.record_dropped, stores.postgres)) == 2
    assert [item async for item in backlog.list_jobs(stores.queue)] == []
    assert (await recover(stores, since=WEEK, settle=0)).messages == 0


async def test_operator_retries_a_deferred_delivery(stores: Stores, spool: Spool) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    (item,) = [item async for item in backlog.list_jobs(stores.queue)]
    later = Publication(item.subject, item.payload, later_subject=deliver_later("1"), at=time.time() + 3600)
    await stream.move(stores.queue, item.stored, later)
    deferred = [item async for item in backlog.list_jobs(stores.queue, state="later")]
    assert [item.kind for item in deferred] == ["deliver"]
    assert (await read_stream(stores.queue)).local
    assert await backlog.release(stores.queue, deferred) == 1
    assert await deliver(stores) == 1


def test_pack_key_follows_from_the_id() -> None:
    assert pack_key("01ARZ3NDEKTSV4RRFFQ69G5FAV") == "packs/2016/07/30/01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def test_sweep_purges_the_mail_of_removed_accounts(
    stores: Stores, spool: Spool, blobs: BlobStore, settings: JanitorSettings
) -> None:
    await create_domain(stores.postgres, "paquebot.test")
    account = await create_account(stores.postgres, "u@paquebot.test", "hash")
    kept = await create_account(stores.postgres, "v@paquebot.test", "hash")
    for account_id in (account.account_id, kept.account_id):
        await spool.accept(envelope(accounts=[account_id]), RAW)
        await deliver(stores)
    await delete_account(stores.postgres, "u@paquebot.test")
    assert (await sweep(stores, replace(settings, min_age=Seconds(3600.0)))).purged_accounts == 0
    assert (await sweep(stores, settings)).purged_accounts == 1
    assert (await sweep(stores, settings)).purged_accounts == 0
    assert (await stores.accounts.usage(kept.account_id)).messages == 1
    assert (await stores.accounts.usage(account.account_id)).messages == 0
    assert (await recover(stores, since=WEEK, settle=0)).messages == 0


async def test_a_job_that_cannot_be_read_is_shown_and_can_be_held_and_dropped(stores: Stores) -> None:
    await stores.queue.publish([Publication("deliver.ready.example_net", b"\xff\xff")])
    (item,) = [item async for item in backlog.list_jobs(stores.queue)]
    assert (item.kind, item.job.domain, item.reason) == ("unknown", "unknown", "cannot be read")
    assert await backlog.hold(stores.queue, [item]) == 1
    (held,) = [item async for item in backlog.list_jobs(stores.queue)]
    assert (held.state, held.kind, held.reason) == ("held", "unknown", "cannot be read")
    assert await backlog.release(stores.queue, [held]) == 0
    assert await backlog.drop(stores.queue, [held], partial(outcomes.record_dropped, stores.postgres)) == 1
    assert [item async for item in backlog.list_jobs(stores.queue)] == []


async def test_nothing_is_deleted_while_a_job_cannot_be_read(
    stores: Stores, spool: Spool, settings: JanitorSettings, blobs: BlobStore
) -> None:
    await spool.accept(envelope(accounts=[1]), RAW)
    await stream.delete_stream(stores.queue)
    await stream.ensure_stream(stores.queue)
    await stores.queue.publish([Publication("relay.ready.example_net", b"\xff\xff")])
    swept = await sweep(stores, replace(settings, orphan_age=Seconds(0.0)))
    assert (swept.unreadable_jobs, swept.deleted_packs) == (1, 0)
    assert len([info async for info in blobs.list_packs()]) == 1
    assert (await recover(stores, since=WEEK, settle=0)).unreadable_jobs == 1
    assert any("cannot be read" in fault for fault in (await verify(stores, settle=0)).faults)
