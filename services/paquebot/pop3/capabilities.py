"""What CAPA tells in each state (RFC 2449 §5, §6)."""

# RFC 2449 §6: TOP, RESP-CODES, PIPELINING, EXPIRE, UIDL; RFC 3206 §6: AUTH-RESP-CODE. EXPIRE NEVER (§6.7): the
# client decides how long messages stay.
_ALWAYS = ("TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "IMPLEMENTATION Paquebot")

MECHANISMS = ("PLAIN",)
"""Of SASL, under TLS."""


def capabilities(*, logged_in: bool, tls: bool, stls: bool) -> tuple[str, ...]:
    """Ways to log in are offered only where they are accepted; STLS before login only (RFC 2595 §4)."""
    if logged_in:
        return _ALWAYS
    if tls:
        return ("USER", f"SASL {' '.join(MECHANISMS)}", *_ALWAYS)  # RFC 2449 §6.3, §6.4
    return ("STLS", *_ALWAYS) if stls else _ALWAYS
