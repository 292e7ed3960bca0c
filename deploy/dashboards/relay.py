"""Relay: mail to other hosts, by destination."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from dashboards.board import GREEN, RED, YELLOW, Query, board, filled, graph, number, quantiles, ranking, rate, seen

DEFERRED, FAILED = 'outcome="deferred"', 'outcome="failed"'
DNS_SECONDS = "paquebot_relay_dns_seconds_bucket"
UNSUCCESSFUL = 'outcome!="delivered"'
RECIPIENTS = "paquebot_relay_recipients_total"
BY_DESTINATION = "paquebot_relay_destination_recipients_total"


def relay() -> dashboard.Dashboard:
    base = board(
        "relay",
        "Relay",
        "Mail to other hosts: accepted, deferred and failed recipients, TLS and DNS.",
        "relay",
    )
    return filled(
        base,
        (
            "Now",
            (
                number(
                    "Due and waiting",
                    "Relay jobs that are due. Deferred jobs wait in JetStream until they are due.",
                    "short",
                    'max(paquebot_queue_pending_jobs{sel, consumer="relay"})',
                    steps=((None, GREEN), (1000, YELLOW), (10000, RED)),
                ),
                number(
                    "Running attempts",
                    "Current sessions with other hosts.",
                    "short",
                    "sum(paquebot_relay_running_attempts{sel})",
                ),
                number("Relayed", "Recipients a second.", "cps", rate(RECIPIENTS, where='outcome="delivered"')),
                number(
                    "Deferred by hosts",
                    "Recipients a second to try again.",
                    "cps",
                    f"{rate(RECIPIENTS, where=DEFERRED)} or vector(0)",
                ),
                number(
                    "Failed",
                    "Recipients a second that hosts refused permanently, or whose lifetime ended.",
                    "cps",
                    f"{rate(RECIPIENTS, where=FAILED)} or vector(0)",
                ),
                number(
                    "Paused destinations",
                    "Not tried for a while, because their hosts failed.",
                    "short",
                    'sum(paquebot_relay_destinations{sel, state="resting"})',
                    steps=((None, GREEN), (1, YELLOW)),
                ),
            ),
        ),
        (
            "Destinations",
            (
                graph(
                    "Recipients by destination",
                    "Recipients tried a second; recent destinations by name, all others together.",
                    "cps",
                    [Query(rate(BY_DESTINATION, by="destination"), "{{destination}}")],
                    stacked=True,
                ),
                graph(
                    "Share of recipients not accepted",
                    "Deferred or refused, of all recipients tried at a destination; the line is the alert.",
                    "percentunit",
                    [
                        Query(
                            f"{rate(BY_DESTINATION, by='destination', where=UNSUCCESSFUL)}"
                            f" / ({rate(BY_DESTINATION, by='destination')} > 0)",
                            "{{destination}}",
                        )
                    ],
                    steps=((None, GREEN), (0.5, RED)),
                    soft_max=1,
                ),
                ranking(
                    "Jobs by destination",
                    "Taken from the queue and waiting for their turn.",
                    "short",
                    Query(
                        "topk(20, sum by (destination) (paquebot_relay_destination_waiting_jobs{sel}))",
                        "{{destination}}",
                    ),
                    steps=((None, GREEN), (1000, YELLOW), (10000, RED)),
                ),
                graph(
                    "Unreachable",
                    "Attempts in which no host of the destination could be used.",
                    "cps",
                    [Query(rate("paquebot_relay_destination_unreachable_total", by="destination"), "{{destination}}")],
                ),
                graph(
                    "For later",
                    "Jobs that other hosts deferred; JetStream publishes them again when they are due.",
                    "short",
                    [Query('max(paquebot_queue_scheduled_jobs{sel, consumer="relay"})', "scheduled")],
                ),
                graph(
                    "Destinations",
                    "How many are tried, and how many are paused after failures.",
                    "short",
                    [Query("sum by (state) (paquebot_relay_destinations{sel})", "{{state}}")],
                ),
            ),
        ),
        (
            "Attempts",
            (
                graph(
                    "Attempts by result",
                    "Attempts a second at a job.",
                    "cps",
                    [Query(seen("paquebot_relay_attempts_total", by="result"), "{{result}}")],
                    stacked=True,
                ),
                graph(
                    "Recipients by outcome and status",
                    "Class and subject of the enhanced status (RFC 3463): 4.7 is a policy, 4.4 the network.",
                    "cps",
                    [Query(seen(RECIPIENTS, by="outcome, status"), "{{outcome}} {{status}}")],
                    stacked=True,
                ),
                graph(
                    "Replies of other hosts",
                    "By phase of the conversation and class of the code.",
                    "cps",
                    [Query(seen("paquebot_relay_replies_total", by="phase, class"), "{{phase}} {{class}}")],
                ),
                graph(
                    "Time to other hosts",
                    "From acceptance here to acceptance there.",
                    "s",
                    quantiles("paquebot_relay_latency_seconds"),
                ),
                graph(
                    "Transaction",
                    "From MAIL to the reply after DATA.",
                    "s",
                    quantiles("paquebot_relay_transaction_seconds"),
                ),
                graph(
                    "Notifications and held jobs",
                    "Notifications to senders, and jobs held for an operator.",
                    "cps",
                    [
                        Query(rate("paquebot_relay_reports_total", by="action"), "report: {{action}}"),
                        Query(rate("paquebot_relay_held_jobs_total", by="reason"), "held: {{reason}}"),
                        Query(rate("paquebot_relay_double_bounces_total", by="result"), "double bounce: {{result}}"),
                    ],
                ),
            ),
        ),
        (
            "Connections",
            (
                graph(
                    "Connections",
                    "To other hosts, by result; and messages over an open connection.",
                    "cps",
                    [
                        Query(seen("paquebot_relay_connections_total", by="result"), "{{result}}"),
                        Query(rate("paquebot_relay_connections_reused_total"), "reused"),
                    ],
                ),
                graph(
                    "Time to an SMTP session",
                    "Connect, greeting, EHLO and STARTTLS.",
                    "s",
                    quantiles("paquebot_relay_connect_seconds"),
                ),
                graph(
                    "TLS",
                    "Sessions by version and by the validity of the certificate; and handshakes that failed.",
                    "cps",
                    [
                        Query(
                            seen("paquebot_relay_tls_sessions_total", by="version, certificate"),
                            "{{version}} {{certificate}}",
                        ),
                        Query(rate("paquebot_relay_tls_fallbacks_total", by="mode"), "failed: {{mode}}"),
                    ],
                ),
                graph(
                    "DNS",
                    "99 of 100 names took at most this, by type and result.",
                    "s",
                    [
                        Query(
                            f"histogram_quantile(0.99, {rate(DNS_SECONDS, by='le, type, result')})",
                            "{{type}} {{result}} p99",
                        )
                    ],
                ),
                graph(
                    "Bytes",
                    "Message bytes a second that other hosts accepted.",
                    "Bps",
                    [Query(rate("paquebot_relay_relayed_bytes_total"), "bytes")],
                ),
                graph(
                    "Changed for a host",
                    "Messages a second sent in another form than stored: to 7 bits, with short lines,"
                    " a header in ASCII, or long lines in chunks.",
                    "cps",
                    [Query(rate("paquebot_relay_converted_messages_total", by="conversion"), "{{conversion}}")],
                ),
                graph(
                    "Slots",
                    "Running attempts, and their limits. `all` includes unproven attempts, but not slow ones.",
                    "percentunit",
                    [
                        Query(
                            "sum by (kind) (paquebot_relay_slots_used{sel})"
                            " / sum by (kind) (paquebot_relay_slots{sel})",
                            "{{kind}}",
                        )
                    ],
                ),
                graph(
                    "Requeued",
                    "Jobs a second requeued without an attempt, by reason; promoted past a backlog;"
                    " slow attempts displaced by newer ones; suppressed notifications of success.",
                    "cps",
                    [
                        Query(rate("paquebot_relay_requeued_jobs_total", by="reason"), "{{reason}}"),
                        Query(rate("paquebot_relay_promoted_jobs_total"), "promoted"),
                        Query(rate("paquebot_relay_displaced_attempts_total"), "displaced"),
                        Query(rate("paquebot_notification_suppressed_total", by="limit"), "suppressed: {{limit}}"),
                    ],
                ),
                graph(
                    "Open connections and waiting jobs",
                    "Idle connections, running attempts, jobs that wait for an attempt.",
                    "short",
                    [
                        Query("sum(paquebot_relay_idle_connections{sel})", "idle connections"),
                        Query("sum(paquebot_relay_running_attempts{sel})", "attempts"),
                        Query("sum(paquebot_relay_waiting_jobs{sel})", "jobs waiting"),
                    ],
                ),
            ),
        ),
    )
