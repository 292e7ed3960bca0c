"""One POP3 client's connection: lines in, bytes out.

Small answers wait for each other while further commands are here already, so that a pipeline is answered in few packets
(RFC 2449 §6.6).
"""

import ssl

from paquebot.rpc import TranscriptRecorder
from paquebot.runtime.net.connection import ClientConnection, PeerGone
from paquebot.runtime.net.write_allowance import MINIMUM_RATE
from paquebot.wire.transcript import Pop3TranscriptFilter

_READ_HIGH = 64 * 1024
_TOO_MUCH = b"-ERR Too much was sent before login\r\n"
_GATHER = 16 * 1024


class LineTooLong(Exception):
    """A line passed its maximum; the rest of it is thrown away."""


class Pop3Connection(ClientConnection):
    """`await` on it from its session's task only."""

    def __init__(self, *, write_timeout: float, write_rate: int = MINIMUM_RATE) -> None:
        super().__init__(write_timeout=write_timeout, write_rate=write_rate, read_high=_READ_HIGH, too_much=_TOO_MUCH)
        self._skipping = False
        self._gathered = bytearray()
        self.recorder: TranscriptRecorder[Pop3TranscriptFilter] | None = None
        """Of the session, once it is logged in."""

    def heard(self, line: bytes) -> None:
        """A command was taken from the client."""
        if self.recorder is not None and (transcript := self.recorder.look()) is not None:
            transcript.from_client(transcript.filter.client_line(line))

    async def wait(self, seconds: float) -> None:
        """Send what is gathered, then wait until bytes came or `ring`. Raises TimeoutError, PeerGone.

        What was pipelined before the peer's end is still answered: it ends when the buffer is empty.
        """
        await self.flush()
        if self._ended and not self._rung:
            raise PeerGone
        await self._more(seconds)

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

    async def send(self, octets: bytes | bytearray | memoryview) -> None:
        """Write with what comes after it, within a bound. Raises PeerGone as `flush`."""
        if self.recorder is not None and self.recorder.transcript is not None:
            self.recorder.transcript.from_server(octets)
        self._gathered += octets
        if len(self._gathered) >= _GATHER:
            await self.flush()

    async def flush(self) -> None:
        """Send what is gathered, and wait while the client is behind. Raises PeerGone when it is too slow."""
        if not self._gathered:
            return
        octets, self._gathered = self._gathered, bytearray()
        await super().send(octets)

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """As `PeerConnection.start_tls`, after what is gathered."""
        await self.flush()
        await super().start_tls(context, seconds)
