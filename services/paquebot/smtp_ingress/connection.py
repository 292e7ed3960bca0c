"""One SMTP client's connection: lines and content in, replies out.

Replies to a pipelined group leave in one write (RFC 2920 §3.2): with the next wait for the client, or with `flush`.
Commands that wait here are charged to the client, as its messages are.
"""

import ssl

from paquebot.rpc import TranscriptRecorder
from paquebot.runtime.net.connection import ClientConnection, LineTooLong, PeerGone
from paquebot.runtime.shares.budget import OverBudget, Reservation
from paquebot.smtp_ingress import metrics
from paquebot.wire.smtp.replies import Reply
from paquebot.wire.transcript import SmtpTranscriptFilter

_READ_HIGH = 256 * 1024
_UNCHARGED = 16 * 1024  # received bytes that the client is not charged for
_REPLIES_HIGH = 8 * 1024  # bytes of replies that wait for the end of a pipelined group


class IdleTimeout(Exception):
    """The client sent nothing in time."""


class Draining(Exception):
    """The process shuts down, and this connection has nothing under way."""


class SlotTaken(Exception):
    """Another client needs the slot of this connection."""


class SmtpConnection(ClientConnection):
    """Await its methods from the session's task only."""

    def __init__(self, *, write_timeout: float) -> None:
        super().__init__(write_timeout=write_timeout, read_high=_READ_HIGH)
        self._replies = bytearray()
        self._idle = False
        self._drain = False
        self._displaced = False
        self._reservation: Reservation | None = None
        self._in_content = False
        self._content = 0
        self._stopped = False
        self.recorder: TranscriptRecorder[SmtpTranscriptFilter] | None = None
        """The session's, once it is logged in."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.charge_to(None)
        super().connection_lost(exc)

    # --- reading ---

    def record_command(self, line: bytes) -> None:
        """Record a command of the client."""
        if self.recorder is not None and (transcript := self.recorder.look()) is not None:
            transcript.from_client(transcript.filter.client_line(line))

    def beginning(self, maximum: int) -> bytes:
        """Up to `maximum` bytes received and not yet consumed. They stay."""
        return bytes(self._buffer[:maximum])

    async def line(self, maximum: int, timeout: float, *, idle: bool = False) -> bytes:
        """The next line with its LF; at most `maximum` bytes. With `idle`, a drain ends the wait.

        Raises LineTooLong (the line has been read to its end), IdleTimeout, Draining, SlotTaken, PeerGone. The timeout
        is for the whole line. Within a long pipelined group the replies so far are sent first: a client that does not
        read them gets no more.
        """
        deadline = self.loop.time() + timeout
        if len(self._replies) > _REPLIES_HIGH:
            await self.flush()
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            if self._scanned > maximum:
                await self._skip_line(deadline)
                raise LineTooLong
            await self._wait(deadline, idle=idle and not self._scanned)
        if end >= maximum:
            self._consume(end + 1)
            raise LineTooLong
        line = bytes(self._buffer[: end + 1])
        self._consume(end + 1)
        return line

    async def _skip_line(self, deadline: float) -> None:
        while (end := self._buffer.find(b"\n")) < 0:
            self._consume(len(self._buffer))
            await self._wait(deadline)
        self._consume(end + 1)

    async def some(self, maximum: int, deadline: float) -> bytes | bytearray:
        """Between one and `maximum` bytes of content. Raises IdleTimeout, SlotTaken, Draining, PeerGone."""
        while not self._buffer:
            await self._wait(deadline)
        if len(self._buffer) <= maximum:
            chunk = self._buffer
            self._buffer = bytearray()
        else:
            chunk = self._buffer[:maximum]
            del self._buffer[:maximum]
        self._content += len(chunk)
        if self._reading_paused and len(self._buffer) < self._read_high // 2:
            self.resume_reading()
        return chunk

    def unread(self, data: bytes) -> None:
        """Put back what came after the content."""
        self._buffer[:0] = data
        self._content -= len(data)
        self._check_unread()

    async def sends_within(self, seconds: float) -> bool:
        """Whether the client sends something within `seconds`."""
        try:
            if not self._buffer:
                await self._wait(self.loop.time() + seconds)
        except IdleTimeout:
            return False
        return True

    def _consume(self, count: int) -> None:
        super()._consume(count)
        if self._reservation is not None and self._reservation.amount:
            self._check_unread()

    # --- waiting ---

    async def _wait(self, deadline: float, *, idle: bool = False) -> None:
        """Send the replies, then wait for bytes."""
        if self._replies:
            self._write_replies()
            if self._writing_paused:
                await self._drain_writes()
        if self._ended:
            raise PeerGone
        if self._displaced:
            raise SlotTaken
        if self._stopped or (idle and self._drain):
            raise Draining
        self._waiter = self.loop.create_future()
        self._idle = idle
        self._deadline.set(deadline)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _expire(self) -> None:
        self._fail_wait(IdleTimeout())

    def drain(self) -> None:
        """End the wait of an idle session with Draining, now or when it becomes idle."""
        self._drain = True
        if self._idle:
            self._fail_wait(Draining())

    def displace(self) -> None:
        """End the session with SlotTaken, now or when it next waits for the client. Nothing more of it is read."""
        self._displaced = True
        self._buffer.clear()
        self._scanned = 0
        self._fail_wait(SlotTaken())
        self.abort_after()

    def stop(self) -> None:
        """End the session with Draining, now or when it next waits, whatever it waits for."""
        self._stopped = True
        self._fail_wait(Draining())

    # --- charging ---

    def charge_to(self, reservation: Reservation | None) -> None:
        """Charge what is received and not yet consumed to `reservation` from now on."""
        if self._reservation is not None:
            self._reservation.release()
        self._reservation = reservation
        self._check_unread()

    def content_begins(self) -> None:
        """What is received now is consumed at once and charged to its message."""
        self._in_content = True
        self._content = 0
        if self._reservation is not None:
            self._reservation.release()

    def content_ends(self) -> None:
        """Commands follow."""
        self._in_content = False
        self._check_unread()
        if self.recorder is not None and (transcript := self.recorder.transcript) is not None:
            transcript.from_client(transcript.filter.client_content(self._content))

    def _check_unread(self) -> None:
        """Commands that wait are memory too: a client that fills it loses its connection."""
        if self._in_content or self._reservation is None:
            return
        if len(self._buffer) <= _UNCHARGED:
            self._reservation.release()
            return
        self._reservation.offer(self.displace)
        try:
            self._reservation.grow_to(len(self._buffer))
        except OverBudget:
            self.displace()

    # --- writing ---

    def reply(self, reply: Reply) -> None:
        """Send `reply` with the next flush, which is before the next wait at the latest."""
        metrics.REPLIES_BY_CLASS[reply.code // 100].inc()
        data = reply.encode()
        if self.recorder is not None and self.recorder.transcript is not None:
            self.recorder.transcript.from_server(data)
        self._replies += data

    async def flush(self) -> None:
        """Send the replies. Raises PeerGone when the client does not read them in time."""
        if self._replies:
            self._write_replies()
        if self._writing_paused:
            await self._drain_writes()

    def _write_replies(self) -> None:
        data = bytes(self._replies)
        self._replies.clear()
        self._write(data)

    async def finish(self) -> None:
        """Send the replies, then close the connection."""
        try:
            await self.flush()
        except PeerGone:
            pass
        finally:
            self.close()

    # --- TLS ---

    async def start_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """As `ClientConnection.start_tls`. Raises PeerGone also when the client sent bytes in the clear before the
        handshake."""
        await self.flush()
        if self._buffer or self._ended:
            self.close()
            raise PeerGone
        await super().start_tls(context, timeout)
