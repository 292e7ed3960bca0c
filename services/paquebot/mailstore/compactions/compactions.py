"""Compaction of an account's messages, for the janitor: the accounts that read from too many packs, the messages to
move, the lease under which one janitor works on an account, and the rows that point to the new place. No mail path uses
the lease.

A reference may change only under a lease that lasts. So a pack that no row refers to, and whose account has no lease,
can never be referred to again, and may be deleted. Locks are taken in the order account, mailbox; none is held between
two calls.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from paquebot.mailstore.blob_rows import BLOB_COLUMNS, BlobUse, Record, blob_use, blob_values
from paquebot.mailstore.compactions.types import CompactionCandidate, CompactionRule, Fragmentation, Relocation
from paquebot.mailstore.errors import CompactionLost
from paquebot.mailstore.locks import lock_account
from paquebot.runtime.postgres.pool import Connection, Postgres

_MEASURE_SECONDS = 300.0  # one account may have millions of messages

# Of each account ($1), the packs older than $2 in which it has few bytes ($4), messages above $3 not counted. Those
# are put together from the smallest up to the last that is no larger than all before it (or $5): so a message is
# written again only into a pack of twice the size, and a few new messages do not cause compact packs to be rewritten.
# The planner cannot look `pack || ''` up in the index of packs, where it would read the packs of all accounts.
_CHOSEN = """
    WITH entry AS (
        SELECT account_id, pack, blob_offset, max(blob_length) AS octets FROM mailstore.messages
        WHERE account_id = ANY($1::bigint[]) AND pack || '' < $2 AND blob_length <= $3
        GROUP BY account_id, pack, blob_offset
    ), share AS (
        SELECT account_id, pack, count(*) AS messages, sum(octets)::bigint AS octets FROM entry
        GROUP BY account_id, pack HAVING sum(octets) <= $4::bigint
    ), ranked AS (
        SELECT *, sum(octets) OVER (PARTITION BY account_id ORDER BY octets, pack) - octets AS below FROM share
    ), chosen AS (
        SELECT *, bool_or(octets <= greatest(below, $5::bigint))
            OVER (PARTITION BY account_id ORDER BY octets DESC, pack DESC) AS worth
        FROM ranked
    )
"""
_MEASURE = f"""{_CHOSEN}
    SELECT a.account_id, coalesce(c.packs, 0) AS packs, coalesce(c.messages, 0)::bigint AS messages,
           coalesce(c.octets, 0)::bigint AS octets,
           coalesce((SELECT false FROM mailstore.messages m
                     WHERE m.account_id = a.account_id AND m.pack || '' >= $2 LIMIT 1), true) AS settled
    FROM unnest($1::bigint[]) AS a (account_id) LEFT JOIN (
        SELECT account_id, count(*) AS packs, sum(messages) AS messages, sum(octets) AS octets FROM chosen
        WHERE worth GROUP BY account_id HAVING count(*) - ceil(sum(octets) / $6::float8) >= $7::int
    ) c USING (account_id)
"""  # noqa: S608 - only constants are put in
_PACKS = f"{_CHOSEN} SELECT pack FROM chosen WHERE worth ORDER BY pack LIMIT $6"  # noqa: S608

_CANDIDATES = """
    SELECT account_id, a.messages AS stored, u.arrivals, c.packs, c.messages, c.octets,
           c.measured_at IS NOT NULL AND c.settled AND c.rule = $3 AND c.arrivals = u.arrivals
               AND (c.packs = 0 OR c.stored = a.messages) AS known
    FROM mailstore.accounts a CROSS JOIN LATERAL (
        SELECT coalesce(sum(uid_next), 0)::bigint AS arrivals FROM mailstore.mailboxes b
        WHERE b.account_id = a.account_id
    ) u LEFT JOIN mailstore.compactions c USING (account_id)
    WHERE account_id > $1 AND a.deleted_at IS NULL AND (a.messages >= $4 OR c.account_id IS NOT NULL)
    ORDER BY account_id LIMIT $2
"""
_RECORD = """
    INSERT INTO mailstore.compactions AS c
        (account_id, measured_at, rule, stored, arrivals, settled, packs, messages, octets)
    SELECT account_id, now(), $1, stored, arrivals, settled, packs, messages, octets
    FROM unnest(
        $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[], $6::bigint[], $7::bigint[], $8::bigint[]
    ) AS f (account_id, stored, arrivals, settled, packs, messages, octets)
    ORDER BY account_id
    ON CONFLICT (account_id) DO UPDATE
        SET measured_at = excluded.measured_at, rule = excluded.rule, stored = excluded.stored,
            arrivals = excluded.arrivals, settled = excluded.settled,
            packs = excluded.packs, messages = excluded.messages, octets = excluded.octets
"""
_FORGET = """
    DELETE FROM mailstore.compactions c WHERE expires_at < now() AND EXISTS (
        SELECT FROM mailstore.accounts a WHERE a.account_id = c.account_id AND a.deleted_at IS NOT NULL)
"""
_FORGET_LEFT = "DELETE FROM mailstore.left_packs WHERE left_at < $1"
_USES = f"""
    SELECT account_id, mailbox_id, uid, queue_id, {BLOB_COLUMNS} FROM mailstore.messages
    WHERE account_id = $1 AND pack = ANY($2::text[]) AND blob_length <= $3 ORDER BY mailbox_id, uid
"""  # noqa: S608 - only constants are put in
# The lease. By the clock and not by now(): the transaction may have waited for a lock.
_TAKE_LEASE = """
    INSERT INTO mailstore.compactions AS c (account_id, owner, expires_at)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (account_id) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
    WHERE c.expires_at <= clock_timestamp()
    RETURNING true
"""
_RENEW_LEASE = """
    UPDATE mailstore.compactions SET expires_at = clock_timestamp() + make_interval(secs => $3)
    WHERE account_id = $1 AND owner = $2 AND expires_at > clock_timestamp() RETURNING true
"""
_RELEASE = """
    UPDATE mailstore.compactions SET owner = '', expires_at = '-infinity' WHERE account_id = $1 AND owner = $2
"""
# The lock of the account excludes copies and deliveries; the locks of the mailboxes exclude changes of flags.
_LOCK_MAILBOXES = """
    SELECT mailbox_id FROM mailstore.mailboxes
    WHERE account_id = $1 AND mailbox_id = ANY (ARRAY(
        SELECT DISTINCT mailbox_id FROM mailstore.messages WHERE account_id = $1 AND pack = ANY($2::text[])))
    ORDER BY mailbox_id FOR NO KEY UPDATE
"""
# Each entry by the index of packs: `+ 0` keeps the planner from reading the account for each entry.
_RELOCATE = """
    UPDATE mailstore.messages m
    SET pack = r.pack, blob_offset = r.blob_offset, blob_length = r.blob_length, blob_size = r.blob_size,
        blob_compression = r.blob_compression, blob_encryption = r.blob_encryption
    FROM unnest(
        $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::smallint[],
        $9::smallint[]
    ) AS r (old_pack, old_offset, pack, blob_offset, blob_length, blob_size, blob_compression,
    blob_encryption) WHERE m.account_id + 0 = $1 AND m.pack = r.old_pack AND m.blob_offset = r.old_offset
"""
_LEFT = """
    INSERT INTO mailstore.left_packs (account_id, pack, left_at)
    SELECT $1, pack, clock_timestamp() FROM unnest($2::text[]) AS pack
    ON CONFLICT (account_id, pack) DO UPDATE SET left_at = excluded.left_at
"""
_LEFT_SINCE = "SELECT DISTINCT pack FROM mailstore.left_packs WHERE pack = ANY($1::text[]) AND left_at > $2"


class Compactions:
    """One per process. The `owner` of a lease is any new text."""

    __slots__ = ("_postgres",)

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def candidates(self, rule: CompactionRule, after: int, limit: int) -> list[CompactionCandidate]:
        """The next accounts after the id `after` that may have messages to move, at most `limit`, by id."""
        found = await self._postgres.fetch(
            "compaction_candidates", _CANDIDATES, after, limit, rule.text(), rule.saved_packs
        )
        return [
            CompactionCandidate(
                account_id=row["account_id"],
                stored=row["stored"],
                arrivals=row["arrivals"],
                known=_fragmentation(row) if row["known"] else None,
            )
            for row in found
        ]

    async def measure(
        self, rule: CompactionRule, before: str, candidates: Sequence[CompactionCandidate], *, record: bool
    ) -> list[Fragmentation]:
        """What compaction would move of each account from packs with ids below `before`; reads all their rows.
        With `record` the result is kept, for `candidates` and for the metrics of the backlog."""
        account_ids = [one.account_id for one in candidates]
        arguments = (*_chosen_arguments(account_ids, rule, before), rule.pack_bytes, rule.saved_packs)
        async with self._postgres.transaction("measure_compaction") as connection:
            await connection.execute(f"SET LOCAL statement_timeout = {int(_MEASURE_SECONDS * 1000)}")
            found = await connection.fetch(_MEASURE, *arguments, timeout=_MEASURE_SECONDS)
            if record:
                await _record(connection, rule, candidates, found)
        return [_fragmentation(row) for row in found]

    async def scattered_packs(self, rule: CompactionRule, before: str, account_id: int, limit: int) -> list[str]:
        """The packs from which the account's messages should move, the oldest first, at most `limit`."""
        arguments = (*_chosen_arguments([account_id], rule, before), limit)
        async with self._postgres.transaction("scattered_packs") as connection:
            await connection.execute(f"SET LOCAL statement_timeout = {int(_MEASURE_SECONDS * 1000)}")
            found = await connection.fetch(_PACKS, *arguments, timeout=_MEASURE_SECONDS)
        return [row["pack"] for row in found]

    async def uses(self, account_id: int, packs: Collection[str], message_bytes: int) -> list[BlobUse]:
        """The account's rows that refer to one of `packs`, by mailbox and UID; without larger messages."""
        found = await self._postgres.fetch("compaction_uses", _USES, account_id, list(packs), message_bytes)
        return [use for row in found if (use := blob_use(row)) is not None]

    async def take_lease(self, account_id: int, owner: str, ttl: float) -> bool:
        """Lease the account to `owner` for `ttl` seconds; False: another owner has the lease."""
        return bool(await self._postgres.fetchval("take_compaction", _TAKE_LEASE, account_id, owner, ttl))

    async def release_lease(self, account_id: int, owner: str) -> None:
        """End the lease; idempotent."""
        await self._postgres.execute("end_compaction", _RELEASE, account_id, owner)

    async def relocate(self, account_id: int, relocations: Sequence[Relocation], *, owner: str, ttl: float) -> int:
        """Point the account's rows of each `old` entry to `new`, all or none, and make the lease last `ttl`
        seconds from then; return how many rows. Other accounts' rows of the same entry stay.

        The content is the same, so neither mod_seq nor anything a client sees changes. No copy under way can
        keep an `old` reference. Raises CompactionLost when `owner` has no lease any more, NoSuchAccount.
        """
        if not relocations:
            return 0
        columns = zip(*(_columns(relocation) for relocation in relocations), strict=True)
        arrays = [list(column) for column in columns]
        old_packs = sorted(set(arrays[0]))

        async def work(connection: Connection) -> int:
            await lock_account(connection, account_id)
            if not await connection.fetchval(_RENEW_LEASE, account_id, owner, ttl):
                raise CompactionLost(str(account_id))
            await connection.fetch(_LOCK_MAILBOXES, account_id, old_packs)
            status: str = await connection.execute(_RELOCATE, account_id, *arrays)
            await connection.execute(_LEFT, account_id, old_packs)
            return int(status.rpartition(" ")[2])

        return await self._postgres.run("relocate", work)

    async def left_since(self, packs: Collection[str], since: datetime) -> set[str]:
        """Those of `packs` from which rows were moved after `since`: a reader may still use a reference to them."""
        return {row["pack"] for row in await self._postgres.fetch("left_packs", _LEFT_SINCE, list(packs), since)}

    async def forget(self, older_than: datetime) -> None:
        """Delete the records of deleted accounts, and of packs left before `older_than`."""
        await self._postgres.execute("forget_compactions", _FORGET)
        await self._postgres.execute("forget_left_packs", _FORGET_LEFT, older_than)


def _chosen_arguments(account_ids: Sequence[int], rule: CompactionRule, before: str) -> tuple[object, ...]:
    return account_ids, before, rule.message_bytes, rule.share_bytes, rule.floor_bytes


def _fragmentation(row: Record) -> Fragmentation:
    return Fragmentation(row["account_id"], row["packs"], row["messages"], row["octets"])


async def _record(
    connection: Connection, rule: CompactionRule, candidates: Sequence[CompactionCandidate], found: Sequence[Record]
) -> None:
    # The counts from before the measurement: messages that came meanwhile make the account a candidate again.
    before = {one.account_id: one for one in candidates}
    columns = [
        [row["account_id"] for row in found],
        [before[row["account_id"]].stored for row in found],
        [before[row["account_id"]].arrivals for row in found],
        *([row[name] for row in found] for name in ("settled", "packs", "messages", "octets")),
    ]
    await connection.execute(_RECORD, rule.text(), *columns)


def _columns(relocation: Relocation) -> tuple[object, ...]:
    return relocation.old.pack, relocation.old.offset, *blob_values(relocation.new)
