"""The outcome of each remote recipient, in the table `spool.outcomes`: the outcome of an attempt is recorded before its
job is acknowledged (invariant 3)."""

import datetime
import enum
from collections.abc import Collection, Sequence

from paquebot.runtime.postgres.migrations import Schema
from paquebot.runtime.postgres.pool import Connection, Postgres

SCHEMA = Schema("spool", "paquebot.spool")
"""For `paquebot.runtime.postgres.migrations.wait_for_version`."""


class RecipientOutcome(enum.IntEnum):
    """The final outcome of a recipient; a temporary failure is not one."""

    RELAYED = 1
    """The next host accepted it."""
    BOUNCED = 2
    """It failed permanently; its sender was notified where a DSN was due."""
    DROPPED = 3
    """An operator dropped it from the queue, or its failure notification could not be sent."""
    ASSUMED = 4
    """It was in no queue when outcomes and mailstore were lost: counts as relayed, so that nothing is relayed twice."""


Recipient = tuple[str, str]
"""(queue id, forward-path)."""

_DONE = "SELECT queue_id, forward_path FROM spool.outcomes WHERE queue_id = ANY($1::text[])"

_RECORD = """
INSERT INTO spool.outcomes (queue_id, forward_path, outcome)
SELECT * FROM unnest($1::text[], $2::text[], $3::smallint[])
ON CONFLICT DO NOTHING
"""

_FORGET = "DELETE FROM spool.outcomes WHERE at < $1"


async def finished_recipients(postgres: Postgres, queue_ids: Collection[str]) -> set[Recipient]:
    """Recipients of these messages that have an outcome. Raises PostgresUnavailable."""
    rows = await postgres.fetch("outcomes_done", _DONE, list(queue_ids))
    return {(row["queue_id"], row["forward_path"]) for row in rows}


async def record(postgres: Postgres, outcomes: Sequence[tuple[str, str, RecipientOutcome]]) -> None:
    """Record (queue id, forward-path, outcome) durably; an outcome recorded earlier stays.
    Raises PostgresUnavailable."""
    if not outcomes:
        return
    queue_ids, forward_paths, values = zip(*outcomes, strict=True)
    await postgres.execute(
        "outcomes_record", _RECORD, list(queue_ids), list(forward_paths), [int(value) for value in values]
    )


async def record_dropped(postgres: Postgres, recipients: Sequence[Recipient]) -> None:
    """Record that an operator dropped these recipients. Raises PostgresUnavailable."""
    await record(postgres, [(*recipient, RecipientOutcome.DROPPED) for recipient in recipients])


_NONE_KNOWN = "SELECT NOT EXISTS (SELECT FROM spool.outcomes)"


async def is_empty(postgres: Postgres) -> bool:
    """Whether there is no outcome at all: a platform that relayed has lost them. Raises PostgresUnavailable."""
    return bool(await postgres.fetchval("outcomes_none", _NONE_KNOWN))


async def delete_before(postgres: Postgres, before: datetime.datetime) -> int:
    """Delete rows older than `before`; returns how many. Raises PostgresUnavailable."""

    async def work(connection: Connection) -> int:
        status: str = await connection.execute(_FORGET, before)
        return int(status.rpartition(" ")[2])

    return await postgres.run("outcomes_forget", work)
