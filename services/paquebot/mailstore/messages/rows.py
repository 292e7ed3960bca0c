"""Rows of `mailstore.messages` into the mailstore's types, and the column lists that they are read from.

A row that no current program writes is mended where possible, or left out, and reported (`bad_rows`).
"""

from array import array
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from paquebot.mailstore import bad_rows, dates
from paquebot.mailstore.bad_rows import BadRowResult, Report
from paquebot.mailstore.blob_rows import BLOB_COLUMNS, Record, blob_ref
from paquebot.mailstore.mailboxes.rows import readable_keywords
from paquebot.mailstore.messages.flags import ALL_FLAGS, Flag
from paquebot.mailstore.messages.types import LAST_UID, FlagRows, StoredMessage
from paquebot.v1.summary_pb2 import MessageSummary

FLAG_COLUMNS = """
    array_agg(uid ORDER BY uid) AS uids,
    array_agg(flags ORDER BY uid) AS flags,
    array_agg(mod_seq ORDER BY uid) AS mod_seqs,
    array_agg(uid ORDER BY uid) FILTER (WHERE keywords <> '{}') AS keyword_uids,
    array_agg(array_to_string(keywords, ' ') ORDER BY uid) FILTER (WHERE keywords <> '{}') AS keyword_lists"""
"""Aggregates over `mailstore.messages`, for `flag_rows`: five arrays travel and decode faster than n rows."""

MESSAGE_COLUMNS = f"""
    uid, mod_seq, flags, keywords, size, {dates.marked("internal_date")}, {dates.marked("save_date")}, {BLOB_COLUMNS},
    queue_id, thread_key, prefix"""
"""Of `mailstore.messages`, for `message`."""


def messages_by_uid(columns: str, asked: str = "(SELECT DISTINCT unnest($3::bigint[]) AS uid) asked") -> str:
    """For FROM: `m`, with `columns` of the messages in the mailbox of account $1 and id $2 whose UIDs `asked` has.

    Without statistics the planner takes a mailbox for empty, and any index that begins with it for as good as the
    primary key; it would read the mailbox for each UID. So each UID is looked up separately, in an order that only the
    primary key has (decision 43).
    """
    return f"""{asked} CROSS JOIN LATERAL (
        SELECT {columns} FROM mailstore.messages
        WHERE account_id = $1 AND mailbox_id = $2 AND uid BETWEEN asked.uid AND asked.uid ORDER BY messages.uid
    ) m"""  # noqa: S608 - only constants are put in


_KNOWN_FLAGS = bytes(flags & ALL_FLAGS for flags in range(256))


def flag_rows(row: Record, account_id: int, mailbox_id: int) -> FlagRows:
    """Of FLAG_COLUMNS."""
    uids, flags, mod_seqs = row["uids"] or (), row["flags"] or (), row["mod_seqs"] or ()
    keyword_uids, keyword_lists = row["keyword_uids"] or (), row["keyword_lists"] or ()
    keywords = {
        uid: readable_keywords(words.split(" "), account_id, mailbox_id, uid, bad_rows.report)
        for uid, words in zip(keyword_uids, keyword_lists, strict=True)
    }
    try:
        return FlagRows(array("I", uids), bytes(flags).translate(_KNOWN_FLAGS), array("Q", mod_seqs), keywords)
    except (OverflowError, ValueError, TypeError):
        kept = with_valid_uids(account_id, mailbox_id, uids, flags, mod_seqs)
    return FlagRows(
        uids=array("I", (uid for uid, _, _ in kept)),
        flags=bytes(some & ALL_FLAGS for _, some, _ in kept),
        mod_seqs=array("Q", (max(1, mod_seq) for _, _, mod_seq in kept)),
        keywords=keywords,
    )


def with_valid_uids(
    account_id: int, mailbox_id: int, uids: Sequence[int], *columns: Sequence[int]
) -> list[tuple[int, ...]]:
    """(UID, its values in `columns`) of the messages with a valid UID; a number below 0 is reported, and kept."""
    kept: list[tuple[int, ...]] = []
    for uid, *values in zip(uids, *columns, strict=True):
        place = {"account": account_id, "mailbox": mailbox_id, "uid": uid}
        if not 0 < uid <= LAST_UID:
            bad_rows.report(BadRowResult.OMITTED, "the UID is invalid", **place)
            continue
        if min(values) < 0:
            bad_rows.report(BadRowResult.SUBSTITUTED, "a number is below 0", **place)
        kept.append((uid, *values))
    return kept


def message(
    row: Record, account_id: int, mailbox_id: int, *, with_summary: bool, report: Report = bad_rows.report
) -> StoredMessage:
    """Of MESSAGE_COLUMNS, and `summary`. Raises ValueError for a row that cannot be mended."""
    internal_date, has_date = dates.readable(row["internal_date"])
    save_date, has_save_date = dates.readable(row["save_date"])
    place = account_id, mailbox_id, row["uid"]
    size, mod_seq, flags = row["size"], row["mod_seq"], row["flags"]
    reasons = {
        "a date is out of range": not has_date or not has_save_date,
        "a number is below 0": size < 0 or mod_seq < 0,
        "a flag is unknown": flags & ALL_FLAGS != flags,
    }
    for reason in [reason for reason, holds in reasons.items() if holds]:
        report(BadRowResult.SUBSTITUTED, reason, account=account_id, mailbox=mailbox_id, uid=row["uid"])
    return StoredMessage(
        uid=row["uid"],
        mod_seq=max(1, mod_seq),
        flags=Flag(flags & ALL_FLAGS),
        keywords=readable_keywords(row["keywords"], *place, report) if row["keywords"] else (),
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
    message: StoredMessage, account_id: int, mailbox_id: int, report: Report = bad_rows.report
) -> MessageSummary | None:
    """The stored summary; None: it cannot be read, and the caller must read the message's content instead."""
    try:
        return MessageSummary.FromString(message.summary or b"")
    except DecodeError:
        place = {"account": account_id, "mailbox": mailbox_id, "uid": message.uid}
        report(BadRowResult.SUBSTITUTED, "the summary cannot be read", **place)
        return None
