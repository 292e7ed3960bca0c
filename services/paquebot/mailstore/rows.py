"""Rows of PostgreSQL into the mailstore's types, and the column lists that they are read from.

A row that no program of ours writes is mended where that can be, or left out, and named (`bad_rows`).
"""

import contextlib
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import asyncpg
from google.protobuf.message import DecodeError

from paquebot.mailstore import bad_rows, dates
from paquebot.mailstore.bad_rows import RowReading, Tell
from paquebot.mailstore.messages.keywords import is_keyword
from paquebot.mailstore.types import LAST_UID, BlobUse, Flag, FlagRows, Mailbox, SpecialUse, StoredMessage
from paquebot.v1.mail_pb2 import BlobRef
from paquebot.v1.summary_pb2 import MessageSummary

Record: TypeAlias = asyncpg.Record

MAILBOX_COLUMNS = """
    b.account_id, b.mailbox_id, b.name, b.uid_validity, b.uid_next, b.highest_mod_seq, b.recent_from, b.recent,
    b.messages, b.unseen, b.deleted, b.octets, b.keywords AS known_keywords, b.expunged_horizon,
    b.special_use, b.selectable"""
"""Of `mailstore.mailboxes b`, for `mailbox`."""

FLAG_COLUMNS = """
    array_agg(uid ORDER BY uid) AS uids,
    array_agg(flags ORDER BY uid) AS flags,
    array_agg(mod_seq ORDER BY uid) AS mod_seqs,
    array_agg(uid ORDER BY uid) FILTER (WHERE keywords <> '{}') AS keyword_uids,
    array_agg(array_to_string(keywords, ' ') ORDER BY uid) FILTER (WHERE keywords <> '{}') AS keyword_lists"""
"""Aggregates over `mailstore.messages`, for `flag_rows`: five arrays travel and decode faster than n rows."""

BLOB_COLUMNS = "pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption"

MESSAGE_COLUMNS = f"""
    uid, mod_seq, flags, keywords, size, {dates.marked("internal_date")}, {dates.marked("save_date")}, {BLOB_COLUMNS},
    queue_id, thread_key, prefix"""
"""Of `mailstore.messages`, for `message`."""


def looked_up(columns: str, asked: str = "(SELECT DISTINCT unnest($3::bigint[]) AS uid) asked") -> str:
    """For FROM: `m`, with `columns` of those messages in the mailbox of account $1 and id $2 whose UIDs `asked` has.

    Without statistics the planner takes a mailbox for empty, and any index that begins with it for as good as the
    primary key; it would read the mailbox for each UID. So each is looked up by itself, in an order that only the
    primary key has (decision 43).
    """
    return f"""{asked} CROSS JOIN LATERAL (
        SELECT {columns} FROM mailstore.messages
        WHERE account_id = $1 AND mailbox_id = $2 AND uid BETWEEN asked.uid AND asked.uid ORDER BY messages.uid
    ) m"""  # noqa: S608 - only constants are put in


ALL_FLAGS = int(sum(Flag))
_KNOWN_FLAGS = bytes(flags & ALL_FLAGS for flags in range(256))


def mailbox(row: Record, tell: Tell = bad_rows.tell) -> Mailbox:
    place = row["account_id"], row["mailbox_id"]
    return Mailbox(
        account_id=row["account_id"],
        mailbox_id=row["mailbox_id"],
        name=row["name"],
        uid_validity=row["uid_validity"],
        uid_next=row["uid_next"],
        highest_mod_seq=max(1, row["highest_mod_seq"]),
        recent_from=row["recent_from"],
        recent=row["recent"],
        messages=row["messages"],
        unseen=row["unseen"],
        deleted=row["deleted"],
        octets=row["octets"],
        keywords=_keywords(row["known_keywords"], *place, 0, tell),
        expunged_horizon=row["expunged_horizon"],
        special_use=special_use(row["special_use"]),
        selectable=row["selectable"],
    )


def special_use(stored: str | None) -> SpecialUse | None:
    """None also for a use that only a newer program knows."""
    with contextlib.suppress(ValueError):
        return None if stored is None else SpecialUse(stored)
    return None


def flag_rows(row: Record, account_id: int, mailbox_id: int) -> FlagRows:
    """Of FLAG_COLUMNS."""
    uids, flags, mod_seqs = row["uids"] or (), row["flags"] or (), row["mod_seqs"] or ()
    keyword_uids, keyword_lists = row["keyword_uids"] or (), row["keyword_lists"] or ()
    keywords = {
        uid: _keywords(words.split(" "), account_id, mailbox_id, uid, bad_rows.tell)
        for uid, words in zip(keyword_uids, keyword_lists, strict=True)
    }
    try:
        return FlagRows(array("I", uids), bytes(flags).translate(_KNOWN_FLAGS), array("Q", mod_seqs), keywords)
    except (OverflowError, ValueError, TypeError):
        kept = sound(account_id, mailbox_id, uids, flags, mod_seqs)
    return FlagRows(
        uids=array("I", (uid for uid, _, _ in kept)),
        flags=bytes(some & ALL_FLAGS for _, some, _ in kept),
        mod_seqs=array("Q", (max(1, mod_seq) for _, _, mod_seq in kept)),
        keywords=keywords,
    )


def sound(account_id: int, mailbox_id: int, uids: Sequence[int], *columns: Sequence[int]) -> list[tuple[int, ...]]:
    """(UID, its values in `columns`) of the messages whose UID is one; a number below 0 is named, and kept."""
    kept: list[tuple[int, ...]] = []
    for uid, *values in zip(uids, *columns, strict=True):
        place = {"account": account_id, "mailbox": mailbox_id, "uid": uid}
        if not 0 < uid <= LAST_UID:
            bad_rows.tell(RowReading.LEFT_OUT, "the UID is none", **place)
            continue
        if min(values) < 0:
            bad_rows.tell(RowReading.MENDED, "a number is below 0", **place)
        kept.append((uid, *values))
    return kept


def _keywords(stored: Iterable[str | None], account_id: int, mailbox_id: int, uid: int, tell: Tell) -> tuple[str, ...]:
    """Those that a response can have; `uid` 0: of the mailbox."""
    words = tuple(stored)
    kept = tuple(word for word in words if word is not None and is_keyword(word))
    if len(kept) < len(words):
        place = {"account": account_id, "mailbox": mailbox_id} | ({"uid": uid} if uid else {})
        tell(RowReading.MENDED, "a keyword is none", **place)
    return kept


def message(
    row: Record, account_id: int, mailbox_id: int, *, with_summary: bool, tell: Tell = bad_rows.tell
) -> StoredMessage:
    """Of MESSAGE_COLUMNS, and `summary`. Raises ValueError for a row that cannot be mended."""
    internal_date, has_date = dates.readable(row["internal_date"])
    save_date, has_save_date = dates.readable(row["save_date"])
    place = account_id, mailbox_id, row["uid"]
    size, mod_seq, flags = row["size"], row["mod_seq"], row["flags"]
    reasons = {
        "a date is out of range": not has_date or not has_save_date,
        "a number is below 0": size < 0 or mod_seq < 0,
        "a flag is none": flags & ALL_FLAGS != flags,
    }
    for reason in [reason for reason, holds in reasons.items() if holds]:
        tell(RowReading.MENDED, reason, account=account_id, mailbox=mailbox_id, uid=row["uid"])
    return StoredMessage(
        uid=row["uid"],
        mod_seq=max(1, mod_seq),
        flags=Flag(flags & ALL_FLAGS),
        keywords=_keywords(row["keywords"], *place, tell) if row["keywords"] else (),
        size=max(0, size),
        internal_date=internal_date,
        save_date=save_date,
        blob=blob_ref(row),
        prefix=row["prefix"],
        email_id=row["queue_id"],
        thread_id=row["thread_key"].hex() or None,
        summary=row["summary"] if with_summary else None,
    )


def summary_of(
    message: StoredMessage, account_id: int, mailbox_id: int, tell: Tell = bad_rows.tell
) -> MessageSummary | None:
    """The stored summary; None: it cannot be read, and the message must be looked through again."""
    try:
        return MessageSummary.FromString(message.summary or b"")
    except DecodeError:
        place = {"account": account_id, "mailbox": mailbox_id, "uid": message.uid}
        tell(RowReading.MENDED, "the summary cannot be read", **place)
        return None


def blob_values(blob: BlobRef) -> tuple[object, ...]:
    """What BLOB_COLUMNS hold of it, in their order."""
    return blob.pack, blob.offset, blob.length, blob.size, blob.compression, blob.encryption


def blob_ref(row: Record) -> BlobRef:
    return BlobRef(
        pack=row["pack"],
        offset=row["blob_offset"],
        length=row["blob_length"],
        size=row["blob_size"],
        compression=row["blob_compression"],
        encryption=row["blob_encryption"],
    )


def blob_use(row: Record) -> BlobUse | None:
    """None: nothing can lie where the row says."""
    place = row["account_id"], row["mailbox_id"], row["uid"]
    try:
        return BlobUse(*place, row["queue_id"], blob_ref(row))
    except (ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        bad_rows.tell(RowReading.LEFT_OUT, reason, account=place[0], mailbox=place[1], uid=place[2])
        return None
