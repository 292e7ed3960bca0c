"""POP3's maildrop: INBOX, fixed for a session, under a lease that only one session has (RFC 1939 §4, §6).

The lease is a row with an end, not a lock of a connection: it works across processes and poolers, costs no connection
per session, and expires after the pod of its session dies. A session that lost its lease gets an error when it
renews or closes, and then changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paquebot.mailstore.accounts import Accounts
from paquebot.mailstore.errors import MaildropLocked, MaildropLost
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.messages.removal import remove_messages
from paquebot.mailstore.messages.rows import messages_by_uid, with_valid_uids
from paquebot.mailstore.messages.types import Expunged
from paquebot.runtime.postgres.pool import Connection, Postgres


@dataclass(frozen=True, slots=True)
class MaildropMessage:
    """One message of a maildrop (RFC 1939 §5)."""

    uid: int
    size: int
    """Bytes with each line ended by CRLF (RFC 1939 §11), or RFC822.SIZE where that is not known."""
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Maildrop:
    """INBOX as POP3 shows it: fixed for the session. A UIDL is made of `uid_validity` and `uid`."""

    mailbox_id: int
    uid_validity: int
    messages: tuple[MaildropMessage, ...]


_TAKE = """
    INSERT INTO mailstore.maildrop_locks AS l (account_id, owner, expires_at)
    VALUES ($1, $2, now() + make_interval(secs => $3))
    ON CONFLICT (account_id) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
    WHERE l.owner = excluded.owner OR l.expires_at <= now()
    RETURNING true
"""
# A message with a prefix came over SMTP, which accepts only lines that end with CRLF.
_LIST = """
    SELECT b.uid_validity,
           coalesce(array_agg(m.uid ORDER BY m.uid) FILTER (WHERE m.uid IS NOT NULL), '{}') AS uids,
           coalesce(array_agg(coalesce(m.crlf_size, m.size) ORDER BY m.uid) FILTER (WHERE m.uid IS NOT NULL), '{}')
               AS sizes,
           coalesce(array_agg(m.uid) FILTER (WHERE m.crlf_size IS NULL AND m.prefix = ''), '{}') AS not_exact
    FROM mailstore.mailboxes b LEFT JOIN mailstore.messages m USING (account_id, mailbox_id)
    WHERE b.account_id = $1 AND b.mailbox_id = $2
    GROUP BY b.uid_validity
"""
# A row that another transaction changes at the same moment is left alone: a later session counts its size again.
_FOUND = "unnest($3::bigint[], $4::bigint[]) AS asked (uid, size)"
_KEEP_SIZES = f"""
    UPDATE mailstore.messages m SET crlf_size = found.size
    FROM (SELECT asked.size, m.at FROM {messages_by_uid("messages.ctid AS at", _FOUND)}) found
    WHERE m.ctid = found.at AND m.crlf_size IS NULL
"""  # noqa: S608 - only constants are put in
_RENEW = """
    UPDATE mailstore.maildrop_locks SET expires_at = now() + make_interval(secs => $3)
    WHERE account_id = $1 AND owner = $2 RETURNING true
"""
_UNLOCK = "DELETE FROM mailstore.maildrop_locks WHERE account_id = $1 AND owner = $2 RETURNING true"


class Maildrops:
    """One per process. The `owner` of a lease is any text unique to the session."""

    __slots__ = ("_accounts", "_postgres")

    def __init__(self, postgres: Postgres, accounts: Accounts) -> None:
        self._postgres = postgres
        self._accounts = accounts

    async def lock(self, account_id: int, owner: str, ttl: float) -> Maildrop:
        """Lease the maildrop to `owner` for `ttl` seconds, and list it.

        Raises MaildropLocked while another owner's lease lasts.
        """
        await self._accounts.ensure(account_id)
        if not await self._postgres.fetchval("lock_maildrop", _TAKE, account_id, owner, ttl):
            raise MaildropLocked(str(account_id))
        row = await self._postgres.fetchrow("list_maildrop", _LIST, account_id, INBOX_ID)
        if row is None:  # the account was deleted between the two
            raise MaildropLost(str(account_id))
        not_exact = frozenset(row["not_exact"])
        valid = with_valid_uids(account_id, INBOX_ID, row["uids"], row["sizes"])
        messages = tuple(MaildropMessage(uid, max(0, size), uid not in not_exact) for uid, size in valid)
        return Maildrop(INBOX_ID, row["uid_validity"], messages)

    async def renew(self, account_id: int, owner: str, ttl: float) -> None:
        """Make the lease last `ttl` seconds from now. Raises MaildropLost when it is not `owner`'s."""
        if not await self._postgres.fetchval("renew_maildrop", _RENEW, account_id, owner, ttl):
            raise MaildropLost(str(account_id))

    async def keep_sizes(self, account_id: int, mailbox_id: int, sizes: Mapping[int, int]) -> None:
        """Record the exact sizes of messages, by UID, where they were not known; messages that were removed are
        ignored."""
        await self._postgres.execute(
            "keep_sizes", _KEEP_SIZES, account_id, mailbox_id, list(sizes), list(sizes.values())
        )

    async def unlock(self, account_id: int, owner: str) -> None:
        """End the lease without a change; idempotent."""
        await self._postgres.execute("unlock_maildrop", _UNLOCK, account_id, owner)

    async def close(self, account_id: int, owner: str, mailbox_id: int, uids: Sequence[int]) -> Expunged:
        """Remove the messages of `uids` and end the lease, in one transaction (RFC 1939 §6).

        Raises MaildropLost, with nothing removed, when the lease is not `owner`'s any more.
        """

        async def work(connection: Connection) -> Expunged:
            # A lease past its end that no other session took is still good: no other session saw the maildrop.
            if not await connection.fetchval(_UNLOCK, account_id, owner):
                raise MaildropLost(str(account_id))
            return await remove_messages(connection, account_id, mailbox_id, uids, only_deleted=False)

        return await self._postgres.run("close_maildrop", work)
