"""Changes of flags and keywords (RFC 3501 §6.4.6), conditional when asked (RFC 7162 §3.1.3)."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from paquebot.mailstore import keywords, rows
from paquebot.mailstore.locks import LockedMailbox, lock_mailbox
from paquebot.mailstore.types import Flag, FlagOp, FlagRows, Limits, StoreResult
from paquebot.runtime.postgres import Connection, Postgres


@dataclass(frozen=True, slots=True)
class FlagChange:
    op: FlagOp
    flags: Flag
    keywords: tuple[str, ...]
    unchanged_since: int | None

    def apply_flags(self, flags: int) -> int:
        match self.op:
            case FlagOp.ADD:
                return flags | int(self.flags)
            case FlagOp.REMOVE:
                return flags & ~int(self.flags)
            case FlagOp.REPLACE:
                return int(self.flags)

    def apply_keywords(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """`words` and the change's keywords are in the mailbox's spelling."""
        match self.op:
            case FlagOp.ADD:
                return tuple(dict.fromkeys((*words, *self.keywords)))
            case FlagOp.REMOVE:
                return tuple(word for word in words if word not in self.keywords)
            case FlagOp.REPLACE:
                return self.keywords


@dataclass(slots=True)
class _Outcome:
    """Gathered while the rows are gone through."""

    uids: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    mod_seqs: list[int] = field(default_factory=list)
    keywords: dict[int, tuple[str, ...]] = field(default_factory=dict)
    modified: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    changed_flags: list[int] = field(default_factory=list)
    unseen: int = 0
    deleted: int = 0


_READ = f"""
    SELECT {rows.FLAG_COLUMNS} FROM mailstore.messages
    WHERE account_id = $1 AND mailbox_id = $2 AND uid = ANY($3::bigint[])
"""  # noqa: S608 - only constants are put in
_WRITE = """
    WITH box AS (
        UPDATE mailstore.mailboxes
        SET highest_mod_seq = $3, unseen = unseen + $4, deleted = deleted + $5
        WHERE account_id = $1 AND mailbox_id = $2
    )
    UPDATE mailstore.messages m
    SET mod_seq = $3, flags = c.flags,
        keywords = CASE c.keywords WHEN '' THEN '{}' ELSE string_to_array(c.keywords, ' ') END
    FROM unnest($6::bigint[], $7::smallint[], $8::text[]) AS c (uid, flags, keywords)
    WHERE m.account_id = $1 AND m.mailbox_id = $2 AND m.uid = c.uid
"""


# Nearly always nobody else changes the mailbox at the same time. Then its row, locked, is as the statement's snapshot
# has it, and so are its messages: one statement reads and writes. Else `box` is empty and nothing is done.
_AT_ONCE = """
    WITH seen AS MATERIALIZED (
        SELECT highest_mod_seq FROM mailstore.mailboxes WHERE account_id = $1 AND mailbox_id = $2
    ), locked AS MATERIALIZED (
        SELECT highest_mod_seq FROM mailstore.mailboxes WHERE account_id = $1 AND mailbox_id = $2 FOR NO KEY UPDATE
    ), box AS MATERIALIZED (
        SELECT highest_mod_seq + 1 AS mod_seq FROM locked JOIN seen USING (highest_mod_seq)
    ), named AS MATERIALIZED (
        SELECT m.uid, m.mod_seq, m.keywords, m.flags AS old_flags, m.flags & $4::smallint | $5::smallint AS flags,
               $6::bigint IS NULL OR m.mod_seq <= $6 AS may_change
        FROM box CROSS JOIN mailstore.messages m
        WHERE m.account_id = $1 AND m.mailbox_id = $2 AND m.uid = ANY($3::bigint[])
    ), changed AS MATERIALIZED (
        SELECT * FROM named WHERE may_change AND (flags <> old_flags OR $7::boolean AND keywords <> '{}')
    ), written AS (
        UPDATE mailstore.messages m
        SET mod_seq = box.mod_seq, flags = c.flags, keywords = CASE WHEN $7 THEN '{}' ELSE m.keywords END
        FROM changed c CROSS JOIN box
        WHERE m.account_id = $1 AND m.mailbox_id = $2 AND m.uid = c.uid
    ), total AS (
        SELECT count(*) AS messages,
               count(*) FILTER (WHERE flags & 1 = 0) - count(*) FILTER (WHERE old_flags & 1 = 0) AS unseen,
               count(*) FILTER (WHERE flags & 8 <> 0) - count(*) FILTER (WHERE old_flags & 8 <> 0) AS deleted
        FROM changed
    ), counted AS (
        UPDATE mailstore.mailboxes b
        SET highest_mod_seq = box.mod_seq, unseen = b.unseen + total.unseen, deleted = b.deleted + total.deleted
        FROM box CROSS JOIN total
        WHERE b.account_id = $1 AND b.mailbox_id = $2 AND total.messages > 0
    )
    SELECT box.mod_seq, n.*, (SELECT array_agg(uid ORDER BY uid) FROM changed) AS changed,
           (SELECT array_agg(uid ORDER BY uid) FROM named WHERE NOT may_change) AS modified
    FROM box CROSS JOIN LATERAL (SELECT {columns} FROM named WHERE may_change) n
""".replace("{columns}", rows.FLAG_COLUMNS)
_ALL_FLAGS = sum(Flag)


async def store_flags(
    postgres: Postgres,
    limits: Limits,
    account_id: int,
    mailbox_id: int,
    uids: Sequence[int],
    change: FlagChange,
) -> StoreResult:
    async def work(connection: Connection) -> StoreResult:
        mailbox = await lock_mailbox(connection, account_id, mailbox_id)
        spelled = await _spelled(connection, mailbox, change, limits)
        before = rows.flag_rows(await connection.fetchrow(_READ, account_id, mailbox_id, uids))
        mod_seq = mailbox.highest_mod_seq + 1
        outcome = _apply(before, spelled, mod_seq)
        if outcome.changed:
            await _write(connection, mailbox, outcome, mod_seq)
        return _result(outcome, mod_seq if outcome.changed else mailbox.highest_mod_seq)

    at_once = None if change.keywords else await _at_once(postgres, account_id, mailbox_id, uids, change)
    return at_once if at_once is not None else await postgres.run("store_flags", work)


async def _at_once(
    postgres: Postgres, account_id: int, mailbox_id: int, uids: Sequence[int], change: FlagChange
) -> StoreResult | None:
    """A change without keywords; None: not done, because the mailbox is not there or changes just now."""
    clears = change.op is FlagOp.REPLACE
    keep, add = change.apply_flags(_ALL_FLAGS) & ~change.apply_flags(0), change.apply_flags(0)
    row = await postgres.fetchrow(
        "store_flags", _AT_ONCE, account_id, mailbox_id, uids, keep, add, change.unchanged_since, clears
    )
    if row is None:
        return None
    found = rows.flag_rows(row)
    changed = row["changed"] or ()
    mod_seqs = dict(zip(found.uids, found.mod_seqs, strict=True)) | dict.fromkeys(changed, row["mod_seq"])
    return StoreResult(
        rows=FlagRows(found.uids, found.flags, array("Q", mod_seqs.values()), {} if clears else found.keywords),
        changed=tuple(changed),
        modified=tuple(row["modified"] or ()),
        mod_seq=row["mod_seq"] if changed else row["mod_seq"] - 1,
    )


async def _spelled(connection: Connection, mailbox: LockedMailbox, change: FlagChange, limits: Limits) -> FlagChange:
    if change.op is FlagOp.REMOVE:
        spelling = keywords.Spelling(mailbox.keywords)
    else:
        spelling = await keywords.spell(connection, mailbox, change.keywords, limits)
    return FlagChange(change.op, change.flags, spelling(change.keywords), change.unchanged_since)


def _apply(before: FlagRows, change: FlagChange, mod_seq: int) -> _Outcome:
    outcome = _Outcome()
    for uid, old_flags, old_mod_seq in zip(before.uids, before.flags, before.mod_seqs, strict=True):
        if change.unchanged_since is not None and old_mod_seq > change.unchanged_since:
            outcome.modified.append(uid)
            continue
        old_words = before.keywords.get(uid, ())
        flags = change.apply_flags(old_flags)
        words = change.apply_keywords(old_words) if old_words or change.keywords else ()
        if words:
            outcome.keywords[uid] = words
        outcome.uids.append(uid)
        outcome.flags.append(flags)
        if flags == old_flags and set(words) == set(old_words):
            outcome.mod_seqs.append(old_mod_seq)
            continue
        outcome.mod_seqs.append(mod_seq)
        outcome.changed.append(uid)
        outcome.changed_flags.append(flags)
        outcome.unseen += (old_flags & Flag.SEEN != 0) - (flags & Flag.SEEN != 0)
        outcome.deleted += (flags & Flag.DELETED != 0) - (old_flags & Flag.DELETED != 0)
    return outcome


async def _write(connection: Connection, mailbox: LockedMailbox, outcome: _Outcome, mod_seq: int) -> None:
    await connection.execute(
        _WRITE,
        mailbox.account_id,
        mailbox.mailbox_id,
        mod_seq,
        outcome.unseen,
        outcome.deleted,
        outcome.changed,
        outcome.changed_flags,
        [" ".join(outcome.keywords.get(uid, ())) for uid in outcome.changed],
    )


def _result(outcome: _Outcome, mod_seq: int) -> StoreResult:
    return StoreResult(
        rows=FlagRows(array("I", outcome.uids), bytes(outcome.flags), array("Q", outcome.mod_seqs), outcome.keywords),
        changed=tuple(outcome.changed),
        modified=tuple(outcome.modified),
        mod_seq=mod_seq,
    )
