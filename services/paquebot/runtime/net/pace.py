"""The minimum rate of a transfer whose bytes stay in memory: so many bytes in each window of time."""

from collections.abc import Callable
from dataclasses import dataclass

from paquebot.runtime.settings import ByteSize, Seconds, setting


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """Nothing is required before the end of the first window."""

    rate: ByteSize = setting("MIN_RATE", ByteSize(1024), help="minimum bytes a second of a message's transfer; 0: any")
    window: Seconds = setting("MIN_RATE_WINDOW", Seconds(120.0), help="time over which the rate is averaged")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.rate < 0 or self.window <= 0:
            raise ValueError("PAQUEBOT_MIN_RATE must be at least 0, PAQUEBOT_MIN_RATE_WINDOW above 0")


class Pace:
    """The pace of one transfer, from its first byte to `last` by the loop's clock."""

    __slots__ = ("_due", "_left", "_now", "_wanted", "_window", "last", "received")

    def __init__(self, settings: PaceSettings, now: Callable[[], float], seconds: float) -> None:
        """`seconds`: timeout for the whole transfer."""
        self._now = now
        self._window = settings.window if settings.rate else seconds
        self._wanted = int(settings.rate * settings.window)
        start = now()
        self._due = start + self._window
        self._left = self._window
        self.last = start + seconds
        self.received = 0
        """Bytes in this window."""

    def deadline(self, silence: float) -> float:
        """When the next bytes are due. `silence`: the maximum number of seconds without any."""
        return min(self._now() + silence, self._due, self.last)

    def came(self, count: int) -> None:
        """Count received bytes. A window ends as soon as it has its minimum."""
        self.received += count
        if self.received >= self._wanted:
            self.received = 0
            self._due = self._now() + self._window

    def pause(self) -> None:
        """No bytes are expected for a while. The rest of the window is kept: otherwise a client that sends a byte in
        each piece of a message would get a new window each time."""
        self._left = self._due - self._now()

    def resume(self) -> None:
        """Continue after a pause."""
        self._due = self._now() + self._left
