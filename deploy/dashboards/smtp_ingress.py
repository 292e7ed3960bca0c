"""SMTP ingress: connections, commands and replies, and the time to store a message."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from dashboards.board import (
    GREEN,
    RED,
    YELLOW,
    Query,
    board,
    filled,
    graph,
    number,
    quantiles,
    rate,
    seen,
    sessions_on_the_loop,
)

MESSAGES = "paquebot_smtp_messages_total"


def smtp_ingress() -> dashboard.Dashboard:
    base = board(
        "smtp-ingress",
        "SMTP ingress",
        "Connections, accepted, rejected and deferred mail, and the time to store it.",
        "smtp_ingress|recipient_validation",
    )
    return filled(
        base,
        (
            "Now",
            (
                number("Sessions", "Open SMTP connections.", "short", "sum(paquebot_smtp_open_sessions{sel})"),
                number("Accepted", "Messages a second answered 250.", "mps", rate(MESSAGES, where='result="accepted"')),
                number("Rejected", "Messages a second answered 5xx.", "mps", rate(MESSAGES, where='result="rejected"')),
                number(
                    "Deferred",
                    "Messages a second answered 4xx: we could not store them.",
                    "mps",
                    rate(MESSAGES, where='result="deferred"'),
                    steps=((None, GREEN), (0.01, RED)),
                ),
                number(
                    "Acceptance p99",
                    "From the end of the message to the reply.",
                    "s",
                    f"histogram_quantile(0.99, {rate('paquebot_smtp_accept_seconds_bucket', by='le')})",
                    steps=((None, GREEN), (1, YELLOW), (5, RED)),
                ),
                number(
                    "Certificate expires in",
                    "The shortest time among the pods.",
                    "s",
                    "min(paquebot_tls_certificate_not_after_timestamp_seconds{sel}) - time()",
                    steps=((None, RED), (2 * 86400, YELLOW), (14 * 86400, GREEN)),
                ),
            ),
        ),
        (
            "Messages",
            (
                graph(
                    "Messages",
                    "Messages a second by listener and answer.",
                    "mps",
                    [Query(rate(MESSAGES, by="listener, result"), "{{listener}} {{result}}")],
                    stacked=True,
                ),
                graph(
                    "Recipients",
                    "RCPT commands a second by answer.",
                    "cps",
                    [Query(rate("paquebot_smtp_recipients_total", by="result"), "{{result}}")],
                    stacked=True,
                ),
                graph(
                    "From the end of the message to the reply",
                    "By listener; the sender waits this long for 250.",
                    "s",
                    quantiles("paquebot_smtp_accept_seconds", by="listener"),
                    steps=((None, GREEN), (1, YELLOW), (5, RED)),
                ),
                graph(
                    "Group commit",
                    "How long one took: a pack to S3, then its jobs to JetStream.",
                    "s",
                    quantiles("paquebot_spool_commit_seconds", name="commit"),
                ),
                graph(
                    "Size of accepted messages",
                    "Half, 95 % and 99 % are at most this large.",
                    "bytes",
                    quantiles("paquebot_smtp_message_bytes"),
                ),
                graph(
                    "Message bytes in memory",
                    "Bounded for each process; above the limit senders get a 452 and try again.",
                    "bytes",
                    [
                        Query("sum by (pod) (paquebot_in_flight_bytes{sel})", "{{pod}}"),
                        Query("max(paquebot_in_flight_limit_bytes{sel})", "bound of a pod"),
                    ],
                ),
                graph(
                    "Messages refused for memory",
                    "Refused with 452 during DATA, because smaller senders needed the memory. If it lasts: an attack.",
                    "cps",
                    [Query(rate("paquebot_smtp_messages_displaced_total"), "messages")],
                ),
            ),
        ),
        (
            "Sessions",
            (
                sessions_on_the_loop(),
                graph(
                    "Open sessions",
                    "By pod and listener: the figure that scaling looks at.",
                    "short",
                    [Query("sum by (pod, listener) (paquebot_smtp_open_sessions{sel})", "{{pod}} {{listener}}")],
                ),
                graph(
                    "Why sessions ended",
                    "Sessions a second. `failed`: a fault of ours; `disconnected`: of the client or the network.",
                    "cps",
                    [Query(seen("paquebot_smtp_sessions_ended_total", by="reason"), "{{reason}}")],
                    stacked=True,
                ),
                graph(
                    "Replies",
                    "By the first digit of the code.",
                    "cps",
                    [Query(rate("paquebot_smtp_replies_total", by="class"), "{{class}}")],
                ),
                graph(
                    "Commands",
                    "Commands a second by verb.",
                    "cps",
                    [Query(seen("paquebot_smtp_commands_total", by="verb"), "{{verb}}")],
                ),
                graph(
                    "Refused connections and incidents",
                    "Connections over a limit, and unexpected errors: answered with 451 on MX, 554 on submission.",
                    "cps",
                    [
                        Query(rate("paquebot_smtp_refused_connections_total", by="listener"), "refused {{listener}}"),
                        Query(rate("paquebot_smtp_unexpected_errors_total"), "incidents"),
                    ],
                    steps=((None, GREEN), (0.1, RED)),
                ),
                graph(
                    "TLS",
                    "TLS sessions by version; `failed` had no handshake.",
                    "cps",
                    [
                        Query(
                            seen("paquebot_smtp_tls_sessions_total", by="listener, version"), "{{listener}} {{version}}"
                        )
                    ],
                ),
            ),
        ),
        (
            "Senders and recipients",
            (
                graph(
                    "Logins",
                    "SMTP AUTH by mechanism and result.",
                    "cps",
                    [Query(seen("paquebot_smtp_logins_total", by="mechanism, result"), "{{mechanism}} {{result}}")],
                ),
                graph(
                    "Verdicts on recipients",
                    "The answers of recipient_validation.",
                    "cps",
                    [Query(seen("paquebot_recipient_validation_verdicts_total", by="verdict"), "{{verdict}}")],
                ),
                graph(
                    "gRPC calls of recipient_validation",
                    "Calls a second by method and status code.",
                    "cps",
                    [
                        Query(
                            seen("paquebot_recipient_validation_calls_total", by="method, code"), "{{method}} {{code}}"
                        ),
                        Query(rate("paquebot_recipient_validation_unexpected_errors_total"), "not foreseen"),
                    ],
                ),
                graph(
                    "gRPC latency of recipient_validation",
                    "99 of 100 calls took at most this.",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.99, sum by (le, method)"
                            " (rate(paquebot_recipient_validation_call_seconds_bucket{sel}[$__rate_interval])))",
                            "{{method}} p99",
                        )
                    ],
                ),
                graph(
                    "Calls refused by recipient_validation",
                    "By caller. rights: not allowed; share: too many calls of one client at once.",
                    "cps",
                    [
                        Query(
                            rate("paquebot_recipient_validation_refused_calls_total", by="caller, reason"),
                            "{{caller}} {{reason}}",
                        )
                    ],
                ),
            ),
        ),
    )
