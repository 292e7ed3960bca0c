"""The packs and places that message rows refer to: for janitor, verify and recover."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from paquebot.mailstore.blob_rows import BLOB_COLUMNS, BlobUse, Record, blob_use
from paquebot.runtime.postgres.pool import Postgres

_PAGE = 2000


@dataclass(frozen=True, slots=True)
class PackLiveness:
    """How much of a pack message rows still refer to."""

    entries: int
    """Different entries with at least one message row."""
    stored_size: int
    """Their stored bytes, each entry counted once."""
    rows: int
    """Message rows."""


_LIVE = """
    SELECT pack, count(*) AS entries, sum(blob_length)::bigint AS octets, sum(uses)::bigint AS uses FROM (
        SELECT pack, blob_offset, max(blob_length) AS blob_length, count(*) AS uses
        FROM mailstore.messages WHERE pack = ANY($1::text[]) GROUP BY pack, blob_offset
    ) entry GROUP BY pack
"""
_BLOBS = f"""
    SELECT account_id, mailbox_id, uid, queue_id, {BLOB_COLUMNS} FROM mailstore.messages
    WHERE (account_id, mailbox_id, uid) > ($1, $2, $3) AND account_id <= $4
    ORDER BY account_id, mailbox_id, uid LIMIT $5
"""  # noqa: S608 - only constants are put in
# MATERIALIZED, so that the order of the pages does not make the planner read the whole table.
_BLOBS_OF_PACKS = f"""
    WITH found AS MATERIALIZED (
        SELECT account_id, mailbox_id, uid, queue_id, {BLOB_COLUMNS} FROM mailstore.messages
        WHERE pack = ANY($6::text[])
    )
    SELECT * FROM found WHERE (account_id, mailbox_id, uid) > ($1, $2, $3) AND account_id <= $4
    ORDER BY account_id, mailbox_id, uid LIMIT $5
"""  # noqa: S608 - only constants are put in


class PackUses:
    """One per process."""

    __slots__ = ("_postgres",)

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def liveness(self, packs: Collection[str]) -> dict[str, PackLiveness]:
        """By pack; a pack that no row refers to is missing."""
        found = await self._postgres.fetch("live_packs", _LIVE, list(packs))
        return {row["pack"]: PackLiveness(row["entries"], row["octets"], row["uses"]) for row in found}

    async def of_accounts(self, first: int = 0, last: int = 2**63 - 1) -> AsyncIterator[BlobUse]:
        """Every message row's blob of the accounts in the range (both included), by account, mailbox, UID."""
        async for use in self._pages(_BLOBS, first, last):
            yield use

    async def of_packs(self, packs: Collection[str]) -> AsyncIterator[BlobUse]:
        """Every message row that refers to one of `packs`, by account, mailbox, UID."""
        async for use in self._pages(_BLOBS_OF_PACKS, 0, 2**63 - 1, list(packs)):
            yield use

    async def _pages(self, sql: str, first: int, last: int, *args: object) -> AsyncIterator[BlobUse]:
        """Page by page after the last key, so that no transaction stays open while the caller works."""
        after = first, -1, -1
        while True:
            page: Sequence[Record] = await self._postgres.fetch("blobs", sql, *after, last, _PAGE, *args)
            for row in page:
                after = row["account_id"], row["mailbox_id"], row["uid"]
                if (use := blob_use(row)) is not None:
                    yield use
            if len(page) < _PAGE:
                return
