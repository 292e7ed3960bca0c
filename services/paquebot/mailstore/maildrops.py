"""POP3's maildrop: INBOX, fixed for a session, under a lease that only one session has (RFC 1939 §4, §6).

The lease is a row with an end, not a lock of a connection: it holds across processes and poolers, costs no
connection per session, and ends by itself when the pod that holds it dies. Who lost it learns so when it
renews or closes, and then changes nothing.
"""

from collections.abc import Mapping, Sequence

from paquebot.mailstore import rows
from paquebot.mailstore.errors import MaildropLocked, MaildropLost
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.messages.removal import remove_within
from paquebot.mailstore.types import Expunged, Maildrop, MaildropMessage
from paquebot.runtime.postgres.pool import Connection, Postgres

_TAKE = """
    INSERT INTO mailstore.maildrop_locks AS l (account_id, owner, expires_at)
    VALUES ($1, $2, now() + make_interval(secs => $3))
    ON CONFLICT (account_id) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
    WHERE l.owner = excluded.owner OR l.expires_at <= now()
    RETURNING true
"""
# What has a prefix came over SMTP, which takes no other lines than those that end with CRLF.
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


async def lock(postgres: Postgres, account_id: int, owner: str, ttl: float) -> Maildrop:
    if not await postgres.fetchval("lock_maildrop", _TAKE, account_id, owner, ttl):
        raise MaildropLocked(str(account_id))
    row = await postgres.fetchrow("list_maildrop", _LIST, account_id, INBOX_ID)
    if row is None:  # the account was deleted between the two
        raise MaildropLost(str(account_id))
    not_exact = frozenset(row["not_exact"])
    sound = rows.sound(account_id, INBOX_ID, row["uids"], row["sizes"])
    messages = tuple(MaildropMessage(uid, max(0, size), uid not in not_exact) for uid, size in sound)
    return Maildrop(INBOX_ID, row["uid_validity"], messages)


# A row that is changed at the same moment is left: its size is found out again.
_FOUND = "unnest($3::bigint[], $4::bigint[]) AS asked (uid, size)"
_KEEP_SIZES = f"""
    UPDATE mailstore.messages m SET crlf_size = found.size
    FROM (SELECT asked.size, m.at FROM {rows.looked_up("messages.ctid AS at", _FOUND)}) found
    WHERE m.ctid = found.at AND m.crlf_size IS NULL
"""  # noqa: S608 - only constants are put in


async def keep_sizes(postgres: Postgres, account_id: int, mailbox_id: int, sizes: Mapping[int, int]) -> None:
    await postgres.execute("keep_sizes", _KEEP_SIZES, account_id, mailbox_id, list(sizes), list(sizes.values()))


_RENEW = """
    UPDATE mailstore.maildrop_locks SET expires_at = now() + make_interval(secs => $3)
    WHERE account_id = $1 AND owner = $2 RETURNING true
"""


async def renew(postgres: Postgres, account_id: int, owner: str, ttl: float) -> None:
    if not await postgres.fetchval("renew_maildrop", _RENEW, account_id, owner, ttl):
        raise MaildropLost(str(account_id))


_GIVE_BACK = "DELETE FROM mailstore.maildrop_locks WHERE account_id = $1 AND owner = $2 RETURNING true"


async def unlock(postgres: Postgres, account_id: int, owner: str) -> None:
    await postgres.execute("unlock_maildrop", _GIVE_BACK, account_id, owner)


async def close(postgres: Postgres, account_id: int, owner: str, mailbox_id: int, uids: Sequence[int]) -> Expunged:
    async def work(connection: Connection) -> Expunged:
        # A lease past its end that nobody else took is still good: no other session saw the maildrop.
        if not await connection.fetchval(_GIVE_BACK, account_id, owner):
            raise MaildropLost(str(account_id))
        return await remove_within(connection, account_id, mailbox_id, uids)

    return await postgres.run("close_maildrop", work)
