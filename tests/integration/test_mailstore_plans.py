"""The mailstore's statements on tables without statistics: a plan reads what its statement touches."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.mailstore_fixtures import PREFIX, new_message
from tests.support.plan_world import alone, fill, work_of

from paquebot.blobs import new_ulid
from paquebot.mailstore import CompactionCandidate, CompactionRule, Delivery, Flag, FlagOp, Mailstore, Relocation
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.snapshots import export as snapshots
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.ulid import ulid_at
from paquebot.v1.mail_pb2 import BlobRef

__all__ = ["alone"]  # a fixture

SENT = 3
SMALL = 500
SIZES = (SMALL, 4 * SMALL)
RULE = CompactionRule(saved_packs=4, pack_bytes=4000, message_bytes=100)
ALL = ulid_at(2**47)
LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)

# Per message of the mailbox that a step works on: rows of tables or entries of indexes, and blocks of both. Most steps
# change half of the messages and read few rows for each; compaction reads each of them a dozen times. Those called
# `..._one` name one message in fifty, so that even one look through the mailbox for each is too much.
MOST = 16
MOST_BLOCKS = 40
FEW = 300
"""What a step reads besides: mailboxes, accounts, the way down an index."""

Step = Callable[[Mailstore, Postgres, int, int], Awaitable[object]]
"""Of an account with so many messages; it touches each a bounded number of times."""


def half(count: int) -> list[int]:
    return list(range(1, count + 1, 2))


async def store(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.DELETED)


async def store_keyword(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, keywords=["$other"])


async def store_unchanged(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.SEEN, unchanged_since=count // 2)


async def store_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.store_flags(account, INBOX_ID, [uid], FlagOp.ADD, flags=Flag.DELETED)


async def copy_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.copy(account, INBOX_ID, [uid], SENT, quota_bytes=0)


async def move_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.move(account, INBOX_ID, [uid], SENT)


async def remove_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.remove(account, INBOX_ID, [uid])


async def fetch_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        assert [one.uid async for one in mail.messages(account, INBOX_ID, [uid], with_summary=False)] == [uid]
        assert [one.uid async for one in mail.messages(account, INBOX_ID, [uid], with_summary=True)] == [uid]
        assert len((await mail.search_rows(account, INBOX_ID, [uid])).uids) == 1


async def keep_size(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.keep_sizes(account, INBOX_ID, {uid: 101})


async def copy(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.copy(account, INBOX_ID, half(count), SENT, quota_bytes=0)


async def move(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.move(account, INBOX_ID, half(count), SENT)


async def expunge_some(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.DELETED)
    await mail.expunge(account, INBOX_ID, half(count))


async def expunge_all(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.DELETED)
    await mail.expunge(account, INBOX_ID)


async def remove(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.remove(account, INBOX_ID, half(count))


async def fetch(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    assert len([one async for one in mail.messages(account, INBOX_ID, half(count), with_summary=False)]) == count // 2


async def fetch_summaries(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    assert len([one async for one in mail.messages(account, INBOX_ID, half(count), with_summary=True)]) == count // 2


async def select(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    assert len((await mail.snapshot(account, INBOX_ID)).rows.uids) == count


async def resynchronise(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    """The last tenth, again and again: QRESYNC, and what IDLE and NOOP ask."""
    for _ in range(30):
        assert len((await mail.changes_since(account, INBOX_ID, count - count // 10)).rows.uids) >= count // 10


async def vanished(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    gone = await mail.remove(account, INBOX_ID, half(count))
    assert (await mail.changes_since(account, INBOX_ID, gone.mod_seq - 1)).expunged
    for _ in range(count // 20):
        await mail.changes_since(account, INBOX_ID, gone.mod_seq)


async def search(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.search_rows(account, INBOX_ID, half(count))


async def maildrop(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    drop = await mail.lock_maildrop(account, "session", 60.0)
    await mail.keep_sizes(account, INBOX_ID, {one.uid: 101 for one in drop.messages})
    await mail.close_maildrop(account, "session", INBOX_ID, half(count))


async def deliver(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    for _ in range(count // 50):
        await mail.deliver([Delivery(account, "", 0, new_message(prefix=PREFIX)) for _ in range(50)])


async def deliver_step_by_step(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    for _ in range(count // 50):
        await mail.deliver([Delivery(account, "lists", 0, new_message(prefix=PREFIX)) for _ in range(50)])


async def append(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    for _ in range(count // 50):
        await mail.append(account, INBOX_ID, [new_message() for _ in range(50)], quota_bytes=0)


async def rename_inbox(mail: Mailstore, _: Postgres, account: int, __: int) -> None:
    await mail.rename_mailbox(account, "INBOX", "Old")


async def delete_mailbox(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.create_mailbox(account, "Gone")
    gone = await mail.find_mailbox(account, "Gone")
    await mail.move(account, INBOX_ID, half(count), gone.mailbox_id)
    await mail.delete_mailbox(account, "Gone")


async def delete_account(mail: Mailstore, _: Postgres, account: int, __: int) -> None:
    await mail.delete_account(account)


async def compact(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    standing = CompactionCandidate(account, count, 0, None)
    await mail.measure_compaction(RULE, ALL, [standing], record=True)
    packs = await mail.scattered_packs(RULE, ALL, account, 1000)
    assert packs
    uses = await mail.compaction_uses(account, packs, 100)
    assert await mail.take_compaction(account, "janitor", 60.0)
    moves = [Relocation(use.blob, BlobRef(pack=new_ulid(), length=50, size=100)) for use in uses]
    assert await mail.relocate(account, moves, owner="janitor", ttl=60.0) == len(uses)
    await mail.left_since(packs, datetime.datetime.now(datetime.UTC))


async def sweep(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    uses = [use async for use in mail.blobs(account, account)]
    packs = {use.blob.pack for use in uses}
    assert len(await mail.live_packs(packs)) == len(packs)
    assert len([use async for use in mail.blobs_of_packs(packs)]) == count


async def export(_: Mailstore, postgres: Postgres, account: int, count: int) -> None:
    async with snapshots.export(postgres, account, 0, 60.0) as exported:
        assert sum([len(page) async for page in exported.messages(500)]) == count
        assert [page async for page in exported.delivered(500)] == []


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(store_one, copy_one, move_one, remove_one, fetch_one, keep_size),
        *(store, store_keyword, store_unchanged, copy, move, expunge_some, expunge_all, remove, fetch, fetch_summaries),
        *(select, resynchronise, vanished, search, maildrop, deliver, deliver_step_by_step, append, rename_inbox),
        *(delete_mailbox, delete_account, compact, sweep, export),
    )
}


def visited(plan: dict[str, Any]) -> float:
    """Rows that the nodes of a plan made, and pairs that its joins compared in vain."""
    own = (plan["Actual Rows"] + plan.get("Rows Removed by Join Filter", 0)) * plan["Actual Loops"]
    return float(own) + sum(visited(part) for part in plan.get("Plans", ()))


async def test_records_of_deliveries_are_not_compared_each_with_each(alone: Postgres) -> None:
    async with alone.connection("test") as connection:
        await connection.execute(f"PREPARE delivered AS {snapshots._DELIVERED}")
        await connection.fetch("EXECUTE delivered(1)")
    await fill(alone, 1, 2000)
    found = await alone.fetchval("test", "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE delivered(1)")
    assert visited(json.loads(found)[0]["Plan"]) < MOST * 2000


@pytest.mark.parametrize("planned", ["empty", "full"])
async def test_the_work_of_a_statement_follows_what_it_touches(alone: Postgres, planned: str) -> None:
    mail = Mailstore(alone)
    if planned == "empty":
        for account, step in enumerate(STEPS.values(), start=1):
            await fill(alone, account, 40)
            await step(mail, alone, account, 40)
    cases = [(name, count) for name in STEPS for count in SIZES]
    for account, (_, count) in enumerate(cases, start=1000):
        await fill(alone, account, count)
    too_much = []
    for account, (name, count) in enumerate(cases, start=1000):
        work = await work_of(alone, functools.partial(STEPS[name], mail, alone, account, count))
        if max(work.rows, work.entries) > MOST * count + FEW or work.blocks > MOST_BLOCKS * count + FEW:
            too_much.append(f"{name}, {count} messages: {work}")
    assert too_much == []
    assert await mail.check() == []
