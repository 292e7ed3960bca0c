"""One client's session: the greeting, one command after another, the end.

Handlers return replies; this loop sends them, counts them and keeps the error budget. A reply 221 or 421 ends the
connection (RFC 5321 §4.1.1.10, §3.8). Exceptions become replies in `errors`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from paquebot.observability.metrics import tls_version
from paquebot.runtime.net.connection import LineTooLong, PeerGone
from paquebot.runtime.net.proxy import refuse_header
from paquebot.runtime.shares.budget import Reservation
from paquebot.smtp_ingress import metrics
from paquebot.smtp_ingress.connection import Draining, IdleTimeout, SlotTaken, SmtpConnection
from paquebot.smtp_ingress.context import ServerContext
from paquebot.smtp_ingress.errors import incident, reply_to, reply_to_login_end
from paquebot.smtp_ingress.metrics import SessionEnd
from paquebot.smtp_ingress.settings import SLACK
from paquebot.smtp_ingress.state import MailTransaction, Role, SessionState, TlsInfo
from paquebot.wire.proxy import SIGNATURE, begins_header, is_of_header
from paquebot.wire.sasl import MAX_RESPONSE
from paquebot.wire.smtp import replies
from paquebot.wire.smtp.commands import MAX_COMMAND, BadCommand, Command, Verb, parse_command
from paquebot.wire.smtp.replies import Reply

_MAX_LINE = MAX_RESPONSE + 64  # AUTH, its mechanism and an initial response
_CLOSING = frozenset({221, 421})
_OTHER_PROTOCOLS = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"\x16\x03")


class EndSession(Exception):
    """Send `reply` and close the connection: what would follow cannot be trusted."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


Handler = Callable[["Session", str], Awaitable[Reply | None]]


@dataclass(frozen=True, slots=True)
class CommandRule:
    """A command's handler, and the rules that hold before it is called.

    `alone`: no command may be pipelined after it, for its success changes how the rest is read (RFC 2920 §3.1).
    `before_tls`: allowed on submission before STARTTLS (RFC 3207 §4). `after_bdat`: allowed between chunks
    (RFC 3030 §2). `progress`: part of sending mail, so it does not count as an idle command.
    """

    handle: Handler
    alone: bool = False
    before_tls: bool = False
    after_bdat: bool = False
    progress: bool = False


class Session:
    """`table` maps every verb but OTHER to its rule."""

    def __init__(
        self,
        connection: SmtpConnection,
        state: SessionState,
        context: ServerContext,
        table: Mapping[Verb, CommandRule],
    ) -> None:
        self.connection = connection
        self.state = state
        self.context = context
        self.turns = context.loop_shares.turns(state.address)
        """The session's turns on the event loop."""
        self._table = table
        self._errors = 0
        self._verb = Verb.OTHER  # the last command's
        self._idle_commands = 0
        self._commands_before_login = 0
        self._discarded = 0
        self._progress_at = connection.loop.time()
        """When the session began, logged in, or had a message accepted, by the loop's clock."""
        connection.charge_to(context.budget.reservation(self.state.budget_path))

    def leave(self) -> None:
        """End the session when it has no transaction under way."""
        self.connection.drain()

    def displace(self) -> None:
        """End the session: another client needs its slot."""
        self.connection.displace()

    async def run(self) -> SessionEnd:
        """Serve the client to the end; return why it ended. Raises nothing but CancelledError."""
        try:
            return await self.turns.run(self._serve())
        except EndSession as end:
            self.connection.reply(end.reply)
            return SessionEnd.REFUSED
        except IdleTimeout:
            self.connection.reply(replies.TIMED_OUT)
            return SessionEnd.INACTIVE
        except Draining:
            login = self.state.login
            if login is not None and login.end is not None:
                self.connection.reply(reply_to_login_end(login.end))
                return SessionEnd.LOGIN_ENDED
            self.connection.reply(replies.SHUTTING_DOWN)
            return SessionEnd.DRAIN
        except SlotTaken:
            self.connection.reply(replies.TOO_MANY_CONNECTIONS)
            return SessionEnd.DISPLACED
        except PeerGone:
            return SessionEnd.DISCONNECTED
        except Exception:  # noqa: BLE001 - as in _dispatch, for faults outside a command
            self.connection.reply(incident(self.state))
            return SessionEnd.FAILED
        finally:
            await self._close()

    async def _close(self) -> None:
        self.end_transaction()
        if self.state.login is not None:
            self.context.logins.leave(self.state.login)
        self.connection.charge_to(None)
        if self.connection.recorder is not None:
            self.connection.recorder.end()
        await self.connection.finish()

    async def _serve(self) -> SessionEnd:
        await self._greet()
        while True:
            reply = await self._next_reply()
            if reply is not None:
                self._answer(reply)
                if reply.code in _CLOSING:
                    return SessionEnd.QUIT
            await self.turns.between_commands(more=self.connection.buffered > 0)

    async def _greet(self) -> None:
        if self.connection.tls_object is not None:  # RFC 8314 §3.3
            self.record_tls()
        if self.state.role is Role.MX and await self._is_early_talker():
            raise EndSession(replies.EARLY_TALKER)
        self.connection.reply(replies.greeting(self.context.hostname))

    async def _is_early_talker(self) -> bool:
        """RFC 5321 §4.3.1: a mail server waits for the greeting. A proxy does not: `_next_reply` refuses its header,
        whenever it came."""
        pause = self.context.timeouts.greet_pause
        if not self.connection.buffered and not (pause and await self.connection.sends_within(pause)):
            return False
        return not begins_header(self.connection.beginning(len(SIGNATURE)))

    async def _next_reply(self) -> Reply | None:
        """Read one command and handle it. None: its handler has sent the reply."""
        self._verb = Verb.OTHER
        try:
            line = await self.connection.line(_MAX_LINE, self._command_timeout(), idle=self.state.transaction is None)
        except LineTooLong:
            return replies.LINE_TOO_LONG
        self.connection.record_command(line)
        if not line.endswith(b"\r\n"):
            return replies.BARE_LF_IN_COMMAND
        if line.startswith(_OTHER_PROTOCOLS):
            raise EndSession(replies.NOT_SMTP)
        if is_of_header(line):
            refuse_header(self.state.address)
            raise EndSession(replies.PROXY_HEADER)
        try:
            command = parse_command(line[:-2])
        except BadCommand:
            return replies.UNRECOGNISED
        self._verb = command.verb
        metrics.COMMANDS_BY_VERB[command.verb].inc()
        if self.state.login is not None and await self.context.logins.check(self.state.login):
            raise Draining
        if len(line) > MAX_COMMAND and command.verb is not Verb.AUTH:
            return replies.LINE_TOO_LONG
        return await self._dispatch(command)

    def _command_timeout(self) -> float:
        """Seconds that the next command may take to arrive. Raises EndSession when none are left."""
        timeouts, now = self.context.timeouts, self.connection.loop.time()
        if self.state.is_known:
            return timeouts.command
        deadline = self._progress_at + (timeouts.login if self.state.must_log_in else timeouts.without_mail)
        transaction = self.state.transaction
        if transaction is not None and transaction.pace is not None:
            deadline = max(deadline, transaction.pace.last)
        if now >= deadline:
            raise EndSession(replies.NO_LOGIN_IN_TIME if self.state.must_log_in else replies.NO_MAIL_IN_TIME)
        return min(timeouts.command, deadline - now)

    async def _dispatch(self, command: Command) -> Reply | None:
        rule = self._table.get(command.verb)
        if rule is None:
            return replies.UNRECOGNISED
        if rule.alone and self.connection.buffered:
            raise EndSession(replies.PIPELINING_ERROR)
        if self.state.role is Role.SUBMISSION and self.state.tls is None and not rule.before_tls:
            return replies.TLS_REQUIRED
        transaction = self.state.transaction
        if transaction is not None and transaction.chunks is not None and not rule.after_bdat:
            return replies.BDAT_THEN_DATA if command.verb is Verb.DATA else replies.AFTER_BDAT
        if self.state.must_log_in:
            self._commands_before_login += 1
            if self._commands_before_login > self.context.sessions.login_commands:
                raise EndSession(replies.TOO_MANY_BEFORE_LOGIN)
        if not rule.progress and not self.state.is_known:
            self._idle_commands += 1
            if self._idle_commands > self.context.sessions.idle_commands:
                raise EndSession(replies.TOO_MANY_COMMANDS)
        try:
            return await rule.handle(self, command.argument)
        except (EndSession, IdleTimeout, Draining, SlotTaken, PeerGone):
            raise
        except Exception as error:  # noqa: BLE001 - translated, logged with an id, and answered
            return reply_to(error, self.state)

    def _answer(self, reply: Reply) -> None:
        # A known client's list with many dead addresses is no attack, and 421 would make it try all of them again.
        forgiven = self.state.is_known and self._verb is Verb.RCPT
        if reply.code >= 500 and not forgiven:
            self._errors += 1
            if self._errors >= self.context.sessions.errors:
                raise EndSession(replies.TOO_MANY_ERRORS)
        self.connection.reply(reply)

    # --- for handlers ---

    async def challenge(self, reply: Reply) -> bytes | None:
        """Send a 334 and read the response without CRLF; None: it is too long (RFC 4954 §4)."""
        self.connection.reply(reply)
        try:
            line = await self.connection.line(MAX_RESPONSE + 2, self._command_timeout())
        except LineTooLong:
            return None
        return line.rstrip(b"\r\n")

    async def start_tls(self) -> None:
        """Do the handshake; the session begins anew after it (RFC 3207 §4.2). Raises PeerGone when it fails."""
        assert self.context.tls is not None
        timeout = min(self.context.timeouts.handshake, self._command_timeout())
        try:
            await self.connection.start_tls(self.context.tls, timeout)
        except PeerGone:
            metrics.TLS.labels(self.state.role.value, "failed").inc()
            raise
        self.end_transaction()
        self.state.forget()
        self.record_tls()

    def record_tls(self) -> None:
        """Note and count the TLS that the connection has now."""
        tls = self.connection.tls_object
        assert tls is not None
        self.state.tls = TlsInfo.of(tls)
        metrics.TLS.labels(self.state.role.value, tls_version(self.state.tls.version)).inc()

    def logged_in(self) -> None:
        """Apply the limits of a client that has logged in."""
        self._progress_at = self.connection.loop.time()
        self.connection.charge_to(self.context.budget.reservation(self.state.budget_path))

    def count_discarded(self, count: int, refusal: Reply) -> None:
        """Count bytes read of a message that is refused already. Raises EndSession when they are too many."""
        self._discarded += count
        if self._discarded > 2 * (self.context.messages.size + SLACK):
            raise EndSession(refusal)

    def begin_transaction(self, make: Callable[[Reservation], MailTransaction]) -> MailTransaction:
        """Begin the transaction that `make` returns; its argument is the message's part of the byte budget."""
        transaction = make(self.context.budget.reservation(self.state.budget_path))
        self.state.transaction = transaction
        self.context.acceptance.begin()
        return transaction

    def end_transaction(self) -> None:
        """Drop the transaction, if there is one (RFC 5321 §4.1.1.5)."""
        transaction = self.state.transaction
        if transaction is not None:
            transaction.reservation.release()
            self.state.transaction = None
            self.context.acceptance.end()
            transaction.span.end()

    def end_message(self, reply: Reply) -> None:
        """Count a message that was read whole, and end its transaction."""
        metrics.MESSAGES_BY_REPLY[self.state.role, reply.code // 100].inc()
        if reply.is_positive:
            self._idle_commands = 0
            self._progress_at = self.connection.loop.time()
        if self.state.transaction is not None:
            self.state.transaction.span.set(reply=reply.code)
        self.end_transaction()
