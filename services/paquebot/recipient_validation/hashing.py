"""Password hashes on threads: as many at once as there are cores, and a bounded queue for the others.

The queue alternates between known clients, which have logged in before, and unknown ones, and among each of them
between client networks. Unknown clients never fill the queue, and one of their networks only a few places: an attacker
does not delay other logins.
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
_IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class HashClient:
    """The client that a hash is for. `network`: the /24 or /48 of its address, as an attacker can easily have a /48.
    `is_known`: the account logged in from the client recently."""

    network: str
    is_known: bool


_OWN = HashClient("", is_known=True)


@dataclass(frozen=True, slots=True)
class _Hash:
    kind: str
    function: Callable[[], Any]
    done: asyncio.Future[Any]


class _RoundRobin:
    """Waiting hashes by network; taken from one network after the other."""

    def __init__(self) -> None:
        self._networks: OrderedDict[str, deque[_Hash]] = OrderedDict()
        self.waiting = 0

    def count(self, network: str) -> int:
        """Waiting hashes of the network."""
        return len(self._networks.get(network, ()))

    def add(self, network: str, item: _Hash) -> None:
        self._networks.setdefault(network, deque()).append(item)
        self.waiting += 1

    def take(self) -> _Hash:
        network, items = self._networks.popitem(last=False)
        item = items.popleft()
        if items:
            self._networks[network] = items  # behind the other networks
        self.waiting -= 1
        return item


class Hashing:
    """Runs a Hasher on threads. Raises Overloaded when too many hashes wait already."""

    def __init__(self, settings: HashSettings) -> None:
        self._max_running = settings.threads or len(os.sched_getaffinity(0))
        self._max_waiting = settings.waiting
        self._max_unknown = settings.waiting * 3 // 4
        self._per_client = settings.per_client
        self._running = 0
        self._known, self._unknown = _RoundRobin(), _RoundRobin()
        self._unknown_first = False
        self._threads = ThreadPoolExecutor(self._max_running, thread_name_prefix="argon2")
        self._hasher = Hasher(settings.parameters)
        self._idle_timer: asyncio.TimerHandle | None = None

    async def hash(self, password: str) -> str:
        """The hash of a prepared password."""
        return str(await self._run("hash", lambda: self._hasher.hash(password), _OWN))

    async def verify(self, stored: str | None, password: str, client: HashClient = _OWN) -> bool:
        """Whether the prepared password has the hash `stored`; None: False, after the same time."""
        if stored is None:
            await self._run("verify", lambda: self._hasher.verify(self._hasher.no_password, password), client)
            return False
        return bool(await self._run("verify", lambda: self._hasher.verify(stored, password), client))

    def is_weaker(self, stored: str) -> bool:
        """Whether `stored` was made with a smaller parameter than new hashes."""
        return self._hasher.is_weaker(stored)

    def close(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, kind: str, function: Callable[[], T], client: HashClient) -> T:
        if self._running >= self._max_running and not self._has_room(client):
            raise Overloaded
        item = _Hash(kind, function, asyncio.get_running_loop().create_future())
        (self._known if client.is_known else self._unknown).add(client.network, item)
        HASHES_WAITING.inc()
        item.done.add_done_callback(_retrieve_exception)
        self._start()
        result: T = await asyncio.shield(item.done)  # a cancelled caller does not free a place
        return result

    def _has_room(self, client: HashClient) -> bool:
        if self._known.waiting + self._unknown.waiting >= self._max_waiting:
            return False
        return client.is_known or (
            self._unknown.waiting < self._max_unknown and self._unknown.count(client.network) < self._per_client
        )

    def _start(self) -> None:
        while self._running < self._max_running and (item := self._next()) is not None:
            self._running += 1
            future = asyncio.wrap_future(self._threads.submit(_timed, item.kind, item.function))
            future.add_done_callback(lambda future, item=item: self._ended(item, future))  # type: ignore[misc]

    def _next(self) -> _Hash | None:
        """Alternates between known and unknown clients."""
        queues = (self._unknown, self._known) if self._unknown_first else (self._known, self._unknown)
        for queue in queues:
            if queue.waiting:
                self._unknown_first = queue is self._known
                return queue.take()
        return None

    def _ended(self, item: _Hash, future: asyncio.Future[Any]) -> None:
        self._running -= 1
        HASHES_WAITING.dec()
        if not item.done.done():
            if future.cancelled():
                item.done.cancel()
            elif (error := future.exception()) is not None:
                item.done.set_exception(error)
            else:
                item.done.set_result(future.result())
        self._start()
        if not self._running:
            self._free_memory_later()

    def _free_memory_later(self) -> None:
        """A hash uses 19 MiB, which the next one reuses; after some seconds without one they go back to the system."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_SECONDS, give_back)


def _timed(kind: str, function: Callable[[], T]) -> T:
    with HASH_SECONDS.labels(kind).time():
        return function()


def _retrieve_exception(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # the caller may be gone
