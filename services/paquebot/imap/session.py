"""One client's session: greeting, commands, one writer of replies, and an end with a reason.

Invariants: a command is read only after the reply to the one before it was written; no log line has a password;
a failure inside a command gets a response, and the session continues (invariant 8).
"""

import asyncio
import contextlib
import time
from typing import assert_never

from paquebot.imap import metrics
from paquebot.imap.command_reader import CommandReader, EndRequested, RefusedCommand, UnexpectedProxyHeader
from paquebot.imap.commands import append
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.connection import ImapConnection, Inactive
from paquebot.imap.context import ServerContext
from paquebot.imap.dispatch import handler_of
from paquebot.imap.errors import reply_to
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.feed import end_spans
from paquebot.imap.metrics import Completion, SessionEnd, StateLabel
from paquebot.imap.reply import Refresh, Reply, ReplySent, ReplyStatus, Stream, bad, in_chunks
from paquebot.imap.states import Authenticated, LoggedOut, NotAuthenticated, Selected, SessionState
from paquebot.mailstore.errors import NoSuchMailbox
from paquebot.observability.log import Log
from paquebot.rpc import Identity, LoginEnd, SessionLogin, TranscriptRecorder
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.net.proxy import refuse_header
from paquebot.runtime.net.server import ConnectedClient
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.shares.event_loop import give_way
from paquebot.wire.imap import ast, response_codes, responses
from paquebot.wire.imap.mailbox_name import encode_mutf7
from paquebot.wire.transcript import ImapTranscriptFilter

_log = Log("paquebot.imap.session")
_ABORT_SECONDS = 0.5
_END_TEXTS = {
    SessionEnd.DISPLACED: "Too many connections, try again later",
    SessionEnd.DRAIN: "Server shutting down",
}

# RFC 5530 §3: what the person can do about it.
_LOGIN_END_TEXTS = {
    LoginEnd.DISABLED: ("The account is disabled", response_codes.CONTACTADMIN),
    LoginEnd.REMOVED: ("The account was removed", response_codes.CONTACTADMIN),
    LoginEnd.REVOKED: ("The password of this session is no longer valid: log in again", response_codes.EXPIRED),
    LoginEnd.UNCHECKED: ("The login cannot be checked now: please connect again later", response_codes.UNAVAILABLE),
}


class Session:
    """Runs in one task: reads a command, runs its handler, and writes the reply."""

    def __init__(self, server: ServerContext, connection: ImapConnection, client: ConnectedClient) -> None:
        self._server = server
        self._connection = connection
        self._client = client.address
        self._turns = server.loop_shares.turns(client.address)
        self._reader = CommandReader(
            connection, server.settings.session, server.limits, server.budget, server.settings.pace
        )
        self._context = CommandContext(server, connection, self._reader, client.address, client.slot, self._log_in)
        self._state: SessionState = NotAuthenticated()
        self._login: SessionLogin | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._commands_before_login = 0
        self._displaced = False

    def leave(self) -> None:
        """End the session before its next command, or out of IDLE."""
        self._reader.end_requested = True
        self._connection.ring()

    def displace(self) -> None:
        """End the session before its next command: another client needs its slot."""
        self._displaced = True
        self.leave()

    def _log_in(self, identity: Identity) -> None:
        """The session is the identity's until the directory ends its login."""
        self._connection.logged_in()
        self._reader.logged_in(identity.account_id)
        self._connection.recorder = TranscriptRecorder(
            self._server.recordings, identity.account_id, self._client, ImapTranscriptFilter, self._mailbox_name
        )
        self._login = self._server.logins.enter(identity, self._login_ended)
        self._turns.belongs_to(identity.account_id)
        self._context.failures = 0

    def _mailbox_name(self) -> str:
        """The selected mailbox, as a client spells it."""
        return encode_mutf7(self._state.name).decode("ascii") if isinstance(self._state, Selected) else ""

    def _login_ended(self) -> None:
        """End the session before its next command, or out of IDLE; a command under way gets a moment to finish."""
        self.leave()
        self._abort_timer = asyncio.get_running_loop().call_later(_ABORT_SECONDS, self._connection.abort)

    async def run(self) -> SessionEnd:
        """Serve the client to the end; returns why it ended. Raises nothing but cancellation."""
        metrics.SESSIONS_BY_STATE[_label(self._state)].inc()
        try:
            return await self._turns.run(self._serve())
        except PeerGone:
            return SessionEnd.DISCONNECTED if self._login_end() is None else SessionEnd.LOGIN_ENDED
        except UnexpectedProxyHeader:
            refuse_header(self._client)
            await self._bye("No PROXY header is accepted from here")
            return SessionEnd.ERRORS
        except Inactive:
            await self._bye("Inactive for too long")
            return SessionEnd.INACTIVE
        except EndRequested:
            return await self._end_as_requested()
        except Exception:  # noqa: BLE001 - one session fails, the others continue
            metrics.UNEXPECTED.inc()
            _log.exception("session_failed")
            await self._bye("Internal server error", response_codes.SERVERBUG)
            return SessionEnd.FAILED
        finally:
            self._close()

    async def _end_as_requested(self) -> SessionEnd:
        if login_end := self._login_end():
            await self._bye(*login_end)
            return SessionEnd.LOGIN_ENDED
        end = SessionEnd.DISPLACED if self._displaced else SessionEnd.DRAIN
        await self._bye(_END_TEXTS[end], response_codes.UNAVAILABLE)
        return end

    def _close(self) -> None:
        metrics.SESSIONS_BY_STATE[_label(self._state)].dec()
        self._reader.uploads.release()
        if self._context.watch is not None:
            self._server.feed.unwatch(self._context.watch)
        if self._login is not None:
            self._server.logins.leave(self._login)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._connection.recorder is not None:
            self._connection.recorder.end()
        self._connection.close()

    async def _serve(self) -> SessionEnd:
        code = response_codes.capability(self._context.capabilities(self._state))
        await self._connection.send(responses.untagged_ok("Paquebot is ready", code))
        while True:
            command = await self._reader.next(self._check_append)
            if isinstance(command, RefusedCommand):
                if command.response:
                    await self._connection.send(command.response)
                self._context.failures += command.fault
                if command.close:
                    return SessionEnd.ERRORS
            else:
                if self._login is not None and await self._server.logins.check(self._login):
                    raise EndRequested
                await self._execute(command)
            if isinstance(self._state, LoggedOut):
                return SessionEnd.LOGOUT
            if isinstance(self._state, NotAuthenticated):
                self._commands_before_login += 1
                if self._commands_before_login >= self._server.settings.session.login_commands:
                    await self._bye("Too many commands before login")
                    return SessionEnd.ERRORS
            if self._context.failures >= self._server.settings.session.errors:
                await self._bye("Too many errors")
                return SessionEnd.ERRORS
            await self._turns.between_commands(more=self._connection.buffered > 0)

    async def _check_append(self, command: ast.Append) -> bytes | None:
        return await append.refusal(self._context, self._state, command)

    async def _execute(self, command: ast.Command) -> None:
        """Run a command and write its reply."""
        started = time.perf_counter()
        name = type(command).__name__.lower()
        completion = Completion.DISCONNECTED.value
        try:
            reply = await self._run(command)
            completion = reply.status.value if isinstance(reply, Reply) else ReplyStatus.OK.value
            if isinstance(reply, Reply):
                await self._finish(command, reply)
        finally:
            self._reader.uploads.release()
            metrics.COMMANDS_BY_NAME[name, completion].inc()
            metrics.COMMAND_SECONDS_BY_NAME[name].observe(time.perf_counter() - started)

    async def _run(self, command: ast.Command) -> Reply | ReplySent:
        handler = handler_of(command, self._state)
        if handler is None:
            return bad("Not in this state") if not isinstance(command, ast.UnknownCommand) else bad("Unknown command")
        try:
            answer = await handler(self._context, self._state, command)
            return answer if isinstance(answer, Reply) else await self._send_stream(answer)
        except (PeerGone, EndRequested, Inactive):
            raise
        except Exception as error:  # noqa: BLE001 - translated, logged with an id, and answered
            return reply_to(error)

    async def _send_stream(self, stream: Stream) -> Reply | ReplySent:
        async with contextlib.aclosing(stream):
            async for piece in stream:
                if isinstance(piece, Reply | ReplySent):
                    return piece
                if piece:
                    await self._connection.send(piece)
                await give_way()
        raise AssertionError("a stream ends with its reply")

    async def _finish(self, command: ast.Command, reply: Reply) -> None:
        """Write the untagged lines, updates of the mailbox, and the completion, together where they are short."""
        before = self._state
        if reply.state is not None:
            self._enter(reply.state)
        if reply.status is ReplyStatus.BAD:
            self._context.failures += 1
        elif reply.status is ReplyStatus.OK and not isinstance(self._state, NotAuthenticated):
            self._context.failures = 0  # after login only consecutive faults count; before it, all of them
        lines, closing = updates.UpdateLines(), b""
        watch = self._context.watch
        spans = watch.take_spans() if watch is not None and reply.refresh is not Refresh.NEVER else []
        if isinstance(self._state, Selected) and reply.refresh is not Refresh.NEVER:
            try:
                lines = await self._update_lines(self._state, command, reply.refresh)
            except NoSuchMailbox:  # deleted by another session (RFC 2180 §3)
                closing = responses.bye("The selected mailbox was deleted")
                self._enter(LoggedOut())
        mod_seq = updates.highest_mod_seq_line(before, self._state)
        for piece in in_chunks(reply.untagged, lines, mod_seq, reply.completion(command.tag) + closing):
            if piece:
                await self._connection.send(piece)
            await give_way()
        end_spans(spans, arrived=lines.arrived)

    async def _update_lines(self, state: Selected, command: ast.Command, refresh: Refresh) -> updates.UpdateLines:
        watch = self._context.watch
        assert watch is not None
        lines = updates.UpdateLines()
        if refresh is Refresh.NOW or updates.has_changes(watch, state):
            with contextlib.suppress(PostgresUnavailable):  # the watch stays dirty: the next command refreshes
                lines = await updates.refresh(self._server, watch, state, now=refresh is Refresh.NOW)
        if _may_expunge(command):
            lines.lines = updates.with_expunge_lines(lines.lines, state)
        return lines

    def _enter(self, state: SessionState) -> None:
        metrics.SESSIONS_BY_STATE[_label(self._state)].dec()
        metrics.SESSIONS_BY_STATE[_label(state)].inc()
        if not isinstance(state, Selected):
            self._context.saved_uids = ()
        if self._context.watch is not None:
            self._context.watch.select(state.mailbox_id if isinstance(state, Selected) else None)
        self._state = state

    def _login_end(self) -> tuple[str, bytes] | None:
        """The text and code for a login that has ended; None: it has not."""
        return _LOGIN_END_TEXTS[self._login.end] if self._login is not None and self._login.end is not None else None

    async def _bye(self, text: str, code: bytes | None = None) -> None:
        with contextlib.suppress(PeerGone):
            await self._connection.send(responses.bye(text, code))


def _may_expunge(command: ast.Command) -> bool:
    """RFC 3501 §7.4.1: not in the reply to FETCH, STORE or SEARCH; their UID forms are other commands."""
    return not isinstance(command, ast.Fetch | ast.Store | ast.Search) or command.uid


def _label(state: SessionState) -> StateLabel:
    match state:
        case NotAuthenticated():
            return StateLabel.NOT_AUTHENTICATED
        case Authenticated() | LoggedOut():
            return StateLabel.AUTHENTICATED
        case Selected():
            return StateLabel.SELECTED
        case _:
            assert_never(state)
