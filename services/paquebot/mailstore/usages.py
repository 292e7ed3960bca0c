"""Usage of many accounts at once, for those who may see nothing else of the mailstore."""

from collections.abc import Sequence

from paquebot.mailstore.types import Usage
from paquebot.runtime.postgres.pool import Postgres

_USAGES = "SELECT account_id, octets, messages FROM mailstore.quota WHERE account_id = ANY($1::bigint[])"


async def usages(postgres: Postgres, account_ids: Sequence[int]) -> dict[int, Usage]:
    """What each of `account_ids` has stored; an account that never had mail is absent."""
    rows = await postgres.fetch("usages", _USAGES, list(account_ids))
    return {row["account_id"]: Usage(row["octets"], row["messages"]) for row in rows}
