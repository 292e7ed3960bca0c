"""Jobs of a long backlog that are moved ahead of it, where no job of their destination is claimed.

The consumer gets jobs in the order in which they were stored. When many wait, relay asks the stream which destinations
have jobs. For those that are idle and neither rest nor are busy, it moves the oldest job to the subject
`relay.ahead.<domain>`, which has its own consumer. Destinations that answered lately have their own places, so
that no number of unknown ones delays them; among the others those with few jobs come first, so that a single message
does not wait behind a hundred each for a thousand others.

A job is moved only when it is so far behind the newest claimed one that no process can have it. That is checked anew
for each job: the processes together may pass thousands of jobs in a second. The job is stored at its new place before
it is deleted at the old one (a crash between leaves both, and each attempt checks the outcomes in PostgreSQL first).
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
_PERIOD_SECONDS = 0.5
_REFUSED_SECONDS = 60.0  # after a refusal: an older stream, or a login without the right
_PAUSE_FACTOR = 1  # the pause is at least this times as long as the last round
_MIN_BACKLOG = 500  # jobs; fewer are claimed soon anyway
_MARGIN = 2000  # jobs behind the newest claimed one
_PROVEN, _OTHERS = 24, 16  # destinations in one round
_PER_PROVEN = 8  # jobs of one that answered lately; of another, one
_CONCURRENT_MOVES = 8
_SUBJECTS_PER_TURN = 500
_NEVER = 2**62
"""No job has this number."""


class BacklogBypass(Generic[T]):
    """`consumer`: the name of the consumer whose backlog it is. `shuffle` puts unknown destinations in random order."""

    def __init__(
        self,
        queue: Queue,
        publisher: JobPublisher,
        consumer: str,
        destinations: Destinations[T],
        routes: Routes,
        shuffle: Callable[[list[str]], None],
    ) -> None:
        self._queue = queue
        self._publisher = publisher
        self._consumer = consumer
        self._destinations = destinations
        self._routes = routes
        self._shuffle = shuffle
        self._may_delete = False
        self.unacknowledged = 0
        """Jobs that the consumer keeps: claimed, or put back for later."""

    async def run_forever(self, consumed: asyncio.Event) -> None:
        """Begins when `consumed` is set: a process claims what is moved."""
        await consumed.wait()
        while True:
            start = time.monotonic()
            pause = _PERIOD_SECONDS
            try:
                await self.move_jobs()
            except QueueRefused as refused:
                _log.warning("bypass_refused", reason=str(refused))
                pause = _REFUSED_SECONDS
            except QueueUnavailable:
                pause = _REFUSED_SECONDS if not self._may_delete else _PERIOD_SECONDS
            await asyncio.sleep(max(pause, _PAUSE_FACTOR * (time.monotonic() - start)))

    async def move_jobs(self) -> int:
        """One round; returns how many jobs were moved. Raises QueueUnavailable, QueueRefused."""
        settings = self._queue.settings
        info = await self._info()
        self.unacknowledged = int(info["num_ack_pending"])
        if int(info["num_pending"]) < _MIN_BACKLOG:
            return 0
        after = _newest_claimed(info) + _MARGIN
        found = await self._queue.api(f"STREAM.INFO.{settings.stream}", {"subjects_filter": RELAY})
        known, others = await self._idle(found["state"].get("subjects") or {})
        if (known or others) and not self._may_delete:
            await stream.delete(self._queue, _NEVER)  # without the right to delete, each moved job would be there twice
            self._may_delete = True
        slots = asyncio.Semaphore(_CONCURRENT_MOVES)
        moving = [self._move(domain, after, _PER_PROVEN, slots) for domain in known]
        moving += [self._move(domain, after, 1, slots) for domain in others]
        return sum(await asyncio.gather(*moving))

    async def _info(self) -> dict[str, Any]:
        return await self._queue.api(f"CONSUMER.INFO.{self._queue.settings.stream}.{self._consumer}")

    async def _idle(self, subjects: dict[str, int]) -> tuple[list[str], list[str]]:
        """Domains of idle destinations: those that answered lately, and others."""
        known: list[str] = []
        others: list[str] = []
        counts: dict[str, int] = {}
        for number, (subject, count) in enumerate(subjects.items()):
            if number % _SUBJECTS_PER_TURN == 0:
                await asyncio.sleep(0)  # a sender can name a hundred thousand domains
            domain = domain_of(subject)
            key = self._routes.route(domain).key if domain else ""
            if domain and self._destinations.is_idle(key):
                (known if self._destinations.is_proven(key) else others).append(domain)
                counts[domain] = count
        for domains in (known, others):
            self._shuffle(domains)
            domains.sort(key=counts.__getitem__)  # destinations with few jobs come before those with many
        return known[:_PROVEN], others[:_OTHERS]

    async def _move(self, domain: str, after: int, number: int, slots: asyncio.Semaphore) -> int:
        """The oldest jobs of the domain; returns how many."""
        moved = 0
        async with slots:
            while moved < number:
                found = await stream.oldest(self._queue, relay_ready(domain), after=after)
                if found is None or found.sequence <= _newest_claimed(await self._info()) + _MARGIN:
                    break
                name = f"ahead-{found.sequence}-{int(found.published_at * 1000)}"
                await self._publisher.publish(Publication(relay_ahead(domain), found.payload, message_id=name))
                await stream.delete(self._queue, found.sequence)
                metrics.PROMOTED.inc()
                moved, after = moved + 1, found.sequence
        return moved


def _newest_claimed(info: dict[str, Any]) -> int:
    """The number of the newest job that the consumer handed out."""
    return int(info["delivered"]["stream_seq"])
