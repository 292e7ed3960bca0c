"""Metrics of delivery. Labels come from enums."""

import enum

from paquebot.mailstore import DeliveryResult
from paquebot.message import Action
from paquebot.observability.metrics import FAST, SLOW, by_member, counter, histogram


class DeferReason(enum.Enum):
    """Why a job was deferred in the queue."""

    FAILED = "failed"
    POSTGRES_AWAY = "postgres_away"
    QUEUE_AWAY = "queue_away"
    S3_AWAY = "s3_away"
    DIRECTORY_AWAY = "directory_away"
    SPOOL_AWAY = "spool_away"
    SENDER_UNCERTAIN = "sender_uncertain"


RECIPIENTS = counter("paquebot_delivery_recipients_total", "Recipients, by outcome", {"outcome": DeliveryResult})
BATCH_JOBS = histogram("paquebot_delivery_batch_jobs", "Jobs of one batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
TRANSACTION_RECIPIENTS = histogram(
    "paquebot_delivery_transaction_recipients",
    "Recipients of one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TRANSACTION_SECONDS = histogram("paquebot_delivery_transaction_seconds", "Time of one transaction", buckets=FAST)
DELIVERED_AFTER_SECONDS = histogram(
    "paquebot_delivery_delivered_after_seconds", "From acceptance to the commit in the mailbox", buckets=SLOW
)
ONE_BY_ONE = counter("paquebot_delivery_one_by_one_jobs_total", "Jobs done entry by entry because their batch failed")
DEFERRED_JOBS = counter(
    "paquebot_delivery_again_jobs_total", "Jobs deferred in the queue, by reason", {"reason": DeferReason}
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
