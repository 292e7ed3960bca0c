"""Metrics of smtp_ingress. No label value comes from a client."""

import enum

from paquebot.observability.metrics import FAST, SIZES, TLS_VERSIONS, by_member, counter, gauge, histogram
from paquebot.smtp_ingress.state import Role
from paquebot.wire.smtp.commands import Verb


class SessionEnd(enum.Enum):
    """Why a session ended."""

    QUIT = "quit"
    REFUSED = "refused"
    INACTIVE = "inactive"
    DRAIN = "drain"
    DISPLACED = "displaced"
    LOGIN_ENDED = "login_ended"
    DISCONNECTED = "disconnected"
    FAILED = "failed"


class MessageResult(enum.Enum):
    """The reply to a message or a recipient, by class of code."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"


class LoginResult(enum.Enum):
    """The result of a login."""

    OK = "ok"
    INVALID = "invalid"
    DISABLED = "disabled"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    TOO_MANY = "too_many"
    BROKEN = "broken"
    """The exchange ended before the credentials were complete."""


MECHANISMS = ("PLAIN", "LOGIN")

SESSIONS = counter("paquebot_smtp_sessions_total", "Sessions begun", {"listener": Role})
OPEN_SESSIONS = gauge("paquebot_smtp_open_sessions", "Open sessions", {"listener": Role})
REFUSED = counter("paquebot_smtp_refused_connections_total", "Connections refused at a limit", {"listener": Role})
SESSIONS_ENDED = counter("paquebot_smtp_sessions_ended_total", "Sessions ended, by reason", {"reason": SessionEnd})
COMMANDS = counter("paquebot_smtp_commands_total", "Commands received; OTHER: unknown commands", {"verb": Verb})
REPLIES = counter(
    "paquebot_smtp_replies_total", "Replies sent, by class of code", {"class": ("2xx", "3xx", "4xx", "5xx")}
)
MESSAGES = counter(
    "paquebot_smtp_messages_total",
    "Messages read whole, by the reply; accepted: stored in S3 and queued",
    {"listener": Role, "result": MessageResult},
)
DISPLACED = counter(
    "paquebot_smtp_messages_displaced_total",
    "Messages refused with 452 while they were read, because smaller senders needed their memory",
)
RECIPIENTS = counter("paquebot_smtp_recipients_total", "RCPT commands, by the reply", {"result": MessageResult})
MESSAGE_BYTES = histogram("paquebot_smtp_message_bytes", "Sizes of accepted messages", buckets=SIZES)
ACCEPT_SECONDS = histogram(
    "paquebot_smtp_accept_seconds", "From the end of the message to the reply", {"listener": Role}, buckets=FAST
)
LOGINS = counter("paquebot_smtp_logins_total", "Logins (AUTH)", {"mechanism": MECHANISMS, "result": LoginResult})
TLS = counter(
    "paquebot_smtp_tls_sessions_total",
    "TLS sessions; failed: the handshake did not succeed",
    {"listener": Role, "version": (*TLS_VERSIONS, "failed")},
)
INCIDENTS = counter(
    "paquebot_smtp_unexpected_errors_total", "Unexpected errors, answered with 451 on MX and 554 on submission"
)

# Children are looked up once: labels() costs more than inc().
COMMANDS_BY_VERB = by_member(COMMANDS, Verb)
SESSIONS_BY_ROLE = by_member(SESSIONS, Role)
OPEN_SESSIONS_BY_ROLE = by_member(OPEN_SESSIONS, Role)
SESSIONS_ENDED_BY_REASON = by_member(SESSIONS_ENDED, SessionEnd)
ACCEPT_SECONDS_BY_ROLE = by_member(ACCEPT_SECONDS, Role)
REPLIES_BY_CLASS = {digit: REPLIES.labels(f"{digit}xx") for digit in range(2, 6)}
RESULT_BY_CLASS = {2: MessageResult.ACCEPTED, 4: MessageResult.DEFERRED, 5: MessageResult.REJECTED}
RECIPIENTS_BY_CLASS = {digit: RECIPIENTS.labels(result.value) for digit, result in RESULT_BY_CLASS.items()}
MESSAGES_BY_REPLY = {
    (role, digit): MESSAGES.labels(role.value, result.value)
    for role in Role
    for digit, result in RESULT_BY_CLASS.items()
}
