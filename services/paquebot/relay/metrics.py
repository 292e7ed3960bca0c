"""Metrics of the relay. Labels come from enums; destinations are never labels, for anybody can invent domains."""

from prometheus_client import Counter, Gauge, Histogram

from paquebot.observability.metrics import FAST, SLOW

ATTEMPTS = Counter("paquebot_relay_attempts_total", "Attempts at a job", ["result"])
RECIPIENTS = Counter(
    "paquebot_relay_recipients_total",
    "Recipients after an attempt; status is class.subject of the enhanced status, such as 4.2",
    ["outcome", "status"],
)
REPLIES = Counter("paquebot_relay_replies_total", "Replies of other hosts", ["phase", "class"])
CONNECTIONS = Counter("paquebot_relay_connections_total", "Connections to other hosts", ["result"])
CONNECT_SECONDS = Histogram(
    "paquebot_relay_connect_seconds", "From connecting to a session that takes mail", buckets=FAST
)
TLS = Counter("paquebot_relay_tls_sessions_total", "Sessions opened", ["version", "certificate"])
TLS_FALL_BACKS = Counter("paquebot_relay_tls_fall_backs_total", "Handshakes that failed", ["mode"])
REUSED = Counter("paquebot_relay_connections_reused_total", "Messages over a connection that was open already")
DNS_SECONDS = Histogram("paquebot_relay_dns_seconds", "Time of one name", ["type", "result"], buckets=FAST)
TRANSACTION_SECONDS = Histogram(
    "paquebot_relay_transaction_seconds", "From MAIL to the reply after the message", buckets=SLOW
)
RELAYED_AFTER_SECONDS = Histogram(
    "paquebot_relay_relayed_after_seconds", "From acceptance here to acceptance there", buckets=SLOW
)
OCTETS = Counter("paquebot_relay_octets_total", "Message octets that other hosts took")
SETTLED_AGAIN = Counter("paquebot_relay_settled_again_total", "Settlements that an absent engine made wait")
REPORTS = Counter("paquebot_relay_reports_total", "Notifications to senders", ["action"])
DOUBLE_BOUNCES = Counter("paquebot_relay_double_bounces_total", "Failed messages with the null sender", ["result"])
HELD = Counter("paquebot_relay_held_total", "Jobs put aside", ["reason"])
UNDER_WAY = Gauge("paquebot_relay_attempts_under_way", "Attempts under way")
WAITING = Gauge("paquebot_relay_jobs_waiting", "Jobs taken from the queue and not under way")
DESTINATIONS = Gauge("paquebot_relay_destinations", "Destinations by state", ["state"])
IDLE = Gauge("paquebot_relay_idle_connections", "Open connections that wait for more mail")

_STATUSES = frozenset(f"{kind}.{subject}" for kind in (2, 4, 5) for subject in range(8))


def status_class(status: str) -> str:
    """`4.2.1` → `4.2`; whatever a host invents beyond RFC 3463's subjects becomes `other`."""
    found = status.rpartition(".")[0]
    return found if found in _STATUSES else "other"
