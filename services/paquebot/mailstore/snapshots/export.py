"""One account as a snapshot in the bucket keeps it, read at one moment and in bounded pieces."""

from collections.abc import AsyncIterator

from paquebot.mailstore import bad_rows, dates
from paquebot.mailstore.bad_rows import BadRowResult
from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.messages.flags import ALL_FLAGS
from paquebot.mailstore.uid_ceilings import UidCeiling, ceiling_to_promise
from paquebot.runtime.postgres.pool import Connection, sole_row
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotMailbox, SnapshotMessage

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


class AccountExport:
    """An account at one moment. No lock is held: its transaction only reads."""

    def __init__(
        self, connection: Connection, account_id: int, account: AccountSnapshot, ceilings: list[UidCeiling]
    ) -> None:
        self._connection = connection
        self._account_id = account_id
        self._keywords = {box.mailbox_id: {word: n for n, word in enumerate(box.keywords)} for box in account.mailboxes}
        self.account = account
        self.ceilings = ceilings
        """UID ceilings to raise when the snapshot is in the bucket."""
        self.bad: list[str] = []
        """Reasons of the bad rows so far, one each."""
        self.bad_dates = 0
        """How many of them `Snapshots.mend_dates` mends."""

    async def messages(self, size: int) -> AsyncIterator[list[SnapshotMessage]]:
        """By mailbox and UID, `size` at a time."""
        async for page in self._pages(_MESSAGES, size):
            yield [message for row in page if (message := self._message(row)) is not None]

    async def delivered(self, size: int) -> AsyncIterator[list[str]]:
        """Queue ids of the records of deliveries whose messages are gone, `size` at a time."""
        async for page in self._pages(_DELIVERED, size):
            yield [row["queue_id"] for row in page]

    async def _pages(self, sql: str, size: int) -> AsyncIterator[list[Record]]:
        cursor = await self._connection.cursor(sql, self._account_id)
        while page := await cursor.fetch(size):
            yield page

    def _message(self, row: Record) -> SnapshotMessage | None:
        """None: the row cannot be written. Rows are mended if possible: a missing message would count as expunged."""
        place = {"account": self._account_id, "mailbox": row["mailbox_id"], "uid": row["uid"]}
        places = self._keywords.get(row["mailbox_id"], {})
        keywords = [places[word] for word in row["keywords"] if word in places]
        try:
            message = SnapshotMessage(
                mailbox_id=row["mailbox_id"],
                uid=row["uid"],
                flags=row["flags"] & ALL_FLAGS,
                keywords=keywords,
                internal_date_us=row["internal_date_us"],
                save_date_us=row["save_date_us"],
                queue_id=row["queue_id"],
                prefix=row["prefix"],
                thread_key=row["thread_key"],
            )
        except (ValueError, TypeError) as error:
            self._report(BadRowResult.OMITTED, f"{type(error).__name__}: {error}", place)
            return None
        if not row["has_dates"]:
            self.bad_dates += 1
            self._report(BadRowResult.SUBSTITUTED, "a date is out of range", place)
        elif len(keywords) < len(row["keywords"]) or message.flags != row["flags"]:
            self._report(BadRowResult.SUBSTITUTED, "a flag or a keyword is invalid", place)
        return message

    def _report(self, reading: BadRowResult, reason: str, place: dict[str, int]) -> None:
        bad_rows.report(reading, reason, **place)
        self.bad.append(f"mailbox {place['mailbox']}, UID {place['uid']}: {reason}")


async def open_export(connection: Connection, account_id: int, taken_at_ms: int, records_age: float) -> AccountExport:
    """In a transaction that sees one state of the database. `records_age`: seconds for which records of deliveries are
    kept."""
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
        UidCeiling(account_id, box["mailbox_id"], ceiling_to_promise(box))
        for box in boxes
        if ceiling_to_promise(box) > box["uid_ceiling"]
    ]
    return AccountExport(connection, account_id, account, raised)


def _mailbox(row: Record) -> SnapshotMailbox:
    return SnapshotMailbox(
        mailbox_id=row["mailbox_id"],
        name=row["name"],
        uid_validity=row["uid_validity"],
        uid_next=row["uid_next"],
        uid_ceiling=ceiling_to_promise(row),
        highest_mod_seq=row["highest_mod_seq"],
        keywords=row["keywords"],
        special_use=row["special_use"] or "",
        selectable=row["selectable"],
    )
