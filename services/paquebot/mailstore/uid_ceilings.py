"""The ceiling of a mailbox's UIDs, which its newest snapshot in the bucket promises.

A rebuilt mailbox must never give a UID that its clients have seen for another message (RFC 9051 §2.3.1.1), whatever
UIDs the lost mailstore gave after the newest snapshot. So a snapshot promises a ceiling: `uid_ceiling` in PostgreSQL is
never above the one in the newest snapshot, the mailbox gives no UID from there on, and a rebuild continues at the
promised one. The order is: lower it before a first snapshot; raise it only when the snapshot that promises more is in
the bucket.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from paquebot.mailstore.blob_rows import Record
from paquebot.mailstore.errors import UidsNotPromised
from paquebot.runtime.postgres.pool import PostgresRefused

T = TypeVar("T")

UID_ROOM = 2**24
"""UIDs that a mailbox may give after one snapshot until a later one must promise more."""
NO_UID = 2**32
"""The first number above all UIDs: as a ceiling, none."""

_CONSTRAINT = "mailboxes_uid_ceiling"


async def within_uid_ceilings(work: Awaitable[T]) -> T:
    """The result of work that gives UIDs. Raises UidsNotPromised when they would pass the ceiling."""
    try:
        return await work
    except PostgresRefused as error:
        if error.constraint == _CONSTRAINT:
            raise UidsNotPromised(str(error)) from error
        raise


@dataclass(frozen=True, slots=True)
class UidCeiling:
    """A ceiling that is in a snapshot and not yet in PostgreSQL."""

    account_id: int
    mailbox_id: int
    uid_ceiling: int


def ceiling_to_promise(row: Record) -> int:
    """Of `uid_ceiling` and `uid_next`: the ceiling for the snapshot. It stays while half of the room is left."""
    ceiling, uid_next = int(row["uid_ceiling"]), int(row["uid_next"])
    if ceiling - uid_next > UID_ROOM // 2:
        return ceiling
    return max(ceiling, min(uid_next + UID_ROOM, NO_UID))
