"""What the sessions of a process share."""

import ssl
from dataclasses import dataclass, field

from paquebot.rpc import AuthenticationClient, Logins, Recordings, ValidationClient
from paquebot.runtime.net.pace import PaceSettings
from paquebot.runtime.shares.budget import SharedBudget
from paquebot.runtime.shares.event_loop import LoopShares
from paquebot.smtp_ingress.acceptance import Acceptance
from paquebot.smtp_ingress.recipient_rate import RecipientRates
from paquebot.smtp_ingress.settings import MessageLimits, SessionLimits, Timeouts


@dataclass(frozen=True, slots=True)
class ServerContext:
    """One for a process. `tls` None: STARTTLS is not offered, so clients cannot log in."""

    hostname: str
    sessions: SessionLimits
    messages: MessageLimits
    timeouts: Timeouts
    tls: ssl.SSLContext | None
    budget: SharedBudget
    pace: PaceSettings
    loop_shares: LoopShares
    acceptance: Acceptance
    validation: ValidationClient
    authentication: AuthenticationClient
    logins: Logins
    recordings: Recordings
    rates: RecipientRates = field(default_factory=RecipientRates)
