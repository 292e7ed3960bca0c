"""Reads one command after another from a connection, as the grammar's assembler asks for lines and literals.

Nothing that a client declares is read before the assembler, the process's octet budget and, for APPEND, the
mailbox and the quota have agreed (invariant 7).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from paquebot.imap import metrics
from paquebot.imap.connection import Connection, LineTooLong
from paquebot.imap.settings import SessionSettings
from paquebot.runtime.limits import OctetBudget, OverBudget, Reservation
from paquebot.runtime.peer import PeerGone
from paquebot.wire.imap import (
    AssembledCommand,
    BadMailboxEncoding,
    BadSyntax,
    CommandAssembler,
    Complete,
    Drain,
    Limits,
    LiteralKind,
    NeedLine,
    NeedLiteral,
    Refuse,
    Want,
    ast,
    parse_command,
    response_codes,
    responses,
)
from paquebot.wire.proxy import is_of_header


class ProxyHeader(Exception):
    """A header of the PROXY protocol came, where none is read."""


class Leaving(Exception):
    """The process drains, and it is this session's turn to say BYE."""


@dataclass(slots=True)
class Uploads:
    """The messages of one APPEND, in order, and what they hold of the octet budget."""

    reservation: Reservation
    messages: list[bytes] = field(default_factory=list)
    mailbox_id: int = 0
    """Where they go, known once the first was admitted."""

    def release(self) -> None:
        """The messages are not needed any more."""
        self.messages.clear()
        self.reservation.release()


@dataclass(frozen=True, slots=True)
class Refused:
    """What came was not taken; the response is whole lines. `fault`: it broke the protocol."""

    response: bytes
    close: bool
    fault: bool


Admit = Callable[[ast.Append], Awaitable[bytes | None]]
"""May the last message of this APPEND be read? None, or the tagged line that refuses it."""


class CommandReader:
    """The reading half of a session."""

    def __init__(self, connection: Connection, settings: SessionSettings, limits: Limits, budget: OctetBudget) -> None:
        self._connection = connection
        self._settings = settings
        self._limits = limits
        self._assembler = CommandAssembler(limits)
        self.uploads = Uploads(Reservation(budget))
        self.leaving = False
        """Set to end the session before its next command."""

    def logged_in(self) -> None:
        """From now on, the wider limits and the longer timeout."""
        self._assembler.authenticated = True

    @property
    def inactivity(self) -> float:
        """Seconds without a command after which the session ends (RFC 3501 §5.4)."""
        return self._settings.inactivity if self._assembler.authenticated else self._settings.greeting

    async def next(self, admit: Admit) -> ast.Command | Refused:
        """The next command. Raises Leaving, PeerGone, Inactive, ProxyHeader."""
        want: Want = self._assembler.start()
        first = True
        while True:
            match want:
                case NeedLine(maximum):
                    want = self._give_line(await self._line(maximum, first=first))
                    first = False
                case NeedLiteral(kind=LiteralKind.APPEND_MESSAGE):
                    want = await self._message(want, admit)
                case NeedLiteral():
                    want = await self._literal(want)
                case Drain(size):
                    metrics.LITERALS_REFUSED.inc()
                    await self._connection.throw_away(size, self._settings.read)
                    want = self._assembler.drained()
                case Refuse(response, close):
                    self.uploads.release()
                    return Refused(response, close, fault=b" BAD " in response)
                case Complete(assembled):
                    return self._parsed(assembled)

    def _parsed(self, assembled: AssembledCommand) -> ast.Command | Refused:
        try:
            return parse_command(assembled, limits=self._limits)
        except BadSyntax as fault:
            self.uploads.release()
            response = responses.not_understood(fault)
            return Refused(response, close=False, fault=not isinstance(fault, BadMailboxEncoding))

    def _give_line(self, line: bytes | LineTooLong) -> Want:
        if isinstance(line, LineTooLong):
            return self._assembler.line_too_long(line.head)
        return self._assembler.line(line)

    async def _line(self, maximum: int, *, first: bool) -> bytes | LineTooLong:
        if not first:
            return await self._connection.read_line(maximum, self._settings.read)
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.inactivity
        while (line := self._connection.take_line(maximum)) is None:
            if self._connection.ended:
                raise PeerGone
            if self.leaving:
                raise Leaving
            await self._connection.wait(ends - loop.time())
        if self.leaving:
            raise Leaving
        if not isinstance(line, LineTooLong) and is_of_header(line):
            raise ProxyHeader
        return line

    async def answer(self, maximum: int) -> bytes | LineTooLong:
        """A line that belongs to the command under way: a SASL response."""
        return await self._connection.read_line(maximum, self._settings.read)

    async def _literal(self, want: NeedLiteral) -> Want:
        if want.synchronising:
            await self._connection.send(responses.continuation())
        return self._assembler.literal(bytes(await self._connection.read_exactly(want.size, self._settings.read)))

    async def _message(self, want: NeedLiteral, admit: Admit) -> Want:
        assert want.append is not None
        refusal = await admit(want.append)
        if refusal is None:
            refusal = self._reserve(want)
        if refusal is not None:
            metrics.LITERALS_REFUSED.inc()
            return self._assembler.refuse(refusal)
        if want.synchronising:
            await self._connection.send(responses.continuation())
        octets = await self._connection.read_exactly(want.size, self._settings.read)
        self.uploads.messages.append(bytes(octets))
        return self._assembler.message_read()

    def _reserve(self, want: NeedLiteral) -> bytes | None:
        """Octets of the process for the message; the refusal when it has too many in memory."""
        assert want.append is not None
        held = self.uploads.reservation.octets
        try:
            self.uploads.reservation.grow_to(held + want.size)
        except OverBudget:
            return responses.no(
                want.append.tag, "Too many messages at once, try again later", response_codes.UNAVAILABLE
            )
        return None
