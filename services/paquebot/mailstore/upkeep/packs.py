"""What the janitor, verify and recover ask: which packs are alive, where blobs are used, and forgetting old
records.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime

from paquebot.mailstore import bad_rows, rows
from paquebot.mailstore.bad_rows import RowReading
from paquebot.mailstore.types import BlobUse, PackLiveness
from paquebot.runtime.postgres.pool import Postgres

_BATCH = 2000

_LIVE = """
    SELECT pack, count(*) AS entries, sum(blob_length)::bigint AS octets, sum(uses)::bigint AS uses FROM (
        SELECT pack, blob_offset, max(blob_length) AS blob_length, count(*) AS uses
        FROM mailstore.messages WHERE pack = ANY($1::text[]) GROUP BY pack, blob_offset
    ) entry GROUP BY pack
"""


async def live_packs(postgres: Postgres, packs: Collection[str]) -> dict[str, PackLiveness]:
    found = await postgres.fetch("live_packs", _LIVE, list(packs))
    return {row["pack"]: PackLiveness(row["entries"], row["octets"], row["uses"]) for row in found}


def tell(subject: str, error: Exception) -> None:
    """Name what was passed over, where no caller does."""
    bad_rows.tell(RowReading.LEFT_OUT, f"{type(error).__name__}: {error}", subject=subject)


# Old records

_FORGET_DELIVERIES = """
    DELETE FROM mailstore.deliveries WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM mailstore.deliveries WHERE delivered_at < $1 LIMIT $2))
"""


async def forget_deliveries(postgres: Postgres, older_than: datetime) -> int:
    total = 0
    while True:
        async with postgres.connection("forget_deliveries") as connection:
            status: str = await connection.execute(_FORGET_DELIVERIES, older_than, _BATCH)
        forgotten = int(status.rpartition(" ")[2])
        total += forgotten
        if forgotten < _BATCH:
            return total


_WITH_OLD_EXPUNGES = """
    SELECT account_id, mailbox_id, max(mod_seq) AS horizon FROM mailstore.expunged
    WHERE expunged_at < $1 GROUP BY account_id, mailbox_id
"""
# By mod_seq rather than by time: a gap in what is remembered must end at the horizon.
_FORGET_EXPUNGED = """
    WITH box AS (
        UPDATE mailstore.mailboxes SET expunged_horizon = greatest(expunged_horizon, $3)
        WHERE account_id = $1 AND mailbox_id = $2
    )
    DELETE FROM mailstore.expunged WHERE account_id = $1 AND mailbox_id = $2 AND mod_seq <= $3
"""


async def forget_expunged(
    postgres: Postgres, older_than: datetime, passed_over: Callable[[str, Exception], None]
) -> int:
    total = 0
    for row in await postgres.fetch("forget_expunged", _WITH_OLD_EXPUNGES, older_than):
        try:
            async with postgres.connection("forget_expunged") as connection:
                status: str = await connection.execute(_FORGET_EXPUNGED, *row)
        except Exception as error:
            if not bad_rows.is_of_rows(error):
                raise
            passed_over(f"account {row['account_id']}, mailbox {row['mailbox_id']}", error)
        else:
            total += int(status.rpartition(" ")[2])
    return total


# Blobs

_BLOBS = f"""
    SELECT account_id, mailbox_id, uid, queue_id, {rows.BLOB_COLUMNS} FROM mailstore.messages
    WHERE (account_id, mailbox_id, uid) > ($1, $2, $3) AND account_id <= $4
    ORDER BY account_id, mailbox_id, uid LIMIT $5
"""  # noqa: S608 - only constants are put in
# Apart, so that the order of the pages is no reason to walk through the whole table.
_BLOBS_OF_PACKS = f"""
    WITH found AS MATERIALIZED (
        SELECT account_id, mailbox_id, uid, queue_id, {rows.BLOB_COLUMNS} FROM mailstore.messages
        WHERE pack = ANY($6::text[])
    )
    SELECT * FROM found WHERE (account_id, mailbox_id, uid) > ($1, $2, $3) AND account_id <= $4
    ORDER BY account_id, mailbox_id, uid LIMIT $5
"""  # noqa: S608 - only constants are put in


async def blobs(postgres: Postgres, first_account: int, last_account: int) -> AsyncIterator[BlobUse]:
    async for use in _pages(postgres, _BLOBS, first_account, last_account):
        yield use


async def blobs_of_packs(postgres: Postgres, packs: Collection[str]) -> AsyncIterator[BlobUse]:
    async for use in _pages(postgres, _BLOBS_OF_PACKS, 0, 2**63 - 1, list(packs)):
        yield use


async def _pages(
    postgres: Postgres, sql: str, first_account: int, last_account: int, *args: object
) -> AsyncIterator[BlobUse]:
    """Page by page after the last key, so that no transaction stays open while the caller works."""
    after = first_account, -1, -1
    while True:
        page: Sequence[rows.Record] = await postgres.fetch("blobs", sql, *after, last_account, _BATCH, *args)
        for row in page:
            after = row["account_id"], row["mailbox_id"], row["uid"]
            if (use := rows.blob_use(row)) is not None:
                yield use
        if len(page) < _BATCH:
            return
