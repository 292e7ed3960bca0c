"""One IMAP client's connection: lines and counted octets in, octets out."""

import asyncio
from dataclasses import dataclass

from paquebot.runtime.patience import LEAST_RATE
from paquebot.runtime.peer import LongAhead, PeerConnection, PeerGone

_READ_HIGH = 128 * 1024
_TOO_MUCH = b"* BYE Too much was sent before login\r\n"


class Inactive(Exception):
    """The peer sent nothing, or no whole line, in time."""


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """No line end within the maximum; `head` is what came first. The line's rest is thrown away."""

    head: bytes


class Connection(PeerConnection):
    """`await` on it from its session's task only."""

    def __init__(
        self, *, write_seconds: float, write_rate: int = LEAST_RATE, long_ahead: LongAhead | None = None
    ) -> None:
        super().__init__(
            write_seconds=write_seconds,
            write_rate=write_rate,
            read_high=_READ_HIGH,
            too_much=_TOO_MUCH,
            long_ahead=long_ahead,
        )
        self._skipping = False

    async def wait(self, seconds: float) -> None:
        """Until octets came, the peer ended, or `ring`. Raises Inactive after `seconds`."""
        try:
            await self._more(seconds)
        except TimeoutError:
            raise Inactive from None

    def take_line(self, maximum: int) -> bytes | LineTooLong | None:
        """The next line without its line end, if it is here. A lone LF ends a line too: people type commands."""
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
                return LineTooLong(head)
            self._consume(len(self._buffer))
            self._skipping = True
            return LineTooLong(head)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        cut = end - 1 if end and self._buffer[end - 1] == 0x0D else end
        line = bytes(self._buffer[:cut])
        self._consume(end + 1)
        return line

    async def read_line(self, maximum: int, seconds: float) -> bytes | LineTooLong:
        """The next line. Raises PeerGone, Inactive when `seconds` pass without a whole line."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (line := self.take_line(maximum)) is None:
            if self._ended:
                raise PeerGone
            await self.wait(deadline - loop.time())
        return line

    async def read_some(self, maximum: int, seconds: float) -> bytes:
        """Between 1 and `maximum` octets. Raises PeerGone, Inactive when none comes for `seconds`."""
        while not self._buffer:
            if self._ended:
                raise PeerGone
            await self.wait(seconds)
        count = min(maximum, len(self._buffer))
        chunk = bytes(memoryview(self._buffer)[:count])
        self._consume(count)
        return chunk
