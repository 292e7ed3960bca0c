"""Changes of flags and keywords (RFC 3501 §6.4.6), conditional when asked (RFC 7162 §3.1.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paquebot.mailstore import rows
from paquebot.mailstore.locks import LockedMailbox, lock_mailbox
from paquebot.mailstore.messages import keywords
from paquebot.mailstore.types import Flag, FlagOp, MailstoreLimits, StoreResult
from paquebot.runtime.postgres.pool import Connection, Postgres


@dataclass(frozen=True, slots=True)
class FlagChange:
    op: FlagOp
    flags: Flag
    keywords: tuple[str, ...]
    unchanged_since: int | None

    def masks(self) -> tuple[int, int]:
        """The system flags that stay as they are, and those that are there afterwards."""
        match self.op:
            case FlagOp.ADD:
                return rows.ALL_FLAGS, int(self.flags)
            case FlagOp.REMOVE:
                return rows.ALL_FLAGS & ~int(self.flags), 0
            case FlagOp.REPLACE:
                return 0, int(self.flags)


# Migration changes_in_one_call.
_STORE = """
    SELECT highest, uids, flags, mod_seqs, keyword_uids, keyword_lists, changed, modified
    FROM mailstore.store_flags($1, $2, $3, $4, $5, $6, $7, $8)
"""


async def store_flags(
    postgres: Postgres,
    limits: MailstoreLimits,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    change: FlagChange,
) -> StoreResult:
    async def at_once(connection: Connection) -> StoreResult | None:
        return await _changed(connection, account_id, mailbox_id, uids, change)

    async def step_by_step(connection: Connection) -> StoreResult | None:
        mailbox = await lock_mailbox(connection, account_id, mailbox_id)
        spelled = await _spelled(connection, mailbox, change, limits)
        return await _changed(connection, account_id, mailbox_id, uids, spelled)

    result = await postgres.run_statement("store_flags", at_once) or await postgres.run("store_flags", step_by_step)
    assert result is not None  # every keyword is spelled as the locked mailbox knows it
    return result


async def _changed(
    connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int], change: FlagChange
) -> StoreResult | None:
    """None: not done; the mailbox is not there, or spells a keyword in another way or not yet."""
    row = await connection.fetchrow(
        _STORE,
        *(account_id, mailbox_id, uids, *change.masks(), change.op.name, change.keywords, change.unchanged_since),
    )
    if row is None:
        return None
    return StoreResult(
        rows=rows.flag_rows(row, account_id, mailbox_id),
        changed=tuple(row["changed"] or ()),
        modified=tuple(row["modified"] or ()),
        mod_seq=row["highest"],
    )


async def _spelled(
    connection: Connection, mailbox: LockedMailbox, change: FlagChange, limits: MailstoreLimits
) -> FlagChange:
    if change.op is FlagOp.REMOVE:
        spelling = keywords.Spelling(mailbox.keywords)
    else:
        spelling = await keywords.spell(connection, mailbox, change.keywords, limits)
    return replace(change, keywords=spelling(change.keywords))
