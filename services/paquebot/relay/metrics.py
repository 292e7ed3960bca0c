"""Metrics of relay. Labels come from enums; a bounded number of destinations has a label (`DestinationLabels`), for
anyone can invent domains."""

import enum

from paquebot.message import Action
from paquebot.observability.metrics import (
    FAST,
    SLOW,
    TLS_VERSIONS,
    Across,
    Bounded,
    by_member,
    counter,
    gauge,
    histogram,
)
from paquebot.relay.outcome import RelayResult
from paquebot.relay.smtp_client.tls import TlsMode


class AttemptResult(enum.Enum):
    """The result of an attempt at a job."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"
    MIXED = "mixed"
    """Recipients of one job have different results."""
    UNREACHABLE = "unreachable"
    """No host of the destination could be used."""
    RESTING = "resting"
    """Not tried: the destination was unreachable shortly before."""
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ERROR = "error"


class ConnectionResult(enum.Enum):
    """The result of connecting to a host."""

    OK = "ok"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    REJECTED = "rejected"
    """By its greeting or its reply to EHLO."""
    BROKEN = "broken"
    TLS = "tls"
    LOGIN = "login"


class DestinationState(enum.Enum):
    """The state of a destination."""

    ACTIVE = "active"
    SLOW = "slow"
    """It has an attempt that lasts longer than PAQUEBOT_RELAY_SLOW_AFTER."""
    RESTING = "resting"


class SlotKind(enum.Enum):
    """The bound that an attempt counts for."""

    ALL = "all"
    UNPROVEN = "unproven"
    """Among these: for destinations that have not answered lately."""
    SLOW = "slow"
    """Beside these: attempts that last longer than PAQUEBOT_RELAY_SLOW_AFTER."""


class RequeueReason(enum.Enum):
    """Why a job was requeued without an attempt."""

    RESTING = "resting"
    """The destination was unreachable shortly before."""
    OVER_SHARE = "over_share"
    """The destination or the sender has enough claimed jobs."""
    BUSY = "busy"
    """The destination's hosts have as many attempts as they may have, for other domains too."""
    DUPLICATE = "duplicate"
    """The same job is claimed already."""


class Conversion(enum.Enum):
    """How a message was converted for a host that could not take it as stored."""

    SEVEN_BIT = "seven_bit"
    SHORT_LINES = "short_lines"
    ASCII_HEADER = "ascii_header"
    """A header in UTF-8, for a host without SMTPUTF8."""
    CHUNKS = "chunks"
    """Its long lines as they are, with BDAT."""


class HoldReason(enum.Enum):
    """Why a job was held."""

    POISON = "poison"
    BLOB = "blob"
    """Its message is missing in S3 or damaged."""
    UNREADABLE = "unreadable"


_STATUSES = tuple(f"{kind}.{subject}" for kind in (2, 4, 5) for subject in range(8))
_DESTINATION = Bounded(
    "at most PAQUEBOT_RELAY_DESTINATION_LABELS, those in PAQUEBOT_RELAY_DESTINATION_LABELS_ALWAYS always; the"
    " least recently used makes room; all further ones together are `other`"
)

ATTEMPTS = counter("paquebot_relay_attempts_total", "Attempts at a job, by result", {"result": AttemptResult})
RECIPIENTS = counter(
    "paquebot_relay_recipients_total",
    "Recipients after an attempt; status is class.subject of the enhanced status (RFC 3463), such as 4.2",
    {"outcome": RelayResult, "status": (*_STATUSES, "other")},
)
REPLIES = counter(
    "paquebot_relay_replies_total",
    "Replies of other hosts within a transaction, by class of code",
    {"phase": ("MAIL", "RCPT", "DATA", "message"), "class": ("2xx", "3xx", "4xx", "5xx")},
)
CONNECTIONS = counter(
    "paquebot_relay_connections_total", "Connections to other hosts, by result", {"result": ConnectionResult}
)
CONNECT_SECONDS = histogram("paquebot_relay_connect_seconds", "From connecting to an open session", buckets=FAST)
TLS = counter(
    "paquebot_relay_tls_sessions_total",
    "Sessions opened, by TLS version; none: in the clear",
    {
        "version": (*TLS_VERSIONS, "none"),
        "certificate": (TlsMode.VERIFIED.value, TlsMode.UNVERIFIED.value, "none"),
    },
)
TLS_FALLBACKS = counter("paquebot_relay_tls_fallbacks_total", "TLS handshakes that failed, by mode", {"mode": TlsMode})
REUSED = counter("paquebot_relay_connections_reused_total", "Messages sent over an open connection")
DNS_SECONDS = histogram(
    "paquebot_relay_dns_seconds",
    "Time of one DNS query; not_found: no such name or record",
    {"type": ("MX", "A", "AAAA"), "result": ("ok", "not_found", "no_answer")},
    buckets=FAST,
)
TRANSACTION_SECONDS = histogram(
    "paquebot_relay_transaction_seconds", "From MAIL to the reply after the message", buckets=SLOW
)
LATENCY_SECONDS = histogram(
    "paquebot_relay_latency_seconds", "From acceptance by this platform to acceptance by the other host", buckets=SLOW
)
BYTES = counter("paquebot_relay_relayed_bytes_total", "Bytes of messages that other hosts accepted")
CONVERTED = counter(
    "paquebot_relay_converted_messages_total",
    "Messages sent in another form than the stored one",
    {"conversion": Conversion},
)
SETTLEMENT_RETRIES = counter("paquebot_relay_settlement_retries_total", "Settlements repeated because of an outage")
REPORTS = counter(
    "paquebot_relay_reports_total",
    "Notifications to senders (RFC 3464), failed ones are bounces; undeliverable: mail to the sender is not accepted",
    {"action": (Action.FAILED.value, Action.DELAYED.value, Action.RELAYED.value, "undeliverable")},
)
DOUBLE_BOUNCES = counter(
    "paquebot_relay_double_bounces_total", "Failed messages with the null sender", {"result": ("dropped", "reported")}
)
HELD = counter("paquebot_relay_held_jobs_total", "Jobs held for an operator, by reason", {"reason": HoldReason})
RUNNING = gauge("paquebot_relay_running_attempts", "Running attempts of this process, slow ones included")
SLOTS = gauge("paquebot_relay_slots", "Maximum running attempts of this process", {"kind": SlotKind})
SLOTS_USED = gauge("paquebot_relay_slots_used", "Running attempts of this process", {"kind": SlotKind})
REQUEUED = counter(
    "paquebot_relay_requeued_jobs_total",
    "Jobs requeued without an attempt, by reason",
    {"reason": RequeueReason},
)
PROMOTED = counter("paquebot_relay_promoted_jobs_total", "Jobs moved ahead of a backlog for an idle destination")
DISPLACED = counter("paquebot_relay_displaced_attempts_total", "Slow attempts ended to free their slots for newer ones")
WAITING = gauge("paquebot_relay_waiting_jobs", "Jobs claimed by this process that wait for an attempt")
DESTINATIONS = gauge("paquebot_relay_destinations", "Destinations by state", {"state": DestinationState})
IDLE = gauge("paquebot_relay_idle_connections", "Open connections that wait for another message")

DESTINATION_RECIPIENTS = counter(
    "paquebot_relay_destination_recipients_total",
    "Recipients after an attempt that was made, by destination; an expired one counts as deferred here",
    {"destination": _DESTINATION, "outcome": RelayResult},
)
DESTINATION_UNREACHABLE = counter(
    "paquebot_relay_destination_unreachable_total",
    "Attempts in which no host of the destination could be used",
    {"destination": _DESTINATION},
)
DESTINATION_WAITING = gauge(
    "paquebot_relay_destination_waiting_jobs",
    "Jobs claimed by this process that wait for an attempt, by destination",
    {"destination": _DESTINATION},
)
DESTINATION_RESTING = gauge(
    "paquebot_relay_destination_resting",
    "1 while the destination rests because it was unreachable; other: the number of those that rest",
    {"destination": _DESTINATION},
    across=Across.MAX,
)

REQUEUED_BY_REASON = by_member(REQUEUED, RequeueReason)
CONNECTION = by_member(CONNECTIONS, ConnectionResult)
ATTEMPT = by_member(ATTEMPTS, AttemptResult)


def status_class(status: str) -> str:
    """`4.2.1` → `4.2`; subjects beyond those of RFC 3463 become `other`."""
    found = status.rpartition(".")[0]
    return found if found in _STATUSES else "other"
