"""One client's session: greeting, commands, one writer, and an end that says why.

Invariants: commands are answered in order, whole, one at a time; messages are deleted by QUIT and by nothing else; a
password is in no log line; whatever fails inside a command is answered and the session goes on (invariant 8).
"""

import asyncio
import contextlib
import time

from paquebot.blobs import new_ulid
from paquebot.observability.log import Log
from paquebot.pop3 import login as authorization
from paquebot.pop3 import metrics, transaction, update
from paquebot.pop3.capabilities import capabilities
from paquebot.pop3.connection import LineTooLong, Pop3Connection
from paquebot.pop3.context import ServerContext
from paquebot.pop3.errors import reply_to
from paquebot.pop3.metrics import CommandResult, SessionEnd, StateLabel
from paquebot.pop3.reply import Reply, Stream, fault
from paquebot.pop3.states import AuthorizationState, SessionEnded, State, TransactionState
from paquebot.rpc import Identity, LoginEnd, SessionLogin, TranscriptRecorder
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.net.proxy import refuse_header
from paquebot.runtime.net.slots import ConnectionSlot
from paquebot.runtime.shares.event_loop import give_way
from paquebot.wire import pop3
from paquebot.wire.cursor import GrammarError
from paquebot.wire.pop3 import MAX_COMMAND, Code
from paquebot.wire.proxy import is_of_header
from paquebot.wire.transcript import Pop3TranscriptFilter

_log = Log("paquebot.pop3.session")
_PAUSE_SECONDS = 3.0  # a client that is silent for so long does not need what was read ahead


_FAREWELL = {
    SessionEnd.DISPLACED: "Too many connections, try again later",
    SessionEnd.DRAIN: "This server ends; please connect again",
}


class _Inactive(Exception):
    """No whole line came in time."""


class _Leaving(Exception):
    """The process ends; no further command is read."""


class _LeaseLost(Exception):
    """Another session has the maildrop."""


class _LoginEnded(Exception):
    """The directory does not let the login be any longer."""


_ENDS = (PeerGone, _Inactive, _Leaving, _LeaseLost, _LoginEnded)
_CUT_OFF_SECONDS = 0.5

# RFC 3206 §3, §4: are the credentials at fault?
_PARTINGS = {
    LoginEnd.DISABLED: ("The account is disabled", Code.AUTH),
    LoginEnd.REMOVED: ("The account was removed", Code.AUTH),
    LoginEnd.REVOKED: ("The password of this session is no longer valid", Code.AUTH),
    LoginEnd.UNCHECKED: ("The login cannot be checked now, try again later", Code.SYS_TEMP),
}


class Session:
    """Runs in one task. Handlers use what is public here; everything else of a session is its state."""

    def __init__(self, process: ServerContext, connection: Pop3Connection, client: str, seat: ConnectionSlot) -> None:
        self.process = process
        self.connection = connection
        self.client = client
        """The peer's IP address."""
        self.seat = seat
        self.id = new_ulid()
        """In every log line, and the owner of the maildrop's lease."""
        self.turns = process.loop_shares.turns(client)
        """The session's turns on the event loop."""
        self.logins_failed = 0
        self._state: State = AuthorizationState()
        self._faults = 0
        self._login_deadline = asyncio.get_running_loop().time() + process.settings.session.login
        self._commands_before_login = 0
        self._leaving = False
        self._displaced = False
        self._lease_lost = False
        self._login: SessionLogin | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    @property
    def tls(self) -> bool:
        """Is the connection protected?"""
        return self.connection.tls_version is not None

    def capabilities(self) -> Reply:
        """The answer to CAPA in this state."""
        lines = capabilities(
            logged_in=isinstance(self._state, TransactionState), tls=self.tls, stls=self.process.tls is not None
        )
        return Reply(pop3.multi_line("Capabilities follow", lines))

    def forget_login(self) -> None:
        """The name that USER gave is used up."""
        if isinstance(self._state, AuthorizationState):
            self._state = AuthorizationState()

    def leave(self) -> None:
        """End the session before its next command."""
        self._leaving = True
        self.connection.ring()

    def displace(self) -> None:
        """End the session before its next command: another client needs its seat."""
        self._displaced = True
        self.leave()

    def lease_lost(self) -> None:
        """End the session before its next command: its maildrop is another's."""
        self._lease_lost = True
        self.connection.ring()

    def logged_in(self, identity: Identity) -> None:
        """The session is the identity's, for as long as the directory lets it be."""
        self.connection.logged_in()
        self.connection.recorder = TranscriptRecorder(
            self.process.recordings, identity.account_id, self.client, Pop3TranscriptFilter
        )
        self._login = self.process.logins.enter(identity, self._login_ended)

    def _login_ended(self) -> None:
        """End the session before its next command; one under way gets a moment to end."""
        self.connection.ring()
        self._cut_off = asyncio.get_running_loop().call_later(_CUT_OFF_SECONDS, self.connection.abort)

    def remaining(self) -> float:
        """Seconds that the client has until its next whole line."""
        if isinstance(self._state, AuthorizationState):
            return max(0.0, self._login_deadline - asyncio.get_running_loop().time())
        return self.process.settings.session.inactivity  # RFC 1939 §3: at least 10 minutes

    async def next_line(self, maximum: int) -> bytes:
        """The next line without its line end. Raises LineTooLong, and to end the session."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.remaining()
        paused = loop.time() + _PAUSE_SECONDS
        while True:
            if self._leaving:
                raise _Leaving
            if self._lease_lost:
                raise _LeaseLost
            if self._login is not None and self._login.end is not None:
                raise _LoginEnded
            if (line := self.connection.take_line(maximum)) is not None:
                return line
            try:
                await self.connection.wait(min(deadline, max(paused, loop.time())) - loop.time())
            except TimeoutError:
                if loop.time() >= deadline:
                    raise _Inactive from None
                self._drop_read_ahead()
                paused = deadline

    def _drop_read_ahead(self) -> None:
        if isinstance(self._state, TransactionState):
            self._state.reading.forget()

    async def run(self) -> SessionEnd:
        """Serve the client to the end; returns why it ended. Raises nothing but cancellation."""
        metrics.SESSIONS_BY_STATE[_label(self._state)].inc()
        try:
            ending = await self.turns.run(self._serve())
            await self.connection.flush()
            return ending
        except PeerGone:
            return SessionEnd.GONE
        except _Inactive:
            return SessionEnd.INACTIVE  # RFC 1939 §3: the connection is closed without a response
        except _Leaving:
            ending = SessionEnd.DISPLACED if self._displaced else SessionEnd.DRAIN
            await self._bye(_FAREWELL[ending])
            return ending
        except _LeaseLost:
            await self._bye("The maildrop was given to another session")
            return SessionEnd.LEASE_LOST
        except _LoginEnded:
            assert self._login is not None and self._login.end is not None
            await self._bye(*_PARTINGS[self._login.end])
            return SessionEnd.LOGIN_ENDED
        except Exception:  # noqa: BLE001 - the end of the line: one session fails, the others go on
            metrics.UNEXPECTED.inc()
            _log.exception("session_failed")
            self.connection.abort()
            return SessionEnd.FAILED
        finally:
            if self._login is not None:
                self.process.logins.leave(self._login)
            if self._cut_off is not None:
                self._cut_off.cancel()
            if self.connection.recorder is not None:
                self.connection.recorder.end()
            self.connection.close()
            await self._abandon()
            metrics.SESSIONS_BY_STATE[_label(self._state)].dec()
            metrics.RECEIVED.inc(self.connection.received)
            metrics.SENT.inc(self.connection.sent)

    async def _serve(self) -> SessionEnd:
        await self.connection.send(pop3.ok("Paquebot is ready"))
        while not isinstance(self._state, SessionEnded):
            try:
                line = await self.next_line(MAX_COMMAND)
            except LineTooLong:
                await self._finish(fault("The line is too long"))  # RFC 2449 §4
            else:
                self.connection.heard(line)
                if is_of_header(line):
                    refuse_header(self.client)
                    await self.connection.send(pop3.err("No PROXY header is accepted from here", Code.SYS_PERM))
                    return SessionEnd.ERRORS
                if self._login is not None and await self.process.logins.check(self._login):
                    raise _LoginEnded  # also before QUIT: nothing is deleted
                await self._execute(line)
            if isinstance(self._state, AuthorizationState):
                self._commands_before_login += 1
                if self._commands_before_login >= self.process.settings.session.login_commands:
                    await self.connection.send(pop3.err("Too many commands before login"))
                    return SessionEnd.ERRORS
            if self._faults >= self.process.settings.session.errors:
                await self.connection.send(pop3.err("Too many errors"))
                return SessionEnd.ERRORS
            await self.turns.between_commands(more=self.connection.buffered > 0)
        return SessionEnd.QUIT

    async def _execute(self, line: bytes) -> None:
        """Run a command and answer it."""
        started = time.perf_counter()
        try:
            command = pop3.parse_command(line)
        except GrammarError as error:
            metrics.COMMANDS_BY_RESULT["malformed", CommandResult.ERR].inc()
            await self._finish(fault(f"Syntax error: {error}"))
            return
        name, result = type(command).__name__.lower(), CommandResult.GONE
        try:
            positive = await self._run(command)
            result = CommandResult.OK if positive else CommandResult.ERR
        finally:
            metrics.COMMANDS_BY_RESULT[name, result].inc()
            metrics.COMMAND_SECONDS_BY_NAME[name].observe(time.perf_counter() - started)

    async def _run(self, command: pop3.Command) -> bool:
        """True: the answer was +OK."""
        try:
            answer = await self._answer(command)
        except _ENDS:
            raise
        except Exception as error:  # noqa: BLE001 - translated, logged with an id, and answered
            answer = reply_to(error)
        reply = answer if isinstance(answer, Reply) else await self._send_stream(answer)
        return await self._finish(reply) if reply is not None else True

    async def _answer(self, command: pop3.Command) -> Reply | Stream:
        match self._state:
            case AuthorizationState() as state:
                return await authorization.answer(self, state, command)
            case TransactionState() as state:
                return await transaction.answer(self, state, command)
            case SessionEnded():
                raise AssertionError("no command is read after the end")

    async def _send_stream(self, stream: Stream) -> Reply | None:
        """Send the pieces; returns the reply that is left to send, None when the answer is complete."""
        begun = False
        async with contextlib.aclosing(stream):
            try:
                async for piece in stream:
                    if isinstance(piece, Reply):
                        return piece
                    begun = True
                    await self.connection.send(piece)
                    await give_way()
            except _ENDS:
                raise
            except Exception as error:
                if begun:  # no -ERR can follow a +OK: the client must see that the answer is not whole
                    raise
                return reply_to(error)
        return None

    async def _finish(self, reply: Reply) -> bool:
        """Send a whole answer and enter its state. True: it was +OK."""
        if reply.state is not None:
            self._enter(reply.state)
        if reply.is_positive and isinstance(self._state, TransactionState):
            self._faults = 0  # only an unbroken row of faults is noise; before login, all of them count
        self._faults += reply.fault
        await self.connection.send(reply.octets)
        return reply.is_positive or not reply.octets

    def _enter(self, state: State) -> None:
        metrics.SESSIONS_BY_STATE[_label(self._state)].dec()
        metrics.SESSIONS_BY_STATE[_label(state)].inc()
        left, self._state = self._state, state
        if isinstance(left, TransactionState) and isinstance(state, SessionEnded):
            left.reading.forget()

    async def _abandon(self) -> None:
        """Give the maildrop back when the session did not end by QUIT."""
        if isinstance(self._state, TransactionState):
            try:
                await update.abandon(self.process, self._state)
            except Exception:  # noqa: BLE001 - the lease ends by itself
                _log.exception("abandon_failed")

    async def _bye(self, text: str, code: Code = Code.SYS_TEMP) -> None:
        with contextlib.suppress(PeerGone):
            await self.connection.send(pop3.err(text, code))
            await self.connection.flush()


def _label(state: State) -> StateLabel:
    """For the metric: the states of RFC 1939 §3."""
    match state:
        case AuthorizationState():
            return StateLabel.AUTHORIZATION
        case TransactionState():
            return StateLabel.TRANSACTION
        case SessionEnded():
            return StateLabel.UPDATE
