"""The stream itself: creation and configuration; counting, listing and changing its jobs."""

import base64
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from paquebot.queue.client import Queue
from paquebot.queue.errors import NO_CONSUMER, NO_MESSAGE, QueueRefused
from paquebot.queue.publishing import Publication
from paquebot.queue.subjects import DELIVER, RELAY, RELAY_AHEAD, STREAM_SUBJECTS

_DUPLICATE_WINDOW_SECONDS = 120
_NAME_IN_USE = 10058  # stream name already in use with a different configuration
_CONSUMED = {"delivery": DELIVER, "relay": RELAY, "relay-ahead": RELAY_AHEAD}
_NOT_DELETED = 10057  # no message to delete


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as the stream stores it."""

    sequence: int
    subject: str
    payload: bytes
    published_at: float
    scheduled_for: str = ""
    """RFC 3339, for `*.later.*`."""


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Jobs per subject."""

    by_subject: dict[str, int]

    def total(self, prefix: str = "") -> int:
        return sum(count for subject, count in self.by_subject.items() if subject.startswith(prefix))


async def ensure_stream(queue: Queue) -> None:
    """Create the stream, or set its changeable options to those of this version.
    Raises QueueUnavailable, QueueRefused."""
    settings = queue.settings
    config: dict[str, Any] = {
        "name": settings.stream,
        "subjects": list(STREAM_SUBJECTS),
        "retention": "workqueue",
        "storage": "file",
        "num_replicas": settings.replicas,
        "discard": "old",  # scheduling needs it; without a limit below nothing is ever discarded
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "duplicate_window": _DUPLICATE_WINDOW_SECONDS * 10**9,
        "allow_direct": True,
        "allow_atomic": True,
        "allow_msg_schedules": True,
    }
    try:
        await queue.api(f"STREAM.CREATE.{settings.stream}", config)
    except QueueRefused as error:
        if error.code != _NAME_IN_USE:
            raise
    # Always: a CREATE adopts the messages of a store whose description is damaged, but leaves the description as it
    # is, and the stream would be gone again at the server's next start.
    await queue.api(f"STREAM.UPDATE.{settings.stream}", config)


async def delete_stream(queue: Queue) -> None:
    """Delete the stream with all its jobs. `recover` can fill a new one. Raises QueueUnavailable."""
    await queue.api(f"STREAM.DELETE.{queue.settings.stream}")


async def counts(queue: Queue) -> JobCounts:
    """Raises QueueUnavailable."""
    found: dict[str, int] = {}
    offset = 0
    while True:
        info = await queue.api(f"STREAM.INFO.{queue.settings.stream}", {"subjects_filter": ">", "offset": offset})
        page = (info.get("state") or {}).get("subjects") or {}
        found.update(page)
        offset += len(page)
        if not page or offset >= int(info.get("total", 0)):
            return JobCounts(found)


async def last_sequence(queue: Queue) -> int:
    """The sequence number of the newest job, which may be gone already. Raises QueueUnavailable."""
    info = await queue.api(f"STREAM.INFO.{queue.settings.stream}")
    return int(info["state"]["last_seq"])


async def jobs(queue: Queue, subject: str = ">", *, after: int = 0) -> AsyncIterator[StoredJob]:
    """Every job on `subject` (wildcards allowed) in the order of storage. Jobs that are stored or deleted meanwhile may
    or may not be among them. Raises QueueUnavailable."""
    while (found := await oldest(queue, subject, after=after)) is not None:
        yield found
        after = found.sequence


async def oldest(queue: Queue, subject: str, *, after: int = 0) -> StoredJob | None:
    """The first job on `subject` (wildcards allowed) behind the sequence number `after`. Raises QueueUnavailable."""
    return await _get(queue, {"seq": after + 1, "next_by_subj": subject})


async def job(queue: Queue, sequence: int) -> StoredJob | None:
    """The job with that sequence number, if it still exists. Raises QueueUnavailable."""
    return await _get(queue, {"seq": sequence})


async def _get(queue: Queue, wanted: dict[str, Any]) -> StoredJob | None:
    try:
        found = await queue.api(f"STREAM.MSG.GET.{queue.settings.stream}", wanted)
    except QueueRefused as error:
        if error.code == NO_MESSAGE:
            return None
        raise
    return _stored(found["message"])


async def delete(queue: Queue, sequence: int) -> bool:
    """Delete a job; False: it was gone. Raises QueueUnavailable."""
    try:
        await queue.api(f"STREAM.MSG.DELETE.{queue.settings.stream}", {"seq": sequence, "no_erase": True})
    except QueueRefused as error:
        if error.code == _NOT_DELETED:
            return False
        raise
    return True


async def skipped_jobs(queue: Queue) -> list[StoredJob]:
    """Jobs that their consumer counts as done and that are still in the stream: no process would ever get them.

    A job that is being acknowledged may be among them: ask again. A server that lost what it had not written (a full
    disk) gives new jobs the numbers of lost ones, which were claimed already. Raises QueueUnavailable.
    """
    found: list[StoredJob] = []
    for consumer, subject in _CONSUMED.items():
        try:
            info = await queue.api(f"CONSUMER.INFO.{queue.settings.stream}.{consumer}")
        except QueueRefused as error:
            if error.code != NO_CONSUMER:
                raise
            continue
        floor = int(info["ack_floor"]["stream_seq"])
        async for stored in jobs(queue, subject):
            if stored.sequence > floor:
                break
            found.append(stored)
    return found


async def move(queue: Queue, stored: StoredJob, to: Publication) -> None:
    """Store `to`, then delete `stored`: a crash between leaves both, never none. Raises QueueUnavailable."""
    await queue.publish([to])
    await delete(queue, stored.sequence)


def _stored(message: dict[str, Any]) -> StoredJob:
    at = datetime.datetime.fromisoformat(message["time"][:26].rstrip("Z") + "+00:00")
    scheduled = ""
    for line in base64.b64decode(message.get("hdrs", "")).decode("ascii", "replace").split("\r\n"):
        if line.startswith("Nats-Schedule: @at "):
            scheduled = line.removeprefix("Nats-Schedule: @at ")
    return StoredJob(
        sequence=int(message["seq"]),
        subject=message["subject"],
        payload=base64.b64decode(message.get("data", "")),
        published_at=at.timestamp(),
        scheduled_for=scheduled,
    )
