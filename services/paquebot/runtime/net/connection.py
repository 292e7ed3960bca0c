"""The transport of one client's session in a line protocol: bytes in, bytes out, TLS. Every wait has a deadline.

Nothing is read ahead beyond a bound. Only slices are written ahead, the next one when the transport has passed on the
one before: a TLS transport takes a write whole, whatever its high-water mark, and then neither waits nor says what it
has. A client that does not read stops its own session; one that does not read for long, or reads too slowly, loses it
(`WriteAllowance`). The protocols decide what a line is and what happens to a long one (`imap.connection`,
`pop3.connection`, `smtp_ingress.connection`).
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from paquebot.runtime.net.proxy import one_spelling
from paquebot.runtime.net.write_allowance import MINIMUM_RATE, WriteAllowance

SLICE = 64 * 1024
"""Bytes written at once. The transport has about three of them, with the one that it sends."""
_WRITE_HIGH = 64 * 1024
_FAREWELL_SECONDS = 2.0  # for a displaced client to read why


class LineTooLong(Exception):
    """The client sent a line above the maximum; the rest of it is discarded."""


class PeerGone(Exception):
    """The connection ended, or the client did not read in time."""


class Deadline:
    """The deadline of a connection's waits, one at a time. All of them have one timer, as most end long before: it may
    expire too early, and is set again then."""

    __slots__ = ("_at", "_loop", "_on_expired", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_expired: Callable[[], None]) -> None:
        """`on_expired` ends the wait that lasts too long, if there still is one."""
        self._loop = loop
        self._on_expired = on_expired
        self._at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, at: float) -> None:
        """A wait begins, which may last until `at` by the loop's clock."""
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
        self._on_expired = _nothing  # or it and its connection would keep each other until a garbage collection

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._at:
            self.set(self._at)
        else:
            self._on_expired()


def _nothing() -> None:
    """There is no wait any more."""


AHEAD_BEFORE_LOGIN = 16 * 1024
"""Bytes that a client may send ahead before its login: more than any command of that time has. TLS keeps up to three
times as many beside ours, so without this bound some hundreds of strangers would fill the memory of a process."""


class LongAhead:
    """Room for a few clients at a time whose first command is longer than AHEAD_BEFORE_LOGIN. One for a process."""

    __slots__ = ("_clients", "_inside", "limit")

    def __init__(self, limit: int, clients: int) -> None:
        """`limit`: maximum bytes that each of them sends ahead."""
        self.limit = limit
        self._clients = clients
        self._inside: set[ClientConnection] = set()

    def admits(self, connection: "ClientConnection") -> bool:
        """Whether there is room for this client. It has the room until `leave`."""
        if len(self._inside) < self._clients:
            self._inside.add(connection)
        return connection in self._inside

    def leave(self, connection: "ClientConnection") -> None:
        """Idempotent."""
        self._inside.discard(connection)


_TOO_MUCH_SECONDS = 1.0  # for the last line to a client that sent too much: until then TLS keeps its buffers


class ClientConnection(asyncio.Protocol):
    """Await its methods from the session's task only."""

    def __init__(
        self,
        *,
        write_timeout: float,
        write_rate: int = MINIMUM_RATE,
        read_high: int,
        too_much: bytes = b"",
        long_ahead: LongAhead | None = None,
    ) -> None:
        """`write_timeout`, `write_rate`: as `WriteAllowance`. `read_high`: bytes received and not yet consumed; above,
        reading stops, and starts again below half of it. `too_much`: the last line to a client that sends more than
        AHEAD_BEFORE_LOGIN ahead; empty: there is no such bound. `long_ahead`: room for a first command that is longer.
        """
        self.loop = asyncio.get_running_loop()
        self.on_connected: Callable[[], None] | None = None
        """Called once, when the connection has its transport."""
        self._too_much = too_much
        self._long_ahead = long_ahead
        self._write_timeout = write_timeout
        self._allowance = WriteAllowance(write_timeout, write_rate)
        self._read_high = read_high
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._scanned = 0
        self._ended = False
        self._lost = False
        self._reading_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = Deadline(self.loop, self._expire)
        self._rung = False
        self._writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self.received = 0
        self.sent = 0

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)
        if self.on_connected is not None:
            on_connected, self.on_connected = self.on_connected, None
            on_connected()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._buffer += data
        self._check_unread()
        if len(self._buffer) > self._read_high and not self._reading_paused and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return self.tls_object is None  # half-closed: earlier commands are still answered; TLS has no such state

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._lost = True
        self._writing_paused = False
        self._leave_long_ahead()
        self._wake()
        self._deadline.end()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
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
    def peer(self) -> tuple[str, int]:
        """Address and port at the other end; empty: the system does not know it any more."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (one_spelling(name[0]), int(name[1])) if name else ("", 0)

    @property
    def buffered(self) -> int:
        """Bytes received and not yet consumed."""
        return len(self._buffer)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come than what is buffered."""
        return self._ended

    def logged_in(self) -> None:
        """Bound what the client sends ahead by `read_high` from now on."""
        self._too_much = b""
        self._leave_long_ahead()

    def _leave_long_ahead(self) -> None:
        if self._long_ahead is not None:
            self._long_ahead.leave(self)
            self._long_ahead = None

    def _is_long_command(self) -> bool:
        """Whether what is buffered may be one long command, for which there is room."""
        room = self._long_ahead
        if room is None or len(self._buffer) > room.limit or self._buffer.find(b"\n", 0, AHEAD_BEFORE_LOGIN) >= 0:
            return False
        return room.admits(self)

    def _check_unread(self) -> None:
        """End the connection of a client without a login that sent too much ahead."""
        if not self._too_much or len(self._buffer) <= AHEAD_BEFORE_LOGIN or self._is_long_command():
            return
        self._buffer.clear()
        self._scanned = 0
        self._ended = True
        self.close_with(self._too_much)

    def ring(self) -> None:
        """Let a wait return, now or the next time: something other than bytes needs attention."""
        self._rung = True
        self._wake()

    async def _more(self, timeout: float) -> None:
        """Wait for bytes, for the end of the client's, or for `ring`. Raises TimeoutError."""
        if self._rung:
            self._rung = False
            return
        if self._ended:
            return
        self._waiter = self.loop.create_future()
        self._deadline.set(self.loop.time() + timeout)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._rung = False

    def _consume(self, count: int) -> None:
        # A bytearray remembers where it begins, and moves the rest only when it has lost half of its memory: many
        # short lines of a full buffer cost as much as their bytes.
        del self._buffer[:count]
        self._scanned = 0
        if self._reading_paused and len(self._buffer) < self._read_high // 2:
            self.resume_reading()

    def pause_reading(self) -> None:
        """Leave further bytes in the socket, such as those of a TLS handshake."""
        if self._transport is not None and not self._reading_paused:
            self._transport.pause_reading()
            self._reading_paused = True

    def resume_reading(self) -> None:
        """Read, even if the buffer is full: it may not have a whole line yet."""
        if self._reading_paused and self._transport is not None:
            self._transport.resume_reading()
            self._reading_paused = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._fail_wait(TimeoutError())

    def _fail_wait(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    # --- writing ---

    @property
    def gone(self) -> bool:
        """Whether the client can read nothing more."""
        return self._transport is None or self._transport.is_closing()

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data`, which must not change any more, and wait while the client is behind.

        When it returns, the transport has less than its high-water mark of it. Raises PeerGone when the client does not
        read in time.
        """
        if len(data) < 2 * SLICE:  # a slice, and what was gathered until it was full
            self._write(data)
            if self._writing_paused:
                await self._drain_writes()
            return
        view = memoryview(data)
        for start in range(0, len(view), SLICE):
            if start:
                await asyncio.sleep(0)  # to a client that reads as fast as we write, this would be one long step
            self._write(view[start : start + SLICE])
            if self._writing_paused:
                await self._drain_writes()

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises PeerGone. If writing is paused then, await `_drain`."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise PeerGone
        self.sent += len(data)
        if self._allowance.is_used:
            self._allowance.wrote(len(data))
        transport.write(data)

    async def _drain_writes(self) -> None:
        transport = self._transport
        assert transport is not None
        self._drained = self.loop.create_future()
        began = self.loop.time()
        try:
            async with asyncio.timeout(self._allowance.seconds):
                await self._drained
        except TimeoutError:
            transport.abort()
            raise PeerGone from None
        finally:
            self._drained = None
            self._allowance.waited(self.loop.time() - began)
        if transport.is_closing():
            raise PeerGone

    # --- TLS and end ---

    async def start_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """Turn the connection into TLS. Raises PeerGone when the handshake fails or is too slow.

        The caller has made sure that nothing is buffered, and paused the reading where the client may begin before:
        what was sent in the clear must not become a command of the protected session (RFC 3501 §6.2.1, RFC 2595 §4,
        RFC 3207 §4.2).
        """
        assert self._transport is not None and not self._buffer
        self._reading_paused = True  # the plain transport's reading is the handshake's until it ends
        try:
            transport = await self.loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=timeout
            )
        except (OSError, EOFError) as error:  # ssl.SSLError, a reset, a timeout, an end within the handshake
            self.abort()
            raise PeerGone from error
        if transport is None or self._lost:
            raise PeerGone
        self._reading_paused = False
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH)

    @property
    def tls_object(self) -> ssl.SSLObject | None:
        """None in the clear."""
        return self._transport.get_extra_info("ssl_object") if self._transport is not None else None

    @property
    def tls_version(self) -> str | None:
        """Such as "TLSv1.3"; None in the clear."""
        tls = self.tls_object
        return str(tls.version()) if tls is not None else None

    def close_with(self, line: bytes) -> None:
        """Write a last line and close, without a wait. A client that does not read it soon loses it."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(line)
            self._transport.close()
            self.abort_after(_TOO_MUCH_SECONDS)

    def close(self) -> None:
        """Send what is written, then close; a client that does not read it in time loses the rest."""
        if self._transport is not None:
            self._transport.close()
            self.abort_after(self._write_timeout)

    def abort_after(self, seconds: float = _FAREWELL_SECONDS) -> None:
        """Close within `seconds`, or sooner if an earlier call says so, if the connection is still there then."""
        if self._lost:
            return
        at = self.loop.time() + seconds
        if self._abort_timer is not None:
            if self._abort_timer.when() <= at:
                return
            self._abort_timer.cancel()
        self._abort_timer = self.loop.call_at(at, self.abort)

    def abort(self) -> None:
        """Close now: the client must not take what it has for a whole answer."""
        if self._transport is not None:
            self._transport.abort()
