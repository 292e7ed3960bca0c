"""Removed accounts whose mail is still to be purged, for `janitor`."""

import datetime
from collections.abc import Sequence

from paquebot.runtime.postgres.pool import Postgres

_REMOVED = "SELECT account_id FROM directory.removed_accounts WHERE removed_at < $1 ORDER BY account_id"

_PURGED = "DELETE FROM directory.removed_accounts WHERE account_id = ANY($1::bigint[])"


async def removed_accounts(postgres: Postgres, before: datetime.datetime) -> list[int]:
    """Ids of accounts removed before then, whose mail may still be there. Raises PostgresUnavailable."""
    rows = await postgres.fetch("removed_accounts", _REMOVED, before)
    return [row["account_id"] for row in rows]


async def delete_removed(postgres: Postgres, account_ids: Sequence[int]) -> None:
    """Their mail is gone. Raises PostgresUnavailable."""
    await postgres.execute("accounts_purged", _PURGED, list(account_ids))
