"""How long a peer that does not read may keep its session waiting: in one pause, and in all of them."""

from dataclasses import dataclass, field

MINIMUM_RATE = 8 * 1024
"""Bytes per second; a phone at the edge of its network takes three times as many."""


@dataclass(slots=True)
class WriteAllowance:
    """`longest` seconds of waiting, which are used up by waiting and come back with what is written, `rate` bytes for
    a second. So no pause is longer than `longest`, and however a peer spreads its pauses, it takes `rate` bytes a
    second on the whole: to read one byte now and then keeps nothing in memory for long.
    """

    longest: float
    rate: int
    seconds: float = field(init=False)
    """How long the next wait may be."""

    def __post_init__(self) -> None:
        self.seconds = self.longest

    def wrote(self, octets: int) -> None:
        self.seconds = min(self.longest, self.seconds + octets / self.rate)

    def waited(self, seconds: float) -> None:
        self.seconds = max(0.0, self.seconds - seconds)
