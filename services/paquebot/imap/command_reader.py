"""Reads one command after another from a connection, as the grammar's assembler asks for lines and literals.

No literal is read before the assembler and, for APPEND, the mailbox and the quota have accepted its declared size; the
bytes of a message are charged to the account's share of the process's budget as they come (invariant 7).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from paquebot.imap import metrics
from paquebot.imap.connection import ImapConnection, TruncatedLine
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
    """A header of the PROXY protocol came from a client that may not send one."""


class EndRequested(Exception):
    """The session must end with BYE before its next command: the process drains, or its login or its slot is gone."""


@dataclass(frozen=True, slots=True)
class RefusedCommand:
    """A command that was not parsed. `response`: whole lines, or none. `fault`: it broke the protocol."""

    response: bytes
    close: bool
    fault: bool


CheckAppend = Callable[[ast.Append], Awaitable[bytes | None]]
"""Checks the last message of an APPEND before it is read: None, or the tagged line that refuses it."""


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
        self._login_deadline = self._now() + settings.login
        self._discarded = 0
        self._bytes = 0  # of the command so far, without the messages of APPEND
        self.uploads = Uploads(budget)
        self.end_requested = False
        """Set to end the session before its next command."""
        self.long = False
        """Is the last command so long that work on it belongs in a thread?"""

    def logged_in(self, account_id: int) -> None:
        """From now on, the limits and timeouts of a logged-in session."""
        self._assembler.authenticated = True
        self.uploads.owner = account(account_id)

    @property
    def inactivity_timeout(self) -> float:
        """Seconds until a session without a command ends (RFC 3501 §5.4); before login, seconds until it ends in any
        case."""
        return self._settings.inactivity if self._assembler.authenticated else self._until_login()

    def _until_login(self) -> float:
        return max(0.0, self._login_deadline - self._now())

    @property
    def command_timeout(self) -> float:
        """Seconds for each step of the rest of a command that has begun."""
        return self._settings.read if self._assembler.authenticated else min(self._settings.read, self._until_login())

    async def next(self, check_append: CheckAppend) -> ast.Command | RefusedCommand:
        """The next command. Raises Leaving, PeerGone, Inactive, ProxyHeader."""
        try:
            return await self._next(check_append)
        except OverBudget:
            self.uploads.release()
            response = responses.bye("Too many long commands at once, try again later", response_codes.UNAVAILABLE)
            return RefusedCommand(response, close=True, fault=False)

    async def _next(self, check_append: CheckAppend) -> ast.Command | RefusedCommand:
        """`next`, but raises OverBudget too."""
        want: Want = self._assembler.start()
        self._bytes = 0
        first = True
        while True:
            match want:
                case NeedLine(maximum):
                    line = await self._line(maximum, first=first)
                    self._connection.record_command(line, first=first)
                    if first and self._is_empty(line):
                        return self._skip_line()
                    want = self._give_line(line)
                    first = False
                case NeedLiteral(kind=LiteralKind.APPEND_MESSAGE):
                    message = await self._message(want, check_append)
                    if message is None:
                        return self._too_much_discarded()
                    want = message
                case NeedLiteral():
                    want = await self._literal(want)
                case Drain(size):
                    metrics.LITERALS_REFUSED.inc()
                    if not await self._discard(size):
                        return self._too_much_discarded()
                    want = self._assembler.drained()
                case Refuse(response, close):
                    self.uploads.release()
                    return RefusedCommand(response, close, fault=b" BAD " in response)
                case Complete(assembled):
                    return await self._parse(assembled)

    def _is_empty(self, line: bytes | TruncatedLine) -> bool:
        """Some clients send an extra line end after a literal, or one now and then to keep the connection open."""
        return self._assembler.authenticated and not isinstance(line, TruncatedLine) and not line.strip(b" ")

    def _skip_line(self) -> RefusedCommand:
        self._assembler.nothing()
        return RefusedCommand(b"", close=False, fault=False)

    async def _parse(self, assembled: AssembledCommand) -> ast.Command | RefusedCommand:
        def parse() -> ast.Command:
            return parse_command(assembled, liberal=self._assembler.authenticated, limits=self._limits)

        self.long = self._bytes > self._limits.line_free
        try:
            return await run_in_thread(parse) if self.long else parse()
        except BadSyntax as fault:
            self.uploads.release()
            response = responses.not_understood(fault)
            return RefusedCommand(response, close=False, fault=not isinstance(fault, BadMailboxEncoding))

    def _give_line(self, line: bytes | TruncatedLine) -> Want:
        if isinstance(line, TruncatedLine):
            return self._assembler.line_too_long(line.head)
        self._bytes += len(line)
        self._reserve(0)
        return self._assembler.line(line)

    def _reserve(self, buffered: int) -> None:
        """Charge a long command to the account, with its `buffered` bytes. Raises OverBudget."""
        size = self._bytes + buffered - self._limits.line_free
        if size > 0 and self._assembler.authenticated:
            self.uploads.reserve_for_command(MEMORY_PER_BYTE * size)

    async def _line(self, maximum: int, *, first: bool) -> bytes | TruncatedLine:
        deadline = self._now() + (self.inactivity_timeout if first else self.command_timeout)
        while (line := self._connection.take_line(maximum)) is None:
            self._reserve(self._connection.buffered)
            if self._connection.ended:
                raise PeerGone
            if first and self.end_requested:
                raise EndRequested
            await self._connection.wait(deadline - self._now())
        if not first:
            return line
        if self.end_requested:
            raise EndRequested
        if not isinstance(line, TruncatedLine) and is_of_header(line):
            raise UnexpectedProxyHeader
        return line

    async def read_answer(self, maximum: int) -> bytes | TruncatedLine:
        """A line of the command under way: a SASL response."""
        return await self._connection.read_line(maximum, self.command_timeout)

    async def _literal(self, want: NeedLiteral) -> Want:
        if want.synchronising:
            await self._connection.send(responses.continuation())
        read = bytearray()
        pace = self._transfer(self._settings.append if self._assembler.authenticated else self._until_login())
        while left := want.size - len(read):
            read += await self._read_chunk(left, pace)
        literal = bytes(read)
        self._connection.record_literal(literal)
        self._bytes += want.size
        self._reserve(0)
        return self._assembler.literal(literal)

    async def _message(self, want: NeedLiteral, check_append: CheckAppend) -> Want | None:
        """None: too much was discarded."""
        assert want.append is not None
        refusal = await check_append(want.append)
        if refusal is None and self.uploads.dropped:
            refusal = _too_many(want.append.tag)
        if refusal is not None:
            metrics.LITERALS_REFUSED.inc()
            return self._assembler.refuse(refusal)
        if want.synchronising:
            await self._connection.send(responses.continuation())
        pace = self._transfer(self._settings.append)
        left = want.size
        discarded = 0
        while left:
            chunk = await self._read_chunk(left, pace)
            left -= len(chunk)
            if not self.uploads.add(chunk):
                metrics.LITERALS_REFUSED.inc()
                if not await self._discard(left):
                    return None
                left, discarded = 0, left
        self.uploads.end_message()
        self._connection.record_content(want.size - discarded)
        return self._assembler.message_read()

    def _transfer(self, seconds: float) -> Pace:
        return Pace(self._pace, self._now, seconds)

    async def _read_chunk(self, maximum: int, pace: Pace) -> bytes:
        """Up to `maximum` bytes, which must come at the minimum pace."""
        chunk = await self._connection.read_some(maximum, pace.deadline(self._settings.read) - self._now())
        pace.came(len(chunk))
        return chunk

    async def _discard(self, size: int) -> bool:
        """Read `size` bytes and discard them. False, with some left unread, if there were too many for an honest
        mistake."""
        self._discarded += size
        if self._discarded > 2 * self._limits.drain:
            return False
        pace = self._transfer(self._settings.append if self._assembler.authenticated else self._until_login())
        left = size
        while left:
            left -= len(await self._read_chunk(left, pace))
        self._connection.record_content(size)
        return True

    def _too_much_discarded(self) -> RefusedCommand:
        self.uploads.release()
        return RefusedCommand(responses.bye("Too much refused data"), close=True, fault=True)


def _too_many(tag: bytes) -> bytes:
    return responses.no(tag, "Too many messages at once, try again later", response_codes.UNAVAILABLE)
