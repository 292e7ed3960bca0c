"""The loop that claims jobs in batches: it waits during an outage, and ends when the process drains.

One batch is claimed at a time, while those before it are delivered. A job that finds the process idle is delivered at
once; under load the next batch is claimed only when `pace` has passed since the last one, so that the messages of that
time share one transaction. A backlog, which fills a batch, does not wait.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from paquebot.delivery.settings import DeliveryLoadSettings
from paquebot.delivery.worker import DeliveryWorker
from paquebot.observability.log import Log
from paquebot.queue import ClaimedJob, Consumer, Queue, QueueUnavailable
from paquebot.queue.subjects import DELIVER
from paquebot.runtime.errors import EngineUnavailable
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.process.health import Health

_log = Log("paquebot.delivery")

CONSUMER = "delivery"
_FETCH_SECONDS = 5.0
_OUTAGE_SECONDS = 1.0
_MAX_SILENCE = 300.0  # far more than a batch with every timeout reached


class DeliveryConsumer:
    """One for a process."""

    def __init__(
        self, queue: Queue, postgres: Postgres, worker: DeliveryWorker, health: Health, load: DeliveryLoadSettings
    ) -> None:
        self._consumer = Consumer(queue, CONSUMER, DELIVER)
        self._postgres = postgres
        self._worker = worker
        self._health = health
        self._load = load
        self._slots = asyncio.Semaphore(load.workers)
        self._next = 0.0
        """When the next batch may be claimed, on the event loop's clock."""
        self._backlog = False
        """Whether the last claim filled a batch."""
        self._outage = self._reported = False

    async def run(self, draining: asyncio.Event) -> None:
        """Until `draining`; the batches under way are finished."""
        async with asyncio.TaskGroup() as batches:
            while not draining.is_set():
                self._beat()
                if self._outage:
                    await self._wait_for_engines(draining)
                await self._slots.acquire()
                if jobs := await self._claim(draining):
                    batches.create_task(self._work(jobs))
                else:
                    self._slots.release()
        with contextlib.suppress(QueueUnavailable):
            await self._consumer.close()
        self._health.silence(CONSUMER)

    def _beat(self) -> None:
        self._health.beat(CONSUMER, max_age=_MAX_SILENCE)

    async def _claim(self, draining: asyncio.Event) -> list[ClaimedJob]:
        """A batch; none when no job came for a while, NATS has an outage, or the process begins to drain."""
        loop = asyncio.get_running_loop()
        if not self._backlog:
            await pause(draining, self._next - loop.time())
        if draining.is_set():
            return []
        try:
            jobs = await self._fetch(draining)
        except QueueUnavailable as error:
            self._begin_outage(error)
            return []
        self._reported = self._outage  # an outage that begins from now on is logged again
        self._backlog = len(jobs) == self._load.jobs
        self._next = loop.time() + self._load.pace
        return jobs

    async def _work(self, jobs: Sequence[ClaimedJob]) -> None:
        try:
            await self._worker.work(jobs)
        except EngineUnavailable as error:
            self._begin_outage(error)
        finally:
            self._slots.release()

    def _begin_outage(self, error: Exception) -> None:
        self._outage = True
        if not self._reported:
            _log.warning("engine_unavailable", reason=f"{type(error).__name__}: {error}")
            self._reported = True

    async def _fetch(self, draining: asyncio.Event) -> list[ClaimedJob]:
        """A batch, or none when the process begins to drain meanwhile."""
        fetch = asyncio.ensure_future(self._consumer.fetch(self._load.jobs, _FETCH_SECONDS))
        drain = asyncio.ensure_future(draining.wait())
        try:
            await asyncio.wait((fetch, drain), return_when=asyncio.FIRST_COMPLETED)
            if fetch.done():
                return fetch.result()
            return []
        finally:
            drain.cancel()
            fetch.cancel()
            with contextlib.suppress(asyncio.CancelledError, QueueUnavailable):
                await fetch

    async def _wait_for_engines(self, draining: asyncio.Event) -> None:
        """Claim no job that could only be deferred: that would count as one of its tries."""
        await pause(draining, _OUTAGE_SECONDS)
        while not draining.is_set() and not await self._postgres.ready():
            self._beat()
            await pause(draining, _OUTAGE_SECONDS)
        self._outage = False


async def pause(draining: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than to the beginning of the drain."""
    if seconds <= 0:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await draining.wait()
