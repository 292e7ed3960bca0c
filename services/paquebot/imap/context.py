"""The context that the sessions of a process share."""

from dataclasses import dataclass

from paquebot.imap.bodies.body_cache import BodyCache
from paquebot.imap.bodies.whole_summaries import WholeSummaries
from paquebot.imap.mailbox_view.feed import Feed
from paquebot.imap.search.turns import SearchTurns
from paquebot.imap.settings import ImapSettings
from paquebot.mailstore import Accounts, Mailboxes, MailboxReader, Messages
from paquebot.rpc import AuthenticationClient, Logins, Recordings
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.shares.account_shares import AccountShares
from paquebot.runtime.shares.budget import SharedBudget
from paquebot.runtime.shares.event_loop import LoopShares
from paquebot.spool import Spool
from paquebot.wire.imap import ImapLimits


@dataclass(frozen=True, slots=True)
class ServerContext:
    """One for a process. `tls` None: no STARTTLS, so that no client can log in over a connection without TLS."""

    settings: ImapSettings
    limits: ImapLimits
    accounts: Accounts
    mailboxes: Mailboxes
    mailbox_reader: MailboxReader
    messages: Messages
    bodies: BodyCache
    whole_summaries: WholeSummaries
    shares: AccountShares
    turns: SearchTurns
    spool: Spool
    feed: Feed
    authentication: AuthenticationClient
    logins: Logins
    recordings: Recordings
    budget: SharedBudget
    loop_shares: LoopShares
    tls: ServerTls | None
