"""What sessions of this process did to a mailbox lately, by mod_seq, for the other sessions of the account.

Every change takes the mailbox's next mod_seq (`paquebot.mailstore`), so changes without a gap between them are all that
happened. Where one is missing (another process made it, or it was too large to keep) PostgreSQL must be asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from paquebot.mailstore import FlagRows

_CHANGES = 32  # of one mailbox: sessions that fell behind further ask PostgreSQL
_MAILBOXES = 16
_MESSAGES = 256  # of one change: more are read by those who need them


@dataclass(frozen=True, slots=True)
class MailboxChange:
    """All that one statement did to a mailbox, as PostgreSQL answered."""

    mailbox_id: int
    mod_seq: int
    rows: FlagRows = field(default_factory=FlagRows)
    """Messages that are new, each \\Recent in one session already, or have other flags."""
    expunged: Sequence[int] = ()


class RecentChanges:
    """Of one account; bounded."""

    __slots__ = ("_mailboxes",)

    def __init__(self) -> None:
        self._mailboxes: dict[int, dict[int, MailboxChange]] = {}

    def remember(self, change: MailboxChange) -> bool:
        """False when it is too large."""
        if len(change.rows) + len(change.expunged) > _MESSAGES:
            return False
        kept = self._mailboxes.setdefault(change.mailbox_id, {})
        kept[change.mod_seq] = change
        if len(kept) > _CHANGES:
            del kept[min(kept)]
        if len(self._mailboxes) > _MAILBOXES:
            del self._mailboxes[next(iter(self._mailboxes))]
        return True

    def since(self, mailbox_id: int, mod_seq: int) -> list[MailboxChange]:
        """The changes that follow `mod_seq` without a gap."""
        kept = self._mailboxes.get(mailbox_id, {})
        found: list[MailboxChange] = []
        while (change := kept.get(mod_seq + len(found) + 1)) is not None:
            found.append(change)
        return found
