"""Jobs at the end of a long backlog, taken ahead of it where their destination has nothing in hand.

The consumer gets jobs in the order in which they were stored. When many wait, the stream is asked which destinations
have any; for those with nothing in hand and nothing known against them, the oldest job is moved to the subject
`relay.ahead.<domain>`, which has a consumer of its own. Destinations that answered lately have places of their own, so
that no number of unknown ones holds them up; among the others those with few jobs come first, so that a single message
does not wait behind a hundred each for a thousand others.

A job is moved only when it is so far behind what the consumer was handed out that nobody has it, which is asked anew
for each: the processes together may pass thousands of jobs in a second. It is stored at its new place before it is
deleted at the old one (a crash between leaves both, and the outcomes in PostgreSQL are asked before each attempt).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from paquebot.observability.log import Log
from paquebot.queue import Publication, Queue, QueueRefused, QueueUnavailable, relay_ready, stream
from paquebot.queue.subjects import RELAY, domain_of, relay_ahead
from paquebot.relay import metrics
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.queue.publisher import JobPublisher
from paquebot.relay.routing.routes import Routes

T = TypeVar("T")
_log = Log("paquebot.relay")
_LOOK_SECONDS = 0.5
_REST_SECONDS = 60.0  # after a refusal: an older stream, or a login without the right
_SHARE = 1  # between two looks passes at least so many times what the last one took
_BACKLOG = 500  # jobs; fewer are handed out soon anyway
_MARGIN = 2000  # jobs behind the last one handed out
_PROVEN, _OTHERS = 24, 16  # destinations in one look
_EACH = 8  # jobs of one that answered lately; of another, one
_AT_ONCE = 8
_AT_A_TIME = 500
_NEVER = 2**62
"""No job has this number."""


class BacklogBypass(Generic[T]):
    """`consumer`: the name of the one whose backlog it is. `shuffle` puts unknown destinations in random order."""

    def __init__(
        self,
        queue: Queue,
        returns: JobPublisher,
        consumer: str,
        destinations: Destinations[T],
        routes: Routes,
        shuffle: Callable[[list[str]], None],
    ) -> None:
        self._queue = queue
        self._returns = returns
        self._consumer = consumer
        self._destinations = destinations
        self._routes = routes
        self._shuffle = shuffle
        self._may_delete = False
        self.unacknowledged = 0
        """Jobs that the consumer keeps: in somebody's hands, or put back for later."""

    async def run_for_ever(self, consumed: asyncio.Event) -> None:
        """`consumed` is set once somebody takes what is moved."""
        await consumed.wait()
        while True:
            start = time.monotonic()
            pause = _LOOK_SECONDS
            try:
                await self.look()
            except QueueRefused as refused:
                _log.warning("no_overtaking", reason=str(refused))
                pause = _REST_SECONDS
            except QueueUnavailable:
                pause = _REST_SECONDS if not self._may_delete else _LOOK_SECONDS
            await asyncio.sleep(max(pause, _SHARE * (time.monotonic() - start)))

    async def look(self) -> int:
        """Move what should not wait; returns how many jobs. Raises QueueUnavailable, QueueRefused."""
        settings = self._queue.settings
        info = await self._info()
        self.unacknowledged = int(info["num_ack_pending"])
        if int(info["num_pending"]) < _BACKLOG:
            return 0
        after = _handed_out(info) + _MARGIN
        found = await self._queue.api(f"STREAM.INFO.{settings.stream}", {"subjects_filter": RELAY})
        known, others = await self._idle(found["state"].get("subjects") or {})
        if (known or others) and not self._may_delete:
            await stream.delete(self._queue, _NEVER)  # with a copy elsewhere and no right to delete there would be two
            self._may_delete = True
        limit = asyncio.Semaphore(_AT_ONCE)
        moving = [self._move(domain, after, _EACH, limit) for domain in known]
        moving += [self._move(domain, after, 1, limit) for domain in others]
        return sum(await asyncio.gather(*moving))

    async def _info(self) -> dict[str, Any]:
        return await self._queue.api(f"CONSUMER.INFO.{self._queue.settings.stream}.{self._consumer}")

    async def _idle(self, subjects: dict[str, int]) -> tuple[list[str], list[str]]:
        """Domains of destinations without anything in hand: those that answered lately, and others."""
        known: list[str] = []
        others: list[str] = []
        counts: dict[str, int] = {}
        for number, (subject, count) in enumerate(subjects.items()):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # a sender can name a hundred thousand domains
            domain = domain_of(subject)
            key = self._routes.route(domain).key if domain else ""
            if domain and self._destinations.is_idle(key):
                (known if self._destinations.is_proven(key) else others).append(domain)
                counts[domain] = count
        for domains in (known, others):
            self._shuffle(domains)
            domains.sort(key=counts.__getitem__)  # whoever asks for little comes before those who ask for much
        return known[:_PROVEN], others[:_OTHERS]

    async def _move(self, domain: str, after: int, most: int, limit: asyncio.Semaphore) -> int:
        """The oldest jobs of the domain; returns how many."""
        moved = 0
        async with limit:
            while moved < most:
                found = await stream.oldest(self._queue, relay_ready(domain), after=after)
                if found is None or found.sequence <= _handed_out(await self._info()) + _MARGIN:
                    break
                name = f"ahead-{found.sequence}-{int(found.published_at * 1000)}"
                await self._returns.store(Publication(relay_ahead(domain), found.payload, message_id=name))
                await stream.delete(self._queue, found.sequence)
                metrics.AHEAD.inc()
                moved, after = moved + 1, found.sequence
        return moved


def _handed_out(info: dict[str, Any]) -> int:
    """The number of the newest job that a consumer gave to anybody."""
    return int(info["delivered"]["stream_seq"])
