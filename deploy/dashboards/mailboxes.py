"""IMAP and POP3: sessions, commands, bytes and caches."""

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
    rate,
    seen,
    sessions_on_the_loop,
)

POP3_SECONDS = "paquebot_pop3_command_seconds_bucket"
NO_IDLE = 'command!="idle"'
HIT = 'result!="miss"'


def mailboxes() -> dashboard.Dashboard:
    base = board(
        "imap-pop3",
        "IMAP and POP3",
        "Sessions, latency of commands, and failures.",
        "imap|pop3",
    )
    return filled(
        base,
        (
            "Now",
            (
                number("IMAP sessions", "Open connections.", "short", "sum(paquebot_imap_sessions{sel})"),
                number("IDLE", "IMAP sessions in IDLE.", "short", "sum(paquebot_imap_idling_sessions{sel})"),
                number("POP3 sessions", "Open connections.", "short", "sum(paquebot_pop3_sessions{sel})"),
                number(
                    "IMAP commands p95",
                    "From the complete command to its sent completion, without IDLE.",
                    "s",
                    f"histogram_quantile(0.95, {rate('paquebot_imap_command_seconds_bucket', by='le', where=NO_IDLE)})",
                    steps=((None, GREEN), (0.5, YELLOW), (2, RED)),
                ),
                number(
                    "POP3 commands p95",
                    "From the command line to its complete answer.",
                    "s",
                    f"histogram_quantile(0.95, {rate(POP3_SECONDS, by='le')})",
                    steps=((None, GREEN), (0.5, YELLOW), (2, RED)),
                ),
                number(
                    "Unexpected errors",
                    "Commands a second with an unexpected error; the log has an id for each.",
                    "cps",
                    rate("paquebot_imap_unexpected_errors_total")
                    + " + "
                    + rate("paquebot_pop3_unexpected_errors_total"),
                    steps=((None, GREEN), (0.001, RED)),
                ),
            ),
        ),
        (
            "IMAP",
            (
                graph(
                    "Sessions",
                    "By state; IDLE is one of the others.",
                    "short",
                    [
                        Query("sum by (state) (paquebot_imap_sessions{sel})", "{{state}}"),
                        Query("sum(paquebot_imap_idling_sessions{sel})", "in IDLE"),
                    ],
                ),
                sessions_on_the_loop(),
                graph(
                    "Sessions by pod",
                    "The figure that scaling looks at.",
                    "short",
                    [Query("sum by (pod) (paquebot_imap_sessions{sel})", "{{pod}}")],
                ),
                graph(
                    "Commands",
                    "Commands a second by name.",
                    "cps",
                    [Query(seen("paquebot_imap_commands_total", by="command"), "{{command}}")],
                    stacked=True,
                ),
                graph(
                    "Completions",
                    "OK, NO and BAD; `disconnected`: the client left before the end.",
                    "cps",
                    [Query(seen("paquebot_imap_commands_total", by="completion"), "{{completion}}")],
                ),
                graph(
                    "Latency of commands",
                    "95 of 100 took at most this, IDLE left out.",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.95,"
                            f" {rate('paquebot_imap_command_seconds_bucket', by='le, command', where=NO_IDLE)})",
                            "{{command}} p95",
                        )
                    ],
                ),
                graph(
                    "Bytes",
                    "Of FETCH answers and of APPEND.",
                    "Bps",
                    [
                        Query(rate("paquebot_imap_fetched_bytes_total"), "fetched"),
                        Query(rate("paquebot_imap_appended_bytes_total"), "appended"),
                    ],
                ),
                graph(
                    "Logins",
                    "Logins a second by result.",
                    "cps",
                    [Query(seen("paquebot_imap_logins_total", by="result"), "{{result}}")],
                ),
                graph(
                    "Why sessions ended",
                    "`failed` is our fault; `drain` is a pod that ends.",
                    "cps",
                    [Query(seen("paquebot_imap_sessions_ended_total", by="reason"), "{{reason}}")],
                    stacked=True,
                ),
                graph(
                    "Hints for sessions",
                    "Hints received, and checks for changes by their cause.",
                    "cps",
                    [
                        Query(rate("paquebot_imap_hints_total"), "hints"),
                        Query(rate("paquebot_imap_refreshes_total", by="source"), "refreshes: {{source}}"),
                    ],
                ),
                graph(
                    "Body cache",
                    "Share of bodies that were in memory.",
                    "percentunit",
                    [
                        Query(
                            f"{rate('paquebot_imap_body_cache_lookups_total', where=HIT)}"
                            f" / ({rate('paquebot_imap_body_cache_lookups_total')} > 0)",
                            "hits",
                        )
                    ],
                    soft_max=1,
                ),
                graph(
                    "Memory for reading",
                    "Bytes reserved by FETCH and SEARCH; at PAQUEBOT_IMAP_READING, sessions wait for each other.",
                    "bytes",
                    [Query("sum by (pod) (paquebot_imap_reading_bytes{sel})", "{{pod}}")],
                ),
                graph(
                    "Work of SEARCH",
                    "Characters of bodies decoded, and compared with each text of a search, a second.",
                    "short",
                    [Query(rate("paquebot_imap_searched_characters_total"), "characters")],
                ),
            ),
        ),
        (
            "POP3",
            (
                graph(
                    "Sessions",
                    "Open connections by state.",
                    "short",
                    [Query("sum by (state) (paquebot_pop3_sessions{sel})", "{{state}}")],
                ),
                graph(
                    "Commands",
                    "Commands a second by name and result.",
                    "cps",
                    [Query(seen("paquebot_pop3_commands_total", by="command, result"), "{{command}} {{result}}")],
                    stacked=True,
                ),
                graph(
                    "Latency of commands",
                    "95 of 100 took at most this.",
                    "s",
                    [
                        Query(
                            f"histogram_quantile(0.95, {rate(POP3_SECONDS, by='le, command')})",
                            "{{command}} p95",
                        )
                    ],
                ),
                graph(
                    "Messages and bytes",
                    "Messages retrieved and deleted a second.",
                    "mps",
                    [
                        Query(rate("paquebot_pop3_retrieved_bytes_count"), "retrieved"),
                        Query(rate("paquebot_pop3_deleted_messages_total"), "deleted at QUIT"),
                    ],
                ),
                graph(
                    "Bytes",
                    "To and from clients.",
                    "Bps",
                    [
                        Query(rate("paquebot_pop3_sent_bytes_total"), "sent"),
                        Query(rate("paquebot_pop3_received_bytes_total"), "received"),
                    ],
                ),
                graph(
                    "Logins",
                    "By result; `in_use`: another session has the maildrop.",
                    "cps",
                    [Query(seen("paquebot_pop3_logins_total", by="result"), "{{result}}")],
                ),
                graph(
                    "Why sessions ended",
                    "`failed` is our fault; `drain` is a pod that ends.",
                    "cps",
                    [Query(seen("paquebot_pop3_sessions_ended_total", by="reason"), "{{reason}}")],
                    stacked=True,
                ),
                graph(
                    "What went wrong",
                    "Deletions not applied at QUIT, lost leases, unexpected errors.",
                    "cps",
                    [
                        Query(rate("paquebot_pop3_failed_updates_total"), "deletions not applied"),
                        Query(rate("paquebot_pop3_lost_leases_total"), "leases lost"),
                        Query(rate("paquebot_pop3_unexpected_errors_total"), "not foreseen"),
                    ],
                    steps=((None, GREEN), (0.1, RED)),
                ),
            ),
        ),
        (
            "Authentication",
            (
                graph(
                    "Logins at recipient_validation",
                    "By protocol and result, over all pods of the namespace.",
                    "cps",
                    [
                        Query(
                            "sum by (protocol, result)"
                            ' (rate(paquebot_recipient_validation_logins_total{namespace=~"$namespace"}'
                            "[$__rate_interval]))",
                            "{{protocol}} {{result}}",
                        )
                    ],
                ),
                graph(
                    "Logins that no longer hold",
                    "Sessions ended for a disabled or removed account or a changed password; unchecked: the directory"
                    " was silent for too long.",
                    "cps",
                    [
                        Query(
                            "sum by (reason)"
                            ' (rate(paquebot_rpc_ended_logins_total{namespace=~"$namespace"}[$__rate_interval]))',
                            "{{reason}}",
                        )
                    ],
                ),
                graph(
                    "Password hashing",
                    "99 of 100 took at most this: the CPU cost of a login, over all pods of the namespace.",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.99, sum by (le)"
                            ' (rate(paquebot_recipient_validation_hash_seconds_bucket{namespace=~"$namespace"}'
                            "[$__rate_interval])))",
                            "hash p99",
                        )
                    ],
                ),
            ),
        ),
    )
