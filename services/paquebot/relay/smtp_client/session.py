"""A session with an SMTP server: what it offers, commands and replies, and whether it can take another message.

RFC 5321 §3.1, §4.1.1, §4.2 and §4.5.3.2. A 421 reply ends a session at any point (§4.2.3).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from paquebot.relay.outcome import BAD_CONNECTION, PROTOCOL_ERROR, Host, RelayOutcome, deferred
from paquebot.relay.smtp_client.stream import ReplyLineTooLong, Stream, StreamEnded
from paquebot.wire.smtp.replies import BadReply, Reply, ReplyLine, join_reply, parse_reply_line

MAX_REPLY_LINES = 128  # kept of a reply
MAX_REPLY_TEXT = 64 * 1024  # characters kept of a reply
MAX_REPLY = 1024 * 1024  # bytes of a reply


class SessionBroken(Exception):
    """The host fell silent, closed, or did not speak SMTP; the session cannot be used any more.

    `status` is our own; `text` describes in one line what happened, and in which phase.
    """

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text

    def outcome(self, host: Host, *, elsewhere: bool = False) -> RelayOutcome:
        return deferred(self.status, self.text, host, elsewhere=elsewhere)


class ClientSession:
    """Made by `Handshake.open`. `extensions`: EHLO keywords in upper case with their parameters; empty after HELO.
    `tls`: the version, empty: in clear. `messages`: transactions begun so far."""

    def __init__(self, host: Host, stream: Stream) -> None:
        self.host = host
        self.extensions: Mapping[str, str] = {}
        self.tls = ""
        self.messages = 0
        self.open_transaction = False
        self._stream = stream
        self._broken = False

    @property
    def usable(self) -> bool:
        """Another message may be sent. A host that writes without a command before it is about to close."""
        return not (self._broken or self._stream.ended or self._stream.unread)

    @property
    def alive(self) -> bool:
        """Replies may still come."""
        return not self._broken

    @property
    def stream(self) -> Stream:
        return self._stream

    async def command(self, line: str, seconds: float, phase: str) -> Reply:
        """Send one command and read its reply. Raises SessionBroken."""
        self.send(line, phase)
        return await self.reply(seconds, phase)

    def send(self, lines: str, phase: str) -> None:
        """Send one or more commands, separated by CRLF, in one write. Raises SessionBroken."""
        try:
            self._stream.write((lines + "\r\n").encode())
        except StreamEnded:
            if not self._stream.has_line():  # else its last reply explains why
                raise self.broken(BAD_CONNECTION, f"connection closed before {phase}") from None

    async def send_content(self, blocks: Iterable[bytes | memoryview], seconds: float, total: float) -> bool:
        """Send the framed content, each block within `seconds` and all of them within `total`. False: the host replied
        before all was sent. Raises SessionBroken."""
        try:
            return await self._stream.write_blocks(blocks, seconds, total)
        except StreamEnded:
            if not self._stream.has_line():
                raise self.broken(BAD_CONNECTION, "connection closed during the message") from None
            return False
        except TimeoutError:
            raise self.broken(BAD_CONNECTION, "timed out sending the message") from None

    async def reply(self, seconds: float, phase: str) -> Reply:
        """The next reply, of at most MAX_REPLY bytes. `seconds` is the timeout for all its lines together: a host that
        sends a line now and then gets no more time than a silent one. Raises SessionBroken."""
        try:
            async with asyncio.timeout(seconds):
                reply = await self._whole_reply()
        except StreamEnded:
            raise self.broken(BAD_CONNECTION, f"connection closed during {phase}") from None
        except TimeoutError:
            raise self.broken(BAD_CONNECTION, f"timed out waiting for the reply to {phase}") from None
        except (BadReply, ReplyLineTooLong) as error:
            text = f"reply to {phase} is not SMTP" + (f": {error}" if str(error) else "")
            raise self.broken(PROTOCOL_ERROR, text) from None
        if reply.code == 421:  # RFC 5321 §4.2.3: the host closes
            self._broken = True
        return reply

    async def _whole_reply(self) -> Reply:
        """Of many lines the first ones and the last one are kept. Raises StreamEnded, BadReply, ReplyLineTooLong."""
        lines: list[ReplyLine] = []
        end, text = self._stream.taken + MAX_REPLY, 0
        while not lines or not lines[-1].last:
            line = _reply_line(await self._stream.line(end - self._stream.taken), lines)
            if len(lines) == MAX_REPLY_LINES or (lines and text + len(line.text) > MAX_REPLY_TEXT):
                text -= len(lines.pop().text)
            lines.append(line)
            text += len(line.text)
        # RFC 5321 §4.2.1: one code on all lines; where they differ, the last one counts.
        return join_reply([replace(line, code=lines[-1].code) for line in lines])

    def broken(self, status: str, text: str) -> SessionBroken:
        """Make the session unusable; returns the exception to raise."""
        self._broken = True
        self._stream.abort()
        return SessionBroken(status, text)

    def leave(self) -> None:
        """Send QUIT without waiting for its reply, and close."""
        if self._broken:
            self._stream.abort()
        else:
            self._stream.leave()
        self._broken = True


def _reply_line(line: bytes, before: Sequence[ReplyLine]) -> ReplyLine:
    """A line without a code inside a reply is text. Raises BadReply for one that begins a reply."""
    try:
        return parse_reply_line(line)
    except BadReply:
        if not before:
            raise
        return ReplyLine(before[-1].code, last=False, text=line.rstrip(b"\r\n").decode("utf-8", "replace"))
