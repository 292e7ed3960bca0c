"""One POP3 client's connection: lines in, bytes out.

Small replies are collected while further commands are already buffered, so that a pipelined group is answered in few
packets (RFC 2449 §6.6).
"""

import ssl

from paquebot.rpc import TranscriptRecorder
from paquebot.runtime.net.connection import ClientConnection, LineTooLong, PeerGone
from paquebot.runtime.net.write_allowance import MINIMUM_RATE
from paquebot.wire.transcript import Pop3TranscriptFilter

_READ_HIGH = 64 * 1024
_TOO_MUCH = b"-ERR Too much was sent before login\r\n"
_REPLIES_HIGH = 16 * 1024  # bytes of replies that wait for those of further commands


class Pop3Connection(ClientConnection):
    """Await its methods from the session's task only."""

    def __init__(self, *, write_timeout: float, write_rate: int = MINIMUM_RATE) -> None:
        super().__init__(write_timeout=write_timeout, write_rate=write_rate, read_high=_READ_HIGH, too_much=_TOO_MUCH)
        self._skipping = False
        self._replies = bytearray()
        self.recorder: TranscriptRecorder[Pop3TranscriptFilter] | None = None
        """The session's, once it is logged in."""

    def record_command(self, line: bytes) -> None:
        """Record a command of the client."""
        if self.recorder is not None and (transcript := self.recorder.look()) is not None:
            transcript.from_client(transcript.filter.client_line(line))

    async def wait(self, seconds: float) -> None:
        """Send the replies, then wait for bytes or `ring`. Raises TimeoutError, PeerGone.

        Commands from before the client's half-close are still answered: PeerGone is raised when the buffer is empty.
        """
        await self.flush()
        if self._ended and not self._rung:
            raise PeerGone
        await self._more(seconds)

    def take_line(self, maximum: int) -> bytes | None:
        """The next line, if it is here, without its line end; `maximum` counts its CRLF. Raises LineTooLong.

        A lone LF ends a line too, for people who type commands.
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
        """Note whether the rest of the line is still to be discarded. Raises LineTooLong once per line."""
        reported, self._skipping = self._skipping, not line_ended
        if not reported:
            raise LineTooLong

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` with a later flush, or now if enough has been collected. Raises PeerGone as `flush`."""
        if self.recorder is not None and self.recorder.transcript is not None:
            self.recorder.transcript.from_server(data)
        self._replies += data
        if len(self._replies) >= _REPLIES_HIGH:
            await self.flush()

    async def flush(self) -> None:
        """Send the replies, and wait while the client is behind. Raises PeerGone when it is too slow."""
        if not self._replies:
            return
        data, self._replies = self._replies, bytearray()
        await super().send(data)

    async def start_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """As `ClientConnection.start_tls`, after the replies."""
        await self.flush()
        await super().start_tls(context, timeout)
