"""SMTP commands: a line to a verb and its argument, and the arguments of each verb to values.

The grammar is RFC 5321's, not RFC 5322's: no comments, no folding, no display names.
RFC 5321 §4.1.1 and §4.1.2, RFC 3030 §2 (BDAT), RFC 4954 §4 (AUTH), RFC 6531 §3 (UTF-8 in paths).
"""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass

from paquebot.wire.address import Address, BadAddress, Postmaster, mailbox_at, normal_domain
from paquebot.wire.smtp.parameters import (
    MailParameters,
    RcptParameters,
    parse_mail_parameters,
    parse_rcpt_parameters,
)

MAX_COMMAND = 4096
"""Octets with CRLF. RFC 5321 §4.5.3.1.4 asks for at least 512; the parameters of the extensions add up to some 2,000
for MAIL and for RCPT, and a path with its source route comes on top."""
MAX_HELLO = 255  # characters of a client's name that are kept
MAX_SOURCE_ROUTE = 512  # octets of an obsolete source route, which is skipped
_MAX_CHUNK_DIGITS = 20


class BadCommand(ValueError):
    """The line or the argument breaks its grammar. The text states what was expected."""


class BadPath(BadCommand):
    """A reverse-path or forward-path breaks its grammar."""


class NonAsciiPath(BadPath):
    """RFC 6531 §3.5: a path beyond ASCII in a transaction without SMTPUTF8. Reply 553 5.6.7."""


class Verb(enum.Enum):
    """Every known command; OTHER stands for all others, in metrics too."""

    HELO = "HELO"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"
    VRFY = "VRFY"
    EXPN = "EXPN"
    HELP = "HELP"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    OTHER = "OTHER"


_VERBS: dict[bytes, Verb] = {verb.value.encode(): verb for verb in Verb if verb is not Verb.OTHER}
_BLANKS = (" ", "\t")
_HELLOS = frozenset({Verb.EHLO, Verb.HELO})


@dataclass(frozen=True, slots=True)
class Command:
    """`argument` is what follows the verb, without the white space around it."""

    verb: Verb
    argument: str


@dataclass(frozen=True, slots=True)
class NullPath:
    """RFC 5321 §4.5.5: `<>`, the reverse-path of messages that must not be answered."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Mail:
    """RFC 5321 §4.1.1.2."""

    reverse_path: Address | NullPath
    parameters: MailParameters


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RFC 5321 §4.1.1.3."""

    forward_path: Address | Postmaster
    parameters: RcptParameters


@dataclass(frozen=True, slots=True)
class Bdat:
    """RFC 3030 §2."""

    size: int
    last: bool


def parse_command(line: bytes) -> Command:
    """A line without its CRLF. Raises BadCommand for control characters other than tabs, and for invalid UTF-8.

    The name of a client is used in the trace only: octets of another character set in it become U+FFFD.
    """
    verb, _, rest = line.partition(b" ")
    found = _VERBS.get(verb) or _VERBS.get(verb.upper(), Verb.OTHER)
    try:
        argument = rest.decode("utf-8", "replace" if found in _HELLOS else "strict").strip(" \t")
    except UnicodeDecodeError:
        raise BadCommand("expected UTF-8") from None
    if not argument.isprintable() and any((char < " " and char != "\t") or char == "\x7f" for char in argument):
        raise BadCommand("expected no control characters in a command")
    return Command(found, argument)


def parse_hello(argument: str) -> str:
    """RFC 5321 §4.1.1.1: Domain or address-literal; any text is accepted, because clients send the names of their
    machines, such as `Ann's-MacBook` or `MÜLLER-PC`, and nothing depends on them (RFC 5321 §4.1.4).

    Returns the first MAX_HELLO characters; the trace writes any other name than a domain as a comment. Raises
    BadCommand.
    """
    if not argument:
        raise BadCommand("expected a domain or an address literal")
    return argument[:MAX_HELLO]


def parse_mail(argument: str, extensions: Container[str]) -> Mail:
    """ "FROM:" Reverse-path [SP Mail-parameters]; `extensions` as in `parameters`.

    Raises BadPath, NonAsciiPath, BadCommand, BadParameter, UnknownParameter.
    """
    path, rest = _path(argument, "FROM:")
    parameters = parse_mail_parameters(rest, extensions)
    if path == "<>":
        return Mail(NullPath(), parameters)
    return Mail(_mailbox(path, smtputf8=parameters.smtputf8), parameters)


def parse_rcpt(argument: str, extensions: Container[str], *, smtputf8: bool) -> Rcpt:
    """ "TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters]

    `smtputf8`: the parameter was given at MAIL. Raises as `parse_mail`.
    """
    path, rest = _path(argument, "TO:")
    parameters = parse_rcpt_parameters(rest, extensions)
    if path.lower() == "<postmaster>":
        return Rcpt(Postmaster(), parameters)
    return Rcpt(_mailbox(path, smtputf8=smtputf8), parameters)


def parse_bdat(argument: str) -> Bdat:
    """RFC 3030 §2: bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ] CR LF. Raises BadCommand."""
    size, _, marker = argument.partition(" ")
    if not size.isascii() or not size.isdecimal() or len(size) > _MAX_CHUNK_DIGITS:
        raise BadCommand("expected the size of the chunk")
    if marker.strip(" ").upper() not in ("", "LAST"):
        raise BadCommand("expected LAST or nothing after the size")
    return Bdat(int(size), bool(marker))


def parse_auth(argument: str) -> tuple[str, bytes | None]:
    """RFC 4954 §4: mechanism in upper case, and the initial response in base64; None: none was given."""
    mechanism, space, initial = argument.partition(" ")
    if not mechanism or not mechanism.isascii() or " " in initial or (space and not initial):
        raise BadCommand("expected a mechanism and at most one initial response")
    return mechanism.upper(), initial.encode() if initial else None


def _path(argument: str, keyword: str) -> tuple[str, str]:
    """The path with its angle brackets, and what follows it."""
    if argument[: len(keyword)].upper() != keyword:
        raise BadCommand(f"expected {keyword}<address>")
    # RFC 5321 §3.3 allows no white space after the colon; old clients send some, and it is unambiguous.
    start = len(keyword)
    while argument.startswith(_BLANKS, start):
        start += 1
    if argument[start : start + 1] != "<":
        raise BadPath("expected '<' before the address")
    end = _path_end(argument, start)
    rest = argument[end:]
    if rest and not rest.startswith(_BLANKS):
        raise BadPath("expected a space after the path")
    # Users type a space behind an address, and programs send it.
    path = argument[start + 1 : end - 1].strip(" \t")
    return f"<{path}>" if path else argument[start:end], rest


def _path_end(text: str, start: int) -> int:
    """The position after the `>` that ends the path; a `>` inside a quoted local part does not end it."""
    end = text.find(">", start) + 1
    if end and text.find('"', start, end) < 0:
        return end
    quoted = False
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == "\\" and quoted:
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == ">" and not quoted:
            return at + 1
        at += 1
    raise BadPath("expected '>' after the address")


def _mailbox(path: str, *, smtputf8: bool) -> Address:
    """Path = "<" [ A-d-l ":" ] Mailbox ">"; the obsolete source route is ignored (RFC 5321 appendix C)."""
    if not smtputf8 and not path.isascii():
        raise NonAsciiPath("expected ASCII without SMTPUTF8")
    try:
        start = _source_route_end(path) if path[1:2] == "@" else 1
        address, end = mailbox_at(path, start)
    except BadAddress as error:
        raise BadPath(str(error)) from None
    if end != len(path) - 1:
        raise BadPath(f"unexpected {path[end]!r} after the address")
    return address


def _source_route_end(path: str) -> int:
    """A-d-l = At-domain *( "," At-domain ), then a colon; the position after it."""
    colon = path.find(":", 1, MAX_SOURCE_ROUTE)
    if colon < 0:
        raise BadPath("expected a colon after the source route")
    for hop in path[1:colon].split(","):
        if not hop.startswith("@"):
            raise BadPath("expected '@' in the source route")
        normal_domain(hop[1:])
    return colon + 1
