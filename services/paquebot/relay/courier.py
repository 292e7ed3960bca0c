"""Carries one message to the recipients at one destination: host by host until everybody has an answer.

RFC 5321 §5.1: hosts are tried in order; the next one gets the recipients to whom the last one said "later" or
nothing. Once a host has begun to receive the message it is the only one for the recipients that it had accepted:
it may have kept the message, and a second host would then double it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from paquebot.relay.message import OutgoingMessage, RelayRecipient
from paquebot.relay.outcome import (
    NO_ANSWER,
    UNKNOWN_TEMPORARY,
    Host,
    HostUnusable,
    RelayOutcome,
    RelayResult,
    Unroutable,
    deferred,
)
from paquebot.relay.queue.hosts import HostBusy, HostShares
from paquebot.relay.routing.resolver import Resolver
from paquebot.relay.routing.routes import Route
from paquebot.relay.settings import Deadlines, SmtpClientSettings, TlsPolicy
from paquebot.relay.smtp_client.form import FormRules
from paquebot.relay.smtp_client.handshake import Handshake
from paquebot.relay.smtp_client.pool import SessionKey, SessionPool
from paquebot.relay.smtp_client.session import ClientSession, SessionBroken
from paquebot.relay.smtp_client.transaction import ClientTransaction, Outcomes
from paquebot.wire.sasl import Credentials

OnDelivered = Callable[[Outcomes], Awaitable[None]]


class AttemptProgress:
    """How far an attempt is. `exposed`: a host may have taken a message of which nothing is recorded yet, a bad moment
    to be cut off; until it is over the attempt has no deadline but those of the message itself."""

    def __init__(self) -> None:
        self.exposed = False
        self.outcomes: Outcomes = {}
        self.unrecorded: Outcomes = {}
        """Delivered, and PostgreSQL could not be told yet."""
        self._limit: asyncio.Timeout | None = None
        self._until = 0.0

    def limit_to(self, seconds: float) -> asyncio.Timeout:
        """`async with`: the attempt, which TimeoutError ends after so long, or when `cut` is called."""
        self._until = asyncio.get_running_loop().time() + seconds
        self._limit = asyncio.timeout_at(self._until)
        return self._limit

    def expose(self) -> None:
        self.exposed = True
        if self._limit is not None:
            self._limit.reschedule(None)

    def conceal(self) -> None:
        """What a host has taken is recorded."""
        self.exposed = False
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._until)

    def cut(self) -> bool:
        """End the attempt now; False: it cannot be."""
        if self.exposed or self._limit is None or self._limit.when() is None or self._limit.expired():
            return False
        self._until = asyncio.get_running_loop().time()
        self._limit.reschedule(self._until)
        return True


@dataclass(frozen=True, slots=True)
class CourierResult:
    """`results` for every recipient; `unreachable`: why, when no host took up a conversation. `busy`: nothing was
    tried, for the hosts have as many attempts as they may have; there is no result then."""

    outcomes: Outcomes = field(default_factory=dict)
    unreachable: RelayOutcome | None = None
    busy: bool = False


class Courier:
    """One for a process."""

    def __init__(
        self,
        resolver: Resolver,
        handshake: Handshake,
        pool: SessionPool,
        hosts: HostShares,
        client: SmtpClientSettings,
        deadlines: Deadlines,
    ) -> None:
        self.hosts = hosts
        self._resolver = resolver
        self._handshake = handshake
        self._pool = pool
        self._client = client
        self._deadlines = deadlines

    async def carry(
        self,
        letter: OutgoingMessage,
        route: Route,
        recipients: Sequence[RelayRecipient],
        on_delivered: OnDelivered,
        progress: AttemptProgress,
    ) -> CourierResult:
        """`on_delivered` is awaited after each transaction that delivered to somebody, before the next one. Raises
        OverBudget, what reading the message raises, and what `on_delivered` raises."""
        journey = _Journey(self, letter, route, on_delivered, progress)
        try:
            async with progress.limit_to(self._client.attempt):
                return await self._carry(journey, route, recipients)
        except TimeoutError:
            return journey.end(recipients, deferred(NO_ANSWER, "the attempt took too long"))

    async def _carry(self, journey: "_Journey", route: Route, recipients: Sequence[RelayRecipient]) -> CourierResult:
        try:
            hosts = await self._resolver.hosts(route)
        except Unroutable as unroutable:
            outcome = unroutable.outcome
            silent = outcome if outcome.result is RelayResult.DEFERRED else None
            return CourierResult(dict.fromkeys((r.forward_path for r in recipients), outcome), silent)
        return await journey.run(hosts, recipients)

    def purpose(self, host: Host, route: Route) -> SessionKey:
        return SessionKey(host, self._policy(route), self._login(route) is not None)

    def has_session(self, purpose: SessionKey) -> bool:
        return self._pool.has(purpose)

    def idle_session(self, purpose: SessionKey) -> ClientSession | None:
        return self._pool.take(purpose)

    def put_back(self, purpose: SessionKey, session: ClientSession) -> None:
        self._pool.put(purpose, session)

    async def new_session(self, host: Host, route: Route) -> ClientSession:
        """Raises HostUnusable."""
        return await self._handshake.open(host, self._policy(route), self._login(route))

    def transaction(
        self, session: ClientSession, letter: OutgoingMessage, progress: AttemptProgress
    ) -> ClientTransaction:
        return ClientTransaction(session, letter, self._deadlines, FormRules(self._client.eight_bit), progress.expose)

    @property
    def slow_seconds(self) -> float:
        """A host that fails later than this has let the attempt hang."""
        return self._client.slow

    @property
    def most_recipients(self) -> int:
        return self._client.recipients

    def _login(self, route: Route) -> Credentials | None:
        if not route.smart_host or not self._client.user:
            return None
        return Credentials(self._client.user, self._client.password)

    def _policy(self, route: Route) -> TlsPolicy:
        policy = TlsPolicy(self._client.route_tls if route.static else self._client.tls)
        if self._login(route) is not None and policy in (TlsPolicy.OFF, TlsPolicy.OPPORTUNISTIC):
            return TlsPolicy.VERIFY  # a password goes to nobody who has not proved who he is
        return policy


class _Journey:
    """One message on its way through the hosts of one destination."""

    def __init__(
        self,
        courier: Courier,
        letter: OutgoingMessage,
        route: Route,
        on_delivered: OnDelivered,
        progress: AttemptProgress,
    ) -> None:
        self._courier = courier
        self._letter = letter
        self._route = route
        self._on_delivered = on_delivered
        self._progress = progress
        self._results = progress.outcomes
        self._busy = False
        self._greeted = False
        """A host took up a conversation, and broke it off at this message: that says nothing of other messages."""

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
        # Permanent only if every host said so (RFC 7504 §4).
        verdict = next((r for r in reversed(refusals) if r.result is RelayResult.DEFERRED), None)
        verdict = verdict or (refusals[-1] if refusals else deferred(UNKNOWN_TEMPORARY, "no host to try"))
        return self.end(left, verdict)

    async def _try(self, host: Host, left: Sequence[RelayRecipient]) -> None:
        """One host, and what its address is to be known for. Raises HostUnusable, HostBusy."""
        shares, start = self._courier.hosts, time.monotonic()
        answered = {path: outcome for path, outcome in self._results.items() if outcome.from_host}
        with shares.attempt(host):
            why = deferred(NO_ANSWER, "no answer in time", host, elsewhere=True)
            try:
                await self._at(host, left)
            except HostUnusable as unusable:
                why = unusable.outcome
                raise
            finally:
                slow = time.monotonic() - start > self._courier.slow_seconds
                if any(r.from_host and answered.get(path) is not r for path, r in self._results.items()):
                    shares.answered(host)
                elif slow:
                    shares.hung(host, why)

    def end(self, left: Sequence[RelayRecipient], verdict: RelayOutcome) -> CourierResult:
        """`verdict` for those of `left` to whom no host has said anything."""
        if self._busy and not self._results:
            return CourierResult(busy=True)
        silent = not (self._results or self._greeted) and verdict.result is RelayResult.DEFERRED
        for recipient in left:
            self._results.setdefault(recipient.forward_path, verdict)
        return CourierResult(self._results, verdict if silent else None)

    def _in_order(self, hosts: Sequence[Host]) -> list[Host]:
        """Among equals, first a host with which a session is open."""
        courier, route = self._courier, self._route
        return sorted(hosts, key=lambda h: (h.preference, not courier.has_session(courier.purpose(h, route))))

    def _goes_on(self, recipient: RelayRecipient) -> bool:
        outcome = self._results.get(recipient.forward_path)
        return outcome is None or (outcome.result is RelayResult.DEFERRED and outcome.elsewhere)

    async def _at(self, host: Host, recipients: Sequence[RelayRecipient]) -> None:
        """Everybody at one host, some at a time. Raises HostUnusable."""
        purpose = self._courier.purpose(host, self._route)
        session = self._courier.idle_session(purpose)
        reused = session is not None
        session = session or await self._courier.new_session(host, self._route)
        left = list(recipients)
        try:
            while left:
                now, later = left[: self._courier.most_recipients], left[self._courier.most_recipients :]
                if session.messages and not session.alive:
                    session = await self._again(session, host)
                try:
                    found = await self._transact(session, now)
                except SessionBroken as broken:
                    if not reused:
                        self._greeted = True
                        raise HostUnusable(host, broken.outcome(host, elsewhere=True)) from None
                    reused = False
                    session = await self._again(session, host)
                    continue
                left = [*self._over_its_limit(now, found), *later]
        finally:
            self._courier.put_back(purpose, session)

    async def _again(self, session: ClientSession, host: Host) -> ClientSession:
        """A session that waited was dead, or the host closed it between two transactions: dial once more."""
        session.leave()
        return await self._courier.new_session(host, self._route)

    async def _transact(self, session: ClientSession, recipients: Sequence[RelayRecipient]) -> Outcomes:
        """One transaction, recorded before anything else happens. Raises SessionBroken before MAIL is answered."""
        transaction = self._courier.transaction(session, self._letter, self._progress)
        try:
            found = await transaction.run(recipients)
        except SessionBroken:
            raise
        except BaseException:
            session.stream.abort()
            raise
        self._results.update(found)
        delivered = {path: outcome for path, outcome in found.items() if outcome.result is RelayResult.DELIVERED}
        if delivered:
            self._progress.unrecorded = delivered
            await self._on_delivered(delivered)
            self._progress.unrecorded = {}
        self._progress.conceal()
        return found

    def _over_its_limit(self, recipients: Sequence[RelayRecipient], found: Outcomes) -> list[RelayRecipient]:
        """RFC 5321 §4.5.3.1.10: a host that has taken some and calls the rest too many gets them at once, in a
        further transaction."""
        if not any(outcome.result is RelayResult.DELIVERED for outcome in found.values()):
            return []
        return [recipient for recipient in recipients if _too_many(found[recipient.forward_path])]


def _too_many(outcome: RelayOutcome) -> bool:
    deferred_by_host = outcome.result is RelayResult.DEFERRED and outcome.from_host
    return deferred_by_host and outcome.text.startswith("452") and outcome.status in ("4.5.3", "4.0.0")
