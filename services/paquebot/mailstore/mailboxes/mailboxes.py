"""The mailboxes of an account: LIST, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE (RFC 3501 §6.3)."""

from collections.abc import Collection

from paquebot.mailstore.errors import MailboxExists, MailboxProtected, NoSuchMailbox, TooManyMailboxes
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.locks import lock_account
from paquebot.mailstore.mailboxes import names, rows, tree
from paquebot.mailstore.mailboxes.mailbox import Mailbox, SpecialUse
from paquebot.mailstore.uid_ceilings import within_uid_ceilings
from paquebot.runtime.postgres.pool import Connection, Postgres, sole_row

_SUBSCRIPTIONS_PER_MAILBOX = 2  # names may stay subscribed after their mailboxes were deleted, but not without end

_ALL = f"""
    SELECT {rows.MAILBOX_COLUMNS} FROM mailstore.mailboxes b WHERE b.account_id = $1 ORDER BY b.name
"""  # noqa: S608 - only constants are put in
_BY_NAME = f"""
    SELECT {rows.MAILBOX_COLUMNS} FROM mailstore.mailboxes b WHERE b.account_id = $1 AND b.name = ANY($2::text[])
"""  # noqa: S608 - only constants are put in
_SET_USE = "UPDATE mailstore.mailboxes SET special_use = $3 WHERE account_id = $1 AND name = $2"
# Two at the same time may pass the bound by one: it protects the table and need not be exact.
_SUBSCRIBE = """
    INSERT INTO mailstore.subscriptions (account_id, name)
    SELECT $1, $2 WHERE (SELECT count(*) FROM mailstore.subscriptions WHERE account_id = $1) < $3
    ON CONFLICT DO NOTHING
"""
_IS_SUBSCRIBED = "SELECT EXISTS (SELECT FROM mailstore.subscriptions WHERE account_id = $1 AND name = $2)"
_UNSUBSCRIBE = "DELETE FROM mailstore.subscriptions WHERE account_id = $1 AND name = $2"
_SUBSCRIPTIONS = "SELECT name FROM mailstore.subscriptions WHERE account_id = $1 ORDER BY name"


class Mailboxes:
    """One per process. Names are Unicode with "/" between levels; INBOX is spelled in any case."""

    __slots__ = ("_limits", "_postgres")

    def __init__(self, postgres: Postgres, limits: MailstoreLimits | None = None) -> None:
        self._postgres = postgres
        self._limits = limits or MailstoreLimits()

    async def list_all(self, account_id: int) -> tuple[Mailbox, ...]:
        """All mailboxes of the account by name, with their counts: LIST and STATUS in one query."""
        return tuple(rows.mailbox(row) for row in await self._postgres.fetch("mailboxes", _ALL, account_id))

    async def find(self, account_id: int, name: str) -> Mailbox:
        """The mailbox of that name, selectable or not. Raises NoSuchMailbox."""
        found = await self.status(account_id, [name])
        if name not in found:
            raise NoSuchMailbox(name)
        return found[name]

    async def status(self, account_id: int, wanted: Collection[str]) -> dict[str, Mailbox]:
        """The mailboxes of `wanted` that exist, by the name as given."""
        normal = {name: names.normal(name) for name in wanted if names.comparable(name)}
        found = await self._postgres.fetch("status", _BY_NAME, account_id, sorted(set(normal.values())))
        by_name = {row["name"]: rows.mailbox(row) for row in found}
        return {name: by_name[spelled] for name, spelled in normal.items() if spelled in by_name}

    async def create(self, account_id: int, name: str, *, special_use: SpecialUse | None = None) -> Mailbox:
        """Make a mailbox and its missing superiors. A UIDVALIDITY is never used again for a name.

        Raises MailboxExists, BadMailboxName, TooManyMailboxes.
        """
        name = names.valid(name, self._limits)

        async def work(connection: Connection) -> Mailbox:
            await lock_account(connection, account_id)
            await tree.create(connection, self._limits, account_id, name)
            if special_use is not None:
                await connection.execute(_SET_USE, account_id, name, special_use.value)
            return rows.mailbox(sole_row(await connection.fetchrow(_BY_NAME, account_id, [name])))

        return await self._postgres.run("create_mailbox", work)

    async def delete(self, account_id: int, name: str) -> None:
        """Remove a mailbox and its messages; a name with inferiors stays as not selectable (RFC 3501 §6.3.4).

        Raises NoSuchMailbox, MailboxHasInferiors, MailboxProtected.
        """
        name = names.sought(name)
        if name == names.INBOX:
            raise MailboxProtected(name)

        async def work(connection: Connection) -> None:
            await lock_account(connection, account_id)
            await tree.delete(connection, account_id, name)

        await self._postgres.run("delete_mailbox", work)

    async def rename(self, account_id: int, name: str, new_name: str) -> None:
        """Rename a mailbox and its inferiors, making missing superiors; their UIDVALIDITY becomes a new one.

        Renaming INBOX moves its messages to a new mailbox and leaves INBOX and its inferiors (RFC 3501
        §6.3.5). Raises NoSuchMailbox, MailboxExists, BadMailboxName, TooManyMailboxes.
        """
        name, new_name = names.sought(name), names.valid(new_name, self._limits)

        async def work(connection: Connection) -> None:
            await lock_account(connection, account_id)
            if await tree.is_taken(connection, account_id, new_name):
                raise MailboxExists(new_name)
            if name == names.INBOX:
                await tree.rename_inbox(connection, self._limits, account_id, new_name)
            else:
                await tree.rename(connection, self._limits, account_id, name, new_name)

        await within_uid_ceilings(self._postgres.run("rename_mailbox", work))

    async def subscribe(self, account_id: int, name: str) -> None:
        """Add a name, of a mailbox or not, to the subscriptions. Raises BadMailboxName, TooManyMailboxes."""
        name = names.valid(name, self._limits)
        bound = self._limits.mailboxes * _SUBSCRIPTIONS_PER_MAILBOX
        async with self._postgres.connection("subscribe") as connection:
            await connection.execute(_SUBSCRIBE, account_id, name, bound)
            if not await connection.fetchval(_IS_SUBSCRIBED, account_id, name):
                raise TooManyMailboxes(bound)

    async def unsubscribe(self, account_id: int, name: str) -> None:
        """Remove a name from the subscriptions; idempotent. Raises NoSuchMailbox for a name that no mailbox can
        have."""
        await self._postgres.execute("unsubscribe", _UNSUBSCRIBE, account_id, names.sought(name))

    async def subscriptions(self, account_id: int) -> tuple[str, ...]:
        """The subscribed names in order; a name stays when its mailbox is deleted (RFC 3501 §6.3.6)."""
        found = await self._postgres.fetch("subscriptions", _SUBSCRIPTIONS, account_id)
        return tuple(row["name"] for row in found)
