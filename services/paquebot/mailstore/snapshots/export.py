"""The metadata of an account as a snapshot in the bucket keeps it, read in one moment and in bounded pieces.

A rebuilt mailbox must never give a UID that its clients have seen for another message (RFC 9051 §2.3.1.1), whatever
was given after the newest snapshot. So a snapshot promises a ceiling: `uid_ceiling` in PostgreSQL is never above the
one in the newest snapshot, no UID is given from there on, and a rebuild goes on at the promised one. The order is:
lower it before a first snapshot; raise it only when the snapshot that promises more is in the bucket.
"""

import contextlib
import datetime
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from paquebot.mailstore import bad_rows, dates, rows
from paquebot.mailstore.bad_rows import RowReading
from paquebot.mailstore.errors import UidsNotPromised
from paquebot.runtime.postgres.pool import Connection, Postgres, PostgresRefused, sole_row
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotMailbox, SnapshotMessage

T = TypeVar("T")

UID_ROOM = 2**24
"""UIDs that a mailbox may give from one snapshot on until a later one must promise more."""
NO_UID = 2**32
"""The first number that is no UID: as a ceiling, none."""

_PAGE = 500

_LOCK = 0x736E6170  # any constant
_TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
_UNLOCK = "SELECT pg_advisory_unlock($1)"


class UpkeepBusy(Exception):
    """A snapshot or a rebuild is under way elsewhere."""


@contextlib.asynccontextmanager
async def alone(postgres: Postgres) -> AsyncIterator[None]:
    """No other snapshot or rebuild during the block. Raises UpkeepBusy."""
    async with postgres.connection("alone") as connection:
        if not await connection.fetchval(_TRY_LOCK, _LOCK):
            raise UpkeepBusy("another snapshot or rebuild is under way")
        try:
            yield
        finally:
            await connection.execute(_UNLOCK, _LOCK)


# Identity and runs

_IDENTITY = "SELECT name FROM mailstore.identity"
_RENAME = "UPDATE mailstore.identity SET name = $1"
_HOLDS_MAIL = "SELECT EXISTS (SELECT FROM mailstore.messages) OR EXISTS (SELECT FROM mailstore.deliveries)"
_NOTE_RUN = """
    WITH older AS (DELETE FROM mailstore.snapshot_runs)
    INSERT INTO mailstore.snapshot_runs (run, finished_at, accounts) VALUES ($1, $2, $3)
"""


async def identity(postgres: Postgres) -> str:
    """The name of this mailstore: a restored backup has the same, one that was made anew has another."""
    return str(await postgres.fetchval("identity", _IDENTITY))


async def rename(connection: Connection, name: str) -> None:
    """Take the name of the mailstore that this one replaces."""
    await connection.execute(_RENAME, name)


async def holds_mail(postgres: Postgres) -> bool:
    """Whether any message or any record of a delivery is here."""
    return bool(await postgres.fetchval("holds_mail", _HOLDS_MAIL))


async def note_run(postgres: Postgres, run: str, finished_at: datetime.datetime, accounts: int) -> None:
    """Remember the newest snapshot, for its age as a metric."""
    await postgres.execute("note_run", _NOTE_RUN, run, finished_at, accounts)


# What changed

# highest_mod_seq and uid_next grow with every change of a mailbox's messages, so no message row is looked at.
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


async def signatures(postgres: Postgres) -> AsyncIterator[tuple[int, bytes]]:
    """(account id, 16 bytes that change with anything of it but its records of deliveries), in order of the ids. No
    bytes: the account cannot be read."""
    after = 0
    while True:
        page = await _page(postgres, after)
        for after, signature in page:
            yield after, signature
        if len(page) < _PAGE:
            return


async def _page(postgres: Postgres, after: int) -> list[tuple[int, bytes]]:
    try:
        found = await postgres.fetch("signatures", _SIGNATURES, after, _PAGE)
        return [(row["account_id"], row["signature"]) for row in found]
    except Exception as error:
        if not bad_rows.is_of_rows(error):
            raise
    ids = [row["account_id"] for row in await postgres.fetch("signatures", _IDS, after, _PAGE)]
    signed = dict.fromkeys(ids, b"")

    async def read(some: Sequence[int]) -> Sequence[None]:
        for account_id in some:
            for row in await postgres.fetch("signatures", _SIGNATURES, account_id - 1, 1):
                signed[row["account_id"]] = row["signature"]
        return ()

    def left_out(account_id: int, error: Exception) -> None:
        bad_rows.tell(RowReading.LEFT_OUT, f"{type(error).__name__}: {error}", account=account_id)

    await bad_rows.one_by_one(read, ids, left_out)
    return list(signed.items())


# Ceilings

_CEILING = "mailboxes_uid_ceiling"  # the constraint
_LOWER = """
    UPDATE mailstore.mailboxes SET uid_ceiling = least(uid_next + $2, uid_ceiling)
    WHERE account_id = $1 AND uid_ceiling = 4294967296
"""
_RAISE = """
    UPDATE mailstore.mailboxes b SET uid_ceiling = p.uid_ceiling
    FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS p (account_id, mailbox_id, uid_ceiling)
    WHERE b.account_id = p.account_id AND b.mailbox_id = p.mailbox_id AND b.uid_ceiling < p.uid_ceiling
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """A ceiling that is in a snapshot and not yet in PostgreSQL."""

    account_id: int
    mailbox_id: int
    uid_ceiling: int


async def lower_ceilings(postgres: Postgres, account_id: int) -> None:
    """Before an account's first snapshot: from now on its mailboxes keep below what the snapshot will promise."""
    await postgres.execute("lower_ceilings", _LOWER, account_id, UID_ROOM)


async def raise_ceilings(postgres: Postgres, promises: Sequence[Promise]) -> None:
    """After the snapshot that promises them is in the bucket, and counts."""
    columns = [(one.account_id, one.mailbox_id, one.uid_ceiling) for one in promises]
    if columns:
        await postgres.execute("raise_ceilings", _RAISE, *map(list, zip(*columns, strict=True)))


async def promised(work: Awaitable[T]) -> T:
    """The result of work that gives UIDs. Raises UidsNotPromised when they would pass the ceiling."""
    try:
        return await work
    except PostgresRefused as error:
        if error.constraint == _CEILING:
            raise UidsNotPromised(str(error)) from error
        raise


def _promised(row: rows.Record) -> int:
    """The ceiling for the snapshot: the one there is while half of the room is left."""
    ceiling, uid_next = int(row["uid_ceiling"]), int(row["uid_next"])
    if ceiling - uid_next > UID_ROOM // 2:
        return ceiling
    return max(ceiling, min(uid_next + UID_ROOM, NO_UID))


# One account

_ACCOUNT = """
    SELECT last_mailbox_id, last_uid_validity, deleted_at IS NOT NULL AS deleted
    FROM mailstore.accounts WHERE account_id = $1
"""
_MAILBOXES = """
    SELECT mailbox_id, name, uid_validity, uid_next, uid_ceiling, highest_mod_seq, keywords, special_use, selectable
    FROM mailstore.mailboxes WHERE account_id = $1 ORDER BY mailbox_id
"""
_SUBSCRIPTIONS = "SELECT name FROM mailstore.subscriptions WHERE account_id = $1 ORDER BY name"


def _microseconds(column: str) -> str:
    return f"(extract(epoch FROM {dates.clamped(column)}) * 1000000)::bigint AS {column}_us"


_MESSAGES = f"""
    SELECT mailbox_id, uid, flags, keywords, {_microseconds("internal_date")}, {_microseconds("save_date")},
           internal_date {dates.IN_RANGE} AND save_date {dates.IN_RANGE} AS has_dates, queue_id, prefix, thread_key
    FROM mailstore.messages WHERE account_id = $1 ORDER BY mailbox_id, uid
"""  # noqa: S608 - only constants are put in
# EXCEPT sorts or hashes; NOT EXISTS compared each with each where the tables had no statistics.
_DELIVERED = """
    SELECT queue_id FROM mailstore.deliveries WHERE account_id = $1
    EXCEPT SELECT queue_id FROM mailstore.messages WHERE account_id = $1
"""


class Export:
    """An account as it was in one moment. No lock is held: the transaction behind it only reads."""

    def __init__(
        self, connection: Connection, account_id: int, account: AccountSnapshot, promises: list[Promise]
    ) -> None:
        self._connection = connection
        self._account_id = account_id
        self._keywords = {box.mailbox_id: {word: n for n, word in enumerate(box.keywords)} for box in account.mailboxes}
        self.account = account
        self.promises = promises
        """Ceilings to raise when the snapshot is in the bucket."""
        self.bad: list[str] = []
        """Rows that were not as they should be, so far."""
        self.bad_dates = 0
        """How many of them `mend_dates` mends."""

    async def messages(self, size: int) -> AsyncIterator[list[SnapshotMessage]]:
        """By mailbox and UID, `size` at a time."""
        async for page in self._pages(_MESSAGES, size):
            yield [message for row in page if (message := self._message(row)) is not None]

    async def delivered(self, size: int) -> AsyncIterator[list[str]]:
        """Queue ids of the records of deliveries whose messages are gone, `size` at a time."""
        async for page in self._pages(_DELIVERED, size):
            yield [row["queue_id"] for row in page]

    async def _pages(self, sql: str, size: int) -> AsyncIterator[list[rows.Record]]:
        cursor = await self._connection.cursor(sql, self._account_id)
        while page := await cursor.fetch(size):
            yield page

    def _message(self, row: rows.Record) -> SnapshotMessage | None:
        """None: it cannot be told of. What can be mended is: a message that is missing would count as expunged."""
        place = {"account": self._account_id, "mailbox": row["mailbox_id"], "uid": row["uid"]}
        places = self._keywords.get(row["mailbox_id"], {})
        keywords = [places[word] for word in row["keywords"] if word in places]
        try:
            message = SnapshotMessage(
                mailbox_id=row["mailbox_id"],
                uid=row["uid"],
                flags=row["flags"] & rows.ALL_FLAGS,
                keywords=keywords,
                internal_date_us=row["internal_date_us"],
                save_date_us=row["save_date_us"],
                queue_id=row["queue_id"],
                prefix=row["prefix"],
                thread_key=row["thread_key"],
            )
        except (ValueError, TypeError) as error:
            self._bad(RowReading.LEFT_OUT, f"{type(error).__name__}: {error}", place)
            return None
        if not row["has_dates"]:
            self.bad_dates += 1
            self._bad(RowReading.MENDED, "a date is out of range", place)
        elif len(keywords) < len(row["keywords"]) or message.flags != row["flags"]:
            self._bad(RowReading.MENDED, "a flag or a keyword is none", place)
        return message

    def _bad(self, reading: RowReading, reason: str, place: dict[str, int]) -> None:
        bad_rows.tell(reading, reason, **place)
        self.bad.append(f"mailbox {place['mailbox']}, UID {place['uid']}: {reason}")


_MEND_DATES = f"""
    UPDATE mailstore.messages
    SET internal_date = {dates.clamped("internal_date")}, save_date = {dates.clamped("save_date")}
    WHERE account_id = $1 AND NOT (internal_date {dates.IN_RANGE} AND save_date {dates.IN_RANGE})
"""  # noqa: S608 - only constants are put in


async def mend_dates(postgres: Postgres, account_id: int) -> int:
    """Bring dates that no program can read back within their bounds; returns how many rows had one. Nothing that a
    client knows changes: services tell the bound already."""
    async with postgres.connection("mend_dates") as connection:
        status: str = await connection.execute(_MEND_DATES, account_id)
    return int(status.rpartition(" ")[2])


@contextlib.asynccontextmanager
async def export(postgres: Postgres, account_id: int, taken_at_ms: int, records_age: float) -> AsyncIterator[Export]:
    """One account, for the time of the block. `records_age`: seconds for which records of deliveries are kept."""
    async with postgres.transaction("export", snapshot=True) as connection:
        row = sole_row(await connection.fetchrow(_ACCOUNT, account_id))
        boxes = [] if row["deleted"] else await connection.fetch(_MAILBOXES, account_id)
        names = [] if row["deleted"] else await connection.fetch(_SUBSCRIPTIONS, account_id)
        account = AccountSnapshot(
            taken_at_ms=taken_at_ms,
            records_since_ms=taken_at_ms - int(records_age * 1000),
            deleted=row["deleted"],
            last_mailbox_id=row["last_mailbox_id"],
            last_uid_validity=row["last_uid_validity"],
            mailboxes=[_mailbox(box) for box in boxes],
            subscriptions=[name["name"] for name in names],
        )
        raised = [
            Promise(account_id, box["mailbox_id"], _promised(box))
            for box in boxes
            if _promised(box) > box["uid_ceiling"]
        ]
        yield Export(connection, account_id, account, raised)


def _mailbox(row: rows.Record) -> SnapshotMailbox:
    return SnapshotMailbox(
        mailbox_id=row["mailbox_id"],
        name=row["name"],
        uid_validity=row["uid_validity"],
        uid_next=row["uid_next"],
        uid_ceiling=_promised(row),
        highest_mod_seq=row["highest_mod_seq"],
        keywords=row["keywords"],
        special_use=row["special_use"] or "",
        selectable=row["selectable"],
    )
