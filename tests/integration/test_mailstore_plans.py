"""The mailstore's statements on tables without statistics: a plan reads only rows that its statement needs."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from paquebot.blobs import new_ulid
from paquebot.mailstore import CompactionCandidate, CompactionRule, Delivery, Flag, FlagOp, Relocation
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.snapshots import export as account_export
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.ulid import ulid_at
from paquebot.v1.mail_pb2 import BlobRef
from tests.support.mailstore_fixtures import PREFIX, new_message
from tests.support.mailstores import Mailstore
from tests.support.plan_world import alone, fill, work_of

__all__ = ["alone"]  # a fixture

SENT = 3
SMALL = 500
SIZES = (SMALL, 4 * SMALL)
RULE = CompactionRule(saved_packs=4, pack_bytes=4000, message_bytes=100)
ALL = ulid_at(2**47)
LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)

# Per message of the mailbox that a step works on: rows of tables or entries of indexes, and blocks of both. Most steps
# change half of the messages and read few rows for each; compaction reads each of them a dozen times. Those called
# `..._one` name one message in fifty, so one read of the mailbox for each would exceed the limit.
MOST = 16
MOST_BLOCKS = 40
FEW = 300
"""Other reads of a step: mailboxes, accounts, the upper pages of an index."""

Step = Callable[[Mailstore, Postgres, int, int], Awaitable[object]]
"""A step for an account with `count` messages; it reads each a bounded number of times."""


def half(count: int) -> list[int]:
    return list(range(1, count + 1, 2))


async def store(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.DELETED)


async def store_keyword(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, keywords=["$other"])


async def store_unchanged(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.store_flags(
        account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.SEEN, unchanged_since=count // 2
    )


async def store_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.messages.store_flags(account, INBOX_ID, [uid], FlagOp.ADD, flags=Flag.DELETED)


async def copy_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.messages.copy(account, INBOX_ID, [uid], SENT, quota_bytes=0)


async def move_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.messages.move(account, INBOX_ID, [uid], SENT)


async def remove_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.messages.remove(account, INBOX_ID, [uid])


async def fetch_one(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        assert [
            one.uid async for one in mail.mailbox_reader.messages(account, INBOX_ID, [uid], with_summary=False)
        ] == [uid]
        assert [one.uid async for one in mail.mailbox_reader.messages(account, INBOX_ID, [uid], with_summary=True)] == [
            uid
        ]
        assert len((await mail.mailbox_reader.search_rows(account, INBOX_ID, [uid])).uids) == 1


async def keep_size(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    for uid in range(1, count, 50):
        await mail.maildrops.keep_sizes(account, INBOX_ID, {uid: 101})


async def copy(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.copy(account, INBOX_ID, half(count), SENT, quota_bytes=0)


async def move(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.move(account, INBOX_ID, half(count), SENT)


async def expunge_some(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.DELETED)
    await mail.messages.expunge(account, INBOX_ID, half(count))


async def expunge_all(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.store_flags(account, INBOX_ID, half(count), FlagOp.ADD, flags=Flag.DELETED)
    await mail.messages.expunge(account, INBOX_ID)


async def remove(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.messages.remove(account, INBOX_ID, half(count))


async def fetch(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    assert (
        len([one async for one in mail.mailbox_reader.messages(account, INBOX_ID, half(count), with_summary=False)])
        == count // 2
    )


async def fetch_summaries(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    assert (
        len([one async for one in mail.mailbox_reader.messages(account, INBOX_ID, half(count), with_summary=True)])
        == count // 2
    )


async def select(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    assert len((await mail.mailbox_reader.state(account, INBOX_ID)).rows.uids) == count


async def resynchronise(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    """Read the last tenth repeatedly: QRESYNC, and the queries of IDLE and NOOP."""
    for __ in range(30):
        changes = await mail.mailbox_reader.changes_since(account, INBOX_ID, count - count // 10)
        assert len(changes.rows.uids) >= count // 10


async def vanished(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    gone = await mail.messages.remove(account, INBOX_ID, half(count))
    assert (await mail.mailbox_reader.changes_since(account, INBOX_ID, gone.mod_seq - 1)).expunged
    for __ in range(count // 20):
        await mail.mailbox_reader.changes_since(account, INBOX_ID, gone.mod_seq)


async def search(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.mailbox_reader.search_rows(account, INBOX_ID, half(count))


async def maildrop(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    drop = await mail.maildrops.lock(account, "session", 60.0)
    await mail.maildrops.keep_sizes(account, INBOX_ID, {one.uid: 101 for one in drop.messages})
    await mail.maildrops.close(account, "session", INBOX_ID, half(count))


async def deliver(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    for __ in range(count // 50):
        await mail.deliveries.deliver([Delivery(account, "", 0, new_message(prefix=PREFIX)) for __ in range(50)])


async def deliver_step_by_step(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    for __ in range(count // 50):
        await mail.deliveries.deliver([Delivery(account, "lists", 0, new_message(prefix=PREFIX)) for __ in range(50)])


async def append(mail: Mailstore, _postgres: Postgres, account: int, count: int) -> None:
    for __ in range(count // 50):
        await mail.messages.append(account, INBOX_ID, [new_message() for __ in range(50)], quota_bytes=0)


async def rename_inbox(mail: Mailstore, _: Postgres, account: int, __: int) -> None:
    await mail.mailboxes.rename(account, "INBOX", "Old")


async def delete_mailbox(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    await mail.mailboxes.create(account, "Gone")
    gone = await mail.mailboxes.find(account, "Gone")
    await mail.messages.move(account, INBOX_ID, half(count), gone.mailbox_id)
    await mail.mailboxes.delete(account, "Gone")


async def delete_account(mail: Mailstore, _: Postgres, account: int, __: int) -> None:
    await mail.accounts.delete(account)


async def compact(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    standing = CompactionCandidate(account, count, 0, None)
    await mail.compactions.measure(RULE, ALL, [standing], record=True)
    packs = await mail.compactions.scattered_packs(RULE, ALL, account, 1000)
    assert packs
    uses = await mail.compactions.uses(account, packs, 100)
    assert await mail.compactions.take_lease(account, "janitor", 60.0)
    moves = [Relocation(use.blob, BlobRef(pack=new_ulid(), length=50, size=100)) for use in uses]
    assert await mail.compactions.relocate(account, moves, owner="janitor", ttl=60.0) == len(uses)
    await mail.compactions.left_since(packs, datetime.datetime.now(datetime.UTC))


async def sweep(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    uses = [use async for use in mail.pack_uses.of_accounts(account, account)]
    packs = {use.blob.pack for use in uses}
    assert len(await mail.pack_uses.liveness(packs)) == len(packs)
    assert len([use async for use in mail.pack_uses.of_packs(packs)]) == count


async def export(mail: Mailstore, _: Postgres, account: int, count: int) -> None:
    async with mail.snapshots.export(account, 0, 60.0) as exported:
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
    """Rows that the nodes of a plan made, and pairs that its joins compared without a match."""
    own = (plan["Actual Rows"] + plan.get("Rows Removed by Join Filter", 0)) * plan["Actual Loops"]
    return float(own) + sum(visited(part) for part in plan.get("Plans", ()))


async def test_records_of_deliveries_are_not_compared_each_with_each(alone: Postgres) -> None:
    async with alone.connection("test") as connection:
        await connection.execute(f"PREPARE delivered AS {account_export._DELIVERED}")
        await connection.fetch("EXECUTE delivered(1)")
    await fill(alone, 1, 2000)
    found = await alone.fetchval("test", "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE delivered(1)")
    assert visited(json.loads(found)[0]["Plan"]) < MOST * 2000


@pytest.mark.parametrize("planned", ["empty", "full"])
async def test_the_work_of_a_statement_grows_with_its_own_rows(alone: Postgres, planned: str) -> None:
    mail = Mailstore.of(alone)
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
    assert await mail.broken_invariants() == []
