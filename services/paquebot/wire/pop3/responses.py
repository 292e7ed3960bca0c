"""POP3 responses as octets. Their text never holds what a client sent, nor the text of an exception."""

import enum
from collections.abc import Iterable

MAX_RESPONSE = 512
"""Octets of the first line of a response, CRLF included (RFC 2449 §4)."""

END = b".\r\n"
"""RFC 1939 §3: the end of a multi-line response."""


class Code(enum.Enum):
    """Response codes of -ERR (RFC 2449 §8), announced by RESP-CODES and AUTH-RESP-CODE."""

    IN_USE = "IN-USE"  # RFC 2449 §8.1.2: another session holds the maildrop
    SYS_TEMP = "SYS/TEMP"  # RFC 3206 §3: likely to end without a change by the user
    SYS_PERM = "SYS/PERM"  # RFC 3206 §3: an administrator must act
    AUTH = "AUTH"  # RFC 3206 §4: the credentials are at fault


def ok(text: str = "") -> bytes:
    """RFC 1939 §3: the positive status indicator."""
    return _line(f"+OK {text}" if text else "+OK")


def err(text: str, code: Code | None = None) -> bytes:
    """RFC 1939 §3: the negative status indicator; RFC 2449 §8: with its code first."""
    return _line(f"-ERR [{code.value}] {text}" if code else f"-ERR {text}")


def challenge(base64: bytes = b"") -> bytes:
    """RFC 5034 §4: continue-req = "+" SP [base64] CRLF"""
    return b"+ " + base64 + b"\r\n"


def multi_line(text: str, lines: Iterable[str]) -> bytes:
    """A whole multi-line response; no line begins with a dot."""
    return b"".join((ok(text), *(line.encode("ascii") + b"\r\n" for line in lines), END))


def _line(text: str) -> bytes:
    line = text.encode("ascii") + b"\r\n"
    assert len(line) <= MAX_RESPONSE and line.count(b"\n") == 1 and line.count(b"\r") == 1
    return line
