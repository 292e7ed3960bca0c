"""The queries of snapshots of the metadata in the bucket: the accounts that changed, their contents, and the
ceilings of UIDs that a snapshot promises (`uid_ceilings`).
"""

import contextlib
import datetime
from collections.abc import AsyncIterator, Sequence

from paquebot.mailstore import bad_rows, dates
from paquebot.mailstore.bad_rows import BadRowResult
from paquebot.mailstore.snapshots.export import AccountExport, open_export
from paquebot.mailstore.uid_ceilings import UID_ROOM, UidCeiling
from paquebot.runtime.postgres.pool import Postgres

_PAGE = 500

_LOCK = 0x736E6170  # any constant
_TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
_UNLOCK = "SELECT pg_advisory_unlock($1)"
_IDENTITY = "SELECT name FROM mailstore.identity"
_HOLDS_MAIL = "SELECT EXISTS (SELECT FROM mailstore.messages) OR EXISTS (SELECT FROM mailstore.deliveries)"
_RECORD_RUN = """
    WITH older AS (DELETE FROM mailstore.snapshot_runs)
    INSERT INTO mailstore.snapshot_runs (run, finished_at, accounts) VALUES ($1, $2, $3)
"""
# highest_mod_seq and uid_next grow with every change of a mailbox's messages, so no message row is read.
_SIGNATURES = """
    SELECT a.account_id, decode(md5(concat_ws('|',
        row(a.last_mailbox_id, a.last_uid_validity, a.deleted_at)::text, b.content, s.content)), 'hex') AS signature
    FROM (SELECT account_id, last_mailbox_id, last_uid_validity, deleted_at FROM mailstore.accounts
          WHERE account_id > $1 ORDER BY account_id LIMIT $2) a
    CROSS JOIN LATERAL (
        SELECT string_agg(row(mailbox_id, name, uid_validity, uid_next, highest_mod_seq, keywords, special_use,
                              selectable)::text, '|' ORDER BY mailbox_id) AS content
        FROM mailstore.mailboxes WHERE account_id = a.account_id) b
    CROSS JOIN LATERAL (
        SELECT string_agg(name, '|' ORDER BY name) AS content
        FROM mailstore.subscriptions WHERE account_id = a.account_id) s
    ORDER BY a.account_id
"""
_IDS = "SELECT account_id FROM mailstore.accounts WHERE account_id > $1 ORDER BY account_id LIMIT $2"
_LOWER = """
    UPDATE mailstore.mailboxes SET uid_ceiling = least(uid_next + $2, uid_ceiling)
    WHERE account_id = $1 AND uid_ceiling = 4294967296
"""
_RAISE = """
    UPDATE mailstore.mailboxes b SET uid_ceiling = p.uid_ceiling
    FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS p (account_id, mailbox_id, uid_ceiling)
    WHERE b.account_id = p.account_id AND b.mailbox_id = p.mailbox_id AND b.uid_ceiling < p.uid_ceiling
"""
_MEND_DATES = f"""
    UPDATE mailstore.messages
    SET internal_date = {dates.clamped("internal_date")}, save_date = {dates.clamped("save_date")}
    WHERE account_id = $1 AND NOT (internal_date {dates.IN_RANGE} AND save_date {dates.IN_RANGE})
"""  # noqa: S608 - only constants are put in


class UpkeepBusy(Exception):
    """Another snapshot or rebuild is under way."""


class Snapshots:
    """One per process."""

    __slots__ = ("_postgres",)

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """No other snapshot or rebuild during the block. Raises UpkeepBusy."""
        async with self._postgres.connection("upkeep_lock") as connection:
            if not await connection.fetchval(_TRY_LOCK, _LOCK):
                raise UpkeepBusy("another snapshot or rebuild is under way")
            try:
                yield
            finally:
                await connection.execute(_UNLOCK, _LOCK)

    async def identity(self) -> str:
        """The name of this mailstore: a restored backup has the same, a new mailstore has another."""
        return str(await self._postgres.fetchval("identity", _IDENTITY))

    async def holds_mail(self) -> bool:
        """Whether the mailstore has any message or any record of a delivery."""
        return bool(await self._postgres.fetchval("holds_mail", _HOLDS_MAIL))

    async def record_run(self, run: str, finished_at: datetime.datetime, accounts: int) -> None:
        """Record the newest snapshot, for the metric of its age."""
        await self._postgres.execute("record_snapshot_run", _RECORD_RUN, run, finished_at, accounts)

    async def signatures(self) -> AsyncIterator[tuple[int, bytes]]:
        """(account id, 16 bytes that change with anything of it but its records of deliveries), in order of the ids.
        Empty: the account cannot be read."""
        after = 0
        while True:
            page = await self._signature_page(after)
            for after, signature in page:
                yield after, signature
            if len(page) < _PAGE:
                return

    async def _signature_page(self, after: int) -> list[tuple[int, bytes]]:
        try:
            found = await self._postgres.fetch("signatures", _SIGNATURES, after, _PAGE)
            return [(row["account_id"], row["signature"]) for row in found]
        except Exception as error:
            if not bad_rows.may_be_of_rows(error):
                raise
        ids = [row["account_id"] for row in await self._postgres.fetch("signatures", _IDS, after, _PAGE)]
        signed = dict.fromkeys(ids, b"")

        async def read(some: Sequence[int]) -> Sequence[None]:
            for account_id in some:
                for row in await self._postgres.fetch("signatures", _SIGNATURES, account_id - 1, 1):
                    signed[row["account_id"]] = row["signature"]
            return ()

        def left_out(account_id: int, error: Exception) -> None:
            bad_rows.report(BadRowResult.OMITTED, f"{type(error).__name__}: {error}", account=account_id)

        await bad_rows.one_by_one(read, ids, left_out)
        return list(signed.items())

    async def lower_ceilings(self, account_id: int) -> None:
        """Before an account's first snapshot: from now on its mailboxes stay below what the snapshot will promise."""
        await self._postgres.execute("lower_ceilings", _LOWER, account_id, UID_ROOM)

    async def raise_ceilings(self, promised: Sequence[UidCeiling]) -> None:
        """After the snapshot that promises them is complete in the bucket."""
        columns = [(one.account_id, one.mailbox_id, one.uid_ceiling) for one in promised]
        if columns:
            await self._postgres.execute("raise_ceilings", _RAISE, *map(list, zip(*columns, strict=True)))

    async def mend_dates(self, account_id: int) -> int:
        """Bring dates that no program can read back within their bounds; returns how many rows had one. Nothing that a
        client knows changes: services answer with the bound already."""
        async with self._postgres.connection("mend_dates") as connection:
            status: str = await connection.execute(_MEND_DATES, account_id)
        return int(status.rpartition(" ")[2])

    @contextlib.asynccontextmanager
    async def export(self, account_id: int, taken_at_ms: int, records_age: float) -> AsyncIterator[AccountExport]:
        """One account, for the time of the block. `records_age`: seconds for which records of deliveries are kept."""
        async with self._postgres.transaction("export", snapshot=True) as connection:
            yield await open_export(connection, account_id, taken_at_ms, records_age)
