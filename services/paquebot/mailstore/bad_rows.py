"""Rows that cannot be read as they are. A process logs each once and counts every reading; a service gives its clients
as much of the row as it can. One such row never makes the reading of other rows fail.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from cachetools import FIFOCache

from paquebot.observability.log import Log
from paquebot.observability.metrics import by_member, counter
from paquebot.runtime.postgres.pool import PostgresRefused, PostgresTroubled, PostgresUnavailable

T = TypeVar("T")
K = TypeVar("K")

_log = Log("paquebot.mailstore")
_MAX_LOGGED = 10_000
_MAX_LEFT_OUT = 16  # in one reading: where more of its rows fail, the fault is not of single rows
_logged: FIFOCache[tuple[object, ...], None] = FIFOCache(_MAX_LOGGED)


Report = Callable[..., None]
"""Takes the arguments of `report`."""


class BadRowResult(enum.Enum):
    """How a bad row was read."""

    SUBSTITUTED = "substituted"
    """With a value in place of the bad one."""
    OMITTED = "omitted"
    """Not at all."""


BAD_ROWS = counter(
    "paquebot_mailstore_bad_rows_total",
    "Readings of mailstore rows with an invalid value; substituted: read with another value, omitted: not read",
    {"result": BadRowResult},
)
_BAD_ROW = by_member(BAD_ROWS, BadRowResult)


def report(result: BadRowResult, reason: str, **place: int | str) -> None:
    """Count a bad row, and log it the first time. `place`: its account and what else identifies it."""
    _BAD_ROW[result].inc()
    key = (result, reason, *place.values())
    if key not in _logged:
        _logged[key] = None
        _log.error("bad_row", result=result.value, reason=reason, **place)


def may_be_of_rows(error: Exception) -> bool:
    """Whether the failure may come from the rows asked for, not from the engine."""
    return isinstance(error, PostgresTroubled | PostgresRefused) or not isinstance(error, PostgresUnavailable)


async def one_by_one(
    read: Callable[[Sequence[K]], Awaitable[Sequence[T]]], keys: Sequence[K], left_out: Callable[[K, Exception], None]
) -> list[T]:
    """The results of `read` for `keys`, in their order. Where `read` fails it is called for each half of the keys, down
    to the bad ones, which are passed to `left_out`. Raises the error of `read` when the engine is away, or when too
    many keys are bad.
    """
    found: list[T] = []
    bad = 0
    waiting = [keys]
    while waiting:
        some = waiting.pop()
        try:
            found += await read(some)
        except Exception as error:
            if not may_be_of_rows(error) or bad == _MAX_LEFT_OUT:
                raise
            if len(some) > 1:
                waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
                continue
            bad += 1
            left_out(some[0], error)
    return found
