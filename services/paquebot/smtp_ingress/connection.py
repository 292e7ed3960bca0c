"""One client's connection: bytes in, replies out, TLS, deadlines. The conversation over it is elsewhere.

`aiosmtpd` makes the session when a connection begins and calls `_handle_client`; what it does with bytes is
replaced here, so that none of its habits is left: lines end with CRLF only, nothing is read ahead beyond a bound,
what came before a TLS handshake is never read after it, and no exception's text is sent.
Invariants: every wait has a deadline; replies to a pipelined group leave in one write (RFC 2920 §3.2).
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

from aiosmtpd.smtp import SMTP

from paquebot.rpc import TranscriptRecorder
from paquebot.runtime.net.connection import Deadline, PeerGone
from paquebot.runtime.net.proxy import one_spelling
from paquebot.runtime.shares.budget import OverBudget, Reservation
from paquebot.smtp_ingress import metrics
from paquebot.wire.smtp.replies import Reply
from paquebot.wire.transcript import SmtpTranscriptFilter

_HIGH = 256 * 1024  # bytes received and not yet taken; above, reading stops
_UNCHARGED = 16 * 1024  # of them; more is charged to the client, as a message is
_WRITE_HIGH = 64 * 1024
_REPLIES_HIGH = 8 * 1024  # bytes of replies that wait for the end of a pipelined group
_FAREWELL_SECONDS = 5.0


class IdleTimeout(Exception):
    """The peer said nothing within its time."""


class Draining(Exception):
    """The process ends, and this connection has nothing under way."""


class Displaced(Exception):
    """Another client needs the slot of this connection."""


class OverLong(Exception):
    """A line of more bytes than allowed; it has been read to its end and thrown away."""


class SmtpConnection(SMTP):
    """Await its methods from the session's task only."""

    def __init__(
        self,
        serve: "Callable[[SmtpConnection], Awaitable[None]]",
        loop: asyncio.AbstractEventLoop,
        *,
        write_seconds: float,
    ) -> None:
        # Not SMTP.__init__: for each connection it looks up command methods and hooks by reflection (0.1 ms) and makes
        # a stream reader, and all of them are replaced.
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self._serve = serve
        self._write_seconds = write_seconds
        self._buffer = bytearray()
        self._scanned = 0
        self._ended = False
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = Deadline(loop, self._expire)
        self._writable: asyncio.Future[None] | None = None
        self._out = bytearray()
        self._idle = False
        self._drain = False
        self._displaced = False
        self._holding: Reservation | None = None
        self._in_content = False
        self._content = 0
        self._stopped = False
        self.recorder: TranscriptRecorder[SmtpTranscriptFilter] | None = None
        """Of the session, once it is logged in."""

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self.transport = transport
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._weigh()
        if len(self._buffer) > _HIGH and not self._reading_paused and self.transport is not None:
            self.transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> bool:
        # What was said before the end is still answered, except over TLS, which has no half-closed state here.
        self._ended = True
        self._wake()
        return self.tls_object is None

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self.transport = None
        self.charge_to(None)
        self._wake()
        self.resume_writing()
        self._deadline.end()

    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- aiosmtpd's seam ---

    async def _handle_client(self) -> None:
        await self._serve(self)

    # --- reading ---

    @property
    def peer(self) -> tuple[str, int]:
        """Address and port of the client."""
        assert self.transport is not None
        name = self.transport.get_extra_info("peername")
        return (one_spelling(name[0]), int(name[1])) if name else ("", 0)

    @property
    def buffered(self) -> int:
        """Bytes received and not yet taken."""
        return len(self._buffer)

    def heard(self, line: bytes) -> None:
        """A command was taken from the client."""
        if self.recorder is not None and (transcript := self.recorder.look()) is not None:
            transcript.from_client(transcript.filter.client_line(line))

    def beginning(self, most: int) -> bytes:
        """Up to so many bytes received and not yet taken; they stay."""
        return bytes(self._buffer[:most])

    async def line(self, maximum: int, seconds: float, *, idle: bool = False) -> bytes:
        """The next line with its LF; at most `maximum` bytes. With `idle`, a drain ends the wait.

        Raises OverLong, Idle, Draining, Displaced, PeerGone. The deadline is for the whole line. Replies to a long
        group are sent before its end, so that a client that reads none is sent none.
        """
        deadline = self.loop.time() + seconds
        if len(self._out) > _REPLIES_HIGH:
            await self.flush()
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            if self._scanned > maximum:
                await self._skip_line(deadline)
                raise OverLong
            await self._more(deadline, idle=idle and not self._scanned)
        self._scanned = 0
        if end >= maximum:
            self._consume(end + 1)
            raise OverLong
        line = bytes(self._buffer[: end + 1])
        self._consume(end + 1)
        return line

    async def _skip_line(self, deadline: float) -> None:
        while (end := self._buffer.find(b"\n")) < 0:
            self._buffer.clear()
            self._scanned = 0
            await self._more(deadline)
        self._scanned = 0
        self._consume(end + 1)

    async def some(self, maximum: int, deadline: float) -> bytes | bytearray:
        """What has come, at least one and at most `maximum` bytes. Raises Idle, PeerGone."""
        while not self._buffer:
            await self._more(deadline)
        if len(self._buffer) <= maximum:
            octets = self._buffer
            self._buffer = bytearray()
        else:
            octets = self._buffer[:maximum]
            del self._buffer[:maximum]
        self._content += len(octets)
        self._resume()
        return octets

    def unread(self, octets: bytes) -> None:
        """Put back what came after the part that was wanted."""
        self._buffer[:0] = octets
        self._content -= len(octets)
        self._weigh()

    async def spoke_within(self, seconds: float) -> bool:
        """Does the client say something within `seconds`?"""
        try:
            if not self._buffer:
                await self._more(self.loop.time() + seconds)
        except IdleTimeout:
            return False
        return True

    def charge_to(self, holding: Reservation | None) -> None:
        """Whose bytes are those that wait here, from now on."""
        if self._holding is not None:
            self._holding.release()
        self._holding = holding
        self._weigh()

    def content_begins(self) -> None:
        """What comes is taken at once and charged to its message."""
        self._in_content = True
        self._content = 0
        if self._holding is not None:
            self._holding.release()

    def content_ends(self) -> None:
        self._in_content = False
        self._weigh()
        if self.recorder is not None and (transcript := self.recorder.transcript) is not None:
            transcript.from_client(transcript.filter.client_content(self._content))

    def _weigh(self) -> None:
        """Commands that nobody has taken yet are memory too; a client that fills it loses its connection."""
        if self._in_content or self._holding is None:
            return
        if len(self._buffer) <= _UNCHARGED:
            self._holding.release()
            return
        self._holding.offer(self.displace)
        try:
            self._holding.grow_to(len(self._buffer))
        except OverBudget:
            self.displace()

    def begin_drain(self) -> None:
        """Wake an idle session, now or when it becomes idle, with Draining."""
        self._drain = True
        if self._idle and self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Draining())

    def displace(self) -> None:
        """End the session with Displaced, now or when it waits for the client again; nothing more of it is read."""
        self._displaced = True
        self._buffer.clear()
        self._scanned = 0
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Displaced())
        if self.transport is not None:
            self.loop.call_later(_FAREWELL_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def stop(self) -> None:
        """Wake the session with Draining, now or when it next waits, whatever it waits for."""
        self._stopped = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Draining())

    def _consume(self, octets: int) -> None:
        if octets == len(self._buffer):
            self._buffer.clear()
        else:
            del self._buffer[:octets]
        if self._holding is not None and self._holding.amount:
            self._weigh()
        self._resume()

    def _resume(self) -> None:
        if self._reading_paused and len(self._buffer) <= _HIGH // 2 and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()

    async def _more(self, deadline: float, *, idle: bool = False) -> None:
        """Send what is to be sent, and wait for bytes."""
        if self._out:
            self._send()
            if self._writable is not None:
                await self._written(self._writable)
        if self._ended:
            raise PeerGone
        if self._displaced:
            raise Displaced
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
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(IdleTimeout())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- writing ---

    def reply(self, reply: Reply) -> None:
        """Say it with the next flush, which is before the next wait at the latest."""
        metrics.REPLIES_BY_CLASS[reply.code // 100].inc()
        octets = reply.encode()
        if self.recorder is not None and self.recorder.transcript is not None:
            self.recorder.transcript.from_server(octets)
        self._out += octets

    async def flush(self) -> None:
        """Raises PeerGone when the client does not read."""
        self._send()
        if self._writable is not None:
            await self._written(self._writable)

    def _send(self) -> None:
        if self.transport is None or self.transport.is_closing():
            self._out.clear()
            raise PeerGone
        if self._out:
            self.transport.write(bytes(self._out))
            self._out.clear()

    async def _written(self, writable: asyncio.Future[None]) -> None:
        """The transport has more to send than it should keep: wait until it has less."""
        try:
            async with asyncio.timeout(self._write_seconds):
                await writable
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise PeerGone from None

    async def close(self) -> None:
        """Send what is to be sent, and end the connection."""
        try:
            if self._out:
                await self.flush()
        except PeerGone:
            pass
        finally:
            if self.transport is not None:
                self.transport.close()

    # --- TLS ---

    @property
    def tls_object(self) -> ssl.SSLObject | None:
        """Of the session's TLS: version, cipher. None: none yet."""
        return None if self.transport is None else self.transport.get_extra_info("ssl_object")

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """Do the handshake as the server. Raises PeerGone: it failed, or bytes were sent in clear before it.

        RFC 3207 §4.2: the server must discard what the client said before; here it ends the connection.
        """
        await self.flush()
        if self._buffer or self.transport is None:
            await self.close()
            raise PeerGone
        self._reading_paused = True  # the plain transport's reading is the handshake's until it ends
        try:
            transport = await self.loop.start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except (OSError, EOFError):  # ssl.SSLError, a reset, a timeout, an end in the middle
            if self.transport is not None:
                self.transport.abort()
            raise PeerGone from None
        if transport is None or self._ended:
            raise PeerGone
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._reading_paused = False
        self.transport = transport
