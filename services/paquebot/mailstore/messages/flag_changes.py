"""The statement that changes flags and keywords (RFC 3501 §6.4.6), conditional when asked (RFC 7162 §3.1.3)."""

from collections.abc import Sequence
from dataclasses import replace

from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.locks import LockedMailbox
from paquebot.mailstore.messages import keywords, rows
from paquebot.mailstore.messages.flags import FlagChange, FlagOp
from paquebot.mailstore.messages.types import StoreResult
from paquebot.runtime.postgres.pool import Connection

# Migration changes_in_one_call.
_STORE = """
    SELECT highest, uids, flags, mod_seqs, keyword_uids, keyword_lists, changed, modified
    FROM mailstore.store_flags($1, $2, $3, $4, $5, $6, $7, $8)
"""


async def change_flags(
    connection: Connection, account_id: int, mailbox_id: int, uids: Sequence[int], change: FlagChange
) -> StoreResult | None:
    """None: nothing was changed; the mailbox does not exist, or does not know a keyword in this spelling."""
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


async def spelled(
    connection: Connection, mailbox: LockedMailbox, change: FlagChange, limits: MailstoreLimits
) -> FlagChange:
    """The change with its keywords as the locked mailbox spells them. Raises TooManyKeywords."""
    if change.op is FlagOp.REMOVE:
        spellings = keywords.KeywordSpellings(mailbox.keywords)
    else:
        spellings = await keywords.add_keywords(connection, mailbox, change.keywords, limits)
    return replace(change, keywords=spellings(change.keywords))
