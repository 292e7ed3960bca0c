"""One job from the queue to its acknowledgement: who is still open, the message, the attempt, the settlement."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from paquebot.notification import SenderUncertain
from paquebot.observability import trace
from paquebot.observability.log import Log, ids
from paquebot.queue import ClaimedJob
from paquebot.relay import metrics
from paquebot.relay.courier import AttemptProgress, Courier, CourierResult
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.ledger import MessageReader
from paquebot.relay.message import ByteShares, OutgoingMessage, RelayRecipient
from paquebot.relay.metrics import AttemptResult
from paquebot.relay.outcome import RelayOutcome
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.routing.routes import Route
from paquebot.relay.settlement import RelaySettlement
from paquebot.relay.smtp_client.transaction import Outcomes, rcpt_parameters
from paquebot.runtime.errors import EngineUnavailable
from paquebot.v1.mail_pb2 import RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob
from paquebot.wire.smtp.parameters import Ret

_log = Log("paquebot.relay")
_PATIENCE = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 30.0, 30.0)

UNAVAILABLE = (
    EngineUnavailable,
    SenderUncertain,
)
"""An engine or a service cannot be used now."""


class HostsBusy(Exception):
    """The destination's hosts have as many attempts as they may have: nothing was tried."""


class RelayAttempt:
    """A job in our hands. `begun`: when its attempt began, monotonic seconds."""

    __slots__ = ("begun", "handle", "job", "key", "progress", "route", "sender")

    def __init__(self, handle: ClaimedJob, job: RelayJob, route: Route) -> None:
        self.handle = handle
        self.job = job
        self.route = route
        self.key = route.key
        self.sender = job.login or job.reverse_path.lower()
        """Who shares with the others; all notifications are one."""
        self.begun = 0.0
        self.progress = AttemptProgress()


class RelayWorker:
    """One for a process."""

    def __init__(
        self,
        reader: MessageReader,
        courier: Courier,
        settlement: RelaySettlement,
        destinations: Destinations[RelayAttempt],
        shown: DestinationLabels,
        shares: ByteShares,
        slow_seconds: float,
        line: int,
    ) -> None:
        """`line`: most bytes of a line that each host takes; 0: any."""
        self._line = line
        self._reader = reader
        self._courier = courier
        self._settlement = settlement
        self._destinations = destinations
        self._shown = shown
        self._shares = shares
        self._slow_seconds = slow_seconds

    async def work(self, work: RelayAttempt) -> None:
        """Returns when the job is settled and acknowledged. Raises OverBudget and what the engines raise: the job
        is then to come again; BlobMissing and BadPack: there is no message; Busy and Unrecorded."""
        job = work.job
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
            recipients = await self._settlement.open_recipients(job)
            deferred = await self._attempt(work, recipients) if recipients else False
            if deferred:
                await work.handle.ack()  # or the deferred would be tried again at once, beside their own later job
            else:
                await work.handle.ack_soon()  # every end is recorded: should the job come again, nothing happens

    async def _attempt(self, work: RelayAttempt, recipients: Sequence[RemoteRecipient]) -> bool:
        """True: somebody was deferred."""
        letter = self._letter(work)
        try:
            resting = self._destinations.resting(work.key)
            if resting is not None:
                until, why = resting
                metrics.ATTEMPT[AttemptResult.RESTING].inc()
                outcomes = dict.fromkeys((r.forward_path for r in recipients), why)
            else:
                until = 0.0
                outcomes = await self._carry(work, recipients, letter)
            return await self._settle(work.job, recipients, outcomes, letter, until)
        finally:
            letter.close()

    def _letter(self, work: RelayAttempt) -> OutgoingMessage:
        job = work.job
        ret = next((ret for ret in Ret if ret.value == int(job.ret)), None)
        return OutgoingMessage(
            lambda: self._reader.read(job.blob),
            job.blob.size,
            self._shares,
            work.key,
            job.reverse_path,
            ret=ret,
            envid=job.envid,
            smtputf8=job.smtputf8,
            submitted=bool(job.login),
            line=self._line,
        )

    async def _settle(
        self,
        job: RelayJob,
        recipients: Sequence[RemoteRecipient],
        outcomes: Outcomes,
        letter: OutgoingMessage,
        until: float,
    ) -> bool:
        """While an engine is away, wait here for some minutes with the hosts' answers in hand: to ask them again for
        every try would be the worse. Each step may be done twice."""
        for seconds in _PATIENCE:
            try:
                return await self._settlement.settle(job, recipients, outcomes, letter, until)
            except UNAVAILABLE as error:
                metrics.SETTLED_AGAIN.inc()
                _log.warning("settlement_waits", reason=type(error).__name__)
                await asyncio.sleep(seconds)
        return await self._settlement.settle(job, recipients, outcomes, letter, until)

    async def _carry(
        self, work: RelayAttempt, recipients: Sequence[RemoteRecipient], letter: OutgoingMessage
    ) -> Outcomes:
        """Raises Busy, Unrecorded, OverBudget and what reading the message raises."""
        job = work.job

        async def on_delivered(outcomes: Outcomes) -> None:
            await self._settlement.record_delivered(job, outcomes)
            first = next(iter(outcomes.values()))
            _log.info(
                "relayed",
                domain=job.domain,
                host=first.host,
                recipients=len(outcomes),
                attempt=job.attempt,
                reply=first.text[:200],
            )

        once = {r.forward_path: RelayRecipient(r.forward_path, rcpt_parameters(r.notify, r.orcpt)) for r in recipients}
        start = time.monotonic()
        carried = await self._courier.carry(letter, work.route, list(once.values()), on_delivered, work.progress)
        if carried.busy:
            raise HostsBusy
        self._learn(work.key, carried, slow=time.monotonic() - start > self._slow_seconds)
        metrics.ATTEMPT[_kind(carried.outcomes, carried.unreachable)].inc()
        for result, number in Counter(outcome.result for outcome in carried.outcomes.values()).items():
            self._shown.recipients(work.key, result, number)
        return carried.outcomes

    def _learn(self, key: str, carried: CourierResult, *, slow: bool) -> None:
        """What the attempt tells of the destination."""
        if carried.unreachable is not None:
            self._destinations.unreachable(key, carried.unreachable)
            self._shown.unreachable(key)
        elif slow and not any(outcome.from_host for outcome in carried.outcomes.values()):
            self._destinations.hung(key)
        else:
            self._destinations.answered(key)


def _kind(outcomes: Outcomes, unreachable: RelayOutcome | None) -> AttemptResult:
    if unreachable is not None:
        return AttemptResult.UNREACHABLE
    kinds = {outcome.result for outcome in outcomes.values()}
    if len(kinds) > 1:
        return AttemptResult.MIXED
    return AttemptResult(kinds.pop().value)
