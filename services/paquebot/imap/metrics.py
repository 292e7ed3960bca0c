"""The metrics of the IMAP service. Label values are enums and types of the grammar, never a client's text."""

import enum

from paquebot.observability.metrics import FAST, TLS_VERSIONS, by_member, counter, gauge, histogram
from paquebot.wire.imap import COMMAND_STATES


class Completion(enum.Enum):
    """How a command ended."""

    OK = "ok"
    NO = "no"
    BAD = "bad"
    DISCONNECTED = "disconnected"


class SessionEnd(enum.Enum):
    """Why a session ended."""

    LOGOUT = "logout"
    DISCONNECTED = "disconnected"
    INACTIVE = "inactive"
    DRAIN = "drain"
    LOGIN_ENDED = "login_ended"
    ERRORS = "errors"
    REFUSED = "refused"
    DISPLACED = "displaced"
    FAILED = "failed"


class StateLabel(enum.Enum):
    """RFC 3501 §3"""

    NOT_AUTHENTICATED = "not_authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"


class LoginResult(enum.Enum):
    """How a login ended."""

    OK = "ok"
    INVALID = "invalid"
    DISABLED = "disabled"
    RATE_LIMITED = "rate_limited"
    TOO_MANY = "too_many"
    """The account has its maximum of sessions."""


class Lookup(enum.Enum):
    """The result of a lookup in the body cache."""

    HIT = "hit"
    MISS = "miss"
    SHARED = "shared"
    """Another session is already reading it."""


class RefreshSource(enum.Enum):
    """Where a session got the changes of its mailbox from."""

    QUERY = "query"
    """Its own query of PostgreSQL."""
    HINT = "hint"
    """A query of PostgreSQL after a hint."""
    SHARED = "shared"
    """A query that another session had begun."""
    CACHE = "cache"
    """Memory: sessions of this process made all the changes."""


COMMAND_NAMES = tuple(sorted(command.__name__.lower() for command in COMMAND_STATES))

SESSIONS = gauge("paquebot_imap_sessions", "Sessions now, by state (RFC 3501 §3)", {"state": StateLabel})
ENDED = counter("paquebot_imap_sessions_ended_total", "Sessions ended, by reason", {"reason": SessionEnd})
IDLING = gauge("paquebot_imap_idling_sessions", "Sessions in IDLE now")
TLS = counter("paquebot_imap_tls_sessions_total", "TLS sessions, by version", {"version": TLS_VERSIONS})
LOGINS = counter("paquebot_imap_logins_total", "Logins, by result", {"result": LoginResult})
COMMANDS = counter(
    "paquebot_imap_commands_total",
    "Commands, by name and completion; disconnected: the client closed the connection first",
    {"command": COMMAND_NAMES, "completion": Completion},
)
COMMAND_SECONDS = histogram(
    "paquebot_imap_command_seconds",
    "From a whole command to its sent completion",
    {"command": COMMAND_NAMES},
    buckets=FAST,
)
FETCHED = counter("paquebot_imap_fetched_bytes_total", "Bytes of FETCH responses")
SEARCHED = counter(
    "paquebot_imap_searched_characters_total",
    "Work of SEARCH in bodies: characters decoded, and compared with each text",
)
APPENDED = counter("paquebot_imap_appended_bytes_total", "Bytes of messages appended")
LITERALS_REFUSED = counter("paquebot_imap_refused_literals_total", "Literals refused before they were read")
BODY_CACHE = counter("paquebot_imap_body_cache_lookups_total", "Lookups in the body cache", {"result": Lookup})
BODY_CACHE_BYTES = gauge("paquebot_imap_body_cache_bytes", "Bytes of bodies in the cache")
READING = gauge("paquebot_imap_reading_bytes", "Bytes reserved by FETCH and SEARCH for their reads")
HINTS = counter("paquebot_imap_hints_total", "Hints received for accounts with sessions of the process")
REFRESHES = counter(
    "paquebot_imap_refreshes_total",
    "Refreshes of mailbox views, by source of the changes; cache: changes that sessions of the process made",
    {"source": RefreshSource},
)
UNEXPECTED = counter("paquebot_imap_unexpected_errors_total", "Commands that failed with an unexpected error")

# Children are looked up once: labels() costs more than inc().
SESSIONS_BY_STATE = by_member(SESSIONS, StateLabel)
LOGINS_BY_RESULT = by_member(LOGINS, LoginResult)
BODY_CACHE_BY_RESULT = by_member(BODY_CACHE, Lookup)
REFRESHES_BY_SOURCE = by_member(REFRESHES, RefreshSource)
COMMANDS_BY_NAME = {
    (name, completion.value): COMMANDS.labels(name, completion.value)
    for name in COMMAND_NAMES
    for completion in Completion
}
COMMAND_SECONDS_BY_NAME = {name: COMMAND_SECONDS.labels(name) for name in COMMAND_NAMES}
