"""Compaction in the mailstore: the lease, the rows that the janitor moves, and the choice of those rows."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from paquebot.blobs import new_ulid
from paquebot.mailstore import CompactionCandidate, CompactionRule, Flag, FlagOp, Fragmentation, Relocation
from paquebot.mailstore.errors import CompactionLost
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.upkeep import figures
from paquebot.runtime.postgres.pool import Postgres
from paquebot.runtime.ulid import ulid_at
from paquebot.v1.mail_pb2 import BlobRef
from tests.support.counted import value
from tests.support.mailstore_fixtures import new_message
from tests.support.mailstores import Mailstore

A, B = 1, 2
SENT = 3
TTL = 60.0
ALL = ulid_at(2**47)
"""A pack id that is newer than every pack."""
RULE = CompactionRule(saved_packs=4, pack_bytes=1000, message_bytes=100)


def elsewhere(old: BlobRef, *, offset: int = 0) -> Relocation:
    return Relocation(old, BlobRef(pack=new_ulid(), offset=offset, length=old.length, size=old.size))


async def refs(mailstore: Mailstore, account_id: int) -> list[BlobRef]:
    return [use.blob async for use in mailstore.pack_uses.of_accounts(account_id, account_id)]


async def test_relocation_moves_the_references_of_one_account(mailstore: Mailstore) -> None:
    message = new_message(size=100)
    for account in (A, B):
        await mailstore.accounts.ensure(account)
        await mailstore.messages.append(
            account, INBOX_ID, [message, new_message(pack=message.blob.pack, size=7)], quota_bytes=0
        )
    before = await mailstore.mailbox_reader.state(A, INBOX_ID)
    to = elsewhere(message.blob, offset=5)
    assert await mailstore.compactions.take_lease(A, "me", TTL)
    copies = asyncio.gather(
        *(mailstore.messages.copy(A, INBOX_ID, [1], SENT, quota_bytes=0) for _ in range(8)),
        mailstore.messages.store_flags(A, INBOX_ID, [2], FlagOp.ADD, flags=Flag.SEEN),
    )
    await mailstore.compactions.relocate(A, [to], owner="me", ttl=TTL)
    await copies
    assert [ref.offset for ref in await refs(mailstore, A) if ref.pack == message.blob.pack] == [7]  # the other entry
    assert (await mailstore.pack_uses.liveness([to.new.pack]))[to.new.pack].rows == 9
    assert (await mailstore.mailbox_reader.state(A, INBOX_ID)).rows.mod_seqs[0] == before.rows.mod_seqs[0]
    assert [ref.pack for ref in await refs(mailstore, B)] == [message.blob.pack] * 2
    now = datetime.datetime.now(datetime.UTC)
    packs = [message.blob.pack, to.new.pack]
    assert await mailstore.compactions.left_since(packs, now - datetime.timedelta(minutes=1)) == {message.blob.pack}
    assert await mailstore.compactions.left_since(packs, now + datetime.timedelta(minutes=1)) == set()
    assert await mailstore.compactions.relocate(A, [], owner="me", ttl=TTL) == 0


async def test_only_the_owner_of_the_lease_moves_rows(mailstore: Mailstore, migrated: Postgres) -> None:
    message = new_message()
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, INBOX_ID, [message], quota_bytes=0)
    assert await mailstore.compactions.take_lease(A, "first", TTL)
    assert not await mailstore.compactions.take_lease(A, "second", TTL)
    assert await mailstore.compactions.take_lease(B, "second", TTL)
    for owner in ("second", ""):
        with pytest.raises(CompactionLost):
            await mailstore.compactions.relocate(A, [elsewhere(message.blob)], owner=owner, ttl=TTL)
    await migrated.execute("test", "UPDATE mailstore.compactions SET expires_at = now()")
    with pytest.raises(CompactionLost):  # even if no other janitor has the lease
        await mailstore.compactions.relocate(A, [elsewhere(message.blob)], owner="first", ttl=TTL)
    assert await refs(mailstore, A) == [message.blob]

    assert await mailstore.compactions.take_lease(A, "third", TTL)
    await mailstore.compactions.release_lease(A, "first")  # the lease is no longer its own
    to = elsewhere(message.blob)
    assert await mailstore.compactions.relocate(A, [to], owner="third", ttl=TTL) == 1
    await mailstore.compactions.release_lease(A, "third")
    assert await mailstore.compactions.take_lease(A, "fourth", TTL)
    assert await refs(mailstore, A) == [to.new]


async def put(mailstore: Mailstore, account_id: int, *length: int) -> None:
    """Append messages of these stored sizes, each in its own pack."""
    await mailstore.accounts.ensure(account_id)
    messages = [new_message(size=2 * count) for count in length]
    await mailstore.messages.append(account_id, INBOX_ID, messages, quota_bytes=0)


async def measure(mailstore: Mailstore, *, rule: CompactionRule = RULE, before: str = ALL) -> dict[int, Fragmentation]:
    """Measure the candidates that were not measured, and record the results."""
    page = await mailstore.compactions.candidates(rule, 0, 100)
    found = [one.known for one in page if one.known]
    new = [one for one in page if not one.known]
    return {
        one.account_id: one for one in [*found, *await mailstore.compactions.measure(rule, before, new, record=True)]
    }


def to_measure(page: list[CompactionCandidate]) -> list[int]:
    return [one.account_id for one in page if one.known is None]


async def test_which_messages_are_worth_moving(mailstore: Mailstore) -> None:
    """Many small shares are moved, up to the last one that is no larger than all smaller ones together."""
    await put(mailstore, 1, *[10] * 6, 101)  # one is too large
    await put(mailstore, 2, *[10] * 4)  # saves three packs: not enough
    await put(mailstore, 3, *[90] * 20)  # 1,800 bytes: two packs
    await put(mailstore, 4, *[100] * 3, *[10] * 8)
    found = await measure(mailstore)
    assert {account: (one.packs, one.messages, one.stored_size) for account, one in found.items()} == {
        1: (6, 6, 60),
        2: (0, 0, 0),
        3: (20, 20, 1800),
        4: (11, 11, 380),
    }
    before = await mailstore.compactions.scattered_packs(RULE, ALL, 1, 100)
    assert sorted(before) == before
    assert before == sorted(ref.pack for ref in await refs(mailstore, 1) if ref.length == 10)
    assert await mailstore.compactions.scattered_packs(RULE, ALL, 1, 2) == before[:2]
    assert await mailstore.compactions.scattered_packs(RULE, before[3], 1, 100) == before[:3]


async def test_a_compact_pack_is_moved_only_with_as_many_bytes(mailstore: Mailstore) -> None:
    pack = new_ulid()
    await mailstore.accounts.ensure(A)
    shared = [new_message(size=2 * (60 + n), pack=pack) for n in range(3)]  # 183 bytes: over the floor
    await mailstore.messages.append(A, INBOX_ID, shared, quota_bytes=0)
    await put(mailstore, A, *[18] * 10)
    assert (await measure(mailstore))[A] == Fragmentation(A, 10, 10, 180)
    await put(mailstore, A, 18)
    assert (await measure(mailstore))[A] == Fragmentation(A, 12, 14, 198 + 183)


async def test_an_account_is_measured_again_when_it_changed(mailstore: Mailstore) -> None:
    await put(mailstore, A, *[10] * 6)
    assert to_measure(await mailstore.compactions.candidates(RULE, 0, 10)) == [A]
    await measure(mailstore, before=ulid_at(0))  # all packs are too young
    assert to_measure(await mailstore.compactions.candidates(RULE, 0, 10)) == [A]
    assert (await measure(mailstore))[A].packs == 6
    [standing] = await mailstore.compactions.candidates(RULE, 0, 10)
    assert standing.known == Fragmentation(A, 6, 6, 60)
    assert to_measure(await mailstore.compactions.candidates(CompactionRule(5, 1000, 100), 0, 10)) == [A]
    await mailstore.messages.store_flags(A, INBOX_ID, [1], FlagOp.ADD, flags=Flag.SEEN)
    assert to_measure(await mailstore.compactions.candidates(RULE, 0, 10)) == []
    await mailstore.messages.remove(A, INBOX_ID, [1])
    assert to_measure(await mailstore.compactions.candidates(RULE, 0, 10)) == [A]
    await measure(mailstore)
    await put(mailstore, A, 10)
    assert to_measure(await mailstore.compactions.candidates(RULE, 0, 10)) == [A]


async def test_the_backlog_is_among_the_figures(mailstore: Mailstore, migrated: Postgres) -> None:
    await put(mailstore, A, *[10] * 6)
    await put(mailstore, B, *[20] * 6)
    await measure(mailstore)
    await figures.observe(migrated)
    assert value("paquebot_mailstore_compaction_backlog_messages") == 12
    assert value("paquebot_mailstore_compaction_backlog_bytes") == 180
    await mailstore.accounts.delete(B)
    await mailstore.compactions.forget(datetime.datetime.now(datetime.UTC))
    await figures.observe(migrated)
    assert value("paquebot_mailstore_compaction_backlog_messages") == 6
