"""The loop that takes batches from the queue: waits while an engine is away, ends when the process drains."""

import asyncio
import contextlib

from paquebot.delivery.worker import Worker
from paquebot.observability.log import Log
from paquebot.queue import Consumer, Job, Queue, QueueUnavailable
from paquebot.queue.subjects import DELIVER
from paquebot.runtime.health import Health
from paquebot.runtime.postgres import Postgres, PostgresUnavailable

_log = Log("paquebot.delivery")

CONSUMER = "delivery"
_FETCH_SECONDS = 5.0
_AWAY_SECONDS = 1.0
_SILENCE_SECONDS = 300.0  # far more than a batch with every deadline reached


class Intake:
    """One loop; a process has several, each with a consumer of its own under the shared name."""

    def __init__(
        self, number: int, queue: Queue, postgres: Postgres, worker: Worker, health: Health, jobs: int
    ) -> None:
        self._name = f"delivery-{number}"
        self._consumer = Consumer(queue, CONSUMER, DELIVER)
        self._postgres = postgres
        self._worker = worker
        self._health = health
        self._jobs = jobs

    async def run(self, draining: asyncio.Event) -> None:
        """Until `draining`; the batch under way is finished."""
        reported = False
        while not draining.is_set():
            self._health.beat(self._name, max_age=_SILENCE_SECONDS)
            try:
                if jobs := await self._fetch(draining):
                    await self._worker.work(jobs)
                reported = False
            except (QueueUnavailable, PostgresUnavailable) as error:
                if not reported:
                    _log.warning("engine_away", reason=f"{type(error).__name__}: {error}")
                    reported = True
                await self._wait_for_engines(draining)
        with contextlib.suppress(QueueUnavailable):
            await self._consumer.close()
        self._health.silence(self._name)

    async def _fetch(self, draining: asyncio.Event) -> list[Job]:
        """A batch, or none when the process begins to drain meanwhile."""
        fetch = asyncio.ensure_future(self._consumer.fetch(self._jobs, _FETCH_SECONDS))
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
        """No job is taken while it could only be given back: that would count as one of its tries."""
        await pause(draining, _AWAY_SECONDS)
        while not draining.is_set() and not await self._postgres.ready():
            self._health.beat(self._name, max_age=_SILENCE_SECONDS)
            await pause(draining, _AWAY_SECONDS)


async def pause(draining: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than to the beginning of the drain."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await draining.wait()
