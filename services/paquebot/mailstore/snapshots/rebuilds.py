"""A lost mailstore made again: the contents of a snapshot and of the packs are gathered in tables of their own, then
each account appears whole, in one transaction, so that services may run meanwhile.

The progress of a rebuild is recorded in the transaction of each step, so that a killed rebuild continues where it was.
"""

from collections.abc import Collection, Sequence

from paquebot.mailstore.blob_rows import blob_values
from paquebot.mailstore.dates import of_microseconds, storable
from paquebot.mailstore.messages.flags import ALL_FLAGS
from paquebot.mailstore.snapshots.advance_counters import advance_counters
from paquebot.mailstore.snapshots.rebuild_types import (
    CounterAdvance,
    FoundMessage,
    Rebuild,
    RebuiltMessage,
    Restored,
    SnapshotTimes,
)
from paquebot.mailstore.snapshots.restoring import restore_account
from paquebot.runtime.postgres.pool import Connection, Postgres
from paquebot.v1.snapshot_pb2 import AccountSnapshot, SnapshotPart

_UNFINISHED = """
    SELECT rebuild, run, outcomes_lost, accounts_to, packs_to FROM mailstore.rebuilds WHERE finished_at IS NULL
"""
_BEGIN = "INSERT INTO mailstore.rebuilds (rebuild, run, outcomes_lost) VALUES ($1, $2, $3)"
_FINISH = "UPDATE mailstore.rebuilds SET finished_at = now() WHERE rebuild = $1"
_TO_ACCOUNT = "UPDATE mailstore.rebuilds SET accounts_to = $2 WHERE rebuild = $1"
_TO_PACK = "UPDATE mailstore.rebuilds SET packs_to = $2 WHERE rebuild = $1"
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
_FORGET_DAMAGED = """
    WITH messages AS (DELETE FROM mailstore.rebuild_messages WHERE account_id = $1 AND mailbox_id <> 0)
    DELETE FROM mailstore.deliveries WHERE account_id = $1
"""
_WANTED = "SELECT DISTINCT queue_id FROM mailstore.rebuild_messages WHERE queue_id = ANY($1::text[]) AND pack IS NULL"
_KEYS = "unnest($1::bigint[], $2::text[]) AS k (account_id, queue_id)"
_KNOWN = f"""
    SELECT k.account_id, k.queue_id FROM {_KEYS}
    WHERE EXISTS (SELECT FROM mailstore.rebuild_messages r
                  WHERE r.queue_id = k.queue_id AND r.account_id = k.account_id)
       OR EXISTS (SELECT FROM mailstore.messages m WHERE m.account_id = k.account_id AND m.queue_id = k.queue_id)
"""  # noqa: S608 - only constants are put in
_SNAPSHOT_TIMES = """
    SELECT account_id, taken_at, records_since FROM mailstore.rebuild_accounts
    WHERE account_id = ANY($1::bigint[]) AND snapshot IS NOT NULL
"""
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
_WAITING = "SELECT account_id FROM mailstore.rebuild_accounts WHERE account_id > $1 ORDER BY account_id LIMIT 500"
_RENAME = "UPDATE mailstore.identity SET name = $1"


class Rebuilds:
    """One per process."""

    __slots__ = ("_postgres",)

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def unfinished(self) -> Rebuild | None:
        row = await self._postgres.fetchrow("rebuild_unfinished", _UNFINISHED)
        return None if row is None else Rebuild(**row)

    async def begin(self, rebuild: Rebuild) -> None:
        """Record the rebuild, after its mark is in the bucket."""
        await self._postgres.execute("rebuild_begin", _BEGIN, rebuild.rebuild, rebuild.run, rebuild.outcomes_lost)

    async def end(self, rebuild: Rebuild, mailstore: str) -> None:
        """The mailstore is complete, and takes the name `mailstore`; empty: it keeps its own."""

        async def work(connection: Connection) -> None:
            await connection.execute(_FINISH, rebuild.rebuild)
            if mailstore:
                await connection.execute(_RENAME, mailstore)

        await self._postgres.run("rebuild_end", work)

    async def forget_accounts(self, first: int) -> None:
        """Delete what a killed process left of accounts from `first` on."""
        await self._postgres.execute("rebuild_forget", _FORGET, first)

    async def forget_damaged(self, account_id: int) -> None:
        """Delete what was read of a snapshot that is damaged further on, with its records of deliveries: only the packs
        decide."""
        await self._postgres.execute("rebuild_forget", _FORGET_DAMAGED, account_id)

    async def add_part(
        self,
        account: AccountSnapshot,
        part: SnapshotPart,
        delivered: Collection[str],
        *,
        last_of: Rebuild | None,
    ) -> None:
        """A piece of an account's snapshot; with the last one the account counts as read. `delivered`: queue ids whose
        jobs and packs must not deliver them again. Raises LookupError when the snapshot contradicts itself,
        PostgresRefused."""
        records = _records(account, part)

        async def work(connection: Connection) -> None:
            await connection.copy_records_to_table(
                "rebuild_messages", schema_name="mailstore", columns=_COLUMNS, records=records
            )
            if delivered:
                await connection.execute(_DELIVERED, part.account_id, list(delivered))
            if last_of is not None:
                await _add_account(connection, part.account_id, account)
                await connection.execute(_TO_ACCOUNT, last_of.rebuild, part.account_id)

        await self._postgres.run("rebuild_add", work)

    async def wanted(self, queue_ids: Collection[str]) -> set[str]:
        """Those whose content a snapshot's messages still miss."""
        rows = await self._postgres.fetch("rebuild_wanted", _WANTED, list(queue_ids))
        return {row["queue_id"] for row in rows}

    async def known(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """The (account id, queue id) that have a place already, in the mailstore or in the tables of the rebuild."""
        rows = await self._postgres.fetch("rebuild_known", _KNOWN, [key[0] for key in keys], [key[1] for key in keys])
        return {(row["account_id"], row["queue_id"]) for row in rows}

    async def snapshot_times(self, account_ids: Collection[int]) -> dict[int, SnapshotTimes]:
        """Of those that have a snapshot."""
        rows = await self._postgres.fetch("rebuild_rules", _SNAPSHOT_TIMES, list(account_ids))
        return {row["account_id"]: SnapshotTimes(row["taken_at"], row["records_since"]) for row in rows}

    async def place(
        self, rebuild: Rebuild, found: Sequence[FoundMessage], arrivals: Sequence[RebuiltMessage], pack: str
    ) -> None:
        """Record the messages of packs up to `pack`, in one transaction."""

        async def work(connection: Connection) -> None:
            if found:
                columns = [(one.queue_id, *blob_values(one.blob), one.summary) for one in found]
                await connection.execute(_PLACE, *map(list, zip(*columns, strict=True)))
            if arrivals:
                await connection.execute(_ARRIVE, *map(list, zip(*map(_arrival, arrivals), strict=True)))
                await connection.execute(_ACCOUNTS, sorted({one.account_id for one in arrivals}))
                kept = [(one.account_id, one.found.queue_id) for one in arrivals if one.delivered]
                await connection.execute(_RECORD, [key[0] for key in kept], [key[1] for key in kept])
            await connection.execute(_TO_PACK, rebuild.rebuild, pack)

        await self._postgres.run("rebuild_place", work)

    async def waiting_accounts(self, after: int) -> list[int]:
        """The next accounts with gathered and not yet restored rows."""
        return [row["account_id"] for row in await self._postgres.fetch("rebuild_waiting", _WAITING, after)]

    async def restore(self, account_id: int, advance: CounterAdvance) -> Restored:
        """Make the account whole from its gathered rows. Idempotent: a restored account has none left."""

        async def work(connection: Connection) -> Restored:
            return await restore_account(connection, account_id, advance)

        return await self._postgres.run("restore", work)

    async def advance_counters(self, account_id: int, known: AccountSnapshot, times: int) -> tuple[int, int]:
        """For a restored backup of PostgreSQL: move an account's counters beyond all values that may have been given.

        `known`: the newest snapshot of the account, empty for none; `times`: rebuilds and advances since it. Returns
        the numbers of mailboxes, and of those that got a new UIDVALIDITY.
        """

        async def work(connection: Connection) -> tuple[int, int]:
            return await advance_counters(connection, account_id, known, times)

        return await self._postgres.run("advance_counters", work)


def _records(account: AccountSnapshot, part: SnapshotPart) -> list[tuple[object, ...]]:
    """Of _COLUMNS. Raises LookupError."""
    words = {box.mailbox_id: box.keywords for box in account.mailboxes}
    return [
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


async def _add_account(connection: Connection, account_id: int, account: AccountSnapshot) -> None:
    if account.deleted:
        await connection.execute(_TOMBSTONE, account_id, account.last_mailbox_id, account.last_uid_validity)
    else:
        times = of_microseconds(account.taken_at_ms * 1000), of_microseconds(account.records_since_ms * 1000)
        await connection.execute(_ACCOUNT, account_id, account.SerializeToString(), *times)


def _arrival(one: RebuiltMessage) -> tuple[object, ...]:
    found = one.found
    place = found.queue_id, *blob_values(found.blob), found.summary
    return one.account_id, storable(one.internal_date), one.prefix, found.thread_key, *place
