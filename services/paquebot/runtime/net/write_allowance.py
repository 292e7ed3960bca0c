"""How long a client that does not read may keep its session waiting: in one pause, and in all of them."""

from dataclasses import dataclass, field

MINIMUM_RATE = 8 * 1024
"""Bytes per second. A phone at the edge of its network reads three times as many."""


@dataclass(slots=True)
class WriteAllowance:
    """`longest` seconds of waiting, which waits use up and writes give back: a second for `rate` bytes. So no pause is
    longer than `longest`, and a client reads `rate` bytes a second on the whole, however it spreads its pauses: one
    that reads a byte now and then keeps nothing in memory for long.
    """

    longest: float
    rate: int
    seconds: float = field(init=False)
    """The maximum for the next wait."""
    is_used: bool = False
    """Whether `seconds` is below `longest`, so that writes count."""

    def __post_init__(self) -> None:
        self.seconds = self.longest

    def wrote(self, size: int) -> None:
        self.seconds = min(self.longest, self.seconds + size / self.rate)
        self.is_used = self.seconds < self.longest

    def waited(self, seconds: float) -> None:
        self.seconds = max(0.0, self.seconds - seconds)
        self.is_used = True
