"""POP3 commands: one frozen type each, and the reading of a line into one of them.

Keywords are read in any case. Spaces and tabs before, between and behind arguments are skipped, except in a password:
people and old clients send them. A number may have leading zeros and any size: the grammar does not know which messages
exist. A repr never shows a password.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from paquebot.wire.cursor import ALPHA, DIGITS, END, Cursor

_SASL_NAME = ALPHA | DIGITS | frozenset(b"-_")
_MAX_SASL_NAME = 20  # RFC 4422 §3.1
_PRINTABLE = frozenset(range(0x21, 0x7F))
_BLANK = frozenset(b" \t")
_MAX_NUMBER = 2**63 - 1  # larger numbers are read as this one: no maildrop has as many messages or lines
_MAX_DIGITS = 18

MAX_COMMAND = 4096
"""Octets of a command line, CRLF included. RFC 2449 §4 asks for 255; a password may have 1,024 octets, and clients send
SASL's base64 of it in the line of AUTH."""


@dataclass(frozen=True, slots=True)
class User:
    """RFC 1939 §7: the name of the maildrop."""

    login: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """RFC 1939 §7: all octets behind the first space, spaces included."""

    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Auth:
    """RFC 5034 §4: `initial_response` is still base64; None: the client waits for the challenge. Without a mechanism
    the client asks for the list of them, as old clients do instead of CAPA."""

    mechanism: str | None
    initial_response: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stls:
    """RFC 2595 §4"""


@dataclass(frozen=True, slots=True)
class Capa:
    """RFC 2449 §5"""


@dataclass(frozen=True, slots=True)
class Stat:
    """RFC 1939 §5"""


@dataclass(frozen=True, slots=True)
class List:
    """RFC 1939 §5; None: all messages."""

    number: int | None


@dataclass(frozen=True, slots=True)
class Retr:
    """RFC 1939 §5"""

    number: int


@dataclass(frozen=True, slots=True)
class Dele:
    """RFC 1939 §5"""

    number: int


@dataclass(frozen=True, slots=True)
class Noop:
    """RFC 1939 §5"""


@dataclass(frozen=True, slots=True)
class Rset:
    """RFC 1939 §5"""


@dataclass(frozen=True, slots=True)
class Quit:
    """RFC 1939 §4, §6"""


@dataclass(frozen=True, slots=True)
class Top:
    """RFC 1939 §7: the header and the first `lines` lines of the body."""

    number: int
    lines: int


@dataclass(frozen=True, slots=True)
class Uidl:
    """RFC 1939 §7; None: all messages."""

    number: int | None


@dataclass(frozen=True, slots=True)
class NotOffered:
    """A standard command whose capability CAPA does not list."""

    keyword: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """No command has this keyword."""


Command = (
    User
    | Pass
    | Auth
    | Stls
    | Capa
    | Stat
    | List
    | Retr
    | Dele
    | Noop
    | Rset
    | Quit
    | Top
    | Uidl
    | NotOffered
    | Unknown
)


def parse_command(line: bytes) -> Command:
    """A line without its line end. RFC 2449 §4: command = keyword *(SP param) CRLF. Raises GrammarError."""
    cur = Cursor(line)
    cur.run(_BLANK)
    keyword = cur.run1(_PRINTABLE, "a command")
    read = _GRAMMAR.get(keyword.upper())
    return Unknown() if read is None else read(cur)


def _user(cur: Cursor) -> User:
    """USER SP name"""
    cur.space()
    login = cur.rest().strip(b" \t")
    if not login:
        raise cur.failure("a name")
    return User(login)


def _pass(cur: Cursor) -> Pass:
    """PASS SP string: RFC 1939 §7 lets spaces be part of the password."""
    cur.space()
    password = cur.rest()
    if not password:
        raise cur.failure("a password")
    return Pass(password)


def _auth(cur: Cursor) -> Auth:
    """RFC 5034 §4: AUTH SP mechanism [SP (base64 / "=")]; or AUTH alone"""
    if cur.peek() == END:
        return Auth(None, None)
    _blank(cur)
    start = cur.position
    mechanism = cur.run1(_SASL_NAME, "the name of a mechanism")
    if len(mechanism) > _MAX_SASL_NAME:
        raise cur.failure("the name of a mechanism", at=start)
    response = None
    if not _ended(cur):
        _blank(cur)
        response = cur.run1(_PRINTABLE, "an initial response")
        _end(cur)
    return Auth(mechanism.decode("ascii").upper(), response)


def _top(cur: Cursor) -> Top:
    """TOP SP msg SP n"""
    number = _argument(cur, "a message number")
    lines = _argument(cur, "a number of lines")
    _end(cur)
    return Top(number, lines)


def _bare(make: Callable[[], Command]) -> Callable[[Cursor], Command]:
    """A keyword alone"""

    def read(cur: Cursor) -> Command:
        _end(cur)
        return make()

    return read


def _not_offered(keyword: str) -> Callable[[Cursor], Command]:
    """A keyword with anything behind it"""
    return lambda cur: NotOffered(keyword)


def _numbered(make: Callable[[int], Command]) -> Callable[[Cursor], Command]:
    """A keyword SP msg"""

    def read(cur: Cursor) -> Command:
        number = _argument(cur, "a message number")
        _end(cur)
        return make(number)

    return read


def _listing(make: Callable[[int | None], Command]) -> Callable[[Cursor], Command]:
    """A keyword [SP msg]"""

    def read(cur: Cursor) -> Command:
        number = None if _ended(cur) else _argument(cur, "a message number")
        _end(cur)
        return make(number)

    return read


def _argument(cur: Cursor, expected: str) -> int:
    """SP 1*DIGIT: RFC 1939 §5, message numbers are in base 10."""
    _blank(cur)
    digits = cur.run1(DIGITS, expected).lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _MAX_DIGITS else _MAX_NUMBER


def _blank(cur: Cursor) -> None:
    cur.run1(_BLANK, "a space")


def _ended(cur: Cursor) -> bool:
    """Is nothing but white space left? If so, pass over it."""
    start = cur.position
    cur.run(_BLANK)
    if cur.peek() == END:
        return True
    cur.back_to(start)
    return False


def _end(cur: Cursor) -> None:
    if not _ended(cur):
        raise cur.failure("end of line")


_GRAMMAR: dict[bytes, Callable[[Cursor], Command]] = {
    b"USER": _user,
    b"PASS": _pass,
    b"AUTH": _auth,
    b"STLS": _bare(Stls),
    b"CAPA": _bare(Capa),
    b"STAT": _bare(Stat),
    b"LIST": _listing(List),
    b"RETR": _numbered(Retr),
    b"DELE": _numbered(Dele),
    b"NOOP": _bare(Noop),
    b"RSET": _bare(Rset),
    b"QUIT": _bare(Quit),
    b"TOP": _top,
    b"UIDL": _listing(Uidl),
    b"APOP": _not_offered("APOP"),  # RFC 1939 §7: needs passwords stored in the clear
    b"UTF8": _not_offered("UTF8"),  # RFC 6856 §2: messages are sent unchanged without it
    b"LANG": _not_offered("LANG"),  # RFC 6856 §3
}
