"""The states of a session (RFC 1939 §3), each with what exists only in it."""

from dataclasses import dataclass

from paquebot.pop3.lease import Lease
from paquebot.pop3.maildrop import OpenMaildrop
from paquebot.pop3.prefetch import MessagePrefetch


@dataclass(frozen=True, slots=True)
class AuthorizationState:
    """RFC 1939 §4. `login`: the name from USER, until PASS."""

    login: bytes | None = None


@dataclass(frozen=True, slots=True)
class TransactionState:
    """RFC 1939 §5: the maildrop is locked and open."""

    maildrop: OpenMaildrop
    lease: Lease
    prefetch: MessagePrefetch


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """After the reply to QUIT."""


State = AuthorizationState | TransactionState | SessionEnded
