"""The queue: one JetStream stream of jobs, and hints that are not stored."""

from paquebot.queue.client import Queue
from paquebot.queue.consumer import ClaimedJob, Consumer
from paquebot.queue.errors import QueueRefused, QueueTooLarge, QueueUnavailable
from paquebot.queue.publishing import MAX_BATCH, Publication
from paquebot.queue.stream import JobCounts, StoredJob
from paquebot.queue.subjects import deliver_later, deliver_ready, domain_token, held, relay_later, relay_ready

__all__ = [
    "MAX_BATCH",
    "ClaimedJob",
    "Consumer",
    "JobCounts",
    "Publication",
    "Queue",
    "QueueRefused",
    "QueueTooLarge",
    "QueueUnavailable",
    "StoredJob",
    "deliver_later",
    "deliver_ready",
    "domain_token",
    "held",
    "relay_later",
    "relay_ready",
]
