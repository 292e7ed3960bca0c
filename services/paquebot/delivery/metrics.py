"""Metrics of delivery. Labels come from enums."""

from prometheus_client import Counter, Histogram

from paquebot.observability.metrics import FAST, SLOW

DELIVERIES = Counter("paquebot_delivery_recipients_total", "Recipients by what became of them", ["outcome"])
BATCH_JOBS = Histogram("paquebot_delivery_batch_jobs", "Jobs of one batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
BATCH_RECIPIENTS = Histogram(
    "paquebot_delivery_transaction_recipients",
    "Recipients of one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TRANSACTION_SECONDS = Histogram("paquebot_delivery_transaction_seconds", "One transaction", buckets=FAST)
DELIVERED_AFTER_SECONDS = Histogram(
    "paquebot_delivery_delivered_after_seconds", "From acceptance to the commit in the mailbox", buckets=SLOW
)
ONE_BY_ONE = Counter("paquebot_delivery_one_by_one_total", "Jobs done entry by entry because their batch failed")
AGAIN = Counter("paquebot_delivery_jobs_again_total", "Jobs given back to the queue", ["reason"])
HELD = Counter("paquebot_delivery_held_total", "Entries put aside", ["reason"])
DEFERRED = Counter("paquebot_delivery_deferred_total", "Recipients over quota, to be tried again")
REPORTS = Counter("paquebot_delivery_reports_total", "Notifications to senders", ["action"])
