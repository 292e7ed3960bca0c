"""Metrics of the POP3 service. Label values come from enums and the types of the grammar, never from a client."""

import enum
from typing import get_args

from paquebot.observability.metrics import FAST, SIZES, TLS_VERSIONS, by_member, counter, gauge, histogram
from paquebot.wire import pop3


class SessionEnd(enum.Enum):
    """Why a session ended."""

    QUIT = "quit"
    DISCONNECTED = "disconnected"
    INACTIVE = "inactive"
    DRAIN = "drain"
    LOGIN_ENDED = "login_ended"
    ERRORS = "errors"
    REFUSED = "refused"
    DISPLACED = "displaced"
    LEASE_LOST = "lease_lost"
    FAILED = "failed"


class LoginResult(enum.Enum):
    """The result of a login."""

    OK = "ok"
    INVALID = "invalid"
    DISABLED = "disabled"
    RATE_LIMITED = "rate_limited"
    IN_USE = "in_use"


class CommandResult(enum.Enum):
    """The reply to a command."""

    OK = "ok"
    ERR = "err"
    DISCONNECTED = "disconnected"


class StateLabel(enum.Enum):
    """RFC 1939 §3"""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"
    UPDATE = "update"


COMMAND_NAMES = (*sorted(command.__name__.lower() for command in get_args(pop3.Command)), "malformed")

SESSIONS = gauge("paquebot_pop3_sessions", "Open sessions, by state (RFC 1939 §3)", {"state": StateLabel})
SESSIONS_ENDED = counter("paquebot_pop3_sessions_ended_total", "Sessions ended, by reason", {"reason": SessionEnd})
TLS = counter("paquebot_pop3_tls_sessions_total", "TLS sessions, by version", {"version": TLS_VERSIONS})
LOGINS = counter(
    "paquebot_pop3_logins_total", "Logins, by result; in_use: another session has the maildrop", {"result": LoginResult}
)
COMMANDS = counter(
    "paquebot_pop3_commands_total",
    "Commands, by name and result; disconnected: before the end of the reply",
    {"command": COMMAND_NAMES, "result": CommandResult},
)
COMMAND_SECONDS = histogram(
    "paquebot_pop3_command_seconds",
    "From the line of a command to the end of its reply",
    {"command": COMMAND_NAMES},
    buckets=FAST,
)
RECEIVED = counter("paquebot_pop3_received_bytes_total", "Bytes received from clients, counted at the session's end")
SENT = counter("paquebot_pop3_sent_bytes_total", "Bytes sent to clients, counted at the session's end")
RETRIEVED = histogram("paquebot_pop3_retrieved_bytes", "Sizes of the messages retrieved", buckets=SIZES)
DELETED = counter("paquebot_pop3_deleted_messages_total", "Messages deleted at QUIT")
UPDATES_FAILED = counter("paquebot_pop3_failed_updates_total", "QUITs whose deletions were not applied")
PREFETCH = counter(
    "paquebot_pop3_prefetches_total",
    "Messages retrieved; hit: they had been read ahead",
    {"result": ("hit", "miss")},
)
LEASES_LOST = counter("paquebot_pop3_lost_leases_total", "Sessions ended because another one took their maildrop")
UNEXPECTED = counter("paquebot_pop3_unexpected_errors_total", "Commands that failed with an unexpected error")

# Children are looked up once: labels() costs more than inc().
SESSIONS_BY_STATE = by_member(SESSIONS, StateLabel)
COMMANDS_BY_RESULT = {
    (name, result): COMMANDS.labels(name, result.value) for name in COMMAND_NAMES for result in CommandResult
}
COMMAND_SECONDS_BY_NAME = {name: COMMAND_SECONDS.labels(name) for name in COMMAND_NAMES if name != "malformed"}
