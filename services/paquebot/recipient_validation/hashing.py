"""Password hashes beside the event loop: as many at once as there are cores, and a bounded queue before them."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from paquebot.directory.passwords import Hasher
from paquebot.observability import metrics
from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.settings import HashSettings
from paquebot.runtime.memory import give_back

HASH_SECONDS = metrics.histogram(
    "paquebot_recipient_validation_hash_seconds",
    "Time of one password hash (argon2id)",
    {"work": ("hash", "verify")},
    buckets=metrics.FAST,
)
HASHES_WAITING = metrics.gauge("paquebot_recipient_validation_waiting_hashes", "Password hashes waiting or under way")

T = TypeVar("T")
_REST_SECONDS = 3.0


class Hashing:
    """Runs a Hasher's work in threads. Raises Overloaded when `waiting` hashes wait already."""

    def __init__(self, settings: HashSettings) -> None:
        threads = settings.threads or len(os.sched_getaffinity(0))
        self._most = threads + settings.waiting
        self._under_way = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._hasher = Hasher(settings.parameters)
        self._rest: asyncio.TimerHandle | None = None

    async def hash(self, password: str) -> str:
        """The hash of a prepared password."""
        return await self._run("hash", lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the prepared password has the hash `stored`; None takes as long, and is never true."""
        if stored is None:
            await self._run("verify", lambda: self._hasher.verify(self._hasher.nobody, password))
            return False
        return await self._run("verify", lambda: self._hasher.verify(stored, password))

    def outgrown(self, stored: str) -> bool:
        return self._hasher.outgrown(stored)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: str, function: Callable[[], T]) -> T:
        if self._under_way >= self._most:
            raise Overloaded
        self._under_way += 1
        HASHES_WAITING.inc()
        future = asyncio.wrap_future(self._threads.submit(_timed, work, function))
        future.add_done_callback(self._ended)
        return await asyncio.shield(future)  # a caller that goes away does not make room: the thread works on

    def _ended(self, future: asyncio.Future[T]) -> None:
        self._under_way -= 1
        HASHES_WAITING.dec()
        if not self._under_way:
            self._give_back_soon()
        if not future.cancelled():
            future.exception()  # seen, should the caller be gone

    def _give_back_soon(self) -> None:
        """A hash takes 19 MiB, which the next one finds ready; after a while without one the system gets them back."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(_REST_SECONDS, give_back)


def _timed(work: str, function: Callable[[], T]) -> T:
    with HASH_SECONDS.labels(work).time():
        return function()
