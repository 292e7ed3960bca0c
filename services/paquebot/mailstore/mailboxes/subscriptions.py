"""The names an account subscribed to; a name stays when its mailbox goes (RFC 3501 §6.3.6)."""

from paquebot.mailstore.errors import TooManyMailboxes
from paquebot.mailstore.mailboxes import names
from paquebot.mailstore.types import MailstoreLimits
from paquebot.runtime.postgres.pool import Postgres

_PER_MAILBOX = 2  # names may stay subscribed after their mailboxes went, but not without end

# Two at the same time may pass the bound by one: it protects the table, it counts nothing.
_SUBSCRIBE = """
    INSERT INTO mailstore.subscriptions (account_id, name)
    SELECT $1, $2 WHERE (SELECT count(*) FROM mailstore.subscriptions WHERE account_id = $1) < $3
    ON CONFLICT DO NOTHING
"""
_IS_SUBSCRIBED = "SELECT EXISTS (SELECT FROM mailstore.subscriptions WHERE account_id = $1 AND name = $2)"
_UNSUBSCRIBE = "DELETE FROM mailstore.subscriptions WHERE account_id = $1 AND name = $2"
_ALL = "SELECT name FROM mailstore.subscriptions WHERE account_id = $1 ORDER BY name"


async def subscribe(postgres: Postgres, limits: MailstoreLimits, account_id: int, name: str) -> None:
    name = names.valid(name, limits)
    bound = limits.mailboxes * _PER_MAILBOX
    async with postgres.connection("subscribe") as connection:
        await connection.execute(_SUBSCRIBE, account_id, name, bound)
        if not await connection.fetchval(_IS_SUBSCRIBED, account_id, name):
            raise TooManyMailboxes(bound)


async def unsubscribe(postgres: Postgres, account_id: int, name: str) -> None:
    await postgres.execute("unsubscribe", _UNSUBSCRIBE, account_id, names.sought(name))


async def subscriptions(postgres: Postgres, account_id: int) -> tuple[str, ...]:
    return tuple(row["name"] for row in await postgres.fetch("subscriptions", _ALL, account_id))
