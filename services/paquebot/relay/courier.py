"""Carries one message to the recipients at one destination: host by host until each recipient has an outcome.

RFC 5321 §5.1: the relay tries hosts in order; the next one gets the recipients that the last one deferred or did not
answer for. Once a host has begun to receive the message it is the only one for the recipients that it had accepted: it
may have kept the message, and a second host would then double it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from paquebot.relay.message import OutgoingMessage, RelayRecipient
from paquebot.relay.outcome import (
    NO_ANSWER,
    UNKNOWN_TEMPORARY,
    Host,
    HostUnusable,
    Outcomes,
    RelayOutcome,
    RelayResult,
    Unroutable,
    deferred,
)
from paquebot.relay.progress import AttemptProgress
from paquebot.relay.queue.hosts import HostBusy, HostShares
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Route
from paquebot.relay.settings import SmtpClientSettings, SmtpTimeouts
from paquebot.relay.smtp_client.pool import SessionPool
from paquebot.relay.smtp_client.visit import HostVisits, OnDelivered


@dataclass(frozen=True, slots=True)
class CourierResult:
    """`outcomes` for every recipient; `unreachable`: why, when no host opened a session. `busy`: nothing was
    attempted, because the hosts have their maximum of attempts; there are no outcomes then."""

    outcomes: Outcomes = field(default_factory=dict)
    unreachable: RelayOutcome | None = None
    busy: bool = False


class Courier:
    """One for a process."""

    def __init__(
        self,
        resolver: Resolver,
        pool: SessionPool,
        shares: HostShares,
        client: SmtpClientSettings,
        timeouts: SmtpTimeouts,
    ) -> None:
        self._resolver = resolver
        self._pool = pool
        self._shares = shares
        self._client = client
        self._timeouts = timeouts

    async def carry(
        self,
        message: OutgoingMessage,
        route: Route,
        recipients: Sequence[RelayRecipient],
        on_delivered: OnDelivered,
        progress: AttemptProgress,
    ) -> CourierResult:
        """`on_delivered` is awaited after each transaction that delivered to some, before the next one. Raises
        OverBudget, and the errors of reading the message and of `on_delivered`."""
        visits = HostVisits(self._pool, self._client, self._timeouts, message, progress, on_delivered)
        walk = _HostWalk(route, self._pool, self._shares, visits, progress.outcomes, self._client.slow)
        try:
            async with progress.limit_to(self._client.attempt):
                return await walk.run(await self._resolver.hosts(route), recipients)
        except Unroutable as unroutable:
            return _unroutable(unroutable.outcome, recipients)
        except TimeoutError:
            return walk.end(recipients, deferred(NO_ANSWER, "the attempt took too long"))


def _unroutable(outcome: RelayOutcome, recipients: Sequence[RelayRecipient]) -> CourierResult:
    unreachable = outcome if outcome.result is RelayResult.DEFERRED else None
    return CourierResult(dict.fromkeys((one.forward_path for one in recipients), outcome), unreachable)


class _HostWalk:
    """One message on its way through the hosts of one destination. `slow`: a host that fails after more seconds than
    this has let the attempt hang."""

    def __init__(
        self,
        route: Route,
        pool: SessionPool,
        shares: HostShares,
        visits: HostVisits,
        outcomes: Outcomes,
        slow: float,
    ) -> None:
        self._route = route
        self._pool = pool
        self._shares = shares
        self._visits = visits
        self._outcomes = outcomes
        self._slow = slow
        self._busy = False

    async def run(self, hosts: Sequence[Host], recipients: Sequence[RelayRecipient]) -> CourierResult:
        refusals: list[RelayOutcome] = []
        left = list(recipients)
        for host in self._in_order(hosts):
            try:
                await self._try(host, left)
            except HostUnusable as unusable:
                refusals.append(unusable.outcome)
            except HostBusy:
                self._busy = True
            left = [recipient for recipient in left if self._goes_on(recipient)]
            if not left:
                break
        # Permanent only if every host refused permanently (RFC 7504 §4).
        verdict = next((one for one in reversed(refusals) if one.result is RelayResult.DEFERRED), None)
        verdict = verdict or (refusals[-1] if refusals else deferred(UNKNOWN_TEMPORARY, "no host to try"))
        return self.end(left, verdict)

    async def _try(self, host: Host, left: Sequence[RelayRecipient]) -> None:
        """Visit one host, and remember how its address behaves. Raises HostUnusable, HostBusy."""
        start = time.monotonic()
        answered = {path: outcome for path, outcome in self._outcomes.items() if outcome.from_host}
        with self._shares.attempt(host):
            why = deferred(NO_ANSWER, "no answer in time", host, elsewhere=True)
            try:
                await self._visits.visit(self._pool.key(host, self._route), left)
            except HostUnusable as unusable:
                why = unusable.outcome
                raise
            finally:
                slow = time.monotonic() - start > self._slow
                if any(one.from_host and answered.get(path) is not one for path, one in self._outcomes.items()):
                    self._shares.answered(host)
                elif slow:
                    self._shares.hung(host, why)

    def end(self, left: Sequence[RelayRecipient], verdict: RelayOutcome) -> CourierResult:
        """`verdict` for those of `left` without a host's reply."""
        if self._busy and not self._outcomes:
            return CourierResult(busy=True)
        unreachable = not (self._outcomes or self._visits.greeted) and verdict.result is RelayResult.DEFERRED
        for recipient in left:
            self._outcomes.setdefault(recipient.forward_path, verdict)
        return CourierResult(self._outcomes, verdict if unreachable else None)

    def _in_order(self, hosts: Sequence[Host]) -> list[Host]:
        """Among equals, first a host with which a session is open."""
        pool, route = self._pool, self._route
        return sorted(hosts, key=lambda host: (host.preference, not pool.has_idle(pool.key(host, route))))

    def _goes_on(self, recipient: RelayRecipient) -> bool:
        outcome = self._outcomes.get(recipient.forward_path)
        return outcome is None or (outcome.result is RelayResult.DEFERRED and outcome.elsewhere)
