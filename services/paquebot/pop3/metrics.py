"""What the POP3 service counts. Label values come from enums and the types of the grammar, never from a client."""

import enum

from prometheus_client import Counter, Gauge, Histogram

from paquebot.observability.metrics import FAST, SIZES


class Ending(enum.Enum):
    """Why a session ended."""

    QUIT = "quit"
    GONE = "gone"
    INACTIVE = "inactive"
    DRAIN = "drain"
    ERRORS = "errors"
    REFUSED = "refused"
    LEASE_LOST = "lease_lost"
    FAILED = "failed"


class Login(enum.Enum):
    """What became of a login."""

    OK = "ok"
    INVALID = "invalid"
    DISABLED = "disabled"
    RATE_LIMITED = "rate_limited"
    IN_USE = "in_use"


class Result(enum.Enum):
    """How a command was answered."""

    OK = "ok"
    ERR = "err"
    GONE = "gone"


SESSIONS = Gauge("paquebot_pop3_sessions", "Sessions now, by state", ["state"])
SESSIONS_ENDED = Counter("paquebot_pop3_sessions_ended_total", "Sessions ended, by reason", ["ending"])
TLS = Counter("paquebot_pop3_tls_total", "TLS sessions, by version", ["version"])
LOGINS = Counter("paquebot_pop3_logins_total", "Logins, by result", ["result"])
COMMANDS = Counter("paquebot_pop3_commands_total", "Commands, by name and result", ["command", "result"])
COMMAND_SECONDS = Histogram(
    "paquebot_pop3_command_seconds", "From the command's line to its whole answer", ["command"], buckets=FAST
)
RECEIVED = Counter("paquebot_pop3_received_octets_total", "Octets received from clients")
SENT = Counter("paquebot_pop3_sent_octets_total", "Octets sent to clients")
RETRIEVED = Histogram("paquebot_pop3_retrieved_octets", "Sizes of the messages retrieved", buckets=SIZES)
DELETED = Counter("paquebot_pop3_deleted_total", "Messages deleted at QUIT")
UPDATES_FAILED = Counter("paquebot_pop3_updates_failed_total", "QUITs whose deletions were not applied")
PREFETCH = Counter("paquebot_pop3_prefetch_total", "Messages that were read before they were asked for", ["result"])
LEASES_LOST = Counter("paquebot_pop3_leases_lost_total", "Sessions ended because another one took their maildrop")
UNEXPECTED = Counter("paquebot_pop3_unexpected_errors_total", "Commands that failed for a reason not foreseen")
