"""Gauges of the queue: jobs that wait for each consumer, that are scheduled, held and stored.

All processes report the same figures of the one stream, so take their maximum. Each process that consumes also reports
the part of the other consumer, which may have no process at all.
"""

import asyncio
import contextlib
import datetime

from paquebot.observability.metrics import Across, Bounded, gauge
from paquebot.queue.client import Queue
from paquebot.queue.errors import NO_CONSUMER, QueueRefused, QueueUnavailable
from paquebot.queue.subjects import DELIVER, DELIVER_LATER, HELD, RELAY, RELAY_LATER

CONSUMERS = Bounded("the consumers of the stream: delivery, relay")
_STREAMS = Bounded("PAQUEBOT_NATS_STREAM, one a platform")

PENDING = gauge(
    "paquebot_queue_pending_jobs", "Jobs that no process has claimed yet", {"consumer": CONSUMERS}, across=Across.MAX
)
UNACKNOWLEDGED = gauge(
    "paquebot_queue_unacknowledged_jobs", "Jobs claimed and not acknowledged", {"consumer": CONSUMERS}
)
REDELIVERING = gauge(
    "paquebot_queue_redelivering_jobs",
    "Jobs not acknowledged that were claimed more than once",
    {"consumer": CONSUMERS},
    across=Across.MAX,
)
OLDEST = gauge(
    "paquebot_queue_oldest_job_seconds",
    "Age of the oldest job that is due and not acknowledged; 0: there is none",
    {"consumer": CONSUMERS},
    across=Across.MAX,
)
SCHEDULED = gauge(
    "paquebot_queue_scheduled_jobs",
    "Jobs that the stream publishes again later: deferred by another host, or over quota",
    {"consumer": CONSUMERS},
    across=Across.MAX,
)
HELD_JOBS = gauge(
    "paquebot_queue_held_jobs",
    "Jobs set aside for an operator (paquebot queue)",
    {"stream": _STREAMS},
    across=Across.MAX,
)
JOBS = gauge("paquebot_queue_stream_jobs", "All jobs in the stream", {"stream": _STREAMS}, across=Across.MAX)
BYTES = gauge("paquebot_queue_stream_bytes", "Size of the stream on disk", {"stream": _STREAMS}, across=Across.MAX)

EVERY_SECONDS = 10.0
_PARTS = {"delivery": (DELIVER, DELIVER_LATER), "relay": (RELAY, RELAY_LATER)}
_PAST_ALL = 2**31 - 1


async def observe(queue: Queue) -> None:
    """Set all gauges of the queue. Raises QueueUnavailable."""
    stream = queue.settings.stream
    state = (await queue.api(f"STREAM.INFO.{stream}"))["state"]
    JOBS.labels(stream).set(state["messages"])
    BYTES.labels(stream).set(state["bytes"])
    HELD_JOBS.labels(stream).set(await _subjects(queue, HELD))
    for name, (ready, later) in _PARTS.items():
        await observe_consumer(queue, name, ready)
        SCHEDULED.labels(name).set(await _subjects(queue, later))


async def observe_consumer(queue: Queue, name: str, subject: str) -> int:
    """Set the gauges of one consumer's part of the queue, `subject`; returns the number of waiting jobs.
    Raises QueueUnavailable."""
    try:
        info = await queue.api(f"CONSUMER.INFO.{queue.settings.stream}.{name}")
    except QueueRefused as error:
        if error.code != NO_CONSUMER:
            raise
        info = {"num_pending": await _messages(queue, subject), "num_ack_pending": 0, "num_redelivered": 0}
    pending = int(info["num_pending"])
    PENDING.labels(name).set(pending)
    UNACKNOWLEDGED.labels(name).set(info["num_ack_pending"])
    REDELIVERING.labels(name).set(info["num_redelivered"])
    # From the stream, not from the consumer: it also finds a job that the consumer skipped.
    OLDEST.labels(name).set(await _oldest(queue, subject))
    return pending


async def observe_forever(queue: Queue) -> None:
    """Set the gauges again and again; while NATS is away they keep their values."""
    while True:
        with contextlib.suppress(QueueUnavailable):  # `paquebot_nats_connected` and the errors of engines show it
            await observe(queue)
        await asyncio.sleep(EVERY_SECONDS)


async def _subjects(queue: Queue, subject: str) -> int:
    """The number of subjects of that pattern that have jobs. Scheduled and held jobs have one each. This requests a
    page behind the end of the list, which may be long: the answer has only its length."""
    body = {"subjects_filter": subject, "offset": _PAST_ALL}
    return int((await queue.api(f"STREAM.INFO.{queue.settings.stream}", body)).get("total", 0))


async def _messages(queue: Queue, subject: str) -> int:
    """The number of jobs on the subjects of that pattern (the first 100,000 subjects)."""
    info = await queue.api(f"STREAM.INFO.{queue.settings.stream}", {"subjects_filter": subject})
    return sum((info["state"].get("subjects") or {}).values())


async def _oldest(queue: Queue, subject: str) -> float:
    try:
        found = await queue.api(f"STREAM.MSG.GET.{queue.settings.stream}", {"seq": 1, "next_by_subj": subject})
    except QueueRefused:
        return 0.0  # acknowledged between the two requests
    at = datetime.datetime.fromisoformat(found["message"]["time"][:26].rstrip("Z") + "+00:00")
    return max(0.0, (datetime.datetime.now(datetime.UTC) - at).total_seconds())
