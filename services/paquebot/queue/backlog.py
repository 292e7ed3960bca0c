"""The queue as an operator sees it: what waits, for which destination, for how long; and moving it."""

import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from paquebot.blobs import new_ulid
from paquebot.queue import Publication, Queue, StoredJob, deliver_ready, held, relay_ready, stream
from paquebot.v1.queue_pb2 import DeliverJob, HeldJob, RelayJob

UNKNOWN = "unknown"
"""Kind and domain of a job that cannot be read."""
UNREADABLE = "cannot be read"
OPERATOR = "operator"
"""The reason of a job that a person put on hold."""

RecordDropped = Callable[[Sequence[tuple[str, str]]], Awaitable[None]]
"""Records (queue id, forward-path) of each dropped recipient."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """One job, read."""

    stored: StoredJob
    state: str
    """`ready`, `later` or `held`."""
    kind: str
    """`deliver` or `relay`; `unknown` when the job cannot be read."""
    job: DeliverJob | RelayJob
    reason: str
    """Why it is held, or the last temporary failure."""
    subject: str
    """Where it goes when it is released or retried."""

    @property
    def number(self) -> int:
        """How an operator names it: its sequence number in the stream."""
        return self.stored.sequence

    @property
    def payload(self) -> bytes:
        return self.stored.payload if self.kind == UNKNOWN else self.job.SerializeToString()

    @property
    def accepted_at(self) -> float:
        """Unix seconds at which the oldest message in it was accepted; when it was stored, if it cannot be read."""
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


def read(stored: StoredJob) -> QueuedJob:
    """One whose payload is not what its subject promises is shown as unknown, so that an operator can move it."""
    try:
        return _read(stored)
    except DecodeError:  # no ValueError
        _, place, _ = stored.subject.split(".", 2)
        state = "held" if stored.subject.startswith("hold.") else place
        # Released, it would only come back: it goes where it is.
        job = DeliverJob(domain=UNKNOWN)
        return QueuedJob(stored, state, UNKNOWN, job, UNREADABLE, stored.subject)


def _read(stored: StoredJob) -> QueuedJob:
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
        item = read(stored)
        if (not domain or item.job.domain == domain) and (not state or item.state == state):
            yield item


@dataclass(slots=True)
class QueuedDestination:
    """What waits for one domain in one state."""

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
    """The jobs with these numbers that are still there. Raises QueueUnavailable."""
    found = [await stream.job(queue, number) for number in numbers]
    return [read(stored) for stored in found if stored is not None]


async def release(queue: Queue, items: Iterable[QueuedJob]) -> int:
    """Make held or deferred jobs ready now; returns how many. Raises QueueUnavailable."""
    count = 0
    for item in items:
        if item.state != "ready" and item.kind != UNKNOWN:
            await stream.move(queue, item.stored, Publication(item.subject, item.payload))
            count += 1
    return count


async def hold(queue: Queue, items: Iterable[QueuedJob]) -> int:
    """Put jobs aside until `release`; returns how many. Raises QueueUnavailable."""
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
