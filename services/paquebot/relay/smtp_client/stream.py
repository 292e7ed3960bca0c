"""One TCP connection to another host's SMTP server: lines in, bytes out, each wait with a timeout.

Invariants: unsent bytes are bounded by MAX_UNSENT, with TLS too; unread bytes are bounded by MAX_UNREAD (reading
pauses above it), and of a line MAX_LINE are kept, whatever the host sends; bytes that came in clear before STARTTLS
are never read as if they had come through TLS. RFC 5321 §2.3.8 and §4.5.3.1, RFC 3207 §4.2.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import cast

MAX_LINE = 4096  # bytes; RFC 5321 §4.5.3.1.5 states 512 for a reply line, and some hosts write longer ones
MAX_UNREAD = 64 * 1024
BLOCK = 64 * 1024
MAX_UNSENT = 64 * 1024  # above this a writer waits; uvloop's TLS would buffer half a MiB before it pauses writing
_LEAVE_SECONDS = 5.0


class StreamEnded(Exception):
    """The host closed the connection, or the network did."""


class ReplyLineTooLong(Exception):
    """The host sent more bytes without a line end than a line may have."""


class PlaintextInjected(Exception):
    """Bytes arrived between the reply to STARTTLS and the handshake: perhaps from an attacker in between."""


class Stream(asyncio.Protocol):
    """Open with `open_stream`. Every `seconds` is a timeout, which raises TimeoutError."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self.taken = 0
        """Bytes that were read as lines."""
        self._ended = False
        self._paused = False
        self._leaving = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(MAX_UNSENT)

    def data_received(self, data: bytes) -> None:
        if self._leaving:
            self._close()
            return
        self._unread += data
        self._arrived.set()
        if len(self._unread) > MAX_UNREAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self) -> None:
        self._ended = True
        self._arrived.set()
        self._writable.set()

    # --- reading and writing ---

    @property
    def ended(self) -> bool:
        """The host has closed; what it sent before can still be read."""
        return self._ended

    @property
    def unread(self) -> bool:
        """Bytes have arrived that were not read yet."""
        return bool(self._unread)

    def has_line(self) -> bool:
        """`line` would return at once."""
        return b"\n" in self._unread

    async def line(self, limit: int = MAX_LINE) -> bytes:
        """The next line with its line end, or the first MAX_LINE bytes of a longer one, which is read to its end. The
        caller has a timeout. Raises StreamEnded; ReplyLineTooLong for a line of more than `limit` bytes."""
        kept = b""
        dropped = 0
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) >= MAX_LINE:
                kept = kept or bytes(self._unread[:MAX_LINE])
                dropped += len(self._unread)
                self._take(len(self._unread))
            if dropped + len(self._unread) >= limit:
                raise ReplyLineTooLong
            if self._ended:
                raise StreamEnded
            self._arrived.clear()
            await self._arrived.wait()
        line = kept or bytes(self._unread[: min(end + 1, MAX_LINE)])
        self._take(end + 1)
        if dropped + end + 1 > limit:
            raise ReplyLineTooLong
        return line

    def _take(self, size: int) -> None:
        self.taken += size
        del self._unread[:size]
        if self._paused and len(self._unread) < MAX_UNREAD // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def write(self, data: bytes | memoryview) -> None:
        """Queue bytes for the host. Raises StreamEnded."""
        if self._ended or self._transport is None:
            raise StreamEnded
        self._transport.write(data)

    async def write_blocks(self, blocks: Iterable[bytes | memoryview], seconds: float, total: float) -> bool:
        """Send `blocks`; each has `seconds` to be taken (RFC 5321 §4.5.3.2.5), and all of them `total`. False: the host
        has replied already, and the rest was not sent. Raises StreamEnded, TimeoutError."""
        async with asyncio.timeout(total):
            for block in blocks:
                if self.has_line():
                    return False
                self.write(block)
                async with asyncio.timeout(seconds):
                    await self._writable.wait()
        if self._ended and not self.has_line():
            raise StreamEnded
        return True

    # --- TLS, closing ---

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str | None, seconds: float) -> str:
        """Handshake as a client; returns the version, such as `TLSv1.3`.

        Raises ssl.SSLError, OSError, PlaintextInjected, TimeoutError; the connection cannot be used any more then.
        """
        if self._transport is None or self._ended:
            raise ConnectionResetError
        if self._unread:
            raise PlaintextInjected
        async with asyncio.timeout(seconds):
            transport = await asyncio.get_running_loop().start_tls(
                self._transport, self, context, server_hostname=server_hostname
            )
        if transport is None:
            raise ConnectionResetError
        self._transport = transport
        transport.set_write_buffer_limits(MAX_UNSENT)
        return str(transport.get_extra_info("ssl_object").version())

    def leave(self) -> None:
        """Send QUIT, and close when the host replies or a few seconds later (RFC 5321 §4.1.1.10). Does not wait."""
        if self._ended or self._transport is None or self._transport.is_closing():
            self._close()
            return
        self._leaving = True
        self._transport.write(b"QUIT\r\n")
        asyncio.get_running_loop().call_later(_LEAVE_SECONDS, self._close)

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._end()


async def open_stream(address: str, port: int, seconds: float, source: str = "") -> Stream:
    """Connect to an IP address, from the local address `source` if given. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        _, stream = await loop.create_connection(Stream, address, port, local_addr=(source, 0) if source else None)
    return stream
