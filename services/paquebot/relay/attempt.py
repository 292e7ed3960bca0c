"""One attempt at a claimed job: its open recipients, the message, the courier, the settlement."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from paquebot.notification import SenderUncertain
from paquebot.observability.log import Log
from paquebot.queue import ClaimedJob
from paquebot.relay import metrics
from paquebot.relay.byte_shares import ByteShares
from paquebot.relay.courier import Courier, CourierResult
from paquebot.relay.destination_labels import DestinationLabels
from paquebot.relay.ledger import MessageReader
from paquebot.relay.message import OutgoingEnvelope, OutgoingMessage, RelayRecipient
from paquebot.relay.metrics import AttemptResult
from paquebot.relay.outcome import Outcomes, RelayOutcome
from paquebot.relay.progress import AttemptProgress
from paquebot.relay.queue.destinations import Destinations
from paquebot.relay.routing.routes import Route
from paquebot.relay.settlement import RelaySettlement
from paquebot.relay.smtp_client.transaction import rcpt_parameters
from paquebot.runtime.errors import EngineUnavailable
from paquebot.v1.mail_pb2 import RemoteRecipient
from paquebot.v1.queue_pb2 import RelayJob
from paquebot.wire.smtp.parameters import Ret

_log = Log("paquebot.relay")
_WAITS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 30.0, 30.0)

OUTAGES = (EngineUnavailable, SenderUncertain)
"""An engine or a service cannot be used now."""


class HostsBusy(Exception):
    """The destination's hosts have as many attempts as they may have: nothing was tried."""


class RelayAttempt:
    """A claimed job and what is known of its attempt. `started_at`: monotonic seconds."""

    __slots__ = ("claimed", "destination", "job", "progress", "route", "sender", "started_at")

    def __init__(self, claimed: ClaimedJob, job: RelayJob, route: Route) -> None:
        self.claimed = claimed
        self.job = job
        self.route = route
        self.destination = route.key
        self.sender = job.login or job.reverse_path.lower()
        """Shares of senders are counted by this; all notifications are one sender."""
        self.started_at = 0.0
        self.progress = AttemptProgress()


class OutgoingMessages:
    """Makes the messages of attempts. `line`: the maximum bytes of a line that each host takes; 0: any."""

    def __init__(self, reader: MessageReader, shares: ByteShares, line: int) -> None:
        self._reader = reader
        self._shares = shares
        self._line = line

    def message(self, attempt: RelayAttempt) -> OutgoingMessage:
        job = attempt.job
        ret = next((ret for ret in Ret if ret.value == int(job.ret)), None)
        return OutgoingMessage(
            lambda: self._reader.read(job.blob),
            job.blob.size,
            self._shares,
            attempt.destination,
            OutgoingEnvelope(job.reverse_path, ret, job.envid, job.smtputf8, bool(job.login)),
            line=self._line,
        )


class AttemptRunner:
    """One for a process. `slow`: seconds after which a failed attempt counts as hung."""

    def __init__(
        self,
        messages: OutgoingMessages,
        courier: Courier,
        settlement: RelaySettlement,
        destinations: Destinations[RelayAttempt],
        labels: DestinationLabels,
        slow: float,
    ) -> None:
        self._messages = messages
        self._courier = courier
        self._settlement = settlement
        self._destinations = destinations
        self._labels = labels
        self._slow = slow

    async def run(self, attempt: RelayAttempt) -> bool:
        """Returns when the attempt is settled. True: some recipients were deferred. Raises OverBudget and what the
        engines raise: the job must be delivered again; BlobMissing and BadPack: there is no message; HostsBusy and
        DeliveryNotRecorded."""
        recipients = await self._settlement.open_recipients(attempt.job)
        if not recipients:
            return False
        message = self._messages.message(attempt)
        try:
            resting = self._destinations.resting(attempt.destination)
            if resting is not None:
                until, why = resting
                metrics.ATTEMPT[AttemptResult.RESTING].inc()
                outcomes = dict.fromkeys((one.forward_path for one in recipients), why)
            else:
                until = 0.0
                outcomes = await self._carry(attempt, recipients, message)
            return await self._settle(attempt.job, recipients, outcomes, message, until)
        finally:
            message.close()

    async def _settle(
        self,
        job: RelayJob,
        recipients: Sequence[RemoteRecipient],
        outcomes: Outcomes,
        message: OutgoingMessage,
        not_before: float,
    ) -> bool:
        """During an outage, wait here for some minutes and keep the hosts' replies: a new attempt would ask the hosts
        again. Each step may be done twice."""
        for seconds in _WAITS:
            try:
                return await self._settlement.settle(job, recipients, outcomes, message, not_before)
            except OUTAGES as error:
                metrics.SETTLEMENT_RETRIES.inc()
                _log.warning("settlement_delayed", reason=type(error).__name__)
                await asyncio.sleep(seconds)
        return await self._settlement.settle(job, recipients, outcomes, message, not_before)

    async def _carry(
        self, attempt: RelayAttempt, recipients: Sequence[RemoteRecipient], message: OutgoingMessage
    ) -> Outcomes:
        """Raises HostsBusy, DeliveryNotRecorded, OverBudget and what reading the message raises."""
        job = attempt.job

        async def on_delivered(outcomes: Outcomes) -> None:
            await self._settlement.record_delivered(job, outcomes)
            first = next(iter(outcomes.values()))
            _log.info(
                "message_relayed",
                domain=job.domain,
                host=first.host,
                recipients=len(outcomes),
                attempt=job.attempt,
                reply=first.text[:200],
            )

        once = {
            one.forward_path: RelayRecipient(one.forward_path, rcpt_parameters(one.notify, one.orcpt))
            for one in recipients
        }
        start = time.monotonic()
        carried = await self._courier.carry(message, attempt.route, list(once.values()), on_delivered, attempt.progress)
        if carried.busy:
            raise HostsBusy
        self._learn(attempt.destination, carried, slow=time.monotonic() - start > self._slow)
        metrics.ATTEMPT[_result(carried.outcomes, carried.unreachable)].inc()
        for result, number in Counter(outcome.result for outcome in carried.outcomes.values()).items():
            self._labels.recipients(attempt.destination, result, number)
        return carried.outcomes

    def _learn(self, destination: str, carried: CourierResult, *, slow: bool) -> None:
        """Record what the attempt shows about the destination."""
        if carried.unreachable is not None:
            self._destinations.unreachable(destination, carried.unreachable)
            self._labels.unreachable(destination)
        elif slow and not any(outcome.from_host for outcome in carried.outcomes.values()):
            self._destinations.hung(destination)
        else:
            self._destinations.answered(destination)


def _result(outcomes: Outcomes, unreachable: RelayOutcome | None) -> AttemptResult:
    if unreachable is not None:
        return AttemptResult.UNREACHABLE
    results = {outcome.result for outcome in outcomes.values()}
    if len(results) > 1:
        return AttemptResult.MIXED
    return AttemptResult(results.pop().value)
