"""Storage cost: S3 requests for each 1,000 messages."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from dashboards.board import GREEN, RED, YELLOW, Query, board, filled, graph, number, quantiles, rate, seen

WRITTEN = "paquebot_s3_written_bytes_total"
READS = 'call=~"get|stat|list"'
PUT = 'call="put"'
REQUESTS = "paquebot_s3_requests_total"
S3 = 'engine="s3"'
PACKED = "paquebot_spool_pack_messages_sum"
PACKS = "paquebot_spool_pack_messages_count"


def _range(metric: str, where: str = "") -> str:
    return f"sum(increase({metric}{{sel{', ' + where if where else ''}}}[$__range]))"


def storage_cost() -> dashboard.Dashboard:
    base = board(
        "storage-cost",
        "Storage cost",
        "S3 requests and bytes for each 1,000 messages stored, and how full packs are.",
        ".*",
    )
    per_thousand = f"1000 / ({_range(PACKED)} > 0)"
    return filled(
        base,
        (
            "For each 1,000 messages, over the time shown",
            (
                number(
                    "PUT requests",
                    "One object for each message would be 1,000.",
                    "short",
                    _range(REQUESTS, PUT) + " * " + per_thousand,
                    steps=((None, GREEN), (200, YELLOW), (1000, RED)),
                    decimals=1,
                ),
                number(
                    "GET requests",
                    "Reads by IMAP, POP3, relay and janitor.",
                    "short",
                    f"({_range(REQUESTS, READS)} or vector(0)) * {per_thousand}",
                    decimals=1,
                ),
                number(
                    "Bytes written",
                    "Compressed packs with their index.",
                    "bytes",
                    _range("paquebot_s3_written_bytes_total") + " * " + per_thousand,
                    decimals=1,
                ),
                number(
                    "Bytes read",
                    "As stored, before they are expanded.",
                    "bytes",
                    _range("paquebot_s3_read_bytes_total") + " * " + per_thousand,
                    decimals=1,
                ),
                number(
                    "Messages in a pack",
                    "The mean: the more, the cheaper.",
                    "short",
                    f"{_range(PACKED)} / ({_range(PACKS)} > 0)",
                    decimals=1,
                ),
                number(
                    "Stored against accepted",
                    "Bytes written for each byte of accepted messages; below 1 thanks to compression.",
                    "percentunit",
                    f"{_range(WRITTEN)} / ({_range('paquebot_spool_message_bytes_total')} > 0)",
                    decimals=0,
                ),
            ),
        ),
        (
            "Requests",
            (
                graph(
                    "S3 requests",
                    "Requests a second by kind, repeated ones included: what a provider bills.",
                    "reqps",
                    [Query(seen(REQUESTS, by="call"), "{{call}}")],
                    stacked=True,
                ),
                graph(
                    "S3 requests by service",
                    "Who causes them.",
                    "reqps",
                    [
                        Query(
                            f"sum by (service) (rate({REQUESTS}{{sel}}[$__rate_interval])"
                            " * on (namespace, pod) group_left (service) paquebot_build_info)",
                            "{{service}}",
                        )
                    ],
                    stacked=True,
                ),
                graph(
                    "S3 latency",
                    "99 of 100 requests took at most this.",
                    "s",
                    [
                        Query(
                            "histogram_quantile(0.99,"
                            f" {rate('paquebot_engine_call_seconds_bucket', by='le, call', where=S3)})",
                            "{{call}} p99",
                        )
                    ],
                ),
                graph(
                    "S3 errors",
                    "Requests that failed, by kind.",
                    "reqps",
                    [Query(rate("paquebot_engine_errors_total", by="call", where=S3), "{{call}}")],
                    steps=((None, GREEN), (0.1, RED)),
                ),
                graph(
                    "Damaged answers",
                    "Not what was written; each is read again. Unreadable: damaged at the second reading too.",
                    "reqps",
                    [
                        Query(rate("paquebot_s3_damaged_reads_total", by="check"), "{{check}}"),
                        Query(rate("paquebot_s3_unreadable_total", by="kind"), "unreadable {{kind}}"),
                    ],
                    steps=((None, GREEN), (0.001, RED)),
                ),
                graph(
                    "Bytes",
                    "To and from S3.",
                    "Bps",
                    [
                        Query(rate("paquebot_s3_written_bytes_total"), "written"),
                        Query(rate("paquebot_s3_read_bytes_total"), "read"),
                    ],
                ),
                graph(
                    "PUT requests for each 1,000 messages",
                    "Over time; one object for each message would be 1,000.",
                    "short",
                    [
                        Query(
                            f"1000 * {rate(REQUESTS, where=PUT)} / ({rate(PACKED)} > 0)",
                            "PUT",
                        )
                    ],
                ),
            ),
        ),
        (
            "Kept",
            (
                graph(
                    "Mail in mailboxes",
                    "Before compression, a copy in another mailbox counted again.",
                    "bytes",
                    [Query("max(paquebot_mailstore_bytes{sel})", "bytes")],
                ),
                graph(
                    "Messages in mailboxes",
                    "Counted every five minutes.",
                    "short",
                    [
                        Query("max(paquebot_mailstore_messages{sel})", "messages"),
                        Query("max(paquebot_mailstore_accounts{sel})", "accounts"),
                    ],
                ),
                graph(
                    "Skipped by upkeep",
                    "Accounts, packs and rows that the janitor's newest run skipped or repaired, by stage; and rows a"
                    " second that services read with another value, or not at all.",
                    "short",
                    [
                        Query("max by (stage) (paquebot_mailstore_upkeep_failures{sel})", "{{stage}}"),
                        Query(rate("paquebot_mailstore_bad_rows_total", by="result"), "{{result}} a second"),
                    ],
                    steps=((None, GREEN), (1, RED)),
                ),
            ),
        ),
        (
            "Packs",
            (
                graph(
                    "Messages in a pack",
                    "Pack fill: half, 95 % and 99 % of packs have at most this many.",
                    "short",
                    quantiles("paquebot_spool_pack_messages"),
                ),
                graph(
                    "Size of a pack",
                    "As stored; at most 8 MiB, unless one message is larger.",
                    "bytes",
                    quantiles("paquebot_spool_pack_bytes"),
                ),
                graph(
                    "Commits",
                    "By result. Messages of a failed one get a 451; the janitor deletes its pack.",
                    "cps",
                    [Query(rate("paquebot_spool_commits_total", by="result"), "{{result}}")],
                ),
                graph(
                    "Waiting for a commit",
                    "Messages whose senders wait for 250.",
                    "short",
                    [Query("sum by (pod) (paquebot_spool_waiting_messages{sel})", "{{pod}}")],
                ),
            ),
        ),
    )
