"""One IMAP client's connection: lines and counted bytes in, bytes out."""

import asyncio
from dataclasses import dataclass

from paquebot.rpc import TranscriptRecorder
from paquebot.runtime.net.connection import ClientConnection, LongAhead, PeerGone
from paquebot.runtime.net.write_allowance import MINIMUM_RATE
from paquebot.wire.transcript import ImapTranscriptFilter

_READ_HIGH = 128 * 1024
_TOO_MUCH = b"* BYE Too much was sent before login\r\n"


class Inactive(Exception):
    """The client sent nothing, or no whole line, in time."""


@dataclass(frozen=True, slots=True)
class TruncatedLine:
    """No line end within the maximum. `head`: the beginning of the line; its rest is discarded."""

    head: bytes


class ImapConnection(ClientConnection):
    """Await its methods from the session's task only."""

    def __init__(
        self, *, write_timeout: float, write_rate: int = MINIMUM_RATE, long_ahead: LongAhead | None = None
    ) -> None:
        super().__init__(
            write_timeout=write_timeout,
            write_rate=write_rate,
            read_high=_READ_HIGH,
            too_much=_TOO_MUCH,
            long_ahead=long_ahead,
        )
        self._skipping = False
        self.recorder: TranscriptRecorder[ImapTranscriptFilter] | None = None
        """The session's, once it is logged in."""

    async def send(self, octets: bytes | bytearray | memoryview) -> None:
        """Send, and add to the transcript if the session is recorded."""
        if self.recorder is not None and self.recorder.transcript is not None:
            self.recorder.transcript.from_server(octets)
        await super().send(octets)

    def record_command(self, line: bytes | TruncatedLine, *, first: bool) -> None:
        """Add a line of the client to the transcript: the `first` of its command, or one after a literal."""
        if self.recorder is None:
            return
        transcript = self.recorder.look() if first else self.recorder.transcript
        if transcript is not None:
            data = line.head if isinstance(line, TruncatedLine) else line
            transcript.from_client(transcript.filter.client_line(data, first=first))

    def record_literal(self, literal: bytes) -> None:
        """Add a literal of the client to the transcript, which is not a message."""
        if self.recorder is not None and (transcript := self.recorder.transcript) is not None:
            transcript.from_client(transcript.filter.client_literal(literal))

    def record_content(self, count: int) -> None:
        """Add to the transcript that `count` bytes came: a message, or a discarded literal."""
        if self.recorder is not None and (transcript := self.recorder.transcript) is not None:
            transcript.from_client(transcript.filter.client_content(count))

    async def wait(self, seconds: float) -> None:
        """Wait for bytes, for the client's end, or for `ring`. Raises Inactive after `seconds`."""
        try:
            await self._more(seconds)
        except TimeoutError:
            raise Inactive from None

    def take_line(self, maximum: int) -> bytes | TruncatedLine | None:
        """The next line without its line end; None: it is not whole yet. A lone LF ends a line too, as people type
        commands."""
        end = self._buffer.find(b"\n", self._scanned)
        if self._skipping:  # the rest of a line that was too long
            if end < 0:
                self._consume(len(self._buffer))
                return None
            self._consume(end + 1)
            self._skipping = False
            end = self._buffer.find(b"\n")
        if end > maximum + 1 or (end < 0 and len(self._buffer) > maximum + 1):
            head = bytes(self._buffer[:maximum])
            if end >= 0:
                self._consume(end + 1)
                return TruncatedLine(head)
            self._consume(len(self._buffer))
            self._skipping = True
            return TruncatedLine(head)
        if end < 0:
            self._scanned = len(self._buffer)
            self.resume_reading()
            return None
        cut = end - 1 if end and self._buffer[end - 1] == 0x0D else end
        line = bytes(self._buffer[:cut])
        self._consume(end + 1)
        return line

    def is_longer(self, maximum: int) -> bool:
        """Whether the next line has more than `maximum` bytes. Consumes nothing."""
        return not self._skipping and len(self._buffer) > maximum + 1 and self._buffer.find(b"\n", 0, maximum + 2) < 0

    def put_back(self, line: bytes) -> None:
        """Let `take_line` return this line again."""
        self._buffer[:0] = line + b"\r\n"
        self._scanned = 0

    async def read_line(self, maximum: int, seconds: float) -> bytes | TruncatedLine:
        """The next line. Raises PeerGone, Inactive when `seconds` pass without a whole line."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (line := self.take_line(maximum)) is None:
            if self._ended:
                raise PeerGone
            await self.wait(deadline - loop.time())
        return line

    async def read_some(self, maximum: int, seconds: float) -> bytes:
        """Between 1 and `maximum` bytes. Raises PeerGone, Inactive when none comes for `seconds`."""
        while not self._buffer:
            if self._ended:
                raise PeerGone
            await self.wait(seconds)
        count = min(maximum, len(self._buffer))
        chunk = bytes(memoryview(self._buffer)[:count])
        self._consume(count)
        return chunk
