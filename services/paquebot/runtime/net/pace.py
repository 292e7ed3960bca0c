"""How slowly a peer may send what we keep in memory: so much in each window, however little it may be silent."""

from collections.abc import Callable
from dataclasses import dataclass

from paquebot.runtime.settings import ByteSize, Seconds, setting


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """The first window is the grace: nothing is asked of a peer before its end."""

    rate: ByteSize = setting("MIN_RATE", ByteSize(1024), help="least bytes a second of a message's transfer; 0: any")
    window: Seconds = setting("MIN_RATE_WINDOW", Seconds(120.0), help="time over which the rate is averaged")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.rate < 0 or self.window <= 0:
            raise ValueError("PAQUEBOT_MIN_RATE is at least 0, PAQUEBOT_MIN_RATE_WINDOW more than 0")


class Pace:
    """Of one transfer, from its first byte to `last`, by the loop's clock."""

    __slots__ = ("_due", "_left", "_now", "_wanted", "_window", "last", "received")

    def __init__(self, settings: PaceSettings, now: Callable[[], float], seconds: float) -> None:
        """`seconds`: the longest time for all of it."""
        self._now = now
        self._window = settings.window if settings.rate else seconds
        self._wanted = int(settings.rate * settings.window)
        start = now()
        self._due = start + self._window
        self._left = self._window
        self.last = start + seconds
        self.received = 0
        """In the window so far."""

    def deadline(self, silence: float) -> float:
        """Until when the next bytes must come, after at most `silence` seconds without any."""
        return min(self._now() + silence, self._due, self.last)

    def came(self, octets: int) -> None:
        """A window ends as soon as what it wants has come."""
        self.received += octets
        if self.received >= self._wanted:
            self.received = 0
            self._due = self._now() + self._window

    def pause(self) -> None:
        """Nothing is to come for a while. What is left of the window is left for later: or whoever sends a byte in
        each piece of a message would have a new window each time."""
        self._left = self._due - self._now()

    def resume(self) -> None:
        """After a pause."""
        self._due = self._now() + self._left
