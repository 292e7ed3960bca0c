"""The context of a command's handler: that of its session, without the session's loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paquebot.imap import capabilities
from paquebot.imap.command_reader import CommandReader
from paquebot.imap.connection import ImapConnection
from paquebot.imap.context import ServerContext
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.feed import MailboxChange, Watch
from paquebot.imap.states import NotAuthenticated, Selected, SessionState
from paquebot.mailstore import StoreResult
from paquebot.rpc import Identity
from paquebot.runtime.net.slots import ConnectionSlot
from paquebot.wire.imap import SequenceSet


@dataclass(slots=True)
class CommandContext:
    """One for a session, which makes it. A handler is also given the state, and answers with the next one."""

    server: ServerContext
    connection: ImapConnection
    reader: CommandReader
    """For SASL responses, and for the messages of APPEND."""
    client: str
    """The client's IP address."""
    slot: ConnectionSlot
    log_in: Callable[[Identity], None]
    """Make the session the identity's, for as long as the directory lets it be."""
    watch: Watch | None = None
    """None before login."""
    saved_uids: Sequence[int] = ()
    """The search result that `$` names (RFC 5182)."""
    failures: int = 0
    """Bad commands and failed logins so far."""

    @property
    def tls(self) -> bool:
        """Is the connection protected?"""
        return self.connection.tls_version is not None

    def capabilities(self, state: SessionState) -> tuple[str, ...]:
        """The capabilities that the server announces in this state."""
        if isinstance(state, NotAuthenticated):
            return capabilities.before_login(tls=self.tls, starttls=self.server.tls is not None)
        return capabilities.after_login(self.server.limits.append)

    def numbers(self, state: Selected, sequence_set: SequenceSet, *, uid: bool) -> list[int]:
        """The ascending sequence numbers that a command names: by numbers, by UIDs, or by `$`, the saved search result.

        Raises NoSuchSequenceNumber for a number above EXISTS.
        """
        if sequence_set.saved:
            numbers = (state.view.number(uid) for uid in self.saved_uids)
            return [number for number in numbers if number is not None]
        return state.view.select(sequence_set, uid=uid)

    def announce(self, change: MailboxChange | None = None) -> None:
        """The command changed a mailbox of the account: let the other sessions know. `change`: all that it did."""
        if self.watch is not None:
            self.server.feed.announce(self.watch, change)

    def apply_stored(self, state: Selected, result: StoreResult) -> None:
        """The command stored flags: apply them to this session's view, and announce them to the other sessions."""
        updates.apply_own_change(state, result.rows, mod_seq=result.mod_seq if result.changed else None)
        if result.changed:
            self.announce(MailboxChange(state.mailbox_id, result.mod_seq, result.rows))
