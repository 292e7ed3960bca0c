"""Metrics of delivery. Labels come from enums."""

import enum

from paquebot.mailstore import DeliveryResult
from paquebot.message import Action
from paquebot.observability.metrics import FAST, SLOW, by_member, counter, histogram


class DeferReason(enum.Enum):
    """Why a job was deferred in the queue."""

    FAILED = "failed"
    POSTGRES_UNAVAILABLE = "postgres_unavailable"
    QUEUE_UNAVAILABLE = "queue_unavailable"
    S3_UNAVAILABLE = "s3_unavailable"
    DIRECTORY_UNAVAILABLE = "directory_unavailable"
    SPOOL_UNAVAILABLE = "spool_unavailable"
    SENDER_UNCERTAIN = "sender_uncertain"


RECIPIENTS = counter("paquebot_delivery_recipients_total", "Recipients, by outcome", {"outcome": DeliveryResult})
BATCH_JOBS = histogram("paquebot_delivery_batch_jobs", "Jobs of one batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
TRANSACTION_RECIPIENTS = histogram(
    "paquebot_delivery_transaction_recipients",
    "Recipients of one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TRANSACTION_SECONDS = histogram("paquebot_delivery_transaction_seconds", "Time of one transaction", buckets=FAST)
LATENCY_SECONDS = histogram(
    "paquebot_delivery_latency_seconds", "From acceptance to the commit in the mailbox", buckets=SLOW
)
UNBATCHED = counter("paquebot_delivery_unbatched_jobs_total", "Jobs delivered entry by entry because a batch failed")
DEFERRED_JOBS = counter(
    "paquebot_delivery_deferred_jobs_total", "Jobs deferred in the queue, by reason", {"reason": DeferReason}
)
HELD = counter("paquebot_delivery_held_jobs_total", "Jobs held for an operator, by reason", {"reason": ("poison",)})
DEFERRED_RECIPIENTS = counter(
    "paquebot_delivery_deferred_recipients_total", "Recipients over quota that are tried again later"
)
REPORTS = counter(
    "paquebot_delivery_reports_total",
    "Notifications to senders (RFC 3464); undeliverable: mail to the sender is not accepted",
    {"action": (Action.FAILED.value, Action.DELIVERED.value, "undeliverable")},
)

RECIPIENT = by_member(RECIPIENTS, DeliveryResult)
