"""A check of every row, read as the services read it, and the mending of bad rows."""

import unicodedata
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from paquebot.mailstore import bad_rows, dates
from paquebot.mailstore.bad_rows import BadRowResult
from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.locks import lock_account, lock_mailbox
from paquebot.mailstore.mailboxes.rows import MAILBOX_COLUMNS, mailbox
from paquebot.mailstore.messages import rows
from paquebot.mailstore.messages.flags import ALL_FLAGS
from paquebot.mailstore.messages.keywords import is_keyword
from paquebot.mailstore.messages.types import LAST_UID, StoredMessage
from paquebot.mailstore.snapshots.restoring import recount
from paquebot.runtime.postgres.pool import Connection, Postgres

_PAGE = 500
_Key = tuple[int, int, int]
"""Account, mailbox, UID."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that services read with other values than it has, or not at all. `uid` 0: a mailbox's."""

    account_id: int
    mailbox_id: int
    uid: int
    reasons: tuple[str, ...]
    message: StoredMessage | None = None
    """As services read it; None: not at all."""

    def sentence(self) -> str:
        """For the operator."""
        where = f"account {self.account_id}, mailbox {self.mailbox_id}" + (f", UID {self.uid}" if self.uid else "")
        return f"the row ({where}) is bad: {'; '.join(self.reasons)}"


_MAILBOXES = f"""
    SELECT {MAILBOX_COLUMNS} FROM mailstore.mailboxes b
    WHERE (account_id, mailbox_id) > ($1, $2) ORDER BY account_id, mailbox_id LIMIT {_PAGE}
"""  # noqa: S608 - only constants are put in
_OF_MESSAGE = f"account_id, mailbox_id, {rows.MESSAGE_COLUMNS}, summary"
_MESSAGES = f"""
    SELECT {_OF_MESSAGE} FROM mailstore.messages
    WHERE (account_id, mailbox_id, uid) > ($1, $2, $3) ORDER BY account_id, mailbox_id, uid LIMIT {_PAGE}
"""  # noqa: S608 - only constants are put in
_KEYS = f"""
    SELECT account_id, mailbox_id, uid FROM mailstore.messages
    WHERE (account_id, mailbox_id, uid) > ($1, $2, $3) ORDER BY account_id, mailbox_id, uid LIMIT {_PAGE}
"""  # noqa: S608 - only constants are put in
_SOME = f"""
    SELECT m.* FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS k (account_id, mailbox_id, uid)
    CROSS JOIN LATERAL (
        SELECT {_OF_MESSAGE} FROM mailstore.messages m
        WHERE m.account_id = k.account_id AND m.mailbox_id = k.mailbox_id AND m.uid BETWEEN k.uid AND k.uid
        ORDER BY m.uid
    ) m
"""  # noqa: S608 - only constants are put in
_MEND = f"""
    UPDATE mailstore.messages
    SET internal_date = {dates.clamped("internal_date")}, save_date = {dates.clamped("save_date")},
        flags = flags & {ALL_FLAGS}::smallint, mod_seq = greatest(mod_seq, 1),
        keywords = $4, size = blob_size + length(prefix), summary = coalesce($5, summary)
    WHERE account_id = $1 AND mailbox_id = $2 AND uid = $3
"""  # noqa: S608 - only constants are put in
_MEND_MAILBOX = """
    UPDATE mailstore.mailboxes SET keywords = $3, highest_mod_seq = greatest(highest_mod_seq, 1)
    WHERE account_id = $1 AND mailbox_id = $2
"""


class RowChecks:
    """One per process."""

    __slots__ = ("_postgres",)

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def bad_rows(self) -> AsyncIterator[BadRow]:
        """Every row of a mailbox or a message that services cannot read as it is, read page by page: no transaction
        stays open."""
        box = -1, -1
        while page := await self._postgres.fetch("check_mailboxes", _MAILBOXES, *box):
            for row in page:
                box = row["account_id"], row["mailbox_id"]
                if reasons := _of_mailbox(row):
                    yield BadRow(*box, 0, reasons)
        after: _Key = -1, -1, -(2**62)
        while True:
            bad: list[BadRow] = []
            found_rows, last = await self._page(after, bad)
            for row in found_rows:
                if (found := _of_message(row)) is not None:
                    bad.append(found)
            for one in bad:
                yield one
            if last is None:
                return
            after = last

    async def _page(self, after: _Key, bad: list[BadRow]) -> tuple[Sequence[Record], _Key | None]:
        """The next rows, and the key of the last; None: there are none. Where a page cannot be read, its rows are read
        one by one, and those that cannot be read are added to `bad`."""
        try:
            page = await self._postgres.fetch("check_messages", _MESSAGES, *after)
            return page, _key(page[-1]) if page else None
        except Exception as error:
            if not bad_rows.may_be_of_rows(error):
                raise

        async def read(keys: Sequence[_Key]) -> Sequence[Record]:
            return await self._postgres.fetch("check_messages", _SOME, *map(list, zip(*keys, strict=True)))

        def left_out(key: _Key, error: Exception) -> None:
            bad.append(BadRow(*key, (f"{type(error).__name__}: {error}",)))

        keys = [_key(row) for row in await self._postgres.fetch("check_messages", _KEYS, *after)]
        return await bad_rows.one_by_one(read, keys, left_out), keys[-1] if keys else None

    async def mend(self, bad: BadRow, summary: bytes | None = None) -> bool:
        """Write the values that services read into the row; `summary`: in place of one that cannot be read. False: the
        row cannot be mended. Raises NoSuchAccount, NoSuchMailbox."""
        if bad.uid and bad.message is None:
            return False

        async def work(connection: Connection) -> bool:
            await lock_account(connection, bad.account_id)
            locked = await lock_mailbox(connection, bad.account_id, bad.mailbox_id)
            words = [word for word in locked.keywords if is_keyword(word)]
            if bad.message is None:
                await connection.execute(_MEND_MAILBOX, bad.account_id, bad.mailbox_id, words)
                return True
            kept = [word for word in bad.message.keywords if word in words]
            await connection.execute(_MEND, bad.account_id, bad.mailbox_id, bad.uid, kept, summary)
            await recount(connection, bad.account_id)
            return True

        return await self._postgres.run("mend_row", work)


def _key(row: Record) -> _Key:
    return row["account_id"], row["mailbox_id"], row["uid"]


def _of_mailbox(row: Record) -> tuple[str, ...]:
    reasons: list[str] = []
    mailbox(row, report=lambda reading, reason, **place: reasons.append(reason))
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in row["name"]):
        reasons.append("the name has a control character: rename the mailbox")
    return tuple(reasons)


def _of_message(row: Record) -> BadRow | None:
    account_id, mailbox_id, uid = _key(row)
    reasons: list[str] = []

    def report(reading: BadRowResult, reason: str, **place: int) -> None:
        reasons.append(reason)

    message: StoredMessage | None = None
    if not 0 < uid <= LAST_UID:
        reasons.append("the UID is invalid")
    else:
        try:
            message = rows.message(row, account_id, mailbox_id, with_summary=True, report=report)
            rows.summary_of(message, account_id, mailbox_id, report)
        except (ValueError, TypeError, OverflowError) as error:
            reasons.append(f"{type(error).__name__}: {error}")
    return BadRow(account_id, mailbox_id, uid, tuple(dict.fromkeys(reasons)), message) if reasons else None
