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
    ENGINE_AWAY = "engine_away"
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


class PutBackReason(enum.Enum):
    """Why a job was put back for later without an attempt."""

    RESTING = "resting"
    """The destination was unreachable shortly before."""
    CROWDED = "crowded"
    """The destination or the sender has enough claimed jobs."""
    BUSY = "busy"
    """The destination's hosts have as many attempts as they may have, for other domains too."""
    TWICE = "twice"
    """The same job is claimed already."""


class MessageChange(enum.Enum):
    """How a message was changed for a host that could not take it as stored."""

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
_SHOWN = Bounded(
    "PAQUEBOT_RELAY_SHOWN (those in PAQUEBOT_RELAY_SHOW always, others as they come, the longest unused makes room);"
    " all further ones together are `other`"
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
CONNECT_SECONDS = histogram(
    "paquebot_relay_connect_seconds", "From connecting to a session that takes mail", buckets=FAST
)
TLS = counter(
    "paquebot_relay_tls_sessions_total",
    "Sessions opened, by TLS version; none: in the clear",
    {
        "version": (*TLS_VERSIONS, "none"),
        "certificate": (TlsMode.VERIFIED.value, TlsMode.UNVERIFIED.value, "none"),
    },
)
TLS_FALL_BACKS = counter("paquebot_relay_tls_fall_backs_total", "TLS handshakes that failed", {"mode": TlsMode})
REUSED = counter("paquebot_relay_connections_reused_total", "Messages sent over an open connection")
DNS_SECONDS = histogram(
    "paquebot_relay_dns_seconds",
    "Time of one DNS query; denied: no such name or record, away: no answer",
    {"type": ("MX", "A", "AAAA"), "result": ("ok", "denied", "away")},
    buckets=FAST,
)
TRANSACTION_SECONDS = histogram(
    "paquebot_relay_transaction_seconds", "From MAIL to the reply after the message", buckets=SLOW
)
RELAYED_AFTER_SECONDS = histogram(
    "paquebot_relay_relayed_after_seconds", "From acceptance here to acceptance there", buckets=SLOW
)
BYTES = counter("paquebot_relay_relayed_bytes_total", "Bytes of messages that other hosts took")
CHANGED = counter(
    "paquebot_relay_changed_messages_total",
    "Messages that other hosts took in another form than the stored one",
    {"change": MessageChange},
)
SETTLED_AGAIN = counter("paquebot_relay_settled_again_total", "Settlements of an attempt that waited for an engine")
REPORTS = counter(
    "paquebot_relay_reports_total",
    "Notifications to senders (RFC 3464), failed ones are bounces; undeliverable: mail to the sender is not accepted",
    {"action": (Action.FAILED.value, Action.DELAYED.value, Action.RELAYED.value, "undeliverable")},
)
DOUBLE_BOUNCES = counter(
    "paquebot_relay_double_bounces_total", "Failed messages with the null sender", {"result": ("dropped", "reported")}
)
HELD = counter("paquebot_relay_held_jobs_total", "Jobs held for an operator, by reason", {"reason": HoldReason})
UNDER_WAY = gauge("paquebot_relay_attempts_under_way", "Attempts under way in this process, slow ones too")
SLOTS = gauge("paquebot_relay_slots", "Maximum attempts under way in this process", {"slots": SlotKind})
SLOTS_USED = gauge("paquebot_relay_slots_used", "Attempts under way in this process", {"slots": SlotKind})
PUT_BACK = counter(
    "paquebot_relay_put_back_jobs_total",
    "Jobs put back for later without an attempt, by reason",
    {"reason": PutBackReason},
)
AHEAD = counter("paquebot_relay_ahead_jobs_total", "Jobs moved ahead of a backlog for an idle destination")
CUT = counter("paquebot_relay_cut_attempts_total", "Slow attempts ended to make room for newer ones")
WAITING = gauge("paquebot_relay_waiting_jobs", "Jobs claimed by this process and not under way")
DESTINATIONS = gauge("paquebot_relay_destinations", "Destinations by state", {"state": DestinationState})
IDLE = gauge("paquebot_relay_idle_connections", "Open connections that wait for another message")

DESTINATION_RECIPIENTS = counter(
    "paquebot_relay_destination_recipients_total",
    "Recipients after an attempt that was made, by destination; an expired one counts as deferred here",
    {"destination": _SHOWN, "outcome": RelayResult},
)
DESTINATION_UNREACHABLE = counter(
    "paquebot_relay_destination_unreachable_total",
    "Attempts in which no host of the destination could be used",
    {"destination": _SHOWN},
)
DESTINATION_WAITING = gauge(
    "paquebot_relay_destination_waiting_jobs",
    "Jobs claimed by this process and not under way, by destination",
    {"destination": _SHOWN},
)
DESTINATION_RESTING = gauge(
    "paquebot_relay_destination_resting",
    "1 while the destination rests because it was unreachable; other: the number of those that rest",
    {"destination": _SHOWN},
    across=Across.MAX,
)

PUT_BACKS = by_member(PUT_BACK, PutBackReason)
CONNECTION = by_member(CONNECTIONS, ConnectionResult)
ATTEMPT = by_member(ATTEMPTS, AttemptResult)


def status_class(status: str) -> str:
    """`4.2.1` → `4.2`; subjects beyond those of RFC 3463 become `other`."""
    found = status.rpartition(".")[0]
    return found if found in _STATUSES else "other"
