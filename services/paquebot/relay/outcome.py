"""The outcome of one recipient in one attempt, and the failures of a host before any recipient was named.

Statuses are enhanced status codes (RFC 3463); those we choose ourselves are named here.
"""

import enum
from dataclasses import dataclass, field

from paquebot.wire.smtp.replies import Reply


class RelayResult(enum.Enum):
    """The classes of RFC 5321 §4.2.1, for one recipient."""

    DELIVERED = "delivered"  # the host has taken over responsibility
    DEFERRED = "deferred"  # try again later
    FAILED = "failed"  # never


# RFC 3463, by our own judgement rather than a host's words
BAD_DOMAIN = "5.1.2"  # §3.2: bad destination system address
BAD_RECIPIENT = "5.1.3"  # §3.2: bad destination mailbox address syntax
BAD_SENDER = "5.1.7"  # §3.2: bad sender's mailbox address syntax
NOT_PUBLIC = "5.1.2"  # the same: it leads to an address that no mail goes to
NULL_MX = "5.1.10"  # RFC 7505 §4.1: recipient address has null MX
NO_ROUTE = "5.4.4"  # §3.5: unable to route
ROUTING_LOOP = "5.4.6"  # §3.5: routing loop detected
EXPIRED = "4.4.7"  # §3.5: delivery time expired; the class is that of a temporary failure
DNS_FAILED = "4.4.3"  # §3.5: directory server failure
NO_ANSWER = "4.4.1"  # §3.5: no answer from host
BAD_CONNECTION = "4.4.2"  # §3.5: bad connection
CLOSING = "4.3.2"  # §3.4: system not accepting network messages
PROTOCOL_ERROR = "4.5.0"  # §3.6: undefined protocol status
NO_TLS = "4.7.4"  # §3.8: security features not supported
TLS_FAILED = "4.7.5"  # §3.8: cryptographic failure
LOGIN_FAILED = "4.7.8"  # RFC 4954 §6, X.7.8; temporary: a wrong password of ours must not bounce mail
TOO_BIG = "5.3.4"  # §3.4: message too big for system
CONVERSION_PROHIBITED = "5.6.2"  # §3.7: conversion required and prohibited
NEEDS_EIGHT_BIT = "5.6.3"  # §3.7: conversion required but not supported
NEEDS_SMTPUTF8 = "5.6.7"  # RFC 6531 §3.5: non-ASCII addresses not permitted for that recipient
UNKNOWN_TEMPORARY = "4.3.0"  # §3.4: other or undefined mail system status


MAX_REPLY_TEXT = 1000  # characters of a host's reply that are kept


@dataclass(frozen=True, slots=True)
class Host:
    """One address of one mail exchanger. `name` is for TLS, logs and reports; `address` is an IP address."""

    name: str
    address: str
    port: int
    preference: int = field(default=0, compare=False)  # of its MX record

    def __str__(self) -> str:
        return f"{self.name}[{self.address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class RelayOutcome:
    """`text` is one line for people; `host` the name of the host concerned, if any; `from_host`: the text is its
    reply, verbatim. `dsn_passed`: the host has taken over the sender's wishes for notifications.
    `elsewhere`: another host may still take the recipient in this attempt."""

    result: RelayResult
    status: str
    text: str
    host: str = ""
    from_host: bool = False
    dsn_passed: bool = False
    elsewhere: bool = False


def outcome_of(reply: Reply, host: Host, *, elsewhere: bool = False) -> RelayOutcome:
    """The outcome of a reply other than the expected one; without its own enhanced status it gets 4.0.0 or
    5.0.0. A positive reply that means nothing here is a temporary failure."""
    result = RelayResult.FAILED if reply.is_permanent else RelayResult.DEFERRED
    status = PROTOCOL_ERROR if reply.is_positive else reply.enhanced_status or f"{reply.code // 100}.0.0"
    return RelayOutcome(result, status, reply_text(reply), host.name, from_host=True, elsewhere=elsewhere)


def reply_text(reply: Reply) -> str:
    """The reply as one printable line of bounded length."""
    return "".join(char if char.isprintable() else "?" for char in str(reply)[:MAX_REPLY_TEXT])


def deferred(status: str, text: str, host: Host | None = None, *, elsewhere: bool = False) -> RelayOutcome:
    """A temporary failure, by our own judgement."""
    return RelayOutcome(RelayResult.DEFERRED, status, text, host.name if host else "", elsewhere=elsewhere)


def failed(status: str, text: str, host: Host | None = None) -> RelayOutcome:
    """A permanent failure, by our own judgement."""
    return RelayOutcome(RelayResult.FAILED, status, text, host.name if host else "")


Outcomes = dict[str, RelayOutcome]
"""By forward-path."""


class HostUnusable(Exception):
    """No session with the host could be opened; `outcome` is for every recipient that no other host takes."""

    def __init__(self, host: Host, outcome: RelayOutcome) -> None:
        super().__init__(f"{host}: {outcome.text}")
        self.host = host
        self.outcome = outcome


class Unroutable(Exception):
    """No host can be found for a domain; `outcome` is for every recipient there."""

    def __init__(self, outcome: RelayOutcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome
