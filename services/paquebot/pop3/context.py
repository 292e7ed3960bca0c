"""What the sessions of a process share."""

from dataclasses import dataclass

from paquebot.blobs import BlobStore
from paquebot.mailstore import MailboxReader, Maildrops, Messages
from paquebot.pop3.settings import Pop3Settings
from paquebot.queue import Queue
from paquebot.rpc import AuthenticationClient, Logins, Recordings
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.shares.account_shares import AccountShares
from paquebot.runtime.shares.event_loop import LoopShares


@dataclass(frozen=True, slots=True)
class ServerContext:
    """One for a process. `tls` None: STLS is not offered, so clients cannot log in in the clear."""

    settings: Pop3Settings
    maildrops: Maildrops
    mailbox_reader: MailboxReader
    messages: Messages
    blobs: BlobStore
    queue: Queue
    authentication: AuthenticationClient
    logins: Logins
    recordings: Recordings
    shares: AccountShares
    loop_shares: LoopShares
    tls: ServerTls | None
