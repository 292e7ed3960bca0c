"""Assembles one command from lines and literals, without I/O: it returns what to read next and refuses before reading.

Invariants: a declared size is checked against the limits of the current state before it is accepted; if the octets of a
refused literal come all the same, they are discarded with the rest of the command, so that none of them is ever read as
a command; the octets of APPEND's messages never pass through here.

RFC 3501 §4.3 and §7.5; RFC 7888 (LITERAL+, LITERAL-); RFC 3516 (literal8); RFC 7889 (APPENDLIMIT).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from paquebot.wire.imap import response_codes, responses
from paquebot.wire.imap.ast import Append
from paquebot.wire.imap.errors import BadSyntax
from paquebot.wire.imap.grammar.tokens import MAX_NUMBER64, AssembledCommand, Literal, MessageLiteral, tag_of
from paquebot.wire.imap.limits import DEFAULT_LIMITS, ImapLimits
from paquebot.wire.imap.parser import parse_append_so_far

_DIGITS: Final = b"0123456789"
_APPEND: Final = re.compile(rb" +APPEND +", re.IGNORECASE)


class LiteralKind(enum.Enum):
    NORMAL = "literal"
    LITERAL8 = "literal8"
    APPEND_MESSAGE = "append message"


@dataclass(frozen=True, slots=True)
class NeedLine:
    """Read one line of at most `maximum` octets before its CRLF, give it to `line` (or `line_too_long`)."""

    maximum: int


@dataclass(frozen=True, slots=True)
class NeedLiteral:
    """Read exactly `size` octets, after a continuation request when `synchronising`.

    NORMAL and LITERAL8 go to `literal`. The service keeps the octets of an APPEND_MESSAGE and calls `message_read`
    after the last one; `append` is the command up to and including this message. Before reading, the service may call
    `refuse`.
    """

    size: int
    synchronising: bool
    kind: LiteralKind
    append: Append | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Read and discard `size` octets, then call `drained`."""

    size: int


@dataclass(frozen=True, slots=True)
class Complete:
    """The command is complete: call `parse_command(assembled)`."""

    assembled: AssembledCommand


@dataclass(frozen=True, slots=True)
class Refuse:
    """The command is over: send `response` (whole lines), then close the connection or start the next."""

    response: bytes
    close: bool


Want: TypeAlias = NeedLine | NeedLiteral | Drain | Complete | Refuse


class _Phase(enum.Enum):
    BETWEEN = "between commands"
    LINE = "in a line"
    LITERAL = "in a literal"
    MESSAGE = "in a message"
    DRAIN = "in octets to discard"
    DISCARD = "in the rest of a refused command"


@dataclass(frozen=True, slots=True)
class _Announced:
    """The "{n}" at the end of a line; `start` is its place in the line."""

    size: int
    synchronising: bool
    binary: bool
    start: int


def _announced(line: bytes) -> _Announced | None:
    """literal = "{" number ["+"] "}" at the end of a line; "~" before it makes a literal8"""
    if line[-1:] != b"}":
        return None
    body = line[:-1]
    synchronising = body[-1:] != b"+"
    if not synchronising:
        body = body[:-1]
    start = len(body.rstrip(_DIGITS))
    digits = body[start:]
    if not digits or body[start - 1 : start] != b"{":
        return None
    # Limit before converting: a number of more digits is larger than every limit.
    size = int(digits) if len(digits) <= 20 else MAX_NUMBER64
    binary = body[: start - 1].endswith(b"~")
    return _Announced(size, synchronising, binary, start - 2 if binary else start - 1)


class CommandAssembler:
    """Assembles the commands of one connection, one at a time.

    The service sets `authenticated` after login and `utf8` after ENABLE UTF8=ACCEPT. A method called in the wrong
    phase raises RuntimeError: a fault of the caller, never of the client.
    """

    __slots__ = (
        "_announced",
        "_budget",
        "_limits",
        "_literals",
        "_octets",
        "_phase",
        "_response",
        "_tag",
        "_text",
        "authenticated",
        "utf8",
    )

    def __init__(self, limits: ImapLimits = DEFAULT_LIMITS) -> None:
        self.authenticated = False
        self.utf8 = False
        self._limits = limits
        self._phase = _Phase.BETWEEN
        self._reset()

    def _reset(self) -> None:
        self._text = bytearray()
        self._literals: list[Literal | MessageLiteral] = []
        self._octets = 0  # of the command so far, without APPEND's messages
        self._tag: bytes | None = None
        self._announced: _Announced | None = None
        self._response = b""
        self._budget = self._limits.drain if self.authenticated else self._limits.drain_before_login

    def _expect(self, *phases: _Phase) -> None:
        if self._phase not in phases:
            raise RuntimeError(f"the assembler is {self._phase.value}")

    def start(self) -> NeedLine:
        """Begin the next command."""
        self._expect(_Phase.BETWEEN)
        self._reset()
        return self._need_line(_Phase.LINE)

    def _need_line(self, phase: _Phase) -> NeedLine:
        self._phase = phase
        return NeedLine(self._limits.line if self.authenticated else self._limits.line_before_login)

    def line(self, line: bytes) -> Want:
        """The next line, without its CRLF."""
        self._expect(_Phase.LINE, _Phase.DISCARD)
        if len(line) > (self._limits.line if self.authenticated else self._limits.line_before_login):
            return self.line_too_long(line)
        if self._phase is _Phase.DISCARD:
            return self._discard(line)
        if not self._text:
            self._tag = tag_of(line)
        self._octets += len(line)
        self._text += line
        announced = _announced(line)
        if announced is not None:
            self._text += b"\r\n"
            self._announced = announced
            return self._accept(announced)
        if self._octets > self._limits.command:
            return self._end(responses.bad(self._tag, "Command too long", response_codes.TOOBIG))
        return self._complete()

    def nothing(self) -> None:
        """Skip the first line of the command."""
        self._expect(_Phase.LINE)
        self._phase = _Phase.BETWEEN

    def _complete(self) -> Complete:
        self._phase = _Phase.BETWEEN
        assembled = AssembledCommand(bytes(self._text), tuple(self._literals))
        self._reset()
        return Complete(assembled)

    def line_too_long(self, head: bytes) -> Refuse:
        """The line did not end within its limit; `head` is its beginning. The connection cannot continue: it is unknown
        where this line ends, and whether a literal follows it."""
        self._expect(_Phase.LINE, _Phase.DISCARD)
        if self._phase is _Phase.LINE and not self._text:
            self._tag = tag_of(head)
        refusal = self._response or responses.bad(self._tag, "Command line too long", response_codes.TOOBIG)
        return self._end(refusal + responses.bye("Command line too long"), close=True)

    def _end(self, response: bytes, *, close: bool = False) -> Refuse:
        self._phase = _Phase.BETWEEN
        self._reset()
        return Refuse(response, close)

    # --- literals ----------------------------------------------------------------------------------------

    def _accept(self, announced: _Announced) -> Want:
        """Ask for the literal, or refuse it by the limits."""
        limits, tag = self._limits, self._tag
        if tag is None:
            return self._refuse(responses.bad(None, "expected a tag"))
        count = limits.literals if self.authenticated else limits.literals_before_login
        if len(self._literals) >= count:
            return self._refuse(responses.bad(tag, "Too many literals in one command", response_codes.TOOBIG))
        if self._octets > limits.command:
            return self._refuse(responses.bad(tag, "Command too long", response_codes.TOOBIG))
        if self._is_message(tag, announced):
            if sum(isinstance(one, MessageLiteral) for one in self._literals) >= limits.messages:
                return self._refuse(responses.no(tag, "Too many messages in one command", response_codes.LIMIT))
            return self._accept_message(tag, announced)
        limit = limits.literal if self.authenticated else limits.literal_before_login
        if announced.size > min(limit, limits.command - self._octets):
            return self._refuse(responses.bad(tag, "Literal too large", response_codes.TOOBIG))
        self._octets += announced.size
        self._phase = _Phase.LITERAL
        kind = LiteralKind.LITERAL8 if announced.binary else LiteralKind.NORMAL
        return NeedLiteral(announced.size, announced.synchronising, kind)

    def _is_message(self, tag: bytes, announced: _Announced) -> bool:
        """In APPEND every literal is a message, except one directly after the command's name: the mailbox."""
        head = _APPEND.match(self._text, len(tag))
        return head is not None and (bool(self._literals) or announced.start > head.end())

    def _accept_message(self, tag: bytes, announced: _Announced) -> Want:
        if not self.authenticated:
            return self._refuse(responses.bad(tag, "APPEND is not valid before login"))
        if announced.size > self._limits.append:
            text = f"A message may have at most {self._limits.append} octets"
            return self._refuse(responses.no(tag, text, response_codes.TOOBIG))
        coming = MessageLiteral(announced.size, announced.binary)
        so_far = AssembledCommand(bytes(self._text), (*self._literals, coming))
        try:
            append = parse_append_so_far(so_far, utf8=self.utf8, limits=self._limits)
        except BadSyntax as fault:
            return self._refuse(responses.not_understood(fault))
        self._phase = _Phase.MESSAGE
        return NeedLiteral(announced.size, announced.synchronising, LiteralKind.APPEND_MESSAGE, append)

    def literal(self, payload: bytes) -> NeedLine:
        """The octets of a NORMAL or LITERAL8 literal, as many as NeedLiteral states."""
        self._expect(_Phase.LITERAL)
        announced = self._now_announced()
        if len(payload) != announced.size:
            raise RuntimeError(f"a literal of {announced.size} octets was asked for, {len(payload)} were given")
        self._literals.append(Literal(payload, announced.binary))
        return self._need_line(_Phase.LINE)

    def message_read(self) -> NeedLine:
        """The service has read every octet of the APPEND_MESSAGE."""
        self._expect(_Phase.MESSAGE)
        announced = self._now_announced()
        self._literals.append(MessageLiteral(announced.size, announced.binary))
        return self._need_line(_Phase.LINE)

    def _now_announced(self) -> _Announced:
        if self._announced is None:
            raise RuntimeError("no literal was announced")
        return self._announced

    # --- refusing ----------------------------------------------------------------------------------------

    def refuse(self, response: bytes) -> Want:
        """The service refuses the literal before reading any of it, with `response` (a whole tagged line). Returns
        Refuse, or Drain if the octets come all the same."""
        self._expect(_Phase.LITERAL, _Phase.MESSAGE)
        return self._refuse(response)

    def _refuse(self, response: bytes) -> Want:
        self._response = response
        return self._skip(self._now_announced())

    def _skip(self, announced: _Announced) -> Want:
        """RFC 7888 §4: the octets of a refused non-synchronising literal are read and discarded, or the connection
        closes; after a synchronising one the client sends nothing."""
        if announced.synchronising:
            return self._end(self._response)
        if announced.size > self._budget:
            return self._end(self._response + responses.bye("Literal too large"), close=True)
        self._budget -= announced.size
        self._phase = _Phase.DRAIN
        return Drain(announced.size)

    def drained(self) -> NeedLine:
        """The octets of Drain were discarded; the rest of the refused command follows."""
        self._expect(_Phase.DRAIN)
        return self._need_line(_Phase.DISCARD)

    def _discard(self, line: bytes) -> Want:
        self._budget -= min(self._budget, len(line) + 2)
        announced = _announced(line)
        if announced is None:
            return self._end(self._response)
        if not announced.synchronising and self._budget == 0:
            return self._end(self._response + responses.bye("Command too long"), close=True)
        return self._skip(announced)
