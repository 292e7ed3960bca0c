"""Lookups asked for while others are under way, joined into one statement: a busy service asks less often, not more.

A lone lookup waits for nobody. A statement that fails for a reason of its own is done again for each caller
alone, so that one caller's fault is no other's.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from paquebot.observability.metrics import histogram
from paquebot.runtime.postgres.pool import PostgresUnavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_KEYS = 500  # of one statement, unless one caller alone asks for more
WORKERS = 2  # statements under way at once

JOINED = histogram(
    "paquebot_recipient_validation_joined_lookups",
    "Callers answered by one statement",
    {"lookup": ("address", "usage")},
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)


@dataclass(frozen=True, slots=True)
class _Caller(Generic[K, V]):
    keys: Sequence[K]
    found: asyncio.Future[Mapping[K, V]]


class LookupBatcher(Generic[K, V]):
    """`await gathering(keys)` gives what `look` gives for them, perhaps with keys of others; `work` must run."""

    def __init__(self, name: str, look: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._name = name
        self._look = look
        self._callers: deque[_Caller[K, V]] = deque()
        self._wanted = asyncio.Event()

    async def __call__(self, keys: Sequence[K]) -> Mapping[K, V]:
        caller: _Caller[K, V] = _Caller(keys, asyncio.get_running_loop().create_future())
        self._callers.append(caller)
        self._wanted.set()
        return await caller.found

    async def work(self) -> None:
        """Answer callers until cancelled; run `WORKERS` of these."""
        while True:
            await self._wanted.wait()
            if callers := self._take():
                JOINED.labels(self._name).observe(len(callers))
                await self._answer(callers)

    def _take(self) -> list[_Caller[K, V]]:
        """Those who still wait, in order, as many as one statement takes."""
        taken: list[_Caller[K, V]] = []
        keys = 0
        while self._callers and (not taken or keys + len(self._callers[0].keys) <= MAX_KEYS):
            caller = self._callers.popleft()
            if not caller.found.done():
                taken.append(caller)
                keys += len(caller.keys)
        if not self._callers:
            self._wanted.clear()
        return taken

    async def _answer(self, callers: Sequence[_Caller[K, V]]) -> None:
        keys = list(dict.fromkeys(key for caller in callers for key in caller.keys))
        try:
            found = await self._look(keys)
        except Exception as error:  # noqa: BLE001 - handed to the callers, whose boundary logs it
            if len(callers) > 1 and not isinstance(error, PostgresUnavailable):
                for caller in callers:
                    await self._answer([caller])
                return
            for caller in callers:
                if not caller.found.done():
                    caller.found.set_exception(error)
            return
        for caller in callers:
            if not caller.found.done():
                caller.found.set_result(found)
