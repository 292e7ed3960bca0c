"""The queue's gauges on a real JetStream: jobs of each consumer, scheduled, held and stored jobs."""

from __future__ import annotations

import time

from paquebot.queue import Consumer, Publication, Queue, held
from paquebot.queue.observation import observe
from paquebot.queue.subjects import DELIVER
from tests.support.counted import value


def gauges(consumer: str) -> dict[str, float | None]:
    names = ("pending_jobs", "unacknowledged_jobs", "redelivering_jobs", "scheduled_jobs")
    return {name: value(f"paquebot_queue_{name}", consumer=consumer) for name in names}


def parts(pending: int, unacknowledged: int, redelivering: int, scheduled: int) -> dict[str, float]:
    return {
        "pending_jobs": pending,
        "unacknowledged_jobs": unacknowledged,
        "redelivering_jobs": redelivering,
        "scheduled_jobs": scheduled,
    }


async def test_an_empty_stream_without_consumers(queue: Queue) -> None:
    await observe(queue)
    assert gauges("delivery") == gauges("relay") == parts(0, 0, 0, 0)
    stream = queue.settings.stream
    assert value("paquebot_queue_held_jobs", stream=stream) == 0
    assert value("paquebot_queue_stream_jobs", stream=stream) == 0
    assert value("paquebot_queue_oldest_job_seconds", consumer="relay") == 0


async def test_jobs_are_counted_where_they_are(queue: Queue) -> None:
    later = time.time() + 3600
    await queue.publish([Publication("deliver.ready.example", b"job") for _ in range(5)])
    await queue.publish([Publication(f"relay.ready.{domain}", b"job") for domain in ("a", "a", "b")])
    await queue.publish(
        [Publication("relay.ready.a", b"job", later_subject=f"relay.later.{n}", at=later) for n in range(4)]
    )
    await queue.publish([Publication("deliver.ready.a", b"job", later_subject="deliver.later.1", at=later)])
    await queue.publish([Publication(held(reason, "1"), b"job") for reason in ("poison", "operator")])
    consumer = Consumer(queue, "delivery", DELIVER)
    first, *_ = await consumer.fetch(5, 5.0)
    await first.nak()
    await consumer.fetch(1, 5.0)
    await queue.publish([Publication("deliver.ready.example", b"job") for _ in range(3)])

    await observe(queue)
    assert gauges("delivery") == parts(3, 5, 1, 1)
    assert gauges("relay") == parts(3, 0, 0, 4), "counted although no consumer exists"
    stream = queue.settings.stream
    assert value("paquebot_queue_held_jobs", stream=stream) == 2
    assert value("paquebot_queue_stream_jobs", stream=stream) == 18
    assert (value("paquebot_queue_stream_bytes", stream=stream) or 0) > 18 * len(b"job")
    assert 0 < (value("paquebot_queue_oldest_job_seconds", consumer="relay") or 0) < 60
    await consumer.close()


async def test_published_and_claimed_jobs_are_counted(queue: Queue) -> None:
    def counts() -> list[float]:
        found = [value("paquebot_queue_published_jobs_total", part=part) for part in ("deliver.ready", "hold")]
        found += [value(f"paquebot_queue_{what}_jobs_total", consumer="counted") for what in ("claimed", "redelivered")]
        return [one or 0.0 for one in found]

    consumer = Consumer(queue, "counted", DELIVER)
    before = counts()
    await queue.publish([Publication("deliver.ready.example", b"1"), Publication("deliver.ready.example", b"2")])
    await queue.publish([Publication("hold.poison.1", b"3")])
    first, second = await consumer.fetch(2, 5.0)
    await first.nak()
    (again,) = await consumer.fetch(1, 5.0)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [2, 1, 3, 1]
    for job in (again, second):
        await job.ack()
    await consumer.close()
