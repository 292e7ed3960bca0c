"""The durable tier on real S3, JetStream and PostgreSQL: packs, batches, schedules, consumers, outcomes."""

import asyncio
import datetime
import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from paquebot.blobs import BlobMissing, BlobStore, BlobsUnavailable, new_ulid
from paquebot.blobs.store import PackInfo
from paquebot.queue import ClaimedJob, Consumer, Publication, Queue, QueueRefused, QueueUnavailable, stream
from paquebot.queue.subjects import DELIVER, RELAY
from paquebot.runtime.engine_settings import NatsSettings, S3Settings
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.settings import Seconds
from paquebot.spool import Prepared, Spool, SpoolSettings, SpoolUnavailable, outcomes
from paquebot.spool.outcomes import RecipientOutcome
from paquebot.v1.mail_pb2 import Envelope, LocalRecipient, RemoteRecipient
from paquebot.v1.queue_pb2 import DeliverJob, RelayJob

RAW = b"From: a@example.org\r\nTo: b@example.net\r\nSubject: hello\r\n\r\nHow do you do?\r\n"


def envelope(*, local: int = 0, remote: tuple[str, ...] = ()) -> Envelope:
    return Envelope(
        reverse_path="a@example.org",
        local=[
            LocalRecipient(account_id=n, address=f"u{n}@paquebot.test", forward_path=f"u{n}@paquebot.test")
            for n in range(1, local + 1)
        ],
        remote=[RemoteRecipient(forward_path=f"x@{domain}", domain=domain) for domain in remote],
    )


async def test_accept_stores_message_and_jobs(spool: Spool, blobs: BlobStore, queue: Queue) -> None:
    queue_id = await spool.accept(envelope(local=2, remote=("example.net", "example.com")), RAW)

    (info,) = [info async for info in blobs.list_packs()]
    index = await blobs.read_index(info)
    assert [entry.envelope.queue_id for entry in index.entries] == [queue_id]
    assert len(index.entries[0].envelope.remote) == 2

    counts = await stream.counts(queue)
    assert counts.by_subject == {
        "deliver.ready.paquebot_test": 1,
        "relay.ready.example_net": 1,
        "relay.ready.example_com": 1,
    }
    consumer = Consumer(queue, "delivery", DELIVER)
    (job,) = await consumer.fetch(10, 5.0)
    (entry,) = DeliverJob.FromString(job.payload).entries
    assert [recipient.account_id for recipient in entry.recipients] == [1, 2]
    assert entry.summary.envelope.subject == b"hello"
    assert await blobs.read(entry.blob) == RAW
    await job.ack()
    assert (await stream.counts(queue)).total("deliver.") == 0
    await consumer.close()


async def test_concurrent_messages_share_a_pack(spool: Spool, blobs: BlobStore, queue: Queue) -> None:
    for _ in range(20):
        spool.join()
    ids = await asyncio.gather(*(spool.accept(envelope(local=1), RAW) for _ in range(20)))
    assert len(set(ids)) == 20
    assert len([info async for info in blobs.list_packs()]) == 1
    assert (await stream.counts(queue)).by_subject == {"deliver.ready.paquebot_test": 1}


async def test_a_large_message_has_its_own_pack(spool: Spool, blobs: BlobStore) -> None:
    large = RAW + random.Random(1).randbytes(5 * 2**20)
    await asyncio.gather(spool.accept(envelope(local=1), large), spool.accept(envelope(local=1), RAW))
    assert len([info async for info in blobs.list_packs()]) == 2


async def test_stored_message_makes_no_job(spool: Spool, blobs: BlobStore, queue: Queue) -> None:
    stored = await spool.store(RAW, account_id=7)
    assert await blobs.read(stored.blob) == RAW
    assert stored.summary.envelope.subject == b"hello"
    assert (await stream.counts(queue)).by_subject == {}


async def test_neighbours_are_read_with_one_request(spool: Spool, blobs: BlobStore) -> None:
    for _ in range(3):
        spool.join()
    stored = await asyncio.gather(*(spool.store(RAW + bytes([65 + n]), account_id=7) for n in range(3)))
    assert len({item.blob.pack for item in stored}) == 1
    wanted = [stored[2].blob, stored[0].blob]
    assert await blobs.read_many(wanted) == [RAW + b"C", RAW + b"A"]


async def test_without_s3_nothing_is_accepted(s3_settings: S3Settings, queue: Queue) -> None:
    away = BlobStore(replace(s3_settings, endpoint="http://127.0.0.1:1", timeout=Seconds(1.0)))
    spool = Spool(away, queue, SpoolSettings())
    with pytest.raises(SpoolUnavailable):
        await spool.accept(envelope(local=1), RAW)
    assert (await stream.counts(queue)).by_subject == {}
    with pytest.raises(BlobsUnavailable):
        await away.probe()
    await away.close()


async def test_without_nats_nothing_is_accepted(blobs: BlobStore, nats_settings: NatsSettings) -> None:
    queue = await Queue.open(replace(nats_settings, url=("nats://127.0.0.1:1",), timeout=Seconds(0.2)))
    spool = Spool(blobs, queue, SpoolSettings())
    with pytest.raises(SpoolUnavailable):
        await spool.accept(envelope(local=1), RAW)
    with pytest.raises(QueueUnavailable):
        await queue.probe()
    await queue.close()


async def test_refused_batch_leaves_no_pack(blobs: BlobStore, queue: Queue) -> None:
    await stream.delete_stream(queue)
    spool = Spool(blobs, queue, SpoolSettings())
    with pytest.raises(SpoolUnavailable):
        await spool.accept(envelope(local=1, remote=("example.net",)), RAW)
    assert [info async for info in blobs.list_packs()] == []


async def test_batch_is_all_or_nothing(queue: Queue) -> None:
    good = Publication("relay.ready.example", b"1")
    with pytest.raises(QueueUnavailable):
        await queue.publish([good, good, Publication("no.such.subject", b"2")])
    assert (await stream.counts(queue)).by_subject == {}
    await queue.publish([good] * 1000)
    assert (await stream.counts(queue)).by_subject == {"relay.ready.example": 1000}
    with pytest.raises(QueueRefused):
        await queue.publish([good] * 1001)


async def test_a_scheduled_job_is_published_again(queue: Queue) -> None:
    at = time.time() + 1
    later = Publication("relay.ready.example", b"job", later_subject="relay.later.x", at=at)
    await queue.publish([later, Publication("relay.ready.other", b"now")])
    (waiting,) = [job async for job in stream.jobs(queue, "relay.later.>")]
    assert waiting.payload == b"job"
    assert waiting.scheduled_for
    consumer = Consumer(queue, "relay", RELAY)
    first = await consumer.fetch(10, 5.0)
    second = await consumer.fetch(10, 10.0)
    assert [job.payload for job in (*first, *second)] == [b"now", b"job"]
    for job in (*first, *second):
        await job.ack()
    assert (await stream.counts(queue)).by_subject == {}
    await consumer.close()


async def test_an_unacknowledged_job_is_delivered_again(queue: Queue) -> None:
    await queue.publish([Publication("deliver.ready.example", b"1")])
    consumer, other = Consumer(queue, "delivery", DELIVER), Consumer(queue, "delivery", DELIVER)
    (job,) = await consumer.fetch(5, 5.0)
    assert job.deliveries == 1
    await job.nak()
    (again,) = await other.fetch(5, 5.0)
    assert again.deliveries == 2
    assert await consumer.fetch(5, 0.05) == []
    assert await consumer.observe() == 0
    await again.ack()
    await consumer.close()
    await other.close()


async def test_operator_moves_a_job(queue: Queue) -> None:
    await queue.publish([Publication("relay.ready.example", b"1")])
    (stored,) = [job async for job in stream.jobs(queue)]
    await stream.move(queue, stored, Publication("hold.operator.1", stored.payload))
    assert (await stream.counts(queue)).by_subject == {"hold.operator.1": 1}
    (held,) = [job async for job in stream.jobs(queue, "hold.>")]
    assert await stream.job(queue, held.sequence) == held
    assert await stream.delete(queue, held.sequence)
    assert not await stream.delete(queue, held.sequence)
    assert await stream.job(queue, held.sequence) is None


async def test_hints_reach_other_processes(queue: Queue, nats_settings: NatsSettings) -> None:
    other = await Queue.open(nats_settings)
    hints: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    await other.subscribe_mailbox(42, hints.set_result)
    await queue.hint_mailbox(41)
    await queue.hint_mailbox(42)
    assert await asyncio.wait_for(hints, 5) == 42
    await other.close()


async def test_packs_are_listed_in_order_and_deleted(blobs: BlobStore) -> None:
    names = [new_ulid() for _ in range(3)]
    for name in names:
        await blobs.put(name, b"x" * 10)
    assert [info async for info in blobs.list_packs()] == [PackInfo(name, 10) for name in names]
    assert [info.pack async for info in blobs.list_packs(after=names[0])] == names[1:]
    await blobs.delete([names[1], new_ulid()])
    with pytest.raises(BlobMissing):
        await blobs.read_range(names[1], 0, 1)
    assert [info.pack async for info in blobs.list_packs()] == [names[0], names[2]]


async def test_outcomes(migrated: Postgres) -> None:
    await outcomes.record(
        migrated, [("Q1", "a@x", outcomes.RecipientOutcome.RELAYED), ("Q1", "b@x", outcomes.RecipientOutcome.BOUNCED)]
    )
    await outcomes.record(migrated, [("Q1", "a@x", RecipientOutcome.DROPPED)])
    assert await outcomes.finished_recipients(migrated, ["Q1", "Q2"]) == {("Q1", "a@x"), ("Q1", "b@x")}
    assert await outcomes.delete_before(migrated, datetime.datetime.now(datetime.UTC) + datetime.timedelta(1)) == 2


async def test_relay_job_names_all_recipients_of_a_domain(spool: Spool, queue: Queue) -> None:
    message = envelope(remote=("example.net", "example.net"))
    message.remote[1].forward_path = "y@example.net"
    await spool.accept(message, RAW)
    (stored,) = [job async for job in stream.jobs(queue)]
    job = RelayJob.FromString(stored.payload)
    assert [recipient.forward_path for recipient in job.recipients] == ["x@example.net", "y@example.net"]


async def test_jobs_of_a_cancelled_fetch_are_not_forgotten(queue: Queue) -> None:
    consumer = Consumer(queue, "delivery", DELIVER)
    waiting = asyncio.create_task(consumer.fetch(5, 30.0))
    while not (await queue.api(f"STREAM.INFO.{queue.settings.stream}"))["state"].get("consumer_count"):
        await asyncio.sleep(0)
    await queue.publish([Publication("deliver.ready.example", b"1")])
    while (await consumer.observe()) or not waiting.done():
        await asyncio.sleep(0)
    (job,) = waiting.result()
    await job.nak()
    (again,) = await consumer.fetch(5, 5.0)
    assert again.deliveries == 2
    await again.ack()

    await queue.publish([Publication("deliver.ready.example", b"2")])
    cut_off = asyncio.create_task(consumer.fetch(5, 30.0))
    while (await queue.api(f"CONSUMER.INFO.{queue.settings.stream}.delivery"))["num_ack_pending"] == 0:
        await asyncio.sleep(0)
    cut_off.cancel()
    found = (await asyncio.gather(cut_off, return_exceptions=True))[0]
    if isinstance(found, BaseException):  # cancelled with a claimed job
        found = await consumer.fetch(5, 5.0)
    assert [job.payload for job in found] == [b"2"]
    assert found[0].deliveries == 1
    await found[0].ack()
    await consumer.close()


async def test_a_consumer_continues_after_the_server_deleted_it(queue: Queue) -> None:
    consumer = Consumer(queue, "delivery", DELIVER)
    assert await consumer.fetch(5, 0.05) == []
    waiting = asyncio.create_task(consumer.fetch(5, 30.0))
    await asyncio.sleep(0)
    await queue.api(f"CONSUMER.DELETE.{queue.settings.stream}.delivery")
    await queue.publish([Publication("deliver.ready.example", b"1")])
    found: list[ClaimedJob] = []
    async with asyncio.timeout(30):
        try:
            found = await waiting
        except QueueUnavailable:
            found = []
        while not found:
            try:
                found = await consumer.fetch(5, 5.0)
            except QueueUnavailable:
                continue
    assert [job.payload for job in found] == [b"1"]
    await found[0].ack()
    await consumer.close()


async def test_few_large_messages_are_parsed_concurrently(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these threads takes the interpreter lock from the event loop."""
    now = peak = 0

    async def counted(function: Callable[..., Prepared], *arguments: object) -> Prepared:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0)
        now -= 1
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    raw = b"Subject: large\r\n\r\n" + b"x\r\n" * 60_000
    prepared = await asyncio.gather(*(spool.prepare(raw) for _ in range(8)))
    assert [one.size for one in prepared] == [len(raw)] * 8
    assert peak == 2
