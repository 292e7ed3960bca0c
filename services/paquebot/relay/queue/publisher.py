"""Jobs that go back into the stream for later, many in one call: the relay must put back a backlog that it cannot work
on now faster than it arrives, or the jobs behind it wait."""

from collections.abc import Sequence

from paquebot.queue import Publication, Queue, QueueRefused, QueueUnavailable
from paquebot.runtime.batching import Batcher

_MAX_BATCH = 500


class JobPublisher:
    """One for a process."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._batcher: Batcher[Publication, None] = Batcher(self._publish, calls=2, limit=_MAX_BATCH)

    async def publish(self, publication: Publication) -> None:
        """Return when the job is stored. Raises QueueUnavailable."""
        await self._batcher.ask(publication)

    async def _publish(self, publications: Sequence[Publication]) -> Sequence[Exception | None]:
        try:
            await self._queue.publish(publications)
        except QueueRefused as refused:  # one that is stored already, under its name, fails the batch
            if len(publications) == 1:
                return [refused]
            return [await self._publish_alone(publication) for publication in publications]
        return [None] * len(publications)

    async def _publish_alone(self, publication: Publication) -> Exception | None:
        try:
            await self._queue.publish([publication])
        except QueueUnavailable as error:
            return error
        return None
