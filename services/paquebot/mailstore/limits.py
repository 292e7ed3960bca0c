"""The bounds of an account."""

from dataclasses import dataclass

from paquebot.mailstore.mailboxes.mailbox import SpecialUse
from paquebot.runtime.settings import setting

_FIRST_MAILBOXES = len(SpecialUse) + 1  # and INBOX

NO_QUOTA = 2**62
"""Bytes: more than an account can have."""


@dataclass(frozen=True, slots=True)
class MailstoreLimits:
    """Bounds of one account, so that no account can make others wait without end. Settings of every service that writes
    into mailboxes. When a bound is lowered, what is above it stays, and nothing is added."""

    messages: int = setting("ACCOUNT_MESSAGES", 1_000_000, help="maximum number of messages of an account")
    mailbox_messages: int = setting("MAILBOX_MESSAGES", 250_000, help="maximum number of messages of one mailbox")
    mailboxes: int = setting(
        "ACCOUNT_MAILBOXES", 1000, help="maximum number of mailboxes of an account; twice as many subscriptions"
    )
    keywords: int = setting("MAILBOX_KEYWORDS", 300, help="maximum number of different keywords in one mailbox")
    name_length: int = setting(
        "MAILBOX_NAME", 400, help="maximum number of characters of a whole mailbox name; at most 2,400 bytes"
    )
    depth: int = setting("MAILBOX_LEVELS", 16, help="maximum number of levels of a mailbox name")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if min(self.messages, self.mailbox_messages, self.keywords, self.name_length, self.depth) < 1:
            raise ValueError(
                "PAQUEBOT_ACCOUNT_MESSAGES, PAQUEBOT_MAILBOX_MESSAGES, _KEYWORDS, _NAME and _LEVELS must be at least 1"
            )
        if self.mailboxes < _FIRST_MAILBOXES:
            raise ValueError(
                f"PAQUEBOT_ACCOUNT_MAILBOXES must be at least {_FIRST_MAILBOXES}: the mailboxes of a new account"
            )
