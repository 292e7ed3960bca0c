"""One client's connection: lines in, octets out, TLS; every wait has a deadline.

Nothing is read ahead beyond `_READ_HIGH` octets, and nothing is written ahead beyond the transport's high-water mark:
a client that does not read stops its own session, and loses it after the write deadline. Small answers wait for each
other while further commands are here already, so that a pipeline is answered in few packets (RFC 2449 §6.6).
"""

import asyncio
import ssl
from typing import cast

_READ_HIGH = 64 * 1024  # octets received and not yet consumed: reading stops above, starts again below half of it
_WRITE_HIGH = 256 * 1024
_GATHER = 16 * 1024


class PeerGone(Exception):
    """The connection ended, or the client did not read our octets in time."""


class LineTooLong(Exception):
    """A line passed its maximum; the rest of it is thrown away."""


class Connection(asyncio.Protocol):
    """The transport of one session. `await` on it from that session's task only."""

    def __init__(self, *, write_seconds: float) -> None:
        self._write_seconds = write_seconds
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._scanned = 0
        self._skipping = False
        self._gathered = bytearray()
        self._ended = False
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._rung = False
        self._writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        self.received = 0
        self.sent = 0

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._buffer += data
        if len(self._buffer) > _READ_HIGH and not self._reading_paused and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> bool:
        """What was pipelined before the end is still answered: the session ends when the buffer is empty."""
        self._ended = True
        self._wake()
        return self.tls_version is None  # True: stay open for writing; TLS has no half-closed state

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- reading ---

    @property
    def buffered(self) -> int:
        """Octets received and not yet consumed."""
        return len(self._buffer)

    def ring(self) -> None:
        """Let `wait` return, now or the next time: something other than octets is to be looked at."""
        self._rung = True
        self._wake()

    async def wait(self, seconds: float) -> None:
        """Send what is gathered, then wait until octets came or `ring`. Raises TimeoutError, PeerGone."""
        await self.flush()
        if self._rung:
            self._rung = False
            return
        if self._ended:
            raise PeerGone
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._waiter
        finally:
            self._waiter = None
            self._rung = False

    def take_line(self, maximum: int) -> bytes | None:
        """The next line, if it is here, without its line end; `maximum` counts its CRLF. Raises LineTooLong.

        A lone LF ends a line too: people type commands.
        """
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            if self._skipping or len(self._buffer) >= maximum:
                self._consume(len(self._buffer))
                self._skip(line_ended=False)
            return None
        line = bytes(self._buffer[:end].removesuffix(b"\r")) if end < maximum else b""
        self._consume(end + 1)
        if self._skipping or end >= maximum:
            self._skip(line_ended=True)
            return self.take_line(maximum)
        return line

    def _skip(self, *, line_ended: bool) -> None:
        """Note how far the throwing away is. Raises LineTooLong once a line."""
        reported, self._skipping = self._skipping, not line_ended
        if not reported:
            raise LineTooLong

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._scanned = 0
        if self._reading_paused and len(self._buffer) < _READ_HIGH // 2 and self._transport is not None:
            self._transport.resume_reading()
            self._reading_paused = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- writing ---

    async def send(self, octets: bytes) -> None:
        """Write, and wait while the client is behind. Raises PeerGone when it does not catch up in time."""
        self._gathered += octets
        if len(self._gathered) >= _GATHER:
            await self.flush()

    async def flush(self) -> None:
        """Send what is gathered. Raises PeerGone."""
        if not self._gathered:
            return
        octets, self._gathered = self._gathered, bytearray()
        transport = self._transport
        if transport is None or transport.is_closing():
            raise PeerGone
        self.sent += len(octets)
        transport.write(octets)
        if self._writing_paused:
            await self._drain(transport)

    async def _drain(self, transport: asyncio.Transport) -> None:
        self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._drained
        except TimeoutError:
            transport.abort()
            raise PeerGone from None
        finally:
            self._drained = None
        if transport.is_closing():
            raise PeerGone

    # --- TLS and end ---

    def pause(self) -> None:
        """Stop reading from the socket, so that the octets of a TLS handshake stay there."""
        if self._transport is not None and not self._reading_paused:
            self._transport.pause_reading()
            self._reading_paused = True

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """Turn the connection, paused and with nothing buffered, into TLS. Raises PeerGone when that fails."""
        assert self._transport is not None and not self._buffer
        await self.flush()
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            raise PeerGone from error
        if transport is None:
            raise PeerGone
        self._reading_paused = False
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)

    @property
    def tls_version(self) -> str | None:
        """Such as "TLSv1.3"; None in the clear."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return str(tls.version()) if tls is not None else None

    def close(self) -> None:
        """Send what is written, then end."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End now: the client must not take what it has for a whole answer."""
        if self._transport is not None:
            self._transport.abort()
