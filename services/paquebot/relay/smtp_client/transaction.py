"""One mail transaction in a session: MAIL, RCPT for each recipient, DATA or BDAT, the content, and an outcome for each
recipient.

Invariants: a recipient is delivered only after a 2yz reply to the final dot that followed its own 2yz reply to
RCPT; every other end is an outcome too, so no recipient is forgotten. Bare CR and LF never leave (RFC 5321 §2.3.8).
RFC 5321 §3.3, §4.1.1, §4.5.2 (transparency), RFC 2920 (pipelining), RFC 3030, 1870, 6152, 6531, 3461.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence

from paquebot.relay import metrics
from paquebot.relay.message import OutgoingMessage, RelayRecipient
from paquebot.relay.outcome import (
    BAD_RECIPIENT,
    BAD_SENDER,
    CLOSING,
    PROTOCOL_ERROR,
    TOO_BIG,
    Host,
    Outcomes,
    RelayOutcome,
    RelayResult,
    failed,
    outcome_of,
    reply_text,
)
from paquebot.relay.settings import SmtpTimeouts
from paquebot.relay.smtp_client.form import FormRules, MessageForm, MessageUnsupported
from paquebot.relay.smtp_client.session import ClientSession, SessionBroken
from paquebot.wire.smtp.extensions import size_limit
from paquebot.wire.smtp.parameters import Notify, RcptParameters
from paquebot.wire.smtp.replies import Reply
from paquebot.wire.transparency import add_transparency


class ClientTransaction:
    """One message to some recipients over one session. `on_content` is called before the first byte of the content."""

    def __init__(
        self,
        session: ClientSession,
        message: OutgoingMessage,
        timeouts: SmtpTimeouts,
        rules: FormRules,
        on_content: Callable[[], None],
    ) -> None:
        self._session = session
        self._message = message
        self._timeouts = timeouts
        self._rules = rules
        self._form = MessageForm(0)
        self._on_content = on_content
        self._content_sent = False  # once True the host may have the message, whatever it replies

    async def run(self, recipients: Sequence[RelayRecipient]) -> Outcomes:
        """An outcome for every recipient. Raises SessionBroken only when the session was dead before MAIL was
        answered, so that nothing has happened yet; OverBudget and what reading the message raises."""
        outcomes: Outcomes = {}
        try:
            recipients, outcomes = self._writable(recipients)
            self._form = await self._rules.form(self._message, recipients, self._session.extensions, self._host)
            self._fits(self._form)
        except MessageUnsupported as refused:
            return outcomes | dict.fromkeys((recipient.forward_path for recipient in recipients), refused.outcome)
        if not recipients:
            return outcomes
        return outcomes | await self._transact(recipients)

    async def _transact(self, recipients: Sequence[RelayRecipient]) -> Outcomes:
        session = self._session
        if session.open_transaction:
            await session.command("RSET", self._timeouts.mail, "RSET")
        session.open_transaction = True
        session.messages += 1
        start = time.perf_counter()
        try:
            return await self._exchange(recipients, self._commands(recipients))
        finally:
            metrics.TRANSACTION_SECONDS.observe(time.perf_counter() - start)

    @property
    def _host(self) -> Host:
        return self._session.host

    def _writable(self, recipients: Sequence[RelayRecipient]) -> tuple[Sequence[RelayRecipient], Outcomes]:
        """The recipients whose address can stand in a command, and the outcomes of the others."""
        if not _writable(self._message.reverse_path):
            raise MessageUnsupported(failed(BAD_SENDER, "the sender's address cannot be written in a command"))
        bad = failed(BAD_RECIPIENT, "the address cannot be written in a command")
        outcomes = {one.forward_path: bad for one in recipients if not _writable(one.forward_path)}
        return [one for one in recipients if one.forward_path not in outcomes], outcomes

    def _fits(self, form: MessageForm) -> None:
        """Raises MessageUnsupported."""
        limit = size_limit(self._session.extensions)
        if limit and form.size > limit:  # RFC 1870 §6.1
            raise MessageUnsupported(failed(TOO_BIG, f"the host takes messages of at most {limit} bytes", self._host))

    def _commands(self, recipients: Sequence[RelayRecipient]) -> list[str]:
        extensions, message, form = self._session.extensions, self._message, self._form
        parameters = message.parameters(form.size, form.body, smtputf8=form.smtputf8).narrowed_to(extensions)
        commands = [f"MAIL FROM:<{message.reverse_path}>{parameters}"]
        for recipient in recipients:
            rcpt_parameters = recipient.parameters.narrowed_to(extensions)
            commands.append(f"RCPT TO:<{recipient.address}>{rcpt_parameters}")
        return commands

    async def _exchange(self, recipients: Sequence[RelayRecipient], commands: Sequence[str]) -> Outcomes:
        pipelined = "PIPELINING" in self._session.extensions  # RFC 2920 §3.1
        if pipelined:
            content = () if self._form.chunked else ("DATA",)
            self._session.send("\r\n".join((*commands, *content)), "MAIL")
        mail = await self._answer(None if pipelined else commands[0], self._timeouts.mail, "MAIL")
        if not mail.is_positive:
            return await self._mail_refused(mail, recipients, pipelined=pipelined)
        outcomes: Outcomes = {}
        try:
            accepted = await self._recipients(recipients, commands[1:], outcomes, pipelined=pipelined)
            if self._form.chunked:
                await self._bdat(accepted, outcomes)
            else:
                await self._data(accepted, outcomes, pipelined=pipelined)
        except SessionBroken as broken:
            for recipient in recipients:
                outcomes.setdefault(
                    recipient.forward_path, broken.outcome(self._host, elsewhere=not self._content_sent)
                )
        return outcomes

    async def _answer(self, command: str | None, seconds: float, phase: str) -> Reply:
        """The reply to a command, or to one that is under way already (None). Raises SessionBroken."""
        if command is not None:
            self._session.send(command, phase)
        reply = await self._session.reply(seconds, phase)
        metrics.REPLIES.labels(phase, f"{reply.code // 100}xx").inc()
        return reply

    async def _mail_refused(self, mail: Reply, recipients: Sequence[RelayRecipient], *, pipelined: bool) -> Outcomes:
        """The refusal is for every recipient. What was pipelined behind MAIL is still answered."""
        if mail.code == 421 and self._session.messages > 1:
            # A host that accepts no more messages on this connection refuses here; a new connection may work.
            raise self._session.broken(CLOSING, reply_text(mail))
        outcome = outcome_of(mail, self._host, elsewhere=mail.is_temporary)
        if pipelined and self._session.alive:
            await self._skip(len(recipients))
        return dict.fromkeys((recipient.forward_path for recipient in recipients), outcome)

    async def _skip(self, rcpt_replies: int) -> None:
        """Read the replies to RCPT and DATA that were sent behind a refused MAIL."""
        try:
            for _ in range(rcpt_replies):
                await self._session.reply(self._timeouts.rcpt, "RCPT")
            if self._form.chunked:
                return
            data = await self._session.reply(self._timeouts.data, "DATA")
            if data.code == 354:
                await self._send_empty_content()
        except SessionBroken:
            return  # the outcomes stand; the session ends

    async def _recipients(
        self, recipients: Sequence[RelayRecipient], commands: Sequence[str], outcomes: Outcomes, *, pipelined: bool
    ) -> list[RelayRecipient]:
        """The accepted recipients; the others get their outcomes. Raises SessionBroken."""
        accepted: list[RelayRecipient] = []
        for recipient, command in zip(recipients, commands, strict=True):
            reply = await self._answer(None if pipelined else command, self._timeouts.rcpt, "RCPT")
            if reply.is_positive:
                accepted.append(recipient)
            else:
                outcomes[recipient.forward_path] = self._rcpt_refused(reply)
            if reply.code == 421:
                raise SessionBroken(CLOSING, reply_text(reply))
        return accepted

    def _rcpt_refused(self, reply: Reply) -> RelayOutcome:
        # RFC 5321 §4.5.3.1.10: 552 for too many recipients counts as 452.
        if reply.code == 552 and reply.enhanced_status in ("", "5.5.3"):
            reply = Reply(452, "4.5.3", reply.text)
        return outcome_of(reply, self._host, elsewhere=reply.is_temporary)

    async def _data(self, accepted: list[RelayRecipient], outcomes: Outcomes, *, pipelined: bool) -> None:
        """DATA and the content, when a recipient was accepted. Raises SessionBroken."""
        if not accepted and not pipelined:
            return
        reply = await self._answer(None if pipelined else "DATA", self._timeouts.data, "DATA")
        if reply.code == 354 and not accepted:
            await self._send_empty_content()  # RFC 2920 §3.1
            return
        if reply.code == 354:
            reply = await self._send_content(add_transparency)
        elif reply.is_positive:  # nothing was sent, so nothing was taken: replies and commands are out of step
            raise self._session.broken(PROTOCOL_ERROR, f"unexpected reply to DATA: {reply_text(reply)}")
        self._settle(reply, accepted, outcomes)

    async def _bdat(self, accepted: list[RelayRecipient], outcomes: Outcomes) -> None:
        """RFC 3030 §2: the content in one chunk, without transparency. Raises SessionBroken."""
        if accepted:
            command = f"BDAT {self._form.size} LAST\r\n".encode("ascii")
            self._settle(
                await self._send_content(lambda content: itertools.chain((command,), content)), accepted, outcomes
            )

    async def _send_content(self, framed: Callable[[Iterable[bytes]], Iterable[bytes]]) -> Reply:
        """The content, and the reply to it. Raises SessionBroken."""
        timeouts = self._timeouts
        total = timeouts.block + self._form.size / timeouts.rate
        async with self._message.opened() as content:
            pieces = framed(self._message.pieces(content, self._form.conversion))
            self._content_sent = True
            self._on_content()
            complete = await self._session.send_content(pieces, timeouts.block, total)
        return await self._reply_to_content(complete=complete)

    async def _reply_to_content(self, *, complete: bool) -> Reply:
        """A reply that came before the final dot was sent can only be a refusal. Raises SessionBroken."""
        session = self._session
        reply = await self._answer(None, self._timeouts.end, "message")
        if not complete:
            broken = session.broken(PROTOCOL_ERROR, f"reply before the end of the message: {reply_text(reply)}")
            if reply.is_positive:
                raise broken
        return reply

    async def _send_empty_content(self) -> None:
        """RFC 2920 §3.1: DATA was accepted without a recipient; a lone dot ends it, and the reply means nothing."""
        self._session.send(".", "message")
        await self._session.reply(self._timeouts.end, "message")
        self._session.open_transaction = False

    def _settle(self, reply: Reply, accepted: Sequence[RelayRecipient], outcomes: Outcomes) -> None:
        """RFC 5321 §4.1.1.4: the reply after the final dot is for every accepted recipient."""
        if 200 <= reply.code < 300:
            self._session.open_transaction = False
            metrics.BYTES.inc(self._form.size)
            if self._form.change is not None:
                metrics.CONVERTED.labels(self._form.change.value).inc()
            status = reply.enhanced_status or "2.0.0"
            dsn = "DSN" in self._session.extensions
            outcome = RelayOutcome(
                RelayResult.DELIVERED, status, reply_text(reply), self._host.name, from_host=True, dsn_passed=dsn
            )
        else:
            # A 3yz here is no reply to the content; only a temporary failure is safe.
            refusal = reply if reply.code >= 400 else Reply(451, PROTOCOL_ERROR, str(reply))
            outcome = outcome_of(refusal, self._host, elsewhere=refusal.is_temporary and not self._content_sent)
        for recipient in accepted:
            outcomes[recipient.forward_path] = outcome


def _writable(address: str) -> bool:
    """RCPT lets in no control character; none may make a command here."""
    return not any(char < " " or char == "\x7f" for char in address)


def rcpt_parameters(notify: Sequence[int], orcpt: str) -> RcptParameters:
    """From a job's recipient; values that a later version may have written there are ignored."""
    return RcptParameters(tuple(item for item in Notify if item in notify), orcpt)
