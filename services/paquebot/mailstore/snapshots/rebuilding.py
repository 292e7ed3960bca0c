"""A lost mailstore made again: what a snapshot and the packs tell is gathered in tables of its own, then each account
appears whole, in one transaction, so that services may run meanwhile.

How far a rebuild is stands beside what it did, in the same transaction, so that one that was killed goes on.
"""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from paquebot.mailstore.dates import of_microseconds, storable
from paquebot.mailstore.rows import ALL_FLAGS
from paquebot.mailstore.snapshots import export
from paquebot.runtime.postgres.pool import Connection, Postgres
from paquebot.v1.mail_pb2 import BlobRef
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotPart

ARRIVALS_ID = 0
"""The mailbox id, in the tables of a rebuild, of messages that no snapshot knows."""

# Where it stands


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One rebuild; what it has done is in the tables, so that another process can go on."""

    rebuild: str
    run: str
    """The snapshot it is made from; empty: none."""
    outcomes_lost: bool
    """Whether nothing told what was relayed when it began."""
    accounts_to: int = 0
    packs_to: str = ""


_UNFINISHED = """
    SELECT rebuild, run, outcomes_lost, accounts_to, packs_to FROM mailstore.rebuilds WHERE finished_at IS NULL
"""
_BEGIN = "INSERT INTO mailstore.rebuilds (rebuild, run, outcomes_lost) VALUES ($1, $2, $3)"
_FINISH = "UPDATE mailstore.rebuilds SET finished_at = now() WHERE rebuild = $1"
_TO_ACCOUNT = "UPDATE mailstore.rebuilds SET accounts_to = $2 WHERE rebuild = $1"
_TO_PACK = "UPDATE mailstore.rebuilds SET packs_to = $2 WHERE rebuild = $1"


async def unfinished(postgres: Postgres) -> Rebuild | None:
    row = await postgres.fetchrow("rebuild_unfinished", _UNFINISHED)
    return None if row is None else Rebuild(**row)


async def begin(postgres: Postgres, rebuild: Rebuild) -> None:
    """After its mark is in the bucket."""
    await postgres.execute("rebuild_begin", _BEGIN, rebuild.rebuild, rebuild.run, rebuild.outcomes_lost)


async def end(postgres: Postgres, rebuild: Rebuild, mailstore: str) -> None:
    """The mailstore is whole, and is now the one called `mailstore`; empty: it keeps its name."""

    async def work(connection: Connection) -> None:
        await connection.execute(_FINISH, rebuild.rebuild)
        if mailstore:
            await export.rename(connection, mailstore)

    await postgres.run("rebuild_end", work)


# From the snapshot

_FORGET = "DELETE FROM mailstore.rebuild_messages WHERE account_id >= $1 AND mailbox_id <> 0"
_COLUMNS = (
    "account_id",
    "mailbox_id",
    "uid",
    "flags",
    "keywords",
    "internal_date",
    "save_date",
    "queue_id",
    "thread_key",
    "prefix",
)
_DELIVERED = """
    INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at, refused)
    SELECT $1, id, now(), false FROM unnest($2::text[]) AS id ON CONFLICT DO NOTHING
"""
_ACCOUNT = """
    INSERT INTO mailstore.rebuild_accounts (account_id, snapshot, taken_at, records_since) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING
"""
_TOMBSTONE = """
    INSERT INTO mailstore.accounts (account_id, last_mailbox_id, last_uid_validity, deleted_at)
    VALUES ($1, $2, $3, now()) ON CONFLICT DO NOTHING
"""


async def forget_accounts(postgres: Postgres, first: int) -> None:
    """What a killed process left of accounts from `first` on."""
    await postgres.execute("rebuild_forget", _FORGET, first)


_FORGET_DAMAGED = """
    WITH messages AS (DELETE FROM mailstore.rebuild_messages WHERE account_id = $1 AND mailbox_id <> 0)
    DELETE FROM mailstore.deliveries WHERE account_id = $1
"""


async def forget_damaged(postgres: Postgres, account_id: int) -> None:
    """What was read of a snapshot that is damaged further on, its records of deliveries too: the packs decide alone."""
    await postgres.execute("rebuild_forget", _FORGET_DAMAGED, account_id)


async def add_part(
    postgres: Postgres,
    account: AccountSnapshot,
    part: SnapshotPart,
    delivered: Collection[str],
    *,
    last_of: Rebuild | None,
) -> None:
    """A piece of an account's snapshot; with the last one the account counts as read. `delivered`: queue ids whose jobs
    and packs must not deliver them again. Raises LookupError when the snapshot contradicts itself, PostgresRefused."""
    words = {box.mailbox_id: box.keywords for box in account.mailboxes}
    records = [
        (
            part.account_id,
            message.mailbox_id,
            message.uid,
            message.flags & ALL_FLAGS,
            [words[message.mailbox_id][place] for place in message.keywords],
            storable(of_microseconds(message.internal_date_us)),
            storable(of_microseconds(message.save_date_us)),
            message.queue_id,
            message.thread_key,
            message.prefix,
        )
        for message in part.messages
    ]

    async def work(connection: Connection) -> None:
        await connection.copy_records_to_table(
            "rebuild_messages", schema_name="mailstore", columns=_COLUMNS, records=records
        )
        if delivered:
            await connection.execute(_DELIVERED, part.account_id, list(delivered))
        if last_of is not None:
            await _add_account(connection, part.account_id, account)
            await connection.execute(_TO_ACCOUNT, last_of.rebuild, part.account_id)

    await postgres.run("rebuild_add", work)


async def _add_account(connection: Connection, account_id: int, account: AccountSnapshot) -> None:
    if account.deleted:
        await connection.execute(_TOMBSTONE, account_id, account.last_mailbox_id, account.last_uid_validity)
    else:
        times = of_microseconds(account.taken_at_ms * 1000), of_microseconds(account.records_since_ms * 1000)
        await connection.execute(_ACCOUNT, account_id, account.SerializeToString(), *times)


# From the packs


@dataclass(frozen=True, slots=True)
class Rule:
    """What an account's snapshot decides of a message that it does not know."""

    taken_at: datetime.datetime
    records_since: datetime.datetime


@dataclass(frozen=True, slots=True)
class Found:
    """Where a message lies, and its summary."""

    queue_id: str
    blob: BlobRef
    thread_key: bytes
    summary: bytes


@dataclass(frozen=True, slots=True)
class RebuiltMessage:
    """A found message for an account whose snapshot does not know it, or that has none."""

    account_id: int
    found: Found
    internal_date: datetime.datetime
    prefix: bytes
    delivered: bool
    """Whether it came to a recipient (and so leaves a record of delivery), not by APPEND."""


_WANTED = "SELECT DISTINCT queue_id FROM mailstore.rebuild_messages WHERE queue_id = ANY($1::text[]) AND pack IS NULL"
_KEYS = "unnest($1::bigint[], $2::text[]) AS k (account_id, queue_id)"
_KNOWN = f"""
    SELECT k.account_id, k.queue_id FROM {_KEYS}
    WHERE EXISTS (SELECT FROM mailstore.rebuild_messages r
                  WHERE r.queue_id = k.queue_id AND r.account_id = k.account_id)
       OR EXISTS (SELECT FROM mailstore.messages m WHERE m.account_id = k.account_id AND m.queue_id = k.queue_id)
"""  # noqa: S608 - only constants are put in
_RULES = """
    SELECT account_id, taken_at, records_since FROM mailstore.rebuild_accounts
    WHERE account_id = ANY($1::bigint[]) AND snapshot IS NOT NULL
"""


async def wanted(postgres: Postgres, queue_ids: Collection[str]) -> set[str]:
    """Those whose bytes a snapshot's messages still miss."""
    rows = await postgres.fetch("rebuild_wanted", _WANTED, list(queue_ids))
    return {row["queue_id"] for row in rows}


async def known(postgres: Postgres, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Which (account id, queue id) have a place already, here or in the tables of the rebuild."""
    rows = await postgres.fetch("rebuild_known", _KNOWN, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["account_id"], row["queue_id"]) for row in rows}


async def rules(postgres: Postgres, account_ids: Collection[int]) -> dict[int, Rule]:
    """Of those that have a snapshot."""
    rows = await postgres.fetch("rebuild_rules", _RULES, list(account_ids))
    return {row["account_id"]: Rule(row["taken_at"], row["records_since"]) for row in rows}


_PLACE = """
    UPDATE mailstore.rebuild_messages r
    SET pack = f.pack, blob_offset = f.blob_offset, blob_length = f.blob_length, blob_size = f.blob_size,
        blob_compression = f.blob_compression, blob_encryption = f.blob_encryption, summary = f.summary
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::smallint[],
                $8::bytea[])
        AS f (queue_id, pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption, summary)
    WHERE r.queue_id = f.queue_id AND r.pack IS NULL
"""
_ARRIVE = """
    INSERT INTO mailstore.rebuild_messages (
        account_id, mailbox_id, uid, flags, keywords, internal_date, save_date, prefix,
        thread_key, queue_id, pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption, summary)
    SELECT account_id, 0, 0, 0, '{}', internal_date, now(), prefix,
           thread_key, queue_id, pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption, summary
    FROM unnest($1::bigint[], $2::timestamptz[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::bigint[],
                $8::bigint[], $9::bigint[], $10::smallint[], $11::smallint[], $12::bytea[])
        AS a (account_id, internal_date, prefix, thread_key, queue_id, pack, blob_offset, blob_length, blob_size,
              blob_compression, blob_encryption, summary)
    ON CONFLICT DO NOTHING
"""
_RECORD = """
    INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at, refused)
    SELECT account_id, queue_id, now(), false FROM unnest($1::bigint[], $2::text[]) AS k (account_id, queue_id)
    ON CONFLICT DO NOTHING
"""
_ACCOUNTS = """
    INSERT INTO mailstore.rebuild_accounts (account_id) SELECT unnest($1::bigint[]) ON CONFLICT DO NOTHING
"""


async def place(
    postgres: Postgres, rebuild: Rebuild, found: Sequence[Found], arrivals: Sequence[RebuiltMessage], pack: str
) -> None:
    """What packs up to `pack` brought, in one transaction."""

    async def work(connection: Connection) -> None:
        if found:
            columns = [(one.queue_id, *_blob(one.blob), one.summary) for one in found]
            await connection.execute(_PLACE, *map(list, zip(*columns, strict=True)))
        if arrivals:
            await connection.execute(_ARRIVE, *map(list, zip(*map(_arrival, arrivals), strict=True)))
            await connection.execute(_ACCOUNTS, sorted({one.account_id for one in arrivals}))
            kept = [(one.account_id, one.found.queue_id) for one in arrivals if one.delivered]
            await connection.execute(_RECORD, [key[0] for key in kept], [key[1] for key in kept])
        await connection.execute(_TO_PACK, rebuild.rebuild, pack)

    await postgres.run("rebuild_place", work)


def _blob(blob: BlobRef) -> tuple[object, ...]:
    return blob.pack, blob.offset, blob.length, blob.size, blob.compression, blob.encryption


def _arrival(one: RebuiltMessage) -> tuple[object, ...]:
    found = one.found
    place = found.queue_id, *_blob(found.blob), found.summary
    return one.account_id, storable(one.internal_date), one.prefix, found.thread_key, *place
