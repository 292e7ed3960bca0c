"""The columns that say where a message's content lies, and the reading and writing of them."""

from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from paquebot.mailstore import bad_rows
from paquebot.mailstore.bad_rows import BadRowResult
from paquebot.v1.mail_pb2 import BlobRef

Record: TypeAlias = asyncpg.Record

BLOB_COLUMNS = "pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption"


@dataclass(frozen=True, slots=True)
class BlobUse:
    """One message row's place and blob, for verification and compaction."""

    account_id: int
    mailbox_id: int
    uid: int
    email_id: str
    blob: BlobRef


def blob_values(blob: BlobRef) -> tuple[object, ...]:
    """The values of BLOB_COLUMNS, in their order."""
    return blob.pack, blob.offset, blob.length, blob.size, blob.compression, blob.encryption


def blob_ref(row: Record) -> BlobRef:
    """Of BLOB_COLUMNS. Raises ValueError, TypeError."""
    return BlobRef(
        pack=row["pack"],
        offset=row["blob_offset"],
        length=row["blob_length"],
        size=row["blob_size"],
        compression=row["blob_compression"],
        encryption=row["blob_encryption"],
    )


def blob_use(row: Record) -> BlobUse | None:
    """None: the row names a place where nothing can lie."""
    place = row["account_id"], row["mailbox_id"], row["uid"]
    try:
        return BlobUse(*place, row["queue_id"], blob_ref(row))
    except (ValueError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        bad_rows.report(BadRowResult.OMITTED, reason, account=place[0], mailbox=place[1], uid=place[2])
        return None
