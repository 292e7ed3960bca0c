"""The Received field that records how a message arrived (RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3)."""

import functools
from dataclasses import dataclass
from datetime import datetime

from paquebot.message import encoded_words
from paquebot.smtp_ingress.state import MailTransaction, SessionState
from paquebot.wire.address import BadAddress, normal_domain

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class TracePolicy:
    """`hide_client`: leave out the address and name of a client that logged in."""

    hostname: str
    hide_client: bool


def protocol(state: SessionState, *, smtputf8: bool) -> str:
    """RFC 3848 §1 and RFC 6531 §4.3: SMTP, or (ESMTP / UTF8SMTP) with S for TLS and A for a login."""
    if state.hello is None or not state.hello.extended:
        return "SMTP"
    base = "UTF8SMTP" if smtputf8 else "ESMTP"
    return f"{base}{'S' if state.tls else ''}{'A' if state.identity else ''}"


def received(
    state: SessionState, transaction: MailTransaction, queue_id: str, now: datetime, policy: TracePolicy
) -> bytes:
    """The whole field with its CRLF. `now` is aware.

    "for" names the recipient only if there is no other: it would reveal blind copies.
    """
    smtputf8 = transaction.parameters.smtputf8
    if policy.hide_client and state.identity is not None:
        origin = f"from {policy.hostname}"
    else:
        origin = f"from {_client(state)}"
    tls = f"\r\n\t({state.tls.version} {state.tls.cipher})" if state.tls else ""
    paths = transaction.recipients.paths
    single = f"\r\n\tfor <{paths[0]}>" if len(paths) == 1 else ""
    return (
        f"Received: {origin}\r\n\tby {policy.hostname} (Paquebot) with {protocol(state, smtputf8=smtputf8)}"
        f"{tls}\r\n\tid {queue_id}{single};\r\n\t{date_time(now.replace(microsecond=0))}\r\n"
    ).encode()


def _client(state: SessionState) -> str:
    """Extended-Domain = ( Domain / address-literal ) FWS "(" TCP-info ")" (RFC 5321 §4.4); TCP-info is the address of
    the TCP connection. A name that is neither stands in a comment, where it cannot be read as anything else."""
    address = state.address.partition("%")[0]
    literal = f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    name = state.hello.name if state.hello else "unknown"
    return f"{name} ({literal})" if _is_domain(name) else f"{literal} (helo {_comment(name)})"


def _is_domain(name: str) -> bool:
    try:
        return bool(normal_domain(name)) and name.isascii() and not name.endswith(".")
    except BadAddress:
        return False


def _comment(name: str) -> str:
    """ccontent (RFC 5322 §3.2.2): quoted pairs, and encoded words (RFC 2047 §5) for what is not printable ASCII."""
    if name.isascii() and name.isprintable() and "=?" not in name:
        return "".join(f"\\{char}" if char in "()\\" else char for char in name)
    return "\r\n\t".join(encoded_words(name))


@functools.lru_cache(maxsize=4)
def date_time(now: datetime) -> str:
    """RFC 5322 §3.3 date-time. Cached: all messages of a second have the same."""
    zone = now.strftime("%z")
    return (
        f"{_DAYS[now.weekday()]}, {now.day} {_MONTHS[now.month - 1]} {now.year:04} "
        f"{now.hour:02}:{now.minute:02}:{now.second:02} {zone[:5]}"
    )
