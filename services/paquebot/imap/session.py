"""One client's session: greeting, commands, one writer, and an end that says why.

Invariants: a command is read only after the answer to the one before it was written; a password is in no log line;
whatever fails inside a command is answered and the session goes on (invariant 8).
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import assert_never

from paquebot.imap import capabilities, metrics
from paquebot.imap.command_reader import CommandReader, EndRequested, RefusedCommand, UnexpectedProxyHeader
from paquebot.imap.commands import append
from paquebot.imap.connection import ImapConnection, Inactive
from paquebot.imap.context import ServerContext
from paquebot.imap.dispatch import handler_of
from paquebot.imap.errors import reply_to
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.changes import MailboxChange
from paquebot.imap.mailbox_view.feed import Watch, end_spans
from paquebot.imap.metrics import Completion, SessionEnd, StateLabel
from paquebot.imap.reply import Refresh, Reply, ReplySent, ReplyStatus, Stream, bad, in_chunks
from paquebot.imap.states import Authenticated, LoggedOut, NotAuthenticated, Selected, SessionState
from paquebot.mailstore.errors import NoSuchMailbox
from paquebot.observability.log import Log
from paquebot.rpc import Identity, LoginEnd, SessionLogin, TranscriptRecorder
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.net.proxy import refuse_header
from paquebot.runtime.net.slots import ConnectionSlot
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.shares.event_loop import give_way
from paquebot.wire.imap import ast, response_codes, responses
from paquebot.wire.imap.mailbox_name import encode_mutf7
from paquebot.wire.transcript import ImapTranscriptFilter

_log = Log("paquebot.imap.session")
_CUT_OFF_SECONDS = 0.5
_FAREWELL = {
    SessionEnd.DISPLACED: "Too many connections, try again later",
    SessionEnd.DRAIN: "This server ends; please connect again",
}

# RFC 5530 §3: what the person can do about it.
_PARTINGS = {
    LoginEnd.DISABLED: ("The account is disabled", response_codes.CONTACTADMIN),
    LoginEnd.REMOVED: ("The account was removed", response_codes.CONTACTADMIN),
    LoginEnd.REVOKED: ("The password of this session is no longer valid: log in again", response_codes.EXPIRED),
    LoginEnd.UNCHECKED: ("The login cannot be checked now: please connect again later", response_codes.UNAVAILABLE),
}


class Session:
    """Runs in one task. Handlers use what is public here; everything else of a session is its state."""

    def __init__(self, process: ServerContext, connection: ImapConnection, client: str, slot: ConnectionSlot) -> None:
        self.process = process
        self.connection = connection
        self.client = client
        """The peer's IP address."""
        self.slot = slot
        self.turns = process.loop_shares.turns(client)
        """The session's turns on the event loop."""
        self.state: SessionState = NotAuthenticated()
        self.watch: Watch | None = None
        self.reader = CommandReader(
            connection, process.settings.session, process.limits, process.budget, process.settings.pace
        )
        self.saved_uids: Sequence[int] = ()
        """The search result that `$` names (RFC 5182)."""
        self.login: SessionLogin | None = None
        self._cut_off: asyncio.TimerHandle | None = None
        self.failures = 0
        """Bad commands and failed logins so far."""
        self._commands_before_login = 0
        self._displaced = False

    @property
    def tls(self) -> bool:
        """Is the connection protected?"""
        return self.connection.tls_version is not None

    def capabilities(self) -> tuple[str, ...]:
        """What the server can in this state."""
        if isinstance(self.state, NotAuthenticated):
            return capabilities.before_login(tls=self.tls, starttls=self.process.tls is not None)
        return capabilities.after_login(self.process.limits.append)

    def leave(self) -> None:
        """End the session before its next command, or out of IDLE."""
        self.reader.end_requested = True
        self.connection.ring()

    def displace(self) -> None:
        """End the session before its next command: another client needs its slot."""
        self._displaced = True
        self.leave()

    def logged_in(self, identity: Identity) -> None:
        """The session is the identity's, for as long as the directory lets it be."""
        self.connection.logged_in()
        self.reader.logged_in(identity.account_id)
        self.connection.recorder = TranscriptRecorder(
            self.process.recordings, identity.account_id, self.client, ImapTranscriptFilter, self._mailbox
        )
        self.login = self.process.logins.enter(identity, self._login_ended)

    def _mailbox(self) -> str:
        """The selected one, as a client spells it."""
        return encode_mutf7(self.state.name).decode("ascii") if isinstance(self.state, Selected) else ""

    def _login_ended(self) -> None:
        """End the session before its next command, or out of IDLE; a command under way gets a moment to end."""
        self.leave()
        self._cut_off = asyncio.get_running_loop().call_later(_CUT_OFF_SECONDS, self.connection.abort)

    def changed(self, change: MailboxChange | None = None) -> None:
        """This session changed a mailbox of its account: let the other sessions know. `change`: all that it did."""
        if self.watch is not None:
            self.process.feed.changed(self.watch, change)

    async def run(self) -> SessionEnd:
        """Serve the client to the end; returns why it ended. Raises nothing but cancellation."""
        label = _label(self.state)
        metrics.SESSION[label].inc()
        try:
            return await self.turns.run(self._serve())
        except PeerGone:
            return SessionEnd.GONE if self._parting() is None else SessionEnd.LOGIN_ENDED
        except UnexpectedProxyHeader:
            refuse_header(self.client)
            await self._bye("No PROXY header is accepted from here")
            return SessionEnd.ERRORS
        except Inactive:
            await self._bye("Inactive for too long")
            return SessionEnd.INACTIVE
        except EndRequested:
            if parting := self._parting():
                await self._bye(*parting)
                return SessionEnd.LOGIN_ENDED
            ending = SessionEnd.DISPLACED if self._displaced else SessionEnd.DRAIN
            await self._bye(_FAREWELL[ending], response_codes.UNAVAILABLE)
            return ending
        except Exception:  # noqa: BLE001 - the end of the line: one session fails, the others go on
            metrics.UNEXPECTED.inc()
            _log.exception("session_failed")
            await self._bye("The session ends by a fault of this server", response_codes.SERVERBUG)
            return SessionEnd.FAILED
        finally:
            metrics.SESSION[_label(self.state)].dec()
            self.reader.uploads.release()
            if self.watch is not None:
                self.process.feed.ignore(self.watch)
            if self.login is not None:
                self.process.logins.leave(self.login)
            if self._cut_off is not None:
                self._cut_off.cancel()
            if self.connection.recorder is not None:
                self.connection.recorder.end()
            self.connection.close()

    async def _serve(self) -> SessionEnd:
        code = response_codes.capability(self.capabilities())
        await self.connection.send(responses.untagged_ok("Paquebot is ready", code))
        while True:
            command = await self.reader.next(self._admit)
            if isinstance(command, RefusedCommand):
                if command.response:
                    await self.connection.send(command.response)
                self.failures += command.fault
                if command.close:
                    return SessionEnd.ERRORS
            else:
                if self.login is not None and await self.process.logins.check(self.login):
                    raise EndRequested
                await self._execute(command)
            if isinstance(self.state, LoggedOut):
                return SessionEnd.LOGOUT
            if isinstance(self.state, NotAuthenticated):
                self._commands_before_login += 1
                if self._commands_before_login >= self.process.settings.session.login_commands:
                    await self._bye("Too many commands before login")
                    return SessionEnd.ERRORS
            if self.failures >= self.process.settings.session.errors:
                await self._bye("Too many errors")
                return SessionEnd.ERRORS
            await self.turns.between_commands(more=self.connection.buffered > 0)

    async def _admit(self, command: ast.Append) -> bytes | None:
        return await append.refusal(self, command)

    async def _execute(self, command: ast.Command) -> None:
        """Run a command and answer it."""
        started = time.perf_counter()
        name = type(command).__name__.lower()
        completion = Completion.GONE.value
        try:
            reply = await self._run(command)
            completion = reply.status.value if isinstance(reply, Reply) else ReplyStatus.OK.value
            if isinstance(reply, Reply):
                await self._finish(command, reply)
        finally:
            self.reader.uploads.release()
            metrics.COMMAND[name, completion].inc()
            metrics.SECONDS[name].observe(time.perf_counter() - started)

    async def _run(self, command: ast.Command) -> Reply | ReplySent:
        handler = handler_of(command, self.state)
        if handler is None:
            return bad("Not in this state") if not isinstance(command, ast.UnknownCommand) else bad("Unknown command")
        try:
            answer = await handler(self, command)
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
                    await self.connection.send(piece)
                await give_way()
        raise AssertionError("a stream ends with its reply")

    async def _finish(self, command: ast.Command, reply: Reply) -> None:
        """The untagged lines, what is new in the mailbox, and the completion, in one write."""
        before = self.state
        if reply.state is not None:
            self._enter(reply.state)
        if reply.status is ReplyStatus.BAD:
            self.failures += 1
        elif reply.status is ReplyStatus.OK and not isinstance(self.state, NotAuthenticated):
            self.failures = 0  # only an unbroken row of faults is noise; before login, all of them count
        news, closing = updates.UpdateLines(), b""
        spans = self.watch.take_spans() if self.watch is not None and reply.refresh is not Refresh.NEVER else []
        if isinstance(self.state, Selected) and reply.refresh is not Refresh.NEVER:
            try:
                news = await self._news(self.state, command, reply.refresh)
            except NoSuchMailbox:  # deleted by another session (RFC 2180 §3)
                closing = responses.bye("The selected mailbox was deleted")
                self._enter(LoggedOut())
        mod_seq = updates.highest_mod_seq_line(before, self.state)
        for piece in in_chunks(reply.untagged, news, mod_seq, reply.completion(command.tag) + closing):
            if piece:
                await self.connection.send(piece)
            await give_way()
        end_spans(spans, arrived=news.arrived)

    async def _news(self, state: Selected, command: ast.Command, refresh: Refresh) -> updates.UpdateLines:
        assert self.watch is not None
        news = updates.UpdateLines()
        if refresh is Refresh.NOW or updates.has_changes(self.watch, state):
            with contextlib.suppress(PostgresUnavailable):  # the watch stays dirty: the next command looks again
                news = await updates.refresh(self.process, self.watch, state, now=refresh is Refresh.NOW)
        if _may_expunge(command):
            news.lines = updates.with_expunge_lines(news.lines, state)
        return news

    def _enter(self, state: SessionState) -> None:
        metrics.SESSION[_label(self.state)].dec()
        metrics.SESSION[_label(state)].inc()
        if not isinstance(state, Selected):
            self.saved_uids = ()
        if self.watch is not None:
            self.watch.selects(state.mailbox_id if isinstance(state, Selected) else None)
        self.state = state

    def _parting(self) -> tuple[str, bytes] | None:
        """What to say of a login that has ended; None: it holds."""
        return _PARTINGS[self.login.end] if self.login is not None and self.login.end is not None else None

    async def _bye(self, text: str, code: bytes | None = None) -> None:
        with contextlib.suppress(PeerGone):
            await self.connection.send(responses.bye(text, code))


def _may_expunge(command: ast.Command) -> bool:
    """RFC 3501 §7.4.1: not while FETCH, STORE or SEARCH is answered; their UID forms are other commands."""
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
