"""The two locks of the mailstore, always taken in this order: the account's row, then a mailbox's row.

Changes of the tree and of the usage hold the account; every UID, mod_seq and counter is given under the
mailbox. A transaction that waited for a lock reads with a later statement, so that it sees what the holder committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.mailstore.errors import (
    MailboxFull,
    NoSuchAccount,
    NoSuchMailbox,
    NotSelectable,
    OverMessageQuota,
    OverQuota,
    TooManyMessages,
)
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.messages.types import LAST_UID
from paquebot.runtime.postgres.pool import Connection


@dataclass(frozen=True, slots=True)
class LockedAccount:
    account_id: int
    total_size: int
    messages: int

    def need_room(self, asked: int, quota_bytes: int) -> None:
        """Raises OverQuota unless `asked` more bytes fit into the limit (0: none)."""
        if quota_bytes and self.total_size + asked > quota_bytes:
            raise OverQuota(quota_bytes, self.total_size, asked)

    def need_messages(self, asked: int, limits: MailstoreLimits) -> None:
        """Raises OverMessageQuota unless the account may have `asked` more messages."""
        if self.messages + asked > limits.messages:
            raise OverMessageQuota(limits.messages, self.messages, asked)


@dataclass(frozen=True, slots=True)
class LockedMailbox:
    account_id: int
    mailbox_id: int
    name: str
    uid_validity: int
    uid_next: int
    highest_mod_seq: int
    recent_from: int
    messages: int
    deleted: int
    keywords: tuple[str, ...]
    selectable: bool

    def need_messages(self, asked: int, limits: MailstoreLimits) -> None:
        """Raises TooManyMessages unless the mailbox may have `asked` more messages."""
        if self.messages + asked > limits.mailbox_messages:
            raise TooManyMessages(limits.mailbox_messages)

    def need_uids(self, count: int) -> None:
        """Raises MailboxFull unless `count` UIDs are left."""
        if self.uid_next - 1 + count > LAST_UID:
            raise MailboxFull(LAST_UID)

    def need_selectable(self) -> None:
        """Raises NotSelectable when the mailbox cannot hold messages."""
        if not self.selectable:
            raise NotSelectable(self.name)


_LOCK_ACCOUNTS = """
    SELECT account_id, octets, messages FROM mailstore.accounts
    WHERE account_id = ANY($1::bigint[]) AND deleted_at IS NULL
    ORDER BY account_id FOR NO KEY UPDATE
"""


async def lock_accounts(connection: Connection, account_ids: Sequence[int]) -> dict[int, LockedAccount]:
    """Lock the accounts that exist, in the order of their ids."""
    rows = await connection.fetch(_LOCK_ACCOUNTS, account_ids)
    return {row["account_id"]: LockedAccount(row["account_id"], row["octets"], row["messages"]) for row in rows}


async def lock_account(connection: Connection, account_id: int) -> LockedAccount:
    """Raises NoSuchAccount."""
    locked = await lock_accounts(connection, [account_id])
    if account_id not in locked:
        raise NoSuchAccount(account_id)
    return locked[account_id]


_LOCK_MAILBOXES = """
    SELECT account_id, mailbox_id, name, uid_validity, uid_next, highest_mod_seq, recent_from, messages,
           deleted, keywords, selectable
    FROM mailstore.mailboxes
    WHERE account_id = $1 AND mailbox_id = ANY($2::int[])
    ORDER BY mailbox_id FOR NO KEY UPDATE
"""


async def lock_mailboxes(
    connection: Connection, account_id: int, mailbox_ids: Sequence[int]
) -> dict[int, LockedMailbox]:
    """Lock mailboxes of one account in the order of their ids. Raises NoSuchMailbox."""
    rows = await connection.fetch(_LOCK_MAILBOXES, account_id, mailbox_ids)
    locked = {row["mailbox_id"]: LockedMailbox(**{**row, "keywords": tuple(row["keywords"])}) for row in rows}
    for mailbox_id in mailbox_ids:
        if mailbox_id not in locked:
            raise NoSuchMailbox(str(mailbox_id))
    return locked


async def lock_mailbox(connection: Connection, account_id: int, mailbox_id: int) -> LockedMailbox:
    """Raises NoSuchMailbox."""
    return (await lock_mailboxes(connection, account_id, [mailbox_id]))[mailbox_id]
