"""Deferral of claimed jobs: the consumer keeps them, or the stream stores them anew for later."""

import contextlib
from collections.abc import Callable

from cachetools import LRUCache

from paquebot.queue import ClaimedJob, QueueUnavailable
from paquebot.relay import metrics
from paquebot.relay.attempt import RelayAttempt
from paquebot.relay.metrics import RequeueReason
from paquebot.relay.queue.ahead import BacklogBypass
from paquebot.relay.retry import Random
from paquebot.relay.settlement import RelaySettlement

BUSY_SECONDS = 15.0
MAX_WAIT = 30.0  # seconds; of a job that an outage or a failure defers: short at first, then longer
_REST_SPREAD = 0.25  # of what was left of a destination's rest
_MAX_OUTAGES = 10_000


class Deferral:
    """`parked`: the maximum jobs that the consumer keeps for later; `random`: from 0 to 1; `clock`: Unix seconds."""

    def __init__(
        self,
        settlement: RelaySettlement,
        bypass: BacklogBypass[RelayAttempt],
        parked: int,
        random: Random,
        clock: Callable[[], float],
    ) -> None:
        self._settlement = settlement
        self._bypass = bypass
        self._parked = parked
        self._random = random
        self._clock = clock
        self._outages: LRUCache[tuple[int, float], int] = LRUCache(_MAX_OUTAGES)  # by `ClaimedJob.stored`

    async def put_back(self, attempt: RelayAttempt, reason: RequeueReason, seconds: float) -> None:
        """For later, as it is: nothing was tried. The consumer itself keeps the job, which costs the server no disk;
        only where it keeps very many is the job stored anew. Raises QueueUnavailable."""
        # After a long rest the host is there again: crowded jobs are spread over their wait, rested ones over a part.
        seconds *= 1 + self._random() * (_REST_SPREAD if reason is RequeueReason.RESTING else 1.0)
        if self._bypass.unacknowledged < self._parked:
            await attempt.claimed.nak(seconds)
        else:
            await self._settlement.store_later(attempt.job, self._clock() + seconds, attempt.claimed.sequence)
            await attempt.claimed.ack_soon()
        metrics.REQUEUED_BY_REASON[reason].inc()

    async def store_failed(self, attempt: RelayAttempt, failures: int) -> None:
        """Store the job for its next try, with its number of failures. Raises QueueUnavailable."""
        at = self._clock() + _wait(failures, self._random)
        await self._settlement.store_later(attempt.job, at, attempt.claimed.sequence, failures=failures)

    async def during_outage(self, claimed: ClaimedJob) -> None:
        """Each outage makes the job's next wait longer, and none counts as a failure of the job."""
        outages = self._outages[claimed.stored] = self._outages.get(claimed.stored, 0) + 1
        await self.defer(claimed, _wait(outages, self._random))

    async def defer(self, claimed: ClaimedJob, seconds: float = 0.0) -> None:
        with contextlib.suppress(QueueUnavailable):  # then it is delivered again after the acknowledgement wait
            await claimed.nak(seconds)


def _wait(tries: int, random: Random) -> float:
    """Seconds until the next try."""
    return min(MAX_WAIT, 2.0 ** min(tries, 16)) * (1 + random()) / 2
