"""The queue for an operator: lists jobs by destination and age; retries, holds, releases and drops them."""

import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from paquebot.blobs import new_ulid
from paquebot.queue import Publication, Queue, StoredJob, deliver_ready, held, relay_ready, stream
from paquebot.v1.queue_pb2 import DeliverJob, HeldJob, RelayJob

UNKNOWN = "unknown"
"""Kind and domain of an unreadable job."""
UNREADABLE = "cannot be read"
OPERATOR = "operator"
"""The reason of a job that an operator holds."""

RecordDropped = Callable[[Sequence[tuple[str, str]]], Awaitable[None]]
"""Records (queue id, forward-path) of each dropped recipient."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """One job, parsed."""

    stored: StoredJob
    state: str
    """`ready`, `later` or `held`."""
    kind: str
    """`deliver` or `relay`; `unknown` when the job is unreadable."""
    job: DeliverJob | RelayJob
    reason: str
    """Why it is held, or its last temporary failure."""
    subject: str
    """Its subject after release or retry."""

    @property
    def number(self) -> int:
        """Its sequence number in the stream, by which operators name it."""
        return self.stored.sequence

    @property
    def payload(self) -> bytes:
        return self.stored.payload if self.kind == UNKNOWN else self.job.SerializeToString()

    @property
    def accepted_at(self) -> float:
        """Unix seconds at which its oldest message was accepted; of an unreadable job, at which it was stored."""
        if self.kind == UNKNOWN:
            return self.stored.published_at
        if isinstance(self.job, RelayJob):
            return self.job.accepted_at_ms / 1000
        return min((entry.accepted_at_ms for entry in self.job.entries), default=0) / 1000

    def recipients(self) -> list[tuple[str, str]]:
        """(queue id, forward-path) of each."""
        if isinstance(self.job, RelayJob):
            return [(self.job.queue_id, recipient.forward_path) for recipient in self.job.recipients]
        return [(entry.queue_id, item.forward_path) for entry in self.job.entries for item in entry.recipients]


def parse(stored: StoredJob) -> QueuedJob:
    """A job whose payload does not fit its subject is `unknown`, so that an operator can still hold or drop it."""
    try:
        return _parse(stored)
    except DecodeError:  # which is no ValueError
        _, place, _ = stored.subject.split(".", 2)
        state = "held" if stored.subject.startswith("hold.") else place
        # Its subject stays: released, it would only be held again.
        job = DeliverJob(domain=UNKNOWN)
        return QueuedJob(stored, state, UNKNOWN, job, UNREADABLE, stored.subject)


def _parse(stored: StoredJob) -> QueuedJob:
    """Raises DecodeError."""
    kind, place, _ = stored.subject.split(".", 2)
    if kind == "hold":
        inner = HeldJob.FromString(stored.payload)
        job = _job(inner.subject, inner.payload)
        return QueuedJob(stored, "held", inner.subject.partition(".")[0], job, inner.reason or place, inner.subject)
    job = _job(stored.subject, stored.payload)
    reason = job.last_reply if isinstance(job, RelayJob) else ""
    if place == "later":
        ready = relay_ready if kind == "relay" else deliver_ready
        return QueuedJob(stored, "later", kind, job, reason, ready(job.domain))
    return QueuedJob(stored, "ready", kind, job, reason, stored.subject)


def _job(subject: str, payload: bytes) -> DeliverJob | RelayJob:
    return DeliverJob.FromString(payload) if subject.startswith("deliver.") else RelayJob.FromString(payload)


async def list_jobs(queue: Queue, *, domain: str = "", state: str = "") -> AsyncIterator[QueuedJob]:
    """Every job, oldest first; only those for `domain` or in `state` when given. Raises QueueUnavailable."""
    async for stored in stream.jobs(queue):
        item = parse(stored)
        if (not domain or item.job.domain == domain) and (not state or item.state == state):
            yield item


@dataclass(slots=True)
class QueuedDestination:
    """The jobs for one domain in one state."""

    state: str
    kind: str
    domain: str
    jobs: int = 0
    recipients: int = 0
    oldest_at: float = 0.0
    next_at: str = ""
    last_reply: str = ""

    def add(self, item: QueuedJob) -> None:
        self.jobs += 1
        self.recipients += len(item.recipients())
        self.oldest_at = min(self.oldest_at or item.accepted_at, item.accepted_at)
        if item.stored.scheduled_for:
            self.next_at = min(self.next_at or item.stored.scheduled_for, item.stored.scheduled_for)
        self.last_reply = item.reason or self.last_reply

    def age(self) -> float:
        """Seconds since the oldest message was accepted."""
        return max(0.0, time.time() - self.oldest_at)


async def count_destinations(items: AsyncIterator[QueuedJob]) -> list[QueuedDestination]:
    """Counts by destination and state, the oldest first."""
    found: dict[tuple[str, str, str], QueuedDestination] = {}
    async for item in items:
        key = (item.state, item.kind, item.job.domain)
        found.setdefault(key, QueuedDestination(*key)).add(item)
    return sorted(found.values(), key=lambda destination: destination.oldest_at)


async def find_jobs(queue: Queue, numbers: Sequence[int]) -> list[QueuedJob]:
    """The jobs with these numbers that still exist. Raises QueueUnavailable."""
    found = [await stream.job(queue, number) for number in numbers]
    return [parse(stored) for stored in found if stored is not None]


async def release(queue: Queue, items: Iterable[QueuedJob]) -> int:
    """Make held or deferred jobs ready now; returns how many. Raises QueueUnavailable."""
    count = 0
    for item in items:
        if item.state != "ready" and item.kind != UNKNOWN:
            await stream.move(queue, item.stored, Publication(item.subject, item.payload))
            count += 1
    return count


async def hold(queue: Queue, items: Iterable[QueuedJob]) -> int:
    """Hold jobs until `release`; returns how many. Raises QueueUnavailable."""
    count = 0
    for item in items:
        if item.state != "held":
            now_ms = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
            job = HeldJob(subject=item.subject, payload=item.payload, reason=OPERATOR, held_at_ms=now_ms)
            to = Publication(held(OPERATOR, new_ulid()), job.SerializeToString())
            await stream.move(queue, item.stored, to)
            count += 1
    return count


async def drop(queue: Queue, items: Iterable[QueuedJob], record: RecordDropped) -> int:
    """Delete jobs for good, without a notice to anyone; returns how many. `record` makes it durable that their
    recipients are dropped, before each job is deleted, so that `recover` does not queue them again.
    Raises QueueUnavailable, and what `record` raises."""
    count = 0
    for item in items:
        await record(item.recipients())
        count += await stream.delete(queue, item.number)
    return count
