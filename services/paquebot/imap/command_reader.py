"""Reads one command after another from a connection, as the grammar's assembler asks for lines and literals.

Nothing that a client declares is read before the assembler and, for APPEND, the mailbox and the quota have agreed; the
bytes of a message are charged to the account's share of the process's budget as they come (invariant 7).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from paquebot.imap import metrics
from paquebot.imap.connection import ImapConnection, LineTooLong
from paquebot.imap.long_commands import MEMORY_PER_BYTE, run_in_thread
from paquebot.imap.settings import SessionSettings
from paquebot.imap.uploads import Uploads
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.net.pace import Pace, PaceSettings
from paquebot.runtime.shares.budget import OverBudget, SharedBudget
from paquebot.runtime.shares.in_flight import account
from paquebot.wire.imap import (
    AssembledCommand,
    BadMailboxEncoding,
    BadSyntax,
    CommandAssembler,
    Complete,
    Drain,
    ImapLimits,
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


class UnexpectedProxyHeader(Exception):
    """A header of the PROXY protocol came, where none is read."""


class EndRequested(Exception):
    """The process drains, and it is this session's turn to say BYE."""


@dataclass(frozen=True, slots=True)
class RefusedCommand:
    """What came was not taken; the response is whole lines, or none. `fault`: it broke the protocol."""

    response: bytes
    close: bool
    fault: bool


CheckAppend = Callable[[ast.Append], Awaitable[bytes | None]]
"""May the last message of this APPEND be read? None, or the tagged line that refuses it."""


class CommandReader:
    """The reading half of a session."""

    def __init__(
        self,
        connection: ImapConnection,
        settings: SessionSettings,
        limits: ImapLimits,
        budget: SharedBudget,
        pace: PaceSettings,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._limits = limits
        self._assembler = CommandAssembler(limits)
        self._pace = pace
        self._now = asyncio.get_running_loop().time
        self._login_ends = self._now() + settings.login
        self._in_vain = 0
        self._bytes = 0  # of the command that is read
        self.uploads = Uploads(budget)
        self.end_requested = False
        """Set to end the session before its next command."""
        self.long = False
        """Is the command that was read last so long that work on it is to be done beside the event loop?"""

    def logged_in(self, account_id: int) -> None:
        """From now on, the wider limits and the longer timeout."""
        self._assembler.authenticated = True
        self.uploads.holder = account(account_id)

    @property
    def inactivity_timeout(self) -> float:
        """Seconds from now after which the session ends without a command (RFC 3501 §5.4); before login it ends then
        whatever it says."""
        return self._settings.inactivity if self._assembler.authenticated else self._until_login()

    def _until_login(self) -> float:
        return max(0.0, self._login_ends - self._now())

    @property
    def command_timeout(self) -> float:
        """Seconds for the rest of a command that has begun."""
        return self._settings.read if self._assembler.authenticated else min(self._settings.read, self._until_login())

    async def next(self, admit: CheckAppend) -> ast.Command | RefusedCommand:
        """The next command. Raises Leaving, PeerGone, Inactive, ProxyHeader."""
        try:
            return await self._next(admit)
        except OverBudget:
            self.uploads.release()
            response = responses.bye("Too many long commands at once, try again later", response_codes.UNAVAILABLE)
            return RefusedCommand(response, close=True, fault=False)

    async def _next(self, admit: CheckAppend) -> ast.Command | RefusedCommand:
        """As `next`. Raises OverBudget too."""
        want: Want = self._assembler.start()
        self._bytes = 0
        first = True
        while True:
            match want:
                case NeedLine(maximum):
                    line = await self._line(maximum, first=first)
                    self._connection.heard(line, first=first)
                    if first and self._is_empty(line):
                        return self._nothing()
                    want = self._give_line(line)
                    first = False
                case NeedLiteral(kind=LiteralKind.APPEND_MESSAGE):
                    message = await self._message(want, admit)
                    if message is None:
                        return self._cut_off()
                    want = message
                case NeedLiteral():
                    want = await self._literal(want)
                case Drain(size):
                    metrics.LITERALS_REFUSED.inc()
                    if not await self._throw_away(size):
                        return self._cut_off()
                    want = self._assembler.drained()
                case Refuse(response, close):
                    self.uploads.release()
                    return RefusedCommand(response, close, fault=b" BAD " in response)
                case Complete(assembled):
                    return await self._parsed(assembled)

    def _is_empty(self, line: bytes | LineTooLong) -> bool:
        """Some clients send a line end too many behind a literal, or one now and then to stay connected."""
        return self._assembler.authenticated and not isinstance(line, LineTooLong) and not line.strip(b" ")

    def _nothing(self) -> RefusedCommand:
        self._assembler.nothing()
        return RefusedCommand(b"", close=False, fault=False)

    async def _parsed(self, assembled: AssembledCommand) -> ast.Command | RefusedCommand:
        def parse() -> ast.Command:
            return parse_command(assembled, liberal=self._assembler.authenticated, limits=self._limits)

        self.long = self._bytes > self._limits.line_free
        try:
            return await run_in_thread(parse) if self.long else parse()
        except BadSyntax as fault:
            self.uploads.release()
            response = responses.not_understood(fault)
            return RefusedCommand(response, close=False, fault=not isinstance(fault, BadMailboxEncoding))

    def _give_line(self, line: bytes | LineTooLong) -> Want:
        if isinstance(line, LineTooLong):
            return self._assembler.line_too_long(line.head)
        self._bytes += len(line)
        self._hold(0)
        return self._assembler.line(line)

    def _hold(self, coming: int) -> None:
        """Charge a long command to the account, with what is on its way of it. Raises OverBudget."""
        octets = self._bytes + coming - self._limits.line_free
        if octets > 0 and self._assembler.authenticated:
            self.uploads.hold_command(MEMORY_PER_BYTE * octets)

    async def _line(self, maximum: int, *, first: bool) -> bytes | LineTooLong:
        ends = self._now() + (self.inactivity_timeout if first else self.command_timeout)
        while (line := self._connection.take_line(maximum)) is None:
            self._hold(self._connection.buffered)
            if self._connection.ended:
                raise PeerGone
            if first and self.end_requested:
                raise EndRequested
            await self._connection.wait(ends - self._now())
        if not first:
            return line
        if self.end_requested:
            raise EndRequested
        if not isinstance(line, LineTooLong) and is_of_header(line):
            raise UnexpectedProxyHeader
        return line

    async def answer(self, maximum: int) -> bytes | LineTooLong:
        """A line that belongs to the command under way: a SASL response."""
        return await self._connection.read_line(maximum, self.command_timeout)

    async def _literal(self, want: NeedLiteral) -> Want:
        if want.synchronising:
            await self._connection.send(responses.continuation())
        octets = bytearray()
        pace = self._transfer(self._settings.append if self._assembler.authenticated else self._until_login())
        while left := want.size - len(octets):
            octets += await self._some(left, pace)
        literal = bytes(octets)
        self._connection.heard_literal(literal)
        self._bytes += want.size
        self._hold(0)
        return self._assembler.literal(literal)

    async def _message(self, want: NeedLiteral, admit: CheckAppend) -> Want | None:
        """None: as `_throw_away`."""
        assert want.append is not None
        refusal = await admit(want.append)
        if refusal is None and self.uploads.lost:
            refusal = _too_many(want.append.tag)
        if refusal is not None:
            metrics.LITERALS_REFUSED.inc()
            return self._assembler.refuse(refusal)
        if want.synchronising:
            await self._connection.send(responses.continuation())
        pace = self._transfer(self._settings.append)
        left = want.size
        thrown_away = 0
        while left:
            piece = await self._some(left, pace)
            left -= len(piece)
            if not self.uploads.add(piece):
                metrics.LITERALS_REFUSED.inc()
                if not await self._throw_away(left):
                    return None
                left, thrown_away = 0, left
        self.uploads.end_message()
        self._connection.heard_octets(want.size - thrown_away)
        return self._assembler.message_read()

    def _transfer(self, seconds: float) -> Pace:
        return Pace(self._pace, self._now, seconds)

    async def _some(self, most: int, pace: Pace) -> bytes:
        """As `Connection.read_some`, at the least pace."""
        piece = await self._connection.read_some(most, pace.deadline(self._settings.read) - self._now())
        pace.came(len(piece))
        return piece

    async def _throw_away(self, size: int) -> bool:
        """Read `size` bytes and keep none. False, and not all is read: so much in vain is no client's mistake."""
        self._in_vain += size
        if self._in_vain > 2 * self._limits.drain:
            return False
        pace = self._transfer(self._settings.append if self._assembler.authenticated else self._until_login())
        left = size
        while left:
            left -= len(await self._some(left, pace))
        self._connection.heard_octets(size)
        return True

    def _cut_off(self) -> RefusedCommand:
        self.uploads.release()
        return RefusedCommand(responses.bye("Too much that was refused"), close=True, fault=True)


def _too_many(tag: bytes) -> bytes:
    return responses.no(tag, "Too many messages at once, try again later", response_codes.UNAVAILABLE)
