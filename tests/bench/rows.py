"""One measure of both sides, as a row of the table, and the side of a comparison as every load sees it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

LOOPBACK = "127.0.0.1"


class Side(Protocol):
    """A running mail server with the accounts user000, user001, ... in one domain, all with one password."""

    @property
    def name(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def accounts(self) -> int: ...

    @property
    def password(self) -> str: ...

    @property
    def smtp_port(self) -> int: ...

    @property
    def imaps_port(self) -> int: ...

    @property
    def plain_imap_port(self) -> int | None:
        """Where a client may log in without TLS; None: nowhere."""

    def address(self, number: int) -> str:
        """The address, which is the login too, of an account from 0 up."""

    def tls(self) -> ssl.SSLContext:
        """What a client needs to trust the certificate on 127.0.0.1."""

    def roots(self) -> Mapping[str, int]:
        """The process id of each program; its descendants belong to it."""


def user(number: int) -> str:
    return f"user{number:03}"


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measure: the median is the figure, the extremes show how far to trust it."""

    median: float
    least: float
    most: float
    times: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Raises ValueError without values."""
        if not values:
            raise ValueError("nothing was measured")
        ordered = sorted(values)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        return cls(median, ordered[0], ordered[-1], len(ordered))


@dataclass(frozen=True, slots=True)
class Row:
    """A measure of ours and, where they have such a thing, of Postfix and Dovecot.

    `floor` and `goal` are of ours/theirs if `relative`, else of ours; None: the row only informs. With
    `higher_is_better` they are the least that will do, else the most. A ratio of *speed* is asked for in a row of
    seconds too (0.25× as fast: four times the seconds), so such a row has `speed_of_seconds`.
    """

    key: str
    title: str
    unit: str
    ours: Spread
    theirs: Spread | None = None
    floor: float | None = None
    goal: float | None = None
    higher_is_better: bool = True
    relative: bool = True
    speed_of_seconds: bool = False

    @property
    def ratio(self) -> float | None:
        """ours/theirs; for `speed_of_seconds` theirs/ours, so that more is better."""
        if self.theirs is None:
            return None
        above, below = self.ours.median, self.theirs.median
        if self.speed_of_seconds:
            above, below = below, above
        return above / below if below else None

    @property
    def judged(self) -> float | None:
        """The figure that floor and goal are of; None: the other side was not measured."""
        return self.ratio if self.relative else self.ours.median

    def meets(self, limit: float | None) -> bool | None:
        """Whether the judged figure reaches a limit; None: there is no limit, or nothing to judge."""
        if limit is None or self.judged is None:
            return None
        return self.judged >= limit if self.higher_is_better else self.judged <= limit
