"""One claimed job to its end: acknowledged, deferred, or held.

Invariants: a job is acknowledged only when it is settled; a job that cannot be settled is deferred, and one that can
never be settled is held, never dropped.
"""

import asyncio
import contextlib
from collections.abc import Coroutine

from paquebot.blobs import BadPack, BlobMissing
from paquebot.observability import trace
from paquebot.observability.log import Log, ids
from paquebot.queue import QueueUnavailable
from paquebot.relay import metrics
from paquebot.relay.attempt import OUTAGES, AttemptRunner, HostsBusy, RelayAttempt
from paquebot.relay.hold import RelayHold
from paquebot.relay.metrics import AttemptResult, HoldReason, RequeueReason
from paquebot.relay.outcome import RelayResult
from paquebot.relay.queue.deferral import BUSY_SECONDS, MAX_WAIT, Deferral
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.settings import RelayLoadSettings
from paquebot.relay.settlement import DeliveryNotRecorded, RelaySettlement
from paquebot.runtime.shares.budget import OverBudget

_log = Log("paquebot.relay")


class RelayWorker:
    """One for a process."""

    def __init__(
        self,
        runner: AttemptRunner,
        settlement: RelaySettlement,
        deferral: Deferral,
        hold: RelayHold,
        destinations: Destinations[RelayAttempt],
        load: RelayLoadSettings,
    ) -> None:
        self._runner = runner
        self._settlement = settlement
        self._deferral = deferral
        self._hold = hold
        self._destinations = destinations
        self._load = load

    async def work(self, attempt: RelayAttempt) -> None:
        """Raises only CancelledError."""
        try:
            await self._attempt(attempt)
        except HostsBusy:
            self._destinations.busy(attempt.destination, BUSY_SECONDS)
            with contextlib.suppress(QueueUnavailable):  # then it is delivered again after the acknowledgement wait
                await self._deferral.put_back(attempt, RequeueReason.BUSY, BUSY_SECONDS)
        except DeliveryNotRecorded:
            await self._finish(attempt, self._hand_over(attempt))
        except (*OUTAGES, OverBudget) as error:
            _log.warning("job_deferred", queue_id=attempt.job.queue_id, reason=type(error).__name__)
            metrics.ATTEMPT[AttemptResult.ENGINE_UNAVAILABLE].inc()
            await self._deferral.during_outage(attempt.claimed)
        except BadPack as error:
            await self._damaged(attempt, error)
        except BlobMissing:
            _log.exception("message_missing", queue_id=attempt.job.queue_id)
            await self._failed(attempt, HoldReason.BLOB)
        except asyncio.CancelledError:
            if attempt.progress.unrecorded:
                await self._finish(attempt, self._hand_over(attempt))
            else:
                await self._deferral.defer(attempt.claimed)
            raise
        except Exception:  # noqa: BLE001 - the one place where the unknown ends: logged, tried again, then held
            _log.exception("job_failed", queue_id=attempt.job.queue_id)
            await self._failed(attempt, HoldReason.POISON)

    async def _attempt(self, attempt: RelayAttempt) -> None:
        """Raises what `AttemptRunner.run` raises."""
        job = attempt.job
        with (
            trace.span(
                "relay",
                job.trace,
                kind=trace.Kind.CONSUMER,
                queue_id=job.queue_id,
                domain=job.domain,
                attempt=job.attempt,
            ) as span,
            ids(queue_id=job.queue_id, trace=job.trace),
        ):
            job.trace = span.traceparent  # notifications and the next attempt are its children
            if await self._runner.run(attempt):
                await attempt.claimed.ack()  # or deferred recipients would be tried now, beside their later job
            else:
                await attempt.claimed.ack_soon()  # every outcome is recorded: a redelivery does nothing

    async def _damaged(self, attempt: RelayAttempt, error: BadPack) -> None:
        """S3 may give a whole message wrongly for hours: until the message is too old, the job is deferred."""
        _log.warning("message_damaged", queue_id=attempt.job.queue_id, reason=str(error))
        if self._settlement.age(attempt.job) > self._load.damaged_lifetime:
            await self._failed(attempt, HoldReason.BLOB)
            return
        metrics.ATTEMPT[AttemptResult.ENGINE_UNAVAILABLE].inc()
        await self._deferral.during_outage(attempt.claimed)

    async def _finish(self, attempt: RelayAttempt, storing: Coroutine[None, None, None]) -> None:
        """Acknowledge the job once `storing` has kept what is left of it."""
        try:
            await storing
            await attempt.claimed.ack()
        except QueueUnavailable:
            await self._deferral.defer(attempt.claimed, MAX_WAIT)

    async def _hand_over(self, attempt: RelayAttempt) -> None:
        """Raises QueueUnavailable."""
        outcomes = attempt.progress.outcomes
        delivered = [path for path, outcome in outcomes.items() if outcome.result is RelayResult.DELIVERED]
        await self._settlement.hand_over(attempt.job, delivered, attempt.claimed.sequence)

    async def _failed(self, attempt: RelayAttempt, reason: HoldReason) -> None:
        """The failure may have been chance: the job is retried some times, then held."""
        metrics.ATTEMPT[AttemptResult.ERROR].inc()
        failures = attempt.job.failures + 1
        if failures < self._load.tries:
            await self._finish(attempt, self._deferral.store_failed(attempt, failures))
        else:
            await self._finish(attempt, self._hold.hold(attempt.claimed, reason))
