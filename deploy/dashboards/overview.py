"""Overview: is mail coming in, going out, and in time?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from dashboards.board import GREEN, RED, YELLOW, Query, board, filled, graph, number, quantiles, rate

UNANSWERED = (
    '(sum(increase(paquebot_engine_errors_total{sel, engine="grpc"}[$__range])'
    ' and on (namespace, pod) max_over_time(paquebot_build_info{sel, service="smtp_ingress"}[$__range])) or vector(0))'
)
FAULTS = f'(sum(increase(paquebot_smtp_messages_total{{sel, result="deferred"}}[$__range])) + {UNANSWERED})'
ATTEMPTS = f"((sum(increase(paquebot_smtp_messages_total{{sel}}[$__range])) + {UNANSWERED}) > 0)"
IN_TIME = 'sum(increase(paquebot_delivery_latency_seconds_bucket{sel, le=~"60(\\\\.0)?"}[$__range]))'
DELIVERED = "sum(increase(paquebot_delivery_latency_seconds_count{sel}[$__range]))"

FAILED = 'action="failed"'

BUDGET = ((None, RED), (0, YELLOW), (0.25, GREEN))


def overview() -> dashboard.Dashboard:
    base = board(
        "overview",
        "Overview",
        "Mail in, delivered, relayed and bounced; the queue; the promises to users.",
        ".*",
    )
    return filled(
        base,
        (
            "Promises",
            (
                number(
                    "Accepted without our fault",
                    "Share of mail, over the time shown, that was not deferred by a fault of ours. Promise: 99.9 %.",
                    "percentunit",
                    f"1 - {FAULTS} / {ATTEMPTS}",
                    steps=((None, RED), (0.999, GREEN)),
                    decimals=3,
                    no_value="no mail",
                ),
                number(
                    "Acceptance: error budget left",
                    "What is left of the 0.1 % of messages that may be deferred, over the time shown. Below 0: spent.",
                    "percentunit",
                    f"1 - ({FAULTS} / {ATTEMPTS}) / 0.001",
                    steps=BUDGET,
                    decimals=1,
                    no_value="no mail",
                ),
                number(
                    "In the mailbox within 60 s",
                    "Share of local deliveries, over the time shown, at most 60 s after acceptance. Promise: 99 %.",
                    "percentunit",
                    f"{IN_TIME} / ({DELIVERED} > 0)",
                    steps=((None, RED), (0.99, GREEN)),
                    decimals=3,
                    no_value="no mail",
                ),
                number(
                    "Delivery: error budget left",
                    "What is left of the 1 % of deliveries that may take longer than 60 s. Below 0: spent.",
                    "percentunit",
                    f"1 - (1 - {IN_TIME} / ({DELIVERED} > 0)) / 0.01",
                    steps=BUDGET,
                    decimals=1,
                    no_value="no mail",
                ),
                number(
                    "Oldest job",
                    "Age of the oldest job that is due and not done.",
                    "s",
                    "max(paquebot_queue_oldest_job_seconds{sel})",
                    steps=((None, GREEN), (60, YELLOW), (900, RED)),
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
            "Traffic",
            (
                graph(
                    "Mail in",
                    "Messages a second by the listener they came to and what was answered.",
                    "mps",
                    [Query(rate("paquebot_smtp_messages_total", by="listener, result"), "{{listener}} {{result}}")],
                    stacked=True,
                ),
                graph(
                    "Mail out",
                    "Recipients a second: delivered to a mailbox, accepted by another host, reported as failed.",
                    "cps",
                    [
                        Query(rate("paquebot_delivery_recipients_total", where='outcome="delivered"'), "delivered"),
                        Query(rate("paquebot_relay_recipients_total", where='outcome="delivered"'), "relayed"),
                        Query(rate("paquebot_relay_recipients_total", where='outcome="deferred"'), "deferred by hosts"),
                        Query(
                            f"({rate('paquebot_relay_reports_total', where=FAILED)} or vector(0))"
                            f" + ({rate('paquebot_delivery_reports_total', where=FAILED)} or vector(0))",
                            "bounced (reports)",
                        ),
                    ],
                ),
                graph(
                    "From acceptance to the mailbox",
                    "How long local mail takes; the line is the promise.",
                    "s",
                    quantiles("paquebot_delivery_latency_seconds"),
                    steps=((None, GREEN), (60, RED)),
                ),
                graph(
                    "From acceptance here to acceptance there",
                    "How long mail takes to other hosts, their delays included.",
                    "s",
                    quantiles("paquebot_relay_latency_seconds"),
                ),
            ),
        ),
        (
            "Queue and engines",
            (
                graph(
                    "Queue depth",
                    "Jobs by consumer. Every pod reports the same number, so this is the maximum.",
                    "short",
                    [
                        Query("max by (consumer) (paquebot_queue_pending_jobs{sel})", "{{consumer}} waiting"),
                        Query("max by (consumer) (paquebot_queue_unacknowledged_jobs{sel})", "{{consumer}} at work"),
                        Query("max by (consumer) (paquebot_queue_scheduled_jobs{sel})", "{{consumer}} for later"),
                    ],
                ),
                graph(
                    "Age of the oldest job",
                    "By consumer; the lines are where a look is due and where the alert is.",
                    "s",
                    [Query("max by (consumer) (paquebot_queue_oldest_job_seconds{sel})", "{{consumer}}")],
                    steps=((None, GREEN), (60, YELLOW), (900, RED)),
                ),
                graph(
                    "Engine errors",
                    "Calls to NATS, S3, PostgreSQL and between our services that failed.",
                    "cps",
                    [Query(rate("paquebot_engine_errors_total", by="engine"), "{{engine}}")],
                    steps=((None, GREEN), (0.1, RED)),
                ),
                graph(
                    "Engine latency",
                    "99 of 100 calls took at most this.",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.99, sum by (le, engine)"
                            " (rate(paquebot_engine_call_seconds_bucket{sel}[$__rate_interval])))",
                            "{{engine}} p99",
                        )
                    ],
                ),
            ),
        ),
        (
            "Pods",
            (
                graph(
                    "Pods by service and version",
                    "Running processes that were scraped.",
                    "short",
                    [Query("count by (service, version) (paquebot_build_info{sel})", "{{service}} {{version}}")],
                    stacked=True,
                    width=8,
                ),
                graph(
                    "Not ready",
                    "Pods whose readiness answer is no, by service.",
                    "short",
                    [
                        Query(
                            "sum by (service) ((1 - paquebot_ready{sel})"
                            " * on (namespace, pod) group_left (service) paquebot_build_info)",
                            "{{service}}",
                        )
                    ],
                    width=8,
                    steps=((None, GREEN), (1, RED)),
                ),
                graph(
                    "CPU and memory",
                    "Cores in use and resident memory, all chosen pods together, by service.",
                    "short",
                    [
                        Query(
                            "sum by (service) (rate(process_cpu_seconds_total{sel}[$__rate_interval])"
                            " * on (namespace, pod) group_left (service) paquebot_build_info)",
                            "{{service}} cores",
                        ),
                        Query(
                            "sum by (service) (process_resident_memory_bytes{sel}"
                            " * on (namespace, pod) group_left (service) paquebot_build_info) / 2^30",
                            "{{service}} GiB",
                        ),
                    ],
                    width=8,
                ),
                graph(
                    "Event loop delay",
                    "Delay of wake-ups of the event loop, by service: above 0.1 s everything is slow.",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.99, sum by (le, service)"
                            " (rate(paquebot_event_loop_delay_seconds_bucket{sel}[$__rate_interval])"
                            " * on (namespace, pod) group_left (service) paquebot_build_info))",
                            "{{service}} p99",
                        )
                    ],
                    steps=((None, GREEN), (0.1, RED)),
                ),
                graph(
                    "Failed probes of dependencies",
                    "The reasons of pods that are not ready.",
                    "cps",
                    [Query(rate("paquebot_probe_failures_total", by="probe"), "{{probe}}")],
                    steps=((None, GREEN), (0.1, RED)),
                ),
                graph(
                    "Background tasks that failed",
                    "Each ended with an unexpected error: see the pod's log.",
                    "short",
                    [
                        Query(
                            "sum by (task) (increase(paquebot_task_failures_total{sel}[$__rate_interval]))", "{{task}}"
                        )
                    ],
                    steps=((None, GREEN), (1, RED)),
                ),
            ),
        ),
    )
