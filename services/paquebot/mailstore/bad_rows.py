"""Rows that cannot be read as they are: named in the log once by a process, counted each time, and served as far as
that can be. One such row never takes its neighbours with it.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from paquebot.observability.log import Log
from paquebot.observability.metrics import by_member, counter
from paquebot.runtime.postgres.pool import PostgresRefused, PostgresTroubled, PostgresUnavailable

T = TypeVar("T")
K = TypeVar("K")

_log = Log("paquebot.mailstore")
_MOST_NAMED = 10_000
_MOST_LEFT_OUT = 16  # in one reading: where more of its rows fail, the fault is not of single rows
_named: dict[tuple[object, ...], None] = {}


Tell = Callable[..., None]
"""Takes what `tell` takes."""


class RowReading(enum.Enum):
    """How a bad row was read."""

    MENDED = "mended"
    """With a value in place of the bad one."""
    LEFT_OUT = "left_out"
    """Not at all."""


BAD_ROWS = counter(
    "paquebot_mailstore_bad_rows_total",
    "Rows of the mailstore that could not be read as they are, each time that they were read",
    {"reading": RowReading},
)
_BAD_ROW = by_member(BAD_ROWS, RowReading)


def tell(reading: RowReading, reason: str, **place: int | str) -> None:
    """Name a bad row: `place` is its account and what else names it."""
    _BAD_ROW[reading].inc()
    key = (reading, reason, *place.values())
    if key not in _named:
        _named[key] = None
        if len(_named) > _MOST_NAMED:
            del _named[next(iter(_named))]
        _log.error("bad_row", reading=reading.value, reason=reason, **place)


def is_of_rows(error: Exception) -> bool:
    """May the failure be one of the rows that were asked for, not of the engine?"""
    return isinstance(error, PostgresTroubled | PostgresRefused) or not isinstance(error, PostgresUnavailable)


async def one_by_one(
    read: Callable[[Sequence[K]], Awaitable[Sequence[T]]], keys: Sequence[K], left_out: Callable[[K, Exception], None]
) -> list[T]:
    """What `read` gives for `keys`, in their order. Where it fails it is asked for half of them, down to those that are
    bad, which are told to `left_out`. Raises what `read` raised when the engine is away, or too many are bad.
    """
    found: list[T] = []
    bad = 0
    waiting = [keys]
    while waiting:
        some = waiting.pop()
        try:
            found += await read(some)
        except Exception as error:
            if not is_of_rows(error) or bad == _MOST_LEFT_OUT:
                raise
            if len(some) > 1:
                waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
                continue
            bad += 1
            left_out(some[0], error)
    return found
