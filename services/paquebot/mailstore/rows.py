"""Rows of PostgreSQL into the mailstore's types, and the column lists that they are read from."""

from array import array
from typing import Any

from paquebot.mailstore.types import FlagRows, Mailbox, SpecialUse
from paquebot.v1.mail_pb2 import BlobRef

Record = Any
"""An asyncpg row."""

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


def mailbox(row: Record) -> Mailbox:
    use = row["special_use"]
    return Mailbox(
        account_id=row["account_id"],
        mailbox_id=row["mailbox_id"],
        name=row["name"],
        uid_validity=row["uid_validity"],
        uid_next=row["uid_next"],
        highest_mod_seq=row["highest_mod_seq"],
        recent_from=row["recent_from"],
        recent=row["recent"],
        messages=row["messages"],
        unseen=row["unseen"],
        deleted=row["deleted"],
        octets=row["octets"],
        keywords=tuple(row["known_keywords"]),
        expunged_horizon=row["expunged_horizon"],
        special_use=None if use is None else SpecialUse(use),
        selectable=row["selectable"],
    )


def flag_rows(row: Record) -> FlagRows:
    keyword_uids = row["keyword_uids"] or ()
    keyword_lists = row["keyword_lists"] or ()
    return FlagRows(
        uids=array("I", row["uids"] or ()),
        flags=bytes(row["flags"] or ()),
        mod_seqs=array("Q", row["mod_seqs"] or ()),
        keywords={uid: tuple(words.split(" ")) for uid, words in zip(keyword_uids, keyword_lists, strict=True)},
    )


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
