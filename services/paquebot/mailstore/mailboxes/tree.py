"""The steps of changes of an account's tree of mailboxes, in a transaction that has locked the account.

A name below another has all its superiors as rows, which need not be selectable. A mailbox that is made, made again, or
renamed gets a UIDVALIDITY greater than any the account gave before, so a name never shows an old one again (RFC 3501
§2.3.1.1).
"""

from collections.abc import Sequence

from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.errors import (
    BadMailboxName,
    MailboxExists,
    MailboxHasInferiors,
    NoSuchMailbox,
    TooManyMailboxes,
)
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.mailboxes import names
from paquebot.mailstore.messages.copies import move_messages
from paquebot.runtime.postgres.pool import Connection

# Create

_TAKEN = """
    SELECT name, selectable FROM mailstore.mailboxes WHERE account_id = $1 AND name = ANY($2::text[])
"""
_COUNT = "SELECT count(*) FROM mailstore.mailboxes WHERE account_id = $1"
_DROP_NAMES = "DELETE FROM mailstore.mailboxes WHERE account_id = $1 AND name = ANY($2::text[])"
_NEXT_UID_VALIDITY = """
    UPDATE mailstore.accounts
    SET last_uid_validity = greatest(last_uid_validity + 1, extract(epoch FROM now())::bigint)
    WHERE account_id = $1 RETURNING last_uid_validity
"""
_INSERT = """
    WITH given AS (
        UPDATE mailstore.accounts SET last_mailbox_id = last_mailbox_id + cardinality($3::text[])
        WHERE account_id = $1 RETURNING last_mailbox_id - cardinality($3::text[]) AS before
    )
    INSERT INTO mailstore.mailboxes (account_id, mailbox_id, name, uid_validity)
    SELECT $1, given.before + n.place, n.name, $2
    FROM given CROSS JOIN unnest($3::text[]) WITH ORDINALITY AS n (name, place)
"""


async def is_taken(connection: Connection, account_id: int, name: str) -> bool:
    """Whether the name has a row, selectable or not."""
    return bool(await connection.fetch(_TAKEN, account_id, [name]))


async def create(connection: Connection, limits: MailstoreLimits, account_id: int, name: str) -> None:
    """Make `name` and its missing superiors, all selectable. Raises MailboxExists, TooManyMailboxes."""
    wanted = [*names.superiors(name), name]
    taken = {row["name"]: row["selectable"] for row in await connection.fetch(_TAKEN, account_id, wanted)}
    if taken.get(name):
        raise MailboxExists(name)
    missing = [level for level in wanted if level not in taken or level == name]
    await _need_room(connection, limits, account_id, len(missing))
    # A name that was not selectable becomes a mailbox: another one, with its own id.
    await connection.execute(_DROP_NAMES, account_id, [name])
    uid_validity = await connection.fetchval(_NEXT_UID_VALIDITY, account_id)
    await connection.execute(_INSERT, account_id, uid_validity, missing)


async def _need_room(connection: Connection, limits: MailstoreLimits, account_id: int, count: int) -> None:
    if await connection.fetchval(_COUNT, account_id) + count > limits.mailboxes:
        raise TooManyMailboxes(limits.mailboxes)


# Delete

_FOR_CHANGE = """
    SELECT mailbox_id, selectable, messages, octets FROM mailstore.mailboxes
    WHERE account_id = $1 AND name = $2 FOR UPDATE
"""
_HAS_INFERIORS = """
    SELECT EXISTS (SELECT FROM mailstore.mailboxes WHERE account_id = $1 AND starts_with(name, $2))
"""
_DELETE_CONTENT = """
    WITH gone AS (
        DELETE FROM mailstore.messages WHERE account_id = $1 AND mailbox_id = $2
    ), forgotten AS (
        DELETE FROM mailstore.expunged WHERE account_id = $1 AND mailbox_id = $2
    )
    UPDATE mailstore.accounts SET messages = messages - $3, octets = octets - $4 WHERE account_id = $1
"""
_DELETE_MAILBOX = "DELETE FROM mailstore.mailboxes WHERE account_id = $1 AND mailbox_id = $2"
_KEEP_NAME = """
    INSERT INTO mailstore.mailboxes (account_id, mailbox_id, name, uid_validity, selectable)
    SELECT account_id, last_mailbox_id, $2, last_uid_validity, false
    FROM mailstore.accounts WHERE account_id = $1
"""
_NEXT_ID = "UPDATE mailstore.accounts SET last_mailbox_id = last_mailbox_id + 1 WHERE account_id = $1"


async def delete(connection: Connection, account_id: int, name: str) -> None:
    """Raises NoSuchMailbox, MailboxHasInferiors."""
    row = await connection.fetchrow(_FOR_CHANGE, account_id, name)
    if row is None:
        raise NoSuchMailbox(name)
    has_inferiors = await connection.fetchval(_HAS_INFERIORS, account_id, name + names.SEPARATOR)
    if has_inferiors and not row["selectable"]:
        raise MailboxHasInferiors(name)
    await connection.execute(_DELETE_CONTENT, account_id, row["mailbox_id"], row["messages"], row["octets"])
    await connection.execute(_DELETE_MAILBOX, account_id, row["mailbox_id"])
    if has_inferiors:  # RFC 3501 §6.3.4: the name stays, and holds no messages
        await connection.execute(_NEXT_ID, account_id)
        await connection.execute(_KEEP_NAME, account_id, name)
    else:
        await _drop_bare_superiors(connection, account_id, name)


async def _drop_bare_superiors(connection: Connection, account_id: int, name: str) -> None:
    """A name that is not selectable only stands above its inferiors: it is deleted with the last of them."""
    for superior in reversed(names.superiors(name)):
        row = await connection.fetchrow(_FOR_CHANGE, account_id, superior)
        below = superior + names.SEPARATOR
        if row is None or row["selectable"] or await connection.fetchval(_HAS_INFERIORS, account_id, below):
            return
        await connection.execute(_DELETE_MAILBOX, account_id, row["mailbox_id"])


# Rename

_BRANCH = """
    SELECT mailbox_id, name FROM mailstore.mailboxes
    WHERE account_id = $1 AND (name = $2 OR starts_with(name, $2 || '/'))
    ORDER BY mailbox_id FOR UPDATE
"""
_RENAME = """
    UPDATE mailstore.mailboxes b SET name = n.name, uid_validity = $2
    FROM unnest($3::int[], $4::text[]) AS n (mailbox_id, name)
    WHERE b.account_id = $1 AND b.mailbox_id = n.mailbox_id
"""
_UIDS = "SELECT uid FROM mailstore.messages WHERE account_id = $1 AND mailbox_id = $2 ORDER BY uid"
_ID_OF = "SELECT mailbox_id FROM mailstore.mailboxes WHERE account_id = $1 AND name = $2"


async def rename_inbox(connection: Connection, limits: MailstoreLimits, account_id: int, new_name: str) -> None:
    """RFC 3501 §6.3.5: the messages move to a new mailbox; INBOX stays, empty, and so do its inferiors."""
    await create(connection, limits, account_id, new_name)
    target_id = await connection.fetchval(_ID_OF, account_id, new_name)
    uids = [row["uid"] for row in await connection.fetch(_UIDS, account_id, names.INBOX_ID)]
    await move_messages(connection, limits, account_id, names.INBOX_ID, uids, target_id)


async def rename(connection: Connection, limits: MailstoreLimits, account_id: int, name: str, new_name: str) -> None:
    """Raises NoSuchMailbox, BadMailboxName, TooManyMailboxes."""
    if names.is_inferior(new_name, name):
        raise BadMailboxName(new_name, "a mailbox cannot become its own inferior")
    branch: Sequence[Record] = await connection.fetch(_BRANCH, account_id, name)
    if all(row["name"] != name for row in branch):
        raise NoSuchMailbox(name)
    renamed = [names.valid(new_name + row["name"].removeprefix(name), limits) for row in branch]
    await _create_superiors(connection, limits, account_id, new_name)
    uid_validity = await connection.fetchval(_NEXT_UID_VALIDITY, account_id)
    ids = [row["mailbox_id"] for row in branch]
    await connection.execute(_RENAME, account_id, uid_validity, ids, renamed)
    await _drop_bare_superiors(connection, account_id, name)


async def _create_superiors(connection: Connection, limits: MailstoreLimits, account_id: int, name: str) -> None:
    superiors = names.superiors(name)
    taken = {row["name"] for row in await connection.fetch(_TAKEN, account_id, superiors)}
    missing = [superior for superior in superiors if superior not in taken]
    if missing:
        await _need_room(connection, limits, account_id, len(missing))
        uid_validity = await connection.fetchval(_NEXT_UID_VALIDITY, account_id)
        await connection.execute(_INSERT, account_id, uid_validity, missing)
