"""Password hashes beside the event loop: as many at once as there are cores, and a bounded queue before them.

Who waits is served in turn: those who have logged in before and strangers alternate, and among each of them the client
networks. Strangers never take all places, and one of their networks only a few: a guesser does not keep others waiting.
"""

import asyncio
import os
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from paquebot.directory.passwords import Hasher
from paquebot.observability import metrics
from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.settings import HashSettings
from paquebot.runtime.process.malloc import give_back

HASH_SECONDS = metrics.histogram(
    "paquebot_recipient_validation_hash_seconds",
    "Time of one password hash (argon2id)",
    {"work": ("hash", "verify")},
    buckets=metrics.FAST,
)
HASHES_WAITING = metrics.gauge("paquebot_recipient_validation_waiting_hashes", "Password hashes waiting or under way")

T = TypeVar("T")
_REST_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class HashClient:
    """For whom a hash is made. `network`: of the client's site, for anybody can have an IPv6 /48. `stranger`: nobody
    logged in from the client to this account lately."""

    network: str
    stranger: bool


_OURS = HashClient("", stranger=False)


@dataclass(frozen=True, slots=True)
class _Job:
    work: str
    function: Callable[[], Any]
    done: asyncio.Future[Any]


class _Turns:
    """Jobs that wait, by network, and taken from one network after the other."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[_Job]] = OrderedDict()
        self.waiting = 0

    def of(self, network: str) -> int:
        """How many wait for it."""
        return len(self._lanes.get(network, ()))

    def add(self, network: str, job: _Job) -> None:
        self._lanes.setdefault(network, deque()).append(job)
        self.waiting += 1

    def take(self) -> _Job:
        network, jobs = self._lanes.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._lanes[network] = jobs  # behind the others
        self.waiting -= 1
        return job


class Hashing:
    """Runs a Hasher's work in threads. Raises Overloaded when too many hashes wait already."""

    def __init__(self, settings: HashSettings) -> None:
        self._most_running = settings.threads or len(os.sched_getaffinity(0))
        self._most_waiting = settings.waiting
        self._most_strangers = settings.waiting * 3 // 4
        self._per_client = settings.per_client
        self._running = 0
        self._turns = {stranger: _Turns() for stranger in (False, True)}
        self._strangers_next = False
        self._threads = ThreadPoolExecutor(self._most_running, thread_name_prefix="argon2")
        self._hasher = Hasher(settings.parameters)
        self._rest: asyncio.TimerHandle | None = None

    async def hash(self, password: str) -> str:
        """The hash of a prepared password."""
        return str(await self._run("hash", lambda: self._hasher.hash(password), _OURS))

    async def verify(self, stored: str | None, password: str, lane: HashClient = _OURS) -> bool:
        """Whether the prepared password has the hash `stored`; None takes as long, and is never true."""
        if stored is None:
            await self._run("verify", lambda: self._hasher.verify(self._hasher.no_password, password), lane)
            return False
        return bool(await self._run("verify", lambda: self._hasher.verify(stored, password), lane))

    def is_weaker(self, stored: str) -> bool:
        return self._hasher.is_weaker(stored)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: str, function: Callable[[], T], lane: HashClient) -> T:
        if self._running >= self._most_running and not self._has_room(lane):
            raise Overloaded
        job = _Job(work, function, asyncio.get_running_loop().create_future())
        self._turns[lane.stranger].add(lane.network, job)
        HASHES_WAITING.inc()
        job.done.add_done_callback(_seen)
        self._start()
        result: T = await asyncio.shield(job.done)  # a caller that goes away does not make room
        return result

    def _has_room(self, lane: HashClient) -> bool:
        strangers = self._turns[True]
        if strangers.waiting + self._turns[False].waiting >= self._most_waiting:
            return False
        return not lane.stranger or (
            strangers.waiting < self._most_strangers and strangers.of(lane.network) < self._per_client
        )

    def _start(self) -> None:
        while self._running < self._most_running and (job := self._next()) is not None:
            self._running += 1
            future = asyncio.wrap_future(self._threads.submit(_timed, job.work, job.function))
            future.add_done_callback(lambda future, job=job: self._ended(job, future))  # type: ignore[misc]

    def _next(self) -> _Job | None:
        for stranger in (self._strangers_next, not self._strangers_next):
            if self._turns[stranger].waiting:
                self._strangers_next = not stranger
                return self._turns[stranger].take()
        return None

    def _ended(self, job: _Job, future: asyncio.Future[Any]) -> None:
        self._running -= 1
        HASHES_WAITING.dec()
        if not job.done.done():
            if future.cancelled():
                job.done.cancel()
            elif (error := future.exception()) is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(future.result())
        self._start()
        if not self._running:
            self._give_back_soon()

    def _give_back_soon(self) -> None:
        """A hash takes 19 MiB, which the next one finds ready; after a while without one the system gets them back."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(_REST_SECONDS, give_back)


def _timed(work: str, function: Callable[[], T]) -> T:
    with HASH_SECONDS.labels(work).time():
        return function()


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # seen, should the caller be gone
