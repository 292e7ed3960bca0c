"""Many writers on few accounts: no deadlock, no lost update, no UID assigned twice, and all invariants hold."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from typing import TypeVar

import pytest

from paquebot.mailstore import DeliveryResult, Flag, FlagOp
from paquebot.mailstore.errors import MailboxError
from paquebot.mailstore.locks import lock_mailbox
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.postgres.migrations import migrate
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import Secret
from tests.support.mailstore_fixtures import delivery, new_message
from tests.support.mailstores import Mailstore

T = TypeVar("T")
ACCOUNTS = range(1, 5)
SENT = 3


@pytest.fixture
async def many(database: str) -> AsyncIterator[Postgres]:
    """A pool with a connection for each writer."""
    await migrate(database)
    postgres = await open_postgres(PostgresSettings(dsn=Secret(database), pool_size=12), "tests")
    yield postgres
    await postgres.close()


async def act(mailstore: Mailstore, chance: random.Random) -> None:
    """One random change."""
    account_id = chance.choice(ACCOUNTS)
    source, target = chance.sample((INBOX_ID, SENT), 2)
    uids = sorted(chance.sample(range(1, 60), 6))
    match chance.randrange(8):
        case 0 | 1 | 2:
            accounts = chance.sample(ACCOUNTS, 3)
            await mailstore.deliveries.deliver([delivery(one) for one in accounts for _ in range(3)])
        case 3:
            await mailstore.messages.copy(account_id, source, uids, target, quota_bytes=0)
        case 4:
            await mailstore.messages.move(account_id, source, uids, target)
        case 5:
            flag = chance.choice(list(Flag))
            op = chance.choice(list(FlagOp))
            keywords = chance.choice(([], ["x"]))
            await mailstore.messages.store_flags(account_id, source, uids, op, flags=flag, keywords=keywords)
        case 6:
            await mailstore.messages.expunge(account_id, source, uids)
        case _:
            await mailstore.messages.append(account_id, target, [new_message(), new_message()], quota_bytes=0)


async def test_writers_of_all_kinds(many: Postgres) -> None:
    mailstore = Mailstore.of(many)
    for account_id in ACCOUNTS:
        await mailstore.accounts.ensure(account_id)

    async def writer(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(25):
            await act(mailstore, chance)

    await asyncio.gather(*(writer(seed) for seed in range(8)))
    assert await mailstore.broken_invariants() == []
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await many.fetchval("test", deadlocks) == 0


async def test_uids_are_assigned_once(many: Postgres) -> None:
    mailstore = Mailstore.of(many)
    batches = [[delivery(1), delivery(2), delivery(1)] for _ in range(30)]
    answers = await asyncio.gather(*(mailstore.deliveries.deliver(batch) for batch in batches))
    uids = [outcome.uid for outcomes in answers for outcome in (outcomes[0], outcomes[2])]
    assert sorted(uids) == list(range(1, 61))
    mod_seqs = {outcomes[0].mod_seq for outcomes in answers}
    assert len(mod_seqs) == 30
    assert await mailstore.broken_invariants() == []


async def test_the_same_job_in_many_processes(many: Postgres) -> None:
    mailstore = Mailstore.of(many)
    job = [delivery(account_id) for account_id in ACCOUNTS]
    answers = await asyncio.gather(*(mailstore.deliveries.deliver(job) for _ in range(10)))
    for place in range(len(job)):
        results = [outcomes[place].result for outcomes in answers]
        assert results.count(DeliveryResult.DELIVERED) == 1
        assert results.count(DeliveryResult.DUPLICATE) == 9
    assert await mailstore.broken_invariants() == []


async def test_an_account_is_made_once(many: Postgres) -> None:
    stores = [Mailstore.of(many) for _ in range(8)]
    await asyncio.gather(*(store.accounts.ensure(1) for store in stores), stores[0].deliveries.deliver([delivery(1)]))
    assert len(await stores[0].mailboxes.list_all(1)) == 6
    assert await stores[0].broken_invariants() == []


async def test_the_tree_changes_under_deliveries(many: Postgres) -> None:
    """Mailboxes are created and deleted while messages arrive: each message exists, or was deleted with its mailbox."""
    mailstore = Mailstore.of(many)
    await mailstore.accounts.ensure(1)

    async def gardener(number: int) -> None:
        chance = random.Random(number)
        for _ in range(12):
            with contextlib.suppress(MailboxError):  # another change came first
                match chance.randrange(3):
                    case 0:
                        await mailstore.mailboxes.create(1, chance.choice(("lists", "lists/a", "old")))
                    case 1:
                        await mailstore.mailboxes.rename(1, chance.choice(("lists", "old", "INBOX")), "old")
                    case _:
                        await mailstore.mailboxes.delete(1, chance.choice(("lists", "old", "lists/a")))

    async def sender() -> None:
        for _ in range(15):
            outcomes = await mailstore.deliveries.deliver([delivery(1, detail="lists"), delivery(1)])
            assert all(outcome.result is DeliveryResult.DELIVERED for outcome in outcomes)

    await asyncio.gather(gardener(1), gardener(2), sender(), sender())
    assert await mailstore.broken_invariants() == []


_FLAG_AND_DELETE_SECOND = """
    WITH box AS (
        UPDATE mailstore.mailboxes SET highest_mod_seq = highest_mod_seq + 1, deleted = deleted + 1
        WHERE account_id = 1 AND mailbox_id = 1 RETURNING highest_mod_seq
    )
    UPDATE mailstore.messages SET flags = 12, mod_seq = box.highest_mod_seq FROM box WHERE account_id = 1 AND uid = 2
"""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def while_another_changes(postgres: Postgres, act: Coroutine[None, None, T]) -> T:
    """Run `act` on INBOX while it waits for another transaction, which flags and deletes message 2."""
    async with postgres.transaction("test") as connection:
        await lock_mailbox(connection, 1, INBOX_ID)
        task = asyncio.create_task(act)
        async with asyncio.timeout(10):
            while not await postgres.fetchval("test", _WAITING):
                assert not task.done()
        await connection.execute(_FLAG_AND_DELETE_SECOND)
    return await task


async def test_a_change_that_waited_for_a_lock_sees_the_other_change(many: Postgres) -> None:
    """STORE and EXPUNGE are one statement only while no other transaction changes the mailbox."""
    mailstore = Mailstore.of(many)
    await mailstore.accounts.ensure(1)
    await mailstore.messages.append(1, INBOX_ID, [new_message(), new_message(), new_message()], quota_bytes=0)
    before = (await mailstore.mailboxes.find(1, "INBOX")).highest_mod_seq
    storing = mailstore.messages.store_flags(1, INBOX_ID, [1, 2], FlagOp.ADD, flags=Flag.SEEN)
    stored = await while_another_changes(many, storing)
    assert list(map(Flag, stored.rows.flags)) == [Flag.SEEN, Flag.SEEN | Flag.FLAGGED | Flag.DELETED]
    assert (list(stored.changed), stored.mod_seq) == ([1, 2], before + 2)

    await mailstore.messages.store_flags(1, INBOX_ID, [1, 2], FlagOp.REPLACE)
    await mailstore.messages.store_flags(1, INBOX_ID, [3], FlagOp.ADD, flags=Flag.DELETED)
    expunged = await while_another_changes(many, mailstore.messages.expunge(1, INBOX_ID))
    assert (list(expunged.uids), expunged.mod_seq) == ([2, 3], before + 6)
    assert await mailstore.broken_invariants() == []


_KEEP_SIZE = "UPDATE mailstore.messages SET crlf_size = 101 WHERE account_id = 1 AND uid = 2"


@pytest.mark.parametrize("change", ["store", "remove", "move"])
async def test_a_change_beside_one_without_the_lock(mailstore: Mailstore, migrated: Postgres, change: str) -> None:
    """POP3 records the sizes of messages without the mailbox's lock: neither change is lost."""
    await mailstore.accounts.ensure(1)
    await mailstore.messages.append(1, INBOX_ID, [new_message() for _ in range(3)], quota_bytes=0)
    changes: dict[str, Coroutine[None, None, object]] = {
        "store": mailstore.messages.store_flags(1, INBOX_ID, [1, 2, 3], FlagOp.ADD, flags=Flag.FLAGGED),
        "remove": mailstore.messages.remove(1, INBOX_ID, [1, 2, 3]),
        "move": mailstore.messages.move(1, INBOX_ID, [1, 2, 3], 3),
    }
    async with migrated.transaction("test") as connection:
        await connection.execute(_KEEP_SIZE)
        task = asyncio.create_task(changes.pop(change))
        async with asyncio.timeout(10):
            while not await migrated.fetchval("test", _WAITING):
                assert not task.done()
    for other in changes.values():
        other.close()
    await task
    found = [tuple(row) for row in await migrated.fetch("test", "SELECT mailbox_id, flags FROM mailstore.messages")]
    assert found == {"store": [(1, 4)] * 3, "remove": [], "move": [(3, 0)] * 3}[change]
    if found:
        assert await migrated.fetchval("test", "SELECT sum(crlf_size) FROM mailstore.messages") == 101
