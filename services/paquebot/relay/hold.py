"""Jobs that relay sets aside for an operator (`paquebot queue`), each with the reason."""

from collections.abc import Callable

from paquebot.observability.log import Log
from paquebot.queue import ClaimedJob, Publication, Queue, held
from paquebot.relay import metrics
from paquebot.relay.metrics import HoldReason
from paquebot.v1.queue_pb2 import HeldJob

_log = Log("paquebot.relay")


class RelayHold:
    """One for a process. `clock`: Unix seconds."""

    def __init__(self, queue: Queue, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._clock = clock

    async def hold(self, claimed: ClaimedJob, reason: HoldReason) -> None:
        """The caller acknowledges the job. A job that is held twice is kept once. Raises QueueUnavailable."""
        subject = claimed.subject.replace("relay.ahead.", "relay.ready.", 1)
        job = HeldJob(
            subject=subject, payload=claimed.payload, reason=reason.value, held_at_ms=int(self._clock() * 1000)
        )
        name = f"relay-{claimed.sequence}-{int(claimed.published_at * 1000)}"
        await self._queue.publish([Publication(held(reason.value, name), job.SerializeToString(), message_id=name)])
        metrics.HELD.labels(reason.value).inc()
        _log.error("job_held", subject=claimed.subject, reason=reason.value, deliveries=claimed.deliveries)
