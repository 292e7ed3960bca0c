"""Jobs and entries that delivery sets aside for an operator (`paquebot queue`), each with the reason."""

import time
from collections.abc import Iterable

from paquebot.blobs import new_ulid
from paquebot.delivery import metrics
from paquebot.observability.log import Log
from paquebot.queue import Publication, Queue, held
from paquebot.v1.queue_pb2 import DeliverEntry, DeliverJob, HeldJob

_log = Log("paquebot.delivery")
_POISON = "poison"
_MAX_REASON = 1000  # characters: an error's text may be long, and the job must fit into a message of the queue


class DeliveryHold:
    """One for a process."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def hold(self, subject: str, payload: bytes, reason: str) -> None:
        """Hold a job. Raises QueueUnavailable."""
        job = HeldJob(
            subject=subject, payload=payload, reason=reason[:_MAX_REASON], held_at_ms=time.time_ns() // 1_000_000
        )
        await self._queue.publish([Publication(held(_POISON, new_ulid()), job.SerializeToString())])
        metrics.HELD.labels(_POISON).inc()
        _log.error("job_held", subject=subject, reason=reason)

    async def hold_entries(self, subject: str, job: DeliverJob, entries: Iterable[DeliverEntry], reason: str) -> None:
        """Hold only these entries of the job. Raises QueueUnavailable."""
        part = DeliverJob(pack=job.pack, domain=job.domain, entries=entries)
        await self.hold(subject, part.SerializeToString(), reason)
