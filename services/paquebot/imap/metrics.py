"""What the IMAP service counts. Label values come from the enums and types of the grammar, never from a client."""

import enum

from prometheus_client import Counter, Gauge, Histogram

from paquebot.observability.metrics import FAST


class Completion(enum.Enum):
    """How a command ended, for the label."""

    OK = "ok"
    NO = "no"
    BAD = "bad"
    GONE = "gone"


class Ending(enum.Enum):
    """Why a session ended."""

    LOGOUT = "logout"
    GONE = "gone"
    IDLE = "inactive"
    DRAIN = "drain"
    ERRORS = "errors"
    REFUSED = "refused"
    FAILED = "failed"


class StateLabel(enum.Enum):
    """RFC 3501 §3"""

    NOT_AUTHENTICATED = "not_authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"


SESSIONS = Gauge("paquebot_imap_sessions", "Sessions now, by state", ["state"])
SESSIONS_TOTAL = Counter("paquebot_imap_sessions_ended_total", "Sessions ended, by reason", ["ending"])
IDLING = Gauge("paquebot_imap_idling", "Sessions in IDLE now")
TLS = Counter("paquebot_imap_tls_total", "TLS sessions, by version", ["version"])
LOGINS = Counter("paquebot_imap_logins_total", "Logins, by result", ["result"])
COMMANDS = Counter("paquebot_imap_commands_total", "Commands, by name and completion", ["command", "completion"])
COMMAND_SECONDS = Histogram(
    "paquebot_imap_command_seconds", "From the whole command to its completion sent", ["command"], buckets=FAST
)
FETCHED = Counter("paquebot_imap_fetch_octets_total", "Octets of FETCH responses")
APPENDED = Counter("paquebot_imap_append_octets_total", "Octets of messages appended")
LITERALS_REFUSED = Counter("paquebot_imap_literals_refused_total", "Literals refused before they were read")
BODY_CACHE = Counter("paquebot_imap_body_cache_total", "Bodies asked of the cache", ["result"])
BODY_CACHE_OCTETS = Gauge("paquebot_imap_body_cache_octets", "Octets of bodies in the cache")
HINTS = Counter("paquebot_imap_hints_total", "Hints received for accounts with sessions here")
REFRESHES = Counter("paquebot_imap_refreshes_total", "Looks for changes of a mailbox", ["source"])
UNEXPECTED = Counter("paquebot_imap_unexpected_errors_total", "Commands that failed for a reason not foreseen")
