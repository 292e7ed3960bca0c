"""The reply to CAPA in each state (RFC 2449 §5, §6)."""

from collections.abc import Sequence

from paquebot.pop3.reply import Reply
from paquebot.wire.pop3 import multi_line

# RFC 2449 §6: TOP, RESP-CODES, PIPELINING, EXPIRE, UIDL; RFC 3206 §6: AUTH-RESP-CODE. EXPIRE NEVER (§6.7): the
# client decides how long messages stay.
_ALWAYS = ("TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "IMPLEMENTATION Paquebot")

MECHANISMS = ("PLAIN",)
"""Of SASL, under TLS."""


def before_login(*, tls: bool, stls: bool) -> Reply:
    """Ways to log in are offered only where they are accepted; STLS before login only (RFC 2595 §4)."""
    if tls:
        return _reply(("USER", f"SASL {' '.join(MECHANISMS)}", *_ALWAYS))  # RFC 2449 §6.3, §6.4
    return _reply(("STLS", *_ALWAYS) if stls else _ALWAYS)


def after_login() -> Reply:
    return _reply(_ALWAYS)


def _reply(capabilities: Sequence[str]) -> Reply:
    return Reply(multi_line("Capabilities follow", capabilities))
