"""Publishing to the stream: one message, or an atomic batch."""

import datetime
import math
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client

from paquebot.observability.metrics import counter
from paquebot.queue.errors import QueueRefused, QueueTooLarge, QueueUnavailable

PUBLISHED = counter(
    "paquebot_queue_published_jobs_total",
    "Jobs stored in the stream, by the first two tokens of their subject; later: scheduled, hold: set aside",
    {"part": ("deliver.ready", "deliver.later", "relay.ready", "relay.ahead", "relay.later", "hold")},
)

MAX_BATCH = 1000
"""Maximum of messages in one atomic batch (the server's limit)."""

Request = Callable[[str, bytes, dict[str, str] | None], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Publication:
    """One message for the stream. With `at` (Unix seconds) the stream publishes it on `subject` only then."""

    subject: str
    payload: bytes
    message_id: str = ""
    later_subject: str = ""
    at: float = 0.0

    def headers(self) -> dict[str, str]:
        headers = {"Nats-Msg-Id": self.message_id} if self.message_id else {}
        if self.later_subject:
            when = datetime.datetime.fromtimestamp(math.ceil(self.at), datetime.UTC)  # never before `at`
            headers["Nats-Schedule"] = "@at " + when.strftime("%Y-%m-%dT%H:%M:%SZ")
            headers["Nats-Schedule-Target"] = self.subject
        return headers

    def stored_subject(self) -> str:
        """The subject on which the stream stores it now."""
        return self.later_subject or self.subject


async def publish(client: Client, request: Request, publications: Sequence[Publication]) -> None:
    """Store all or none (ADR-50 of the NATS architecture: atomic batch publish). Raises as `Queue.publish`."""
    *before, last = publications
    if not before:
        await request(last.stored_subject(), last.payload, last.headers() or None)
        return
    batch = secrets.token_hex(16)
    try:
        for number, publication in enumerate(before, 1):
            headers = publication.headers()
            headers["Nats-Batch-Id"] = batch
            headers["Nats-Batch-Sequence"] = str(number)
            await client.publish(publication.stored_subject(), publication.payload, headers=headers)
    except nats.errors.MaxPayloadError:
        raise QueueTooLarge("a message of the batch is larger than the server accepts") from None
    except (nats.errors.Error, OSError) as error:
        # Without its commit the server drops the batch.
        raise QueueRefused(f"batch not sent: {type(error).__name__}") from error
    headers = last.headers()
    headers["Nats-Batch-Id"] = batch
    headers["Nats-Batch-Sequence"] = str(len(publications))
    headers["Nats-Batch-Commit"] = "1"
    answer = await request(last.stored_subject(), last.payload, headers)
    if answer.get("count") != len(publications):
        raise QueueUnavailable(f"batch acknowledged with {answer.get('count')} of {len(publications)} messages")


def count_published(publications: Sequence[Publication]) -> None:
    for publication in publications:
        PUBLISHED.labels(_part(publication.stored_subject())).inc()


def _part(subject: str) -> str:
    first, _, rest = subject.partition(".")
    return first if first == "hold" else f"{first}.{rest.partition('.')[0]}"
