"""The statement that inserts delivered messages and gives them their UIDs."""

from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.mailstore import dates
from paquebot.mailstore.blob_rows import blob_values
from paquebot.mailstore.messages.types import NewMessage
from paquebot.runtime.postgres.pool import Connection

_DELIVER = """
    WITH incoming AS (
        SELECT * FROM unnest(
            $1::bigint[], $2::int[], $3::int[], $4::smallint[], $5::text[], $6::bigint[], $7::timestamptz[],
            $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::smallint[], $13::smallint[],
            $14::text[], $15::bytea[], $16::bytea[], $17::bytea[]
        ) AS i (
            account_id, mailbox_id, place, flags, keywords, size, internal_date,
            pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
            queue_id, thread_key, prefix, summary
        )
    ), used AS (
        UPDATE mailstore.accounts a
        SET octets = a.octets + n.octets, messages = a.messages + n.messages
        FROM (SELECT account_id, sum(size) AS octets, count(*) AS messages FROM incoming GROUP BY 1) n
        WHERE a.account_id = n.account_id
    ), box AS (
        UPDATE mailstore.mailboxes b
        SET uid_next = b.uid_next + n.messages,
            highest_mod_seq = b.highest_mod_seq + 1,
            recent = b.recent + n.messages,
            messages = b.messages + n.messages,
            unseen = b.unseen + n.unseen,
            deleted = b.deleted + n.deleted,
            octets = b.octets + n.octets
        FROM (
            SELECT account_id, mailbox_id, count(*) AS messages, sum(size) AS octets,
                   count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
                   count(*) FILTER (WHERE flags & 8 <> 0) AS deleted
            FROM incoming GROUP BY 1, 2
        ) n
        WHERE b.account_id = n.account_id AND b.mailbox_id = n.mailbox_id
        RETURNING b.account_id, b.mailbox_id, b.uid_next - n.messages AS first_uid, b.highest_mod_seq
    ), recorded AS (
        INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at, refused)
        SELECT account_id, queue_id, now(), false FROM incoming
    )
    INSERT INTO mailstore.messages (
        account_id, mailbox_id, uid, mod_seq, flags, keywords, size, internal_date, save_date,
        pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
        queue_id, thread_key, prefix, summary
    )
    SELECT account_id, mailbox_id, first_uid + place, highest_mod_seq, flags,
           CASE keywords WHEN '' THEN '{}' ELSE string_to_array(keywords, ' ') END,
           size, internal_date, now(),
           pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
           queue_id, thread_key, prefix, summary
    FROM incoming JOIN box USING (account_id, mailbox_id)
    RETURNING account_id, mailbox_id, uid, mod_seq
"""


@dataclass(frozen=True, slots=True)
class NewRow:
    """A message to insert into a mailbox; `place` counts the new rows of that mailbox from 0."""

    account_id: int
    mailbox_id: int
    place: int
    message: NewMessage

    def columns(self) -> tuple[object, ...]:
        message = self.message
        return (
            self.account_id,
            self.mailbox_id,
            self.place,
            int(message.flags),
            " ".join(message.keywords),
            message.size,
            dates.storable(message.internal_date),
            *blob_values(message.blob),
            message.email_id,
            message.thread_key,
            message.prefix,
            message.summary,
        )


@dataclass(frozen=True, slots=True)
class Placed:
    """The place that a new row got."""

    uid: int
    mod_seq: int


async def insert(connection: Connection, new_rows: Sequence[NewRow]) -> list[Placed]:
    """Insert under the accounts' locks; the result is in the order of `new_rows`."""
    columns = zip(*(row.columns() for row in new_rows), strict=True)
    inserted = await connection.fetch(_DELIVER, *map(list, columns))
    mailboxes: dict[tuple[int, int], list[Placed]] = {}
    for row in sorted(inserted, key=lambda row: int(row["uid"])):
        key = row["account_id"], row["mailbox_id"]
        mailboxes.setdefault(key, []).append(Placed(row["uid"], row["mod_seq"]))
    return [mailboxes[row.account_id, row.mailbox_id][row.place] for row in new_rows]
