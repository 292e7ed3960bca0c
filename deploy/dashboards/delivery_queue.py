"""Delivery and queue: waiting jobs, the time to a mailbox, held jobs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from dashboards.board import GREEN, RED, YELLOW, Query, board, filled, graph, number, quantiles, rate

JOBS = "paquebot_delivery_batch_jobs"
CALLS = "paquebot_engine_call_seconds_bucket"
NATS, POSTGRES = 'engine="nats"', 'engine="postgres"'
RECIPIENTS = "paquebot_delivery_recipients_total"


def delivery_queue() -> dashboard.Dashboard:
    base = board(
        "delivery-queue",
        "Delivery and queue",
        "Jobs in JetStream, and their delivery to mailboxes.",
        "delivery|relay",
    )
    return filled(
        base,
        (
            "Now",
            (
                number(
                    "Waiting to be delivered",
                    "Jobs for local mailboxes; each is up to 100 recipients of one domain.",
                    "short",
                    'max(paquebot_queue_pending_jobs{sel, consumer="delivery"})',
                    steps=((None, GREEN), (1000, YELLOW), (10000, RED)),
                ),
                number(
                    "Oldest job",
                    "The oldest one that is due for a local mailbox.",
                    "s",
                    'max(paquebot_queue_oldest_job_seconds{sel, consumer="delivery"})',
                    steps=((None, GREEN), (60, YELLOW), (900, RED)),
                ),
                number(
                    "Delivered",
                    "Recipients a second delivered to a mailbox.",
                    "cps",
                    rate(RECIPIENTS, where='outcome="delivered"'),
                ),
                number(
                    "In the mailbox, p99",
                    "From acceptance to the commit in the mailbox.",
                    "s",
                    f"histogram_quantile(0.99, {rate('paquebot_delivery_latency_seconds_bucket', by='le')})",
                    steps=((None, GREEN), (10, YELLOW), (60, RED)),
                ),
                number(
                    "Deferred jobs",
                    "Jobs a second deferred.",
                    "cps",
                    f"{rate('paquebot_delivery_deferred_jobs_total')} or vector(0)",
                    steps=((None, GREEN), (0.1, RED)),
                ),
                number(
                    "Held jobs",
                    "Held jobs, which wait for an operator: `paquebot queue list`.",
                    "short",
                    "max(paquebot_queue_held_jobs{sel})",
                    steps=((None, GREEN), (1, RED)),
                    decimals=0,
                ),
            ),
        ),
        (
            "Queue",
            (
                graph(
                    "Jobs",
                    "By consumer, waiting and claimed. Every pod reports the same number, so this is the maximum.",
                    "short",
                    [
                        Query("max by (consumer) (paquebot_queue_pending_jobs{sel})", "{{consumer}} waiting"),
                        Query("max by (consumer) (paquebot_queue_unacknowledged_jobs{sel})", "{{consumer}} at work"),
                        Query("max by (consumer) (paquebot_queue_scheduled_jobs{sel})", "{{consumer}} for later"),
                    ],
                ),
                graph(
                    "Age of the oldest job",
                    "Of jobs that are due, by consumer.",
                    "s",
                    [Query("max by (consumer) (paquebot_queue_oldest_job_seconds{sel})", "{{consumer}}")],
                    steps=((None, GREEN), (60, YELLOW), (900, RED)),
                ),
                graph(
                    "Handed out",
                    "Jobs taken from the stream, and those among them that had been handed out before.",
                    "cps",
                    [
                        Query(rate("paquebot_queue_claimed_jobs_total", by="consumer"), "{{consumer}}"),
                        Query(rate("paquebot_queue_redelivered_jobs_total", by="consumer"), "{{consumer}} redelivered"),
                    ],
                ),
                graph(
                    "Stream on disk",
                    "All jobs, including deferred and held ones.",
                    "bytes",
                    [Query("max by (stream) (paquebot_queue_stream_bytes{sel})", "{{stream}}")],
                ),
                graph(
                    "JetStream calls",
                    "Calls of our services.",
                    "cps",
                    [Query(rate("paquebot_engine_call_seconds_count", by="call", where=NATS), "{{call}}")],
                ),
                graph(
                    "JetStream latency",
                    "99 of 100 calls took at most this.",
                    "s",
                    [Query(f"histogram_quantile(0.99, {rate(CALLS, by='le, call', where=NATS)})", "{{call}} p99")],
                ),
            ),
        ),
        (
            "Delivery",
            (
                graph(
                    "Recipients by outcome",
                    "`duplicate`: delivered before, nothing was changed.",
                    "cps",
                    [Query(rate(RECIPIENTS, by="outcome"), "{{outcome}}")],
                    stacked=True,
                ),
                graph(
                    "From acceptance to the mailbox",
                    "The line is the promise: 99 % within 60 s.",
                    "s",
                    quantiles("paquebot_delivery_latency_seconds"),
                    steps=((None, GREEN), (60, RED)),
                ),
                graph(
                    "Transactions",
                    "One transaction in PostgreSQL for many recipients.",
                    "s",
                    quantiles("paquebot_delivery_transaction_seconds", name="transaction"),
                ),
                graph(
                    "Recipients of one transaction",
                    "The more, the cheaper each recipient.",
                    "short",
                    [
                        *quantiles("paquebot_delivery_transaction_recipients")[:2],
                        Query(
                            rate(JOBS + "_sum") + " / " + rate(JOBS + "_count"),
                            "jobs of one fetch, mean",
                        ),
                    ],
                ),
                graph(
                    "Deferred jobs",
                    "Deferred jobs, by reason; jobs delivered entry by entry because a batch failed.",
                    "cps",
                    [
                        Query(rate("paquebot_delivery_deferred_jobs_total", by="reason"), "deferred: {{reason}}"),
                        Query(rate("paquebot_delivery_unbatched_jobs_total"), "unbatched"),
                    ],
                    steps=((None, GREEN), (0.1, RED)),
                ),
                graph(
                    "Held, deferred, reported",
                    "Entries held, recipients over quota to try again, notifications to senders.",
                    "cps",
                    [
                        Query(rate("paquebot_delivery_held_jobs_total", by="reason"), "held: {{reason}}"),
                        Query(rate("paquebot_delivery_deferred_recipients_total"), "over quota, later"),
                        Query(rate("paquebot_delivery_reports_total", by="action"), "report: {{action}}"),
                    ],
                ),
                graph(
                    "Connections to PostgreSQL",
                    "Of the chosen pods, by state; calls that wait for one; the maximum; servers left that"
                    " took no writes any more; calls with values that it can never take.",
                    "short",
                    [
                        Query("sum by (state) (paquebot_postgres_pool_connections{sel})", "{{state}}"),
                        Query("sum(paquebot_postgres_pool_waiting_calls{sel})", "calls waiting"),
                        Query("sum(paquebot_postgres_pool_limit_connections{sel})", "most"),
                        Query("sum(increase(paquebot_postgres_read_only_total{sel}[$__rate_interval]))", "left"),
                        Query(rate("paquebot_postgres_refused_values_total"), "values refused a second"),
                    ],
                ),
                graph(
                    "Connections to NATS",
                    "Pods without one, and connections made and lost.",
                    "short",
                    [
                        Query("sum(1 - paquebot_nats_connected{sel})", "pods without"),
                        Query(rate("paquebot_nats_connections_total", by="result"), "{{result}} a second"),
                    ],
                    steps=((None, GREEN), (1, RED)),
                ),
                graph(
                    "PostgreSQL calls",
                    "As the chosen pods make them.",
                    "cps",
                    [Query(rate("paquebot_engine_call_seconds_count", by="call", where=POSTGRES), "{{call}}")],
                ),
                graph(
                    "PostgreSQL latency",
                    "99 of 100 calls took at most this.",
                    "s",
                    [Query(f"histogram_quantile(0.99, {rate(CALLS, by='le, call', where=POSTGRES)})", "{{call}} p99")],
                ),
            ),
        ),
    )
