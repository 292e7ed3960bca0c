"""Lookups that share a statement: a busy service sends larger statements, not more of them.

When a statement fails and PostgreSQL is there, it is run again for each caller alone, so that one caller's fault does
not fail the others.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from paquebot.observability.metrics import histogram
from paquebot.runtime.batching import Batcher
from paquebot.runtime.postgres.pool import PostgresUnavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_KEYS = 500  # of one statement, unless one caller alone asks for more
_STATEMENTS = 2  # under way at once

JOINED = histogram(
    "paquebot_recipient_validation_joined_lookups",
    "Callers answered by one statement",
    {"lookup": ("address", "usage")},
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)


def lookup_batcher(
    name: str, look_up: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]
) -> Batcher[Sequence[K], Mapping[K, V]]:
    """`await batcher.ask(keys)` gives what `look_up` gives for them, perhaps with keys of other callers."""
    joined = JOINED.labels(name)

    async def call(requests: Sequence[Sequence[K]]) -> list[Mapping[K, V]]:
        joined.observe(len(requests))
        found = await look_up(list(dict.fromkeys(key for keys in requests for key in keys)))
        return [found] * len(requests)

    return Batcher(call, calls=_STATEMENTS, limit=MAX_KEYS, size=len, retries_alone=_is_callers_fault)


def _is_callers_fault(error: Exception) -> bool:
    return not isinstance(error, PostgresUnavailable)
