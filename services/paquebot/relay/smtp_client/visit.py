"""One host and one message: a session, and transactions in it until each recipient has an outcome."""

from collections.abc import Awaitable, Callable, Sequence

from paquebot.relay.message import OutgoingMessage, RelayRecipient
from paquebot.relay.outcome import HostUnusable, Outcomes, RelayOutcome, RelayResult
from paquebot.relay.progress import AttemptProgress
from paquebot.relay.settings import SmtpClientSettings, SmtpTimeouts
from paquebot.relay.smtp_client.form import FormRules
from paquebot.relay.smtp_client.pool import SessionKey, SessionPool
from paquebot.relay.smtp_client.session import ClientSession, SessionBroken
from paquebot.relay.smtp_client.transaction import ClientTransaction

OnDelivered = Callable[[Outcomes], Awaitable[None]]


class HostVisits:
    """Of one attempt. Outcomes go to `progress`; `on_delivered` is awaited after each transaction that delivered,
    before the next one."""

    def __init__(
        self,
        pool: SessionPool,
        client: SmtpClientSettings,
        timeouts: SmtpTimeouts,
        message: OutgoingMessage,
        progress: AttemptProgress,
        on_delivered: OnDelivered,
    ) -> None:
        self._pool = pool
        self._max_recipients = client.recipients
        self._timeouts = timeouts
        self._rules = FormRules(client.eight_bit)
        self._message = message
        self._progress = progress
        self._on_delivered = on_delivered
        self.greeted = False
        """A host opened a session and closed it at this message, which proves nothing about other messages."""

    async def visit(self, key: SessionKey, recipients: Sequence[RelayRecipient]) -> None:
        """Give the host the message for `recipients`, some at a time. Raises HostUnusable, OverBudget, and what reading
        the message and `on_delivered` raise."""
        session = self._pool.take_idle(key)
        reused = session is not None
        session = session or await self._pool.open(key)
        left = list(recipients)
        try:
            while left:
                now, later = left[: self._max_recipients], left[self._max_recipients :]
                if session.messages and not session.alive:
                    session = await self._reopen(session, key)
                try:
                    outcomes = await self._transact(session, now)
                except SessionBroken as broken:
                    if not reused:
                        self.greeted = True
                        raise HostUnusable(key.host, broken.outcome(key.host, elsewhere=True)) from None
                    reused = False
                    session = await self._reopen(session, key)
                    continue
                left = [*_over_limit(now, outcomes), *later]
        finally:
            self._pool.put_back(key, session)

    async def _reopen(self, session: ClientSession, key: SessionKey) -> ClientSession:
        """An idle session was dead, or the host closed it between two transactions: connect once more."""
        session.leave()
        return await self._pool.open(key)

    async def _transact(self, session: ClientSession, recipients: Sequence[RelayRecipient]) -> Outcomes:
        """One transaction, recorded before anything else happens. Raises SessionBroken before MAIL is answered."""
        progress = self._progress
        transaction = ClientTransaction(session, self._message, self._timeouts, self._rules, progress.enter_doubt)
        try:
            outcomes = await transaction.run(recipients)
        except SessionBroken:
            raise
        except BaseException:
            session.stream.abort()
            raise
        progress.outcomes.update(outcomes)
        delivered = {path: outcome for path, outcome in outcomes.items() if outcome.result is RelayResult.DELIVERED}
        if delivered:
            progress.unrecorded = delivered
            await self._on_delivered(delivered)
            progress.unrecorded = {}
        progress.leave_doubt()
        return outcomes


def _over_limit(recipients: Sequence[RelayRecipient], outcomes: Outcomes) -> list[RelayRecipient]:
    """RFC 5321 §4.5.3.1.10: a host that has taken some recipients and calls the rest too many gets these at once, in a
    further transaction."""
    if not any(outcome.result is RelayResult.DELIVERED for outcome in outcomes.values()):
        return []
    return [recipient for recipient in recipients if _is_too_many(outcomes[recipient.forward_path])]


def _is_too_many(outcome: RelayOutcome) -> bool:
    deferred_by_host = outcome.result is RelayResult.DEFERRED and outcome.from_host
    return deferred_by_host and outcome.text.startswith("452") and outcome.status in ("4.5.3", "4.0.0")
