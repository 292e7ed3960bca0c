"""The refusals of the mailstore, each with the fact that the caller needs, in no protocol's words.

MailstoreError
  NoSuchAccount            the account was deleted
  MailboxError             .name
    NoSuchMailbox          it does not exist, or not any more
    NotSelectable          a name in the hierarchy that holds no messages
    MailboxExists
    MailboxHasInferiors    a name without messages cannot be deleted while it has inferiors
    MailboxProtected       INBOX cannot be deleted
    BadMailboxName         .why
  BadKeyword
  OverQuota                .limit, .used, .asked, in bytes
    OverMessageQuota       the same in messages
  LimitExceeded            .limit
    TooManyMailboxes
    TooManyKeywords
    TooManyMessages        in one mailbox
    MailboxFull            no unique identifier is left
  SomeExpunged             of messages that must be copied or moved all together
  MaildropLocked           another session holds the maildrop
  MaildropLost             the lease expired before the changes were applied
  CompactionLost           the same of an account's compaction

An outage of the engine is `paquebot.runtime.postgres.pool.PostgresUnavailable`: temporary. UidsNotPromised is one.
Values that no check foresaw and that PostgreSQL can never keep are `paquebot.runtime.postgres.pool.PostgresRefused`.
"""

from paquebot.runtime.postgres.pool import PostgresTroubled


class MailstoreError(Exception):
    """An operation on the mailstore was refused; nothing was changed."""


class NoSuchAccount(MailstoreError):
    def __init__(self, account_id: int) -> None:
        super().__init__(f"account {account_id} was deleted")
        self.account_id = account_id


class SomeExpunged(MailstoreError):
    """Messages that must be copied or moved all together do not all exist any more."""


class MailboxError(MailstoreError):
    """Concerns one mailbox; `name` is its name, or its id where only that was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class NoSuchMailbox(MailboxError):
    """The mailbox does not exist, or not any more."""


class NotSelectable(MailboxError):
    """The name only stands above its inferiors and holds no messages."""


class MailboxExists(MailboxError):
    """The name is taken."""


class MailboxHasInferiors(MailboxError):
    """A name that holds no messages cannot be deleted while it has inferiors (RFC 3501 §6.3.4)."""


class MailboxProtected(MailboxError):
    """INBOX cannot be deleted (RFC 3501 §6.3.4)."""


class BadMailboxName(MailboxError):
    """The name breaks a rule of `paquebot.mailstore.mailboxes.names`; `why` is a sentence."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name)
        self.why = why


class BadKeyword(MailstoreError):
    """The text cannot be a flag of a message."""


class OverQuota(MailstoreError):
    """`used` bytes are stored, `asked` more would pass `limit`."""

    def __init__(self, limit: int, used: int, asked: int) -> None:
        super().__init__(f"{used} + {asked} bytes of {limit}")
        self.limit = limit
        self.used = used
        self.asked = asked


class OverMessageQuota(OverQuota):
    """`used` messages are stored, `asked` more would pass `limit`, whatever their bytes (RFC 9208 §5.2: MESSAGE)."""


class LimitExceeded(MailstoreError):
    """A bound that protects the whole platform."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"limit {limit}")
        self.limit = limit


class TooManyMailboxes(LimitExceeded):
    """The account has the maximum number of mailboxes."""


class TooManyKeywords(LimitExceeded):
    """The mailbox has the maximum number of keywords."""


class TooManyMessages(LimitExceeded):
    """The mailbox has the maximum number of messages."""


class MailboxFull(LimitExceeded):
    """The mailbox has given its last unique identifier (32 bits)."""


class MaildropLocked(MailstoreError):
    """Another session holds the maildrop (RFC 1939 §4)."""


class MaildropLost(MailstoreError):
    """The maildrop's lease expired, so the session's deletions were not applied."""


class CompactionLost(MailstoreError):
    """The lease under which an account's messages were written again expired, so no row was pointed at them."""


class UidsNotPromised(PostgresTroubled):
    """The mailbox has given all UIDs below the ceiling that its newest snapshot in the bucket promised: it takes no
    message until the janitor writes another snapshot (`uid_ceilings`)."""
