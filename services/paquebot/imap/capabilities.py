"""The capabilities that the server announces, by state; each has a test.

RFC 3501 §7.2.1: AUTH=PLAIN and LOGIN only under TLS, STARTTLS only without, LOGINDISABLED until then.
"""

_ALWAYS = ("IMAP4rev1", "LITERAL+", "SASL-IR", "ID", "ENABLE")
_LOGGED_IN = (
    "IDLE",
    "UIDPLUS",
    "MOVE",
    "NAMESPACE",
    "UNSELECT",
    "CHILDREN",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "STATUS=SIZE",
    "CONDSTORE",
    "QRESYNC",
    "ESEARCH",
    "SEARCHRES",
    "WITHIN",
    "MULTIAPPEND",
    "OBJECTID",
    "SAVEDATE",
    "BINARY",
)
ENABLEABLE = frozenset({"CONDSTORE", "QRESYNC"})
"""The capabilities that ENABLE accepts (RFC 5161, RFC 7162 §3.1.8 and §3.2.3)."""


def before_login(*, tls: bool, starttls: bool) -> tuple[str, ...]:
    """`starttls`: this connection offers it."""
    if tls:
        return (*_ALWAYS, "AUTH=PLAIN")
    return (*_ALWAYS, "STARTTLS", "LOGINDISABLED") if starttls else (*_ALWAYS, "LOGINDISABLED")


def after_login(append_limit: int) -> tuple[str, ...]:
    """`append_limit`: maximum bytes of one message (RFC 7889)."""
    return (*_ALWAYS, *_LOGGED_IN, f"APPENDLIMIT={append_limit}")
