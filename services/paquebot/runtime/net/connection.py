"""The transport of one client's session in a line protocol: bytes in, bytes out, TLS; every wait has a deadline.

Nothing is read ahead beyond a bound. Nothing is written ahead but slices, and the next one only when the transport has
passed on the one before: a TLS transport takes a write whole, whatever its high-water mark, and then neither waits nor
says what it holds. A peer that does not read stops its own session; one that does not read, or reads too slowly, loses
it (`patience`). What a line is, and what happens to one that is too long, is the protocol's own (`imap.connection`,
`pop3.connection`).
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import cast

from paquebot.runtime.net.write_allowance import MINIMUM_RATE, WriteAllowance

SLICE = 64 * 1024
"""Bytes written at once. The transport holds about three of them, the one in its own hands included."""
_WRITE_HIGH = 64 * 1024


class PeerGone(Exception):
    """The connection ended, or the peer did not read our bytes in time."""


class Deadline:
    """Of a connection's waits, one at a time. There is one timer for all of them, as most end long before: it may go
    off too early, and is set again then."""

    __slots__ = ("_at", "_expire", "_loop", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[], None]) -> None:
        """`expire` ends the wait that lasts too long, if there still is one."""
        self._loop = loop
        self._expire = expire
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, at: float) -> None:
        """A wait begins, which may last until then by the loop's clock."""
        self._at = at
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)
        self._timer_at = at

    def end(self) -> None:
        """There will be no more waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._expire = _nothing  # or it and its connection would keep each other until a garbage collection

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._at:
            self.set(self._at)
        else:
            self._expire()


def _nothing() -> None:
    """Nobody waits."""


def hold_little(sock: socket.socket | None) -> None:
    """Let the kernel keep no more than a slice that is not sent yet: megabytes of it would be in nobody's account, and
    it would say for a minute that a slow peer has taken nothing (tcp(7), TCP_NOTSENT_LOWAT)."""
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SLICE)


AHEAD_BEFORE_LOGIN = 16 * 1024
"""Bytes that a client may send ahead before its login: more than any command of that time has. TLS keeps up to three
times as many beside ours, so without this bound some hundreds of strangers are the memory of a process."""


class LongAhead:
    """Room for a few clients at a time whose first command is longer than AHEAD_BEFORE_LOGIN. One for a process."""

    __slots__ = ("_clients", "_inside", "octets")

    def __init__(self, octets: int, clients: int) -> None:
        """`bytes`: most that each of them sends ahead."""
        self.octets = octets
        self._clients = clients
        self._inside: set[ClientConnection] = set()

    def admits(self, peer: "ClientConnection") -> bool:
        """Is there room for this client? Then it has it until `leave`."""
        if len(self._inside) < self._clients:
            self._inside.add(peer)
        return peer in self._inside

    def leave(self, peer: "ClientConnection") -> None:
        """Idempotent."""
        self._inside.discard(peer)


_LAST_WORDS_SECONDS = 1.0  # until they are cut off: a TLS connection holds its buffers until it ends


class ClientConnection(asyncio.Protocol):
    """`await` on it from its session's task only."""

    def __init__(
        self,
        *,
        write_seconds: float,
        write_rate: int = MINIMUM_RATE,
        read_high: int,
        too_much: bytes = b"",
        long_ahead: LongAhead | None = None,
    ) -> None:
        """`write_seconds`, `write_rate`: as `WriteAllowance`. `read_high`: bytes received, not yet consumed. Reading
        stops above, and starts again below half of it. `too_much`: the last words to a client that sends more than
        AHEAD_BEFORE_LOGIN ahead; empty: there is no such bound. `long_ahead`: where a first command that is longer may
        find room."""
        self._too_much = too_much
        self._long_ahead = long_ahead
        self._write_seconds = write_seconds
        self._patience = WriteAllowance(write_seconds, write_rate)
        self._read_high = read_high
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._scanned = 0
        self._ended = False
        self._lost = False
        self._reading_paused = False
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = Deadline(self._loop, self._expire)
        self._rung = False
        self._writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.received = 0
        self.sent = 0

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        hold_little(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._buffer += data
        self._bound_ahead()
        if len(self._buffer) > self._read_high and not self._reading_paused and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def logged_in(self) -> None:
        """The client has a login: what it sends ahead is bounded by `read_high`, and waits."""
        self._too_much = b""
        self._leave_long_ahead()

    def _leave_long_ahead(self) -> None:
        if self._long_ahead is not None:
            self._long_ahead.leave(self)
            self._long_ahead = None

    def _has_room_ahead(self) -> bool:
        """Is one command on its way that may be so long?"""
        room = self._long_ahead
        if room is None or len(self._buffer) > room.octets or self._buffer.find(b"\n", 0, AHEAD_BEFORE_LOGIN) >= 0:
            return False
        return room.admits(self)

    def _bound_ahead(self) -> None:
        """End the connection of a client without a login if too much of it waits."""
        if not self._too_much or len(self._buffer) <= AHEAD_BEFORE_LOGIN or self._has_room_ahead():
            return
        self._buffer.clear()
        self._scanned = 0
        self._ended = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._too_much)
            self._transport.close()
            self._closing = self._loop.call_later(_LAST_WORDS_SECONDS, self._transport.abort)

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return self.tls_version is None  # half-closed: what was asked before is still answered; TLS has no such thing

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._lost = True
        self._leave_long_ahead()
        self._wake()
        self._deadline.end()
        if self._closing is not None:
            self._closing.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- reading ---

    @property
    def buffered(self) -> int:
        """Bytes received and not yet consumed."""
        return len(self._buffer)

    @property
    def ended(self) -> bool:
        """Nothing more will come than what is buffered."""
        return self._ended

    def ring(self) -> None:
        """Let a wait return, now or the next time: something other than bytes is to be looked at."""
        self._rung = True
        self._wake()

    async def _more(self, seconds: float) -> None:
        """Until bytes came, the peer ended, or `ring`. Raises TimeoutError."""
        if self._rung:
            self._rung = False
            return
        if self._ended:
            return
        self._waiter = self._loop.create_future()
        self._deadline.set(self._loop.time() + seconds)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._rung = False

    def _consume(self, count: int) -> None:
        # A bytearray remembers where it begins, and moves what is left only when it has lost half of its memory: many
        # short lines of a full buffer cost as much as their bytes.
        del self._buffer[:count]
        self._scanned = 0
        if len(self._buffer) < self._read_high // 2:
            self.go_on_reading()

    def go_on_reading(self) -> None:
        """Read, though the buffer may be full: what is there is not a whole line yet."""
        if self._reading_paused and self._transport is not None:
            self._transport.resume_reading()
            self._reading_paused = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError())

    # --- writing ---

    @property
    def gone(self) -> bool:
        """Nobody will read what is sent."""
        return self._transport is None or self._transport.is_closing()

    async def send(self, octets: bytes | bytearray | memoryview) -> None:
        """Write, and wait while the peer is behind. Nobody may change `bytes` any more.

        When it returns, the transport holds less than its high-water mark of what was sent. Raises PeerGone when the
        peer does not catch up in time.
        """
        if len(octets) < 2 * SLICE:  # a slice, and what was gathered until it was full
            await self._write(octets)
            return
        view = memoryview(octets)
        for start in range(0, len(view), SLICE):
            if start:
                await asyncio.sleep(0)  # to a peer that reads as fast as we write, this would be one long turn
            await self._write(view[start : start + SLICE])

    async def _write(self, octets: bytes | bytearray | memoryview) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise PeerGone
        self.sent += len(octets)
        self._patience.wrote(len(octets))
        transport.write(octets)
        if self._writing_paused:
            await self._drain(transport)

    async def _drain(self, transport: asyncio.Transport) -> None:
        self._drained = self._loop.create_future()
        began = self._loop.time()
        try:
            async with asyncio.timeout(self._patience.seconds):
                await self._drained
        except TimeoutError:
            transport.abort()
            raise PeerGone from None
        finally:
            self._drained = None
            self._patience.waited(self._loop.time() - began)
        if transport.is_closing():
            raise PeerGone

    # --- TLS and end ---

    def pause(self) -> None:
        """Stop reading from the socket, so that the bytes of a TLS handshake stay there."""
        if self._transport is not None and not self._reading_paused:
            self._transport.pause_reading()
            self._reading_paused = True

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """Turn the connection into TLS. Raises PeerGone when the handshake fails or is too slow.

        The caller has paused it and made sure that nothing is buffered: what was sent in the clear must not become a
        command of the protected session (RFC 3501 §6.2.1, RFC 2595 §4).
        """
        assert self._transport is not None and not self._buffer
        try:
            transport = await self._loop.start_tls(
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
        """Send what is written, then end; a peer that does not take it in time loses the rest."""
        if self._transport is not None:
            self._transport.close()
            if self._closing is None and not self._lost:
                self._closing = self._loop.call_later(self._write_seconds, self._transport.abort)

    def abort(self) -> None:
        """End now: the peer must not take what it has for a whole answer."""
        if self._transport is not None:
            self._transport.abort()
