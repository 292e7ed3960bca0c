"""One mail transaction in a session: MAIL, RCPT for each recipient, DATA, the message, and one result a recipient.

Invariants: a recipient is delivered only after a 2yz reply to the final dot that followed its own 2yz reply to
RCPT; every other end is a result too, so no recipient is forgotten. Bare CR and LF never leave (RFC 5321 §2.3.8).
RFC 5321 §3.3, §4.1.1, §4.5.2 (transparency), RFC 2920 (pipelining), RFC 1870, 6152, 6531, 3461.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paquebot.relay import metrics
from paquebot.relay.result import (
    CLOSING,
    NEEDS_EIGHT_BIT,
    NEEDS_SMTPUTF8,
    PROTOCOL_ERROR,
    TOO_BIG,
    Host,
    Outcome,
    Result,
    failed,
    judged,
    words,
)
from paquebot.relay.session import Session, SessionBroken
from paquebot.relay.settings import Deadlines
from paquebot.wire.smtp.parameters import Body, MailParameters, Notify, RcptParameters, Ret
from paquebot.wire.smtp.replies import Reply

_BARE_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Recipient:
    """`forward_path` without angle brackets; `parameters` as the sender gave them."""

    forward_path: str
    parameters: RcptParameters = RcptParameters()


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent. `data`: dot-stuffed and ended by its final dot; `size`: its octets before that."""

    reverse_path: str
    data: bytes
    size: int
    ret: Ret | None
    envid: str
    eight_bit: bool
    utf8_header: bool

    @classmethod
    def of(
        cls, raw: bytes, reverse_path: str, *, ret: Ret | None = None, envid: str = "", smtputf8: bool = False
    ) -> "Message":
        """`smtputf8`: the message came with SMTPUTF8, so that 8-bit octets of its header are UTF-8."""
        raw = crlf_only(raw)
        ascii_only = raw.isascii()
        header = raw.partition(b"\r\n\r\n")[0]
        return cls(
            reverse_path,
            dot_stuffed(raw),
            len(raw),
            ret,
            envid,
            eight_bit=not ascii_only,
            utf8_header=smtputf8 and not header.isascii(),
        )

    def needs_smtputf8(self, recipients: Sequence[Recipient]) -> bool:
        """RFC 6531 §3.2: an address or the header is not ASCII. The sender's mere SMTPUTF8 asks for nothing."""
        addresses = (self.reverse_path, *(recipient.forward_path for recipient in recipients))
        return self.utf8_header or not all(address.isascii() for address in addresses)

    def parameters(self, *, smtputf8: bool) -> MailParameters:
        body = Body.EIGHT_BIT_MIME if self.eight_bit else None
        return MailParameters(self.size, body, smtputf8, self.ret, self.envid)


def crlf_only(raw: bytes) -> bytes:
    """The message with every bare CR or LF made a line end; the same object when there is none."""
    ends = raw.count(b"\r\n")
    if raw.count(b"\n") == ends and raw.count(b"\r") == ends:
        return raw
    return _BARE_LINE_END.sub(b"\r\n", raw)


def dot_stuffed(raw: bytes) -> bytes:
    """RFC 5321 §4.5.2: the message with a dot before each line that begins with one, and with its final dot."""
    stuffed = raw.replace(b"\r\n.", b"\r\n..")
    first = b"." if raw.startswith(b".") else b""
    return b"".join((first, stuffed, b".\r\n" if raw.endswith(b"\r\n") or not raw else b"\r\n.\r\n"))


Results = dict[str, Result]
"""By forward-path."""


class Transaction:
    """One message to some recipients over one session. `on_content` is called before the message's first octet."""

    def __init__(
        self,
        session: Session,
        message: Message,
        deadlines: Deadlines,
        *,
        send_eight_bit: bool,
        on_content: Callable[[], None],
    ) -> None:
        self._session = session
        self._message = message
        self._deadlines = deadlines
        self._send_eight_bit = send_eight_bit
        self._on_content = on_content
        self._content = False  # from here on the host may have the message, whatever it says

    async def run(self, recipients: Sequence[Recipient]) -> Results:
        """A result for every recipient. Raises SessionBroken only when the session was dead before MAIL was
        answered, so that nothing has happened yet."""
        if refusal := self._refusal(recipients):
            return dict.fromkeys((recipient.forward_path for recipient in recipients), refusal)
        session = self._session
        if session.open_transaction:
            await session.command("RSET", self._deadlines.mail, "RSET")
        session.open_transaction = True
        session.messages += 1
        start = time.perf_counter()
        try:
            return await self._converse(recipients)
        finally:
            metrics.TRANSACTION_SECONDS.observe(time.perf_counter() - start)

    @property
    def _host(self) -> Host:
        return self._session.host

    def _refusal(self, recipients: Sequence[Recipient]) -> Result | None:
        """What this host cannot take, by what it offered."""
        extensions, message = self._session.extensions, self._message
        if message.needs_smtputf8(recipients) and "SMTPUTF8" not in extensions:
            # RFC 6531 §3.2: there is no way down from UTF-8 addresses and headers.
            return failed(NEEDS_SMTPUTF8, "the host does not take UTF-8 addresses and headers", self._host)
        if message.eight_bit and "8BITMIME" not in extensions and not self._send_eight_bit:
            # RFC 6152 §3: convert to 7 bits or treat as undeliverable; bytes never change here.
            return failed(NEEDS_EIGHT_BIT, "the host does not take 8-bit text", self._host)
        limit = self._session.size_limit
        if limit and message.size > limit:  # RFC 1870 §6.1
            return failed(TOO_BIG, f"the host takes messages of at most {limit} octets", self._host)
        return None

    def _commands(self, recipients: Sequence[Recipient]) -> list[str]:
        extensions, message = self._session.extensions, self._message
        parameters = message.parameters(smtputf8=message.needs_smtputf8(recipients)).narrowed_to(extensions)
        commands = [f"MAIL FROM:<{message.reverse_path}>{parameters}"]
        for recipient in recipients:
            wishes = recipient.parameters.narrowed_to(extensions)
            commands.append(f"RCPT TO:<{recipient.forward_path}>{wishes}")
        if any(char < " " or char == "\x7f" for command in commands for char in command):
            raise ValueError("a control character in an address")  # none gets in at RCPT; none may make a command
        return commands

    async def _converse(self, recipients: Sequence[Recipient]) -> Results:
        commands = self._commands(recipients)
        pipelined = "PIPELINING" in self._session.extensions  # RFC 2920 §3.1
        if pipelined:
            self._session.send("\r\n".join((*commands, "DATA")), "MAIL")
        mail = await self._answer(None if pipelined else commands[0], self._deadlines.mail, "MAIL")
        if not mail.is_positive:
            return await self._mail_refused(mail, recipients, pipelined=pipelined)
        results: Results = {}
        try:
            accepted = await self._recipients(recipients, commands[1:], results, pipelined=pipelined)
            await self._data(accepted, results, pipelined=pipelined)
        except SessionBroken as broken:
            for recipient in recipients:
                results.setdefault(recipient.forward_path, broken.result(self._host, elsewhere=not self._content))
        return results

    async def _answer(self, command: str | None, seconds: float, phase: str) -> Reply:
        """The reply to a command, or to one that is under way already (None). Raises SessionBroken."""
        if command is not None:
            self._session.send(command, phase)
        reply = await self._session.reply(seconds, phase)
        metrics.REPLIES.labels(phase, f"{reply.code // 100}xx").inc()
        return reply

    async def _mail_refused(self, mail: Reply, recipients: Sequence[Recipient], *, pipelined: bool) -> Results:
        """Everybody shares the refusal. What was pipelined behind MAIL is still answered."""
        if mail.code == 421 and self._session.messages > 1:
            # A host that has had enough of this connection says so here; a new one may do.
            raise self._session.broken(CLOSING, words(mail))
        result = judged(mail, self._host, elsewhere=mail.is_temporary)
        if pipelined and self._session.alive:
            await self._skip(len(recipients))
        return dict.fromkeys((recipient.forward_path for recipient in recipients), result)

    async def _skip(self, rcpt_replies: int) -> None:
        """Read the replies to RCPT and DATA that were sent behind a refused MAIL."""
        try:
            for _ in range(rcpt_replies):
                await self._session.reply(self._deadlines.rcpt, "RCPT")
            data = await self._session.reply(self._deadlines.data, "DATA")
            if data.code == 354:
                await self._empty_message()
        except SessionBroken:
            return  # the results stand; the session ends

    async def _recipients(
        self, recipients: Sequence[Recipient], commands: Sequence[str], results: Results, *, pipelined: bool
    ) -> list[Recipient]:
        """Who was accepted; the others get their results. Raises SessionBroken."""
        accepted: list[Recipient] = []
        for recipient, command in zip(recipients, commands, strict=True):
            reply = await self._answer(None if pipelined else command, self._deadlines.rcpt, "RCPT")
            if reply.is_positive:
                accepted.append(recipient)
            else:
                results[recipient.forward_path] = self._rcpt_refused(reply)
            if reply.code == 421:
                raise SessionBroken(CLOSING, words(reply))
        return accepted

    def _rcpt_refused(self, reply: Reply) -> Result:
        # RFC 5321 §4.5.3.1.10: 552 for too many recipients is to be taken as 452.
        if reply.code == 552 and reply.enhanced_status in ("", "5.5.3"):
            reply = Reply(452, "4.5.3", reply.text)
        return judged(reply, self._host, elsewhere=reply.is_temporary)

    async def _data(self, accepted: list[Recipient], results: Results, *, pipelined: bool) -> None:
        """DATA and the message, when somebody was accepted. Raises SessionBroken."""
        if not accepted and not pipelined:
            return
        reply = await self._answer(None if pipelined else "DATA", self._deadlines.data, "DATA")
        if reply.code == 354 and not accepted:
            await self._empty_message()  # RFC 2920 §3.1
            return
        if reply.code == 354:
            self._content = True
            self._on_content()
            reply = await self._message_itself()
        self._settle(reply, accepted, results)

    async def _message_itself(self) -> Reply:
        """The reply to the message. One that came before the final dot was sent can only be a refusal."""
        session = self._session
        whole = await session.send_message(self._message.data, self._deadlines.block)
        reply = await self._answer(None, self._deadlines.end, "message")
        if not whole:
            broken = session.broken(PROTOCOL_ERROR, f"reply before the end of the message: {words(reply)}")
            if reply.is_positive:
                raise broken
        return reply

    async def _empty_message(self) -> None:
        """RFC 2920 §3.1: DATA was let in without a recipient; a lone dot ends it, and the reply means nothing."""
        self._session.send(".", "message")
        await self._session.reply(self._deadlines.end, "message")
        self._session.open_transaction = False

    def _settle(self, reply: Reply, accepted: Sequence[Recipient], results: Results) -> None:
        """RFC 5321 §4.1.1.4: the reply after the final dot is for every accepted recipient."""
        if 200 <= reply.code < 300:
            self._session.open_transaction = False
            metrics.BYTES.inc(self._message.size)
            status = reply.enhanced_status or "2.0.0"
            dsn = "DSN" in self._session.extensions
            result = Result(Outcome.DELIVERED, status, words(reply), self._host.name, from_host=True, dsn_passed=dsn)
        else:
            # A 3yz here is no answer to a message; only "later" is safe.
            refusal = reply if reply.code >= 400 else Reply(451, PROTOCOL_ERROR, str(reply))
            result = judged(refusal, self._host, elsewhere=refusal.is_temporary and not self._content)
        for recipient in accepted:
            results[recipient.forward_path] = result


def wishes(notify: Sequence[int], orcpt: str) -> RcptParameters:
    """From a job's recipient."""
    return RcptParameters(tuple(Notify(item) for item in notify), orcpt)
