"""The accounts, packs and mailboxes that upkeep could not handle while it did the rest: kept from run to run, for a
metric and for the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paquebot.runtime.postgres.pool import Connection, Postgres

STAGES = ("sweep", "compaction", "snapshot")
"""The stages of a run of the janitor, in order."""
_MAX_KEPT = 1000
_MAX_LENGTH = 500  # characters, of a subject or a reason


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that a stage of upkeep passed over."""

    subject: str
    """Such as "account 7"."""
    reason: str


# Rows that stay keep the time at which they were seen first.
_REPLACE = """
    WITH over AS (
        DELETE FROM mailstore.upkeep_troubles WHERE stage = $1 AND NOT subject = ANY($2::text[])
    )
    INSERT INTO mailstore.upkeep_troubles (stage, subject, reason)
    SELECT $1, subject, reason FROM unnest($2::text[], $3::text[]) AS t (subject, reason)
    ON CONFLICT (stage, subject) DO UPDATE SET reason = excluded.reason
"""
_COUNT = "SELECT stage, count(*) AS count FROM mailstore.upkeep_troubles GROUP BY stage"


async def replace(postgres: Postgres, stage: str, troubles: Sequence[Trouble]) -> None:
    """Replace the troubles of the stage by those that its newest run found."""
    found = {_text(one.subject): _text(one.reason) for one in troubles[:_MAX_KEPT]}

    async def work(connection: Connection) -> None:
        await connection.execute(_REPLACE, stage, list(found), list(found.values()))

    await postgres.run("replace_troubles", work)


async def count(postgres: Postgres) -> Mapping[str, int]:
    """By stage; a stage without any is missing."""
    return {row["stage"]: row["count"] for row in await postgres.fetch("troubles", _COUNT)}


def _text(text: str) -> str:
    """The text in a form that PostgreSQL can keep."""
    return "".join(character if character.isprintable() else "?" for character in text[:_MAX_LENGTH])
