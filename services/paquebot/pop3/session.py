"""One client's session: the greeting, one command after another, one writer, and an end with its reason.

Invariants: commands are answered in order, whole, one at a time; only QUIT deletes messages; a password is in no log
line; a fault inside a command is answered and the session goes on (invariant 8).
"""

import asyncio
import contextlib
import time

from paquebot.observability.log import Log
from paquebot.pop3 import login, metrics, transaction, update
from paquebot.pop3.connection import Pop3Connection
from paquebot.pop3.context import ServerContext
from paquebot.pop3.errors import farewell, reply_to
from paquebot.pop3.metrics import CommandResult, SessionEnd, StateLabel
from paquebot.pop3.reply import Reply, Stream, fault
from paquebot.pop3.states import AuthorizationState, SessionEnded, State, TransactionState
from paquebot.rpc import Identity, SessionLogin, TranscriptRecorder
from paquebot.runtime.net.connection import LineTooLong, PeerGone
from paquebot.runtime.net.proxy import refuse_header
from paquebot.runtime.net.server import ConnectedClient
from paquebot.runtime.shares.event_loop import give_way
from paquebot.wire import pop3
from paquebot.wire.cursor import GrammarError
from paquebot.wire.pop3 import MAX_COMMAND, Code
from paquebot.wire.proxy import is_of_header
from paquebot.wire.transcript import Pop3TranscriptFilter

_log = Log("paquebot.pop3.session")
_PAUSE_SECONDS = 3.0  # a client that is silent for so long does not need what was read ahead
_CUT_OFF_SECONDS = 0.5  # for a command under way when its login ends


class _EndSession(Exception):
    """Read no further command: the session ends for this reason."""

    def __init__(self, end: SessionEnd) -> None:
        super().__init__(end)
        self.end = end


class Session:
    """Runs in one task. It is the `LoginContext` of its commands."""

    def __init__(self, context: ServerContext, connection: Pop3Connection, client: ConnectedClient) -> None:
        self.context = context
        self.connection = connection
        self.client = client.address
        """The client's IP address."""
        self.id = client.id
        """In every log line, and the owner of the maildrop's lease."""
        self.failed_logins = 0
        self._slot = client.slot
        self._turns = context.loop_shares.turns(client.address)
        self._state: State = AuthorizationState()
        self._faults = 0
        self._login_deadline = asyncio.get_running_loop().time() + context.settings.session.login
        self._commands_before_login = 0
        self._end: SessionEnd | None = None
        """Set to end the session before its next command."""
        self._login: SessionLogin | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    @property
    def tls(self) -> bool:
        """Is the connection protected?"""
        return self.connection.tls_version is not None

    def leave(self) -> None:
        """End the session before its next command."""
        self._end_with(SessionEnd.DRAIN)

    def displace(self) -> None:
        """End the session before its next command: another client needs its slot."""
        self._end_with(SessionEnd.DISPLACED)

    def lease_lost(self) -> None:
        """End the session before its next command: another session has its maildrop."""
        self._end_with(SessionEnd.LEASE_LOST)

    def _login_ended(self) -> None:
        """End the session before its next command; one under way gets a moment to finish."""
        self._end_with(SessionEnd.LOGIN_ENDED)
        self._cut_off = asyncio.get_running_loop().call_later(_CUT_OFF_SECONDS, self.connection.abort)

    def _end_with(self, end: SessionEnd) -> None:
        self._end = self._end or end
        self.connection.ring()

    def forget_login(self) -> None:
        """The name from USER is used up."""
        if isinstance(self._state, AuthorizationState):
            self._state = AuthorizationState()

    def logged_in(self, identity: Identity) -> None:
        """The session belongs to the identity from now on, until the directory ends the login."""
        self.connection.logged_in()
        self.connection.recorder = TranscriptRecorder(
            self.context.recordings, identity.account_id, self.client, Pop3TranscriptFilter
        )
        self._login = self.context.logins.enter(identity, self._login_ended)
        self._turns.belongs_to(identity.account_id)
        self._slot.log_in(identity.account_id)

    def remaining(self) -> float:
        """Seconds that the client has until its next whole line."""
        if isinstance(self._state, AuthorizationState):
            return max(0.0, self._login_deadline - asyncio.get_running_loop().time())
        return self.context.settings.session.inactivity  # RFC 1939 §3: at least 10 minutes

    async def next_line(self, maximum: int) -> bytes:
        """The next line without its line end. Raises LineTooLong, and _EndSession to end the session."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.remaining()
        paused = loop.time() + _PAUSE_SECONDS
        while True:
            if self._end is not None:
                raise _EndSession(self._end)
            if (line := self.connection.take_line(maximum)) is not None:
                return line
            try:
                await self.connection.wait(min(deadline, max(paused, loop.time())) - loop.time())
            except TimeoutError:
                if loop.time() >= deadline:
                    raise _EndSession(SessionEnd.INACTIVE) from None
                self._drop_read_ahead()
                paused = deadline

    def _drop_read_ahead(self) -> None:
        if isinstance(self._state, TransactionState):
            self._state.prefetch.forget()

    async def run(self) -> SessionEnd:
        """Serve the client to the end; returns why it ended. Raises nothing but cancellation."""
        metrics.SESSIONS_BY_STATE[_label(self._state)].inc()
        try:
            end = await self._turns.run(self._serve())
            await self.connection.flush()
            return end
        except PeerGone:
            return SessionEnd.DISCONNECTED
        except _EndSession as ending:
            await self._send_farewell(ending.end)
            return ending.end
        except Exception:  # noqa: BLE001 - the last resort: one session fails, the others go on
            metrics.UNEXPECTED.inc()
            _log.exception("session_failed")
            self.connection.abort()
            return SessionEnd.FAILED
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._login is not None:
            self.context.logins.leave(self._login)
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
        settings = self.context.settings.session
        await self.connection.send(pop3.ok("Paquebot is ready"))
        while not isinstance(self._state, SessionEnded):
            try:
                line = await self.next_line(MAX_COMMAND)
            except LineTooLong:
                await self._finish(fault("The line is too long"))  # RFC 2449 §4
            else:
                self.connection.record_command(line)
                if is_of_header(line):
                    refuse_header(self.client)
                    await self.connection.send(pop3.err("No PROXY header is accepted from here", Code.SYS_PERM))
                    return SessionEnd.ERRORS
                if self._login is not None and await self.context.logins.check(self._login):
                    raise _EndSession(SessionEnd.LOGIN_ENDED)  # also before QUIT: nothing is deleted
                await self._execute(line)
            if isinstance(self._state, AuthorizationState):
                self._commands_before_login += 1
                if self._commands_before_login >= settings.login_commands:
                    await self.connection.send(pop3.err("Too many commands before login"))
                    return SessionEnd.ERRORS
            if self._faults >= settings.errors:
                await self.connection.send(pop3.err("Too many errors"))
                return SessionEnd.ERRORS
            await self._turns.between_commands(more=self.connection.buffered > 0)
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
        name, result = type(command).__name__.lower(), CommandResult.DISCONNECTED
        try:
            positive = await self._run(command)
            result = CommandResult.OK if positive else CommandResult.ERR
        finally:
            metrics.COMMANDS_BY_RESULT[name, result].inc()
            metrics.COMMAND_SECONDS_BY_NAME[name].observe(time.perf_counter() - started)

    async def _run(self, command: pop3.Command) -> bool:
        """True: the reply was +OK."""
        try:
            answer = await self._answer(command)
        except (PeerGone, _EndSession):
            raise
        except Exception as error:  # noqa: BLE001 - translated, logged with an id, and answered
            answer = reply_to(error)
        reply = answer if isinstance(answer, Reply) else await self._send_stream(answer)
        return await self._finish(reply) if reply is not None else True

    async def _answer(self, command: pop3.Command) -> Reply | Stream:
        match self._state:
            case AuthorizationState() as state:
                return await login.answer(self, state, command)
            case TransactionState() as state:
                return await transaction.answer(self.context, state, command)
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
            except (PeerGone, _EndSession):
                raise
            except Exception as error:
                if begun:  # no -ERR can follow a +OK: the client must see that the answer is not whole
                    raise
                return reply_to(error)
        return None

    async def _finish(self, reply: Reply) -> bool:
        """Send a whole reply and enter its state. True: it was +OK."""
        if reply.state is not None:
            self._enter(reply.state)
        if reply.is_positive and isinstance(self._state, TransactionState):
            self._faults = 0  # only faults in an unbroken row count; before login, all of them
        self._faults += reply.fault
        await self.connection.send(reply.data)
        return reply.is_positive or not reply.data

    def _enter(self, state: State) -> None:
        metrics.SESSIONS_BY_STATE[_label(self._state)].dec()
        metrics.SESSIONS_BY_STATE[_label(state)].inc()
        left, self._state = self._state, state
        if isinstance(left, TransactionState) and isinstance(state, SessionEnded):
            left.prefetch.forget()

    async def _abandon(self) -> None:
        """Release the maildrop if the session did not end by QUIT."""
        if isinstance(self._state, TransactionState):
            try:
                await update.abandon(self.context, self._state)
            except Exception:  # noqa: BLE001 - the lease expires by itself
                _log.exception("maildrop_not_released")

    async def _send_farewell(self, end: SessionEnd) -> None:
        if not (line := farewell(end, self._login)):
            return
        with contextlib.suppress(PeerGone):
            await self.connection.send(line)
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
