"""Admission of claimed jobs: due ones wait here for their turn, the others are put back immediately.

An impossible job is held immediately and not retried for days: text that PostgreSQL does not store, a name that is no
valid subject, a time outside the calendar. Addresses are not judged here: a bad one is reported to its sender.
"""

import string
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from paquebot.observability.log import Log
from paquebot.queue import ClaimedJob
from paquebot.relay.attempt import RelayAttempt
from paquebot.relay.hold import RelayHold
from paquebot.relay.metrics import HoldReason, RequeueReason
from paquebot.relay.queue.deferral import Deferral
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.routing.routes import Routes
from paquebot.relay.settlement import RelaySettlement
from paquebot.v1.queue_pb2 import RelayJob

_log = Log("paquebot.relay")
_TWICE_SECONDS = 60.0
_MAX_MS: Final = 2**43
"""In the year 2248."""
_TOKEN: Final = frozenset("-_" + string.ascii_letters + string.digits)
"""Part of a subject, for it names the job of the next attempt."""


class UnreadableJob(Exception):
    """The job is impossible; the text states why."""


def read_job(payload: bytes) -> RelayJob:
    """Raises UnreadableJob."""
    try:
        job = RelayJob.FromString(payload)
    except DecodeError:
        raise UnreadableJob("not a RelayJob") from None
    if not job.queue_id or not _TOKEN.issuperset(job.queue_id):
        raise UnreadableJob("not a queue id")
    if not 0 <= job.accepted_at_ms < _MAX_MS:
        raise UnreadableJob("not a time of acceptance")
    texts = [job.domain, job.reverse_path, job.envid, job.login, *job.relayed]
    texts += (text for one in job.recipients for text in (one.forward_path, one.orcpt, one.original))
    if any("\0" in text for text in texts):
        raise UnreadableJob("a text has a byte 0")
    return job


class Admission:
    """Holds the claimed jobs of the process, waiting and under way. `clock`: Unix seconds."""

    def __init__(
        self,
        routes: Routes,
        destinations: Destinations[RelayAttempt],
        settlement: RelaySettlement,
        deferral: Deferral,
        hold: RelayHold,
        clock: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._destinations = destinations
        self._settlement = settlement
        self._deferral = deferral
        self._hold = hold
        self._clock = clock
        self._by_place: dict[tuple[int, float], RelayAttempt] = {}  # by `ClaimedJob.stored`
        self._by_name: dict[tuple[str, str], RelayAttempt] = {}  # by queue id and domain

    def __iter__(self) -> Iterator[ClaimedJob]:
        """The claimed jobs."""
        return iter([attempt.claimed for attempt in self._by_place.values()])

    async def admit(self, jobs: Sequence[ClaimedJob], *, first: bool) -> int:
        """Return how many jobs were put back. `first`: their destinations have the next turn. Raises
        QueueUnavailable; the stream then delivers the remaining jobs again."""
        put_back = 0
        for claimed in jobs:
            known = self._by_place.get(claimed.stored)
            if known is not None:  # heartbeats were lost for a while; the attempt continues under the new claim
                known.claimed = claimed
                continue
            try:
                job = read_job(claimed.payload)
            except UnreadableJob as error:
                _log.error("job_unreadable", subject=claimed.subject, reason=str(error))
                await self._hold.hold(claimed, HoldReason.UNREADABLE)
                await claimed.ack()
                continue
            attempt = RelayAttempt(claimed, job, self._routes.route(job.domain))
            reason, seconds = self._obstacle(attempt, first=first)
            if reason is None:
                self._by_place[claimed.stored] = attempt
                self._by_name[job.queue_id, job.domain] = attempt
            else:
                await self._deferral.put_back(attempt, reason, seconds)
                put_back += 1
        return put_back

    def _obstacle(self, attempt: RelayAttempt, *, first: bool) -> tuple[RequeueReason | None, float]:
        """Why a job is not for now, and for how many seconds; None: it waits for its turn here."""
        now, destination = self._clock(), attempt.destination
        if (attempt.job.queue_id, attempt.job.domain) in self._by_name:
            return RequeueReason.DUPLICATE, _TWICE_SECONDS
        resting = self._destinations.resting(destination)
        if resting is not None and (wait := self._settlement.may_wait(attempt.job, resting[0])) is not None:
            return RequeueReason.RESTING, wait
        busy_until = self._destinations.busy_until(destination)
        if busy_until:
            return RequeueReason.BUSY, busy_until - now
        if not self._destinations.add(destination, attempt.sender, attempt, first=first):
            # Others must not wait behind a destination or a sender with more mail than it may have here.
            return RequeueReason.OVER_SHARE, self._destinations.crowded_for(destination)
        return None, 0.0

    def forget(self, attempt: RelayAttempt) -> None:
        """The job has ended."""
        self._by_place.pop(attempt.claimed.stored, None)
        self._by_name.pop((attempt.job.queue_id, attempt.job.domain), None)

    async def defer_waiting(self) -> None:
        """At the drain: every job that waits for its turn is deferred."""
        for attempt in list(self._destinations.take_waiting()):
            self.forget(attempt)
            await self._deferral.defer(attempt.claimed)
