"""The queries of janitor, verify and recover, and the check of the invariants."""

from __future__ import annotations

import datetime

import pytest

from paquebot.blobs import new_ulid
from paquebot.mailstore import PackLiveness
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.upkeep import figures
from paquebot.runtime.postgres.pool import Postgres
from tests.support.counted import value
from tests.support.mailstore_fixtures import WHEN, delivery, new_message
from tests.support.mailstores import Mailstore

A, B = 1, 2
SENT = 3


async def test_liveness_counts_entries_once(mailstore: Mailstore) -> None:
    pack, other, dead = new_ulid(), new_ulid(), new_ulid()
    await mailstore.accounts.ensure(A)
    messages = [new_message(size=100, pack=pack), new_message(size=50, pack=pack), new_message(size=8, pack=other)]
    await mailstore.messages.append(A, INBOX_ID, messages, quota_bytes=0)
    await mailstore.messages.copy(A, INBOX_ID, [1], SENT, quota_bytes=0)
    assert await mailstore.pack_uses.liveness([pack, other, dead]) == {
        pack: PackLiveness(entries=2, stored_size=75, rows=3),
        other: PackLiveness(entries=1, stored_size=4, rows=1),
    }
    await mailstore.messages.remove(A, INBOX_ID, [1, 3])
    liveness = await mailstore.pack_uses.liveness([pack, other, dead])
    assert liveness == {pack: PackLiveness(entries=2, stored_size=75, rows=2)}


async def test_figures_count_all_accounts_that_exist(mailstore: Mailstore, migrated: Postgres) -> None:
    def now() -> list[float | None]:
        return [value(f"paquebot_mailstore_{what}") for what in ("accounts", "messages", "bytes")]

    await figures.observe(migrated)
    assert now() == [0, 0, 0]
    for account, size in ((A, 100), (A, 50), (B, 8)):
        await mailstore.accounts.ensure(account)
        await mailstore.messages.append(account, INBOX_ID, [new_message(size=size)], quota_bytes=0)
    await mailstore.messages.copy(A, INBOX_ID, [1], SENT, quota_bytes=0)
    await figures.observe(migrated)
    assert now() == [2, 4, 258]
    await mailstore.accounts.delete(B)
    await figures.observe(migrated)
    assert now() == [1, 3, 250]


async def test_old_delivery_records_are_deleted(mailstore: Mailstore) -> None:
    one = delivery(A)
    await mailstore.deliveries.deliver([one])
    assert await mailstore.deliveries.forget(WHEN) == 0
    assert await mailstore.deliveries.forget(datetime.datetime.now(datetime.UTC) + datetime.timedelta(1)) == 1
    assert await mailstore.deliveries.delivered([(A, one.message.email_id)]) == set()


async def test_every_blob_in_order(mailstore: Mailstore) -> None:
    await mailstore.deliveries.deliver([delivery(account_id) for account_id in (B, A, 3, A)])
    await mailstore.messages.copy(A, INBOX_ID, [2], SENT, quota_bytes=0)
    places = [(use.account_id, use.mailbox_id, use.uid) async for use in mailstore.pack_uses.of_accounts()]
    assert places == [(A, 1, 1), (A, 1, 2), (A, 3, 1), (B, 1, 1), (3, 1, 1)]
    assert [use.account_id async for use in mailstore.pack_uses.of_accounts(B, 3)] == [B, 3]
    assert [use.account_id async for use in mailstore.pack_uses.of_accounts(B, B)] == [B]
    [use] = [use async for use in mailstore.pack_uses.of_accounts(3)]
    [same] = [use async for use in mailstore.pack_uses.of_packs([use.blob.pack])]
    assert same == use


BREAKS = {
    "UPDATE mailstore.mailboxes SET unseen = 0": "counters",
    "UPDATE mailstore.accounts SET octets = 1": "usage",
    "UPDATE mailstore.mailboxes SET uid_next = 1, recent_from = 1": "uid_next",
    "UPDATE mailstore.messages SET mod_seq = 9": "mod_seq 9",
    "UPDATE mailstore.messages SET keywords = '{x}'": "keywords",
    "UPDATE mailstore.messages SET blob_size = 1": "size",
    "UPDATE mailstore.messages SET mailbox_id = 77": "in no mailbox",
    "INSERT INTO mailstore.expunged VALUES (1, 1, 2, 1, now())": "recorded as expunged",
    "INSERT INTO mailstore.expunged VALUES (1, 1, 99, 1, now())": "expunge",
    "UPDATE mailstore.mailboxes SET recent_from = 99": "recent",
    "UPDATE mailstore.accounts SET last_uid_validity = 1": "uid_validity",
    "UPDATE mailstore.mailboxes SET name = 'x/y' WHERE mailbox_id = 2": "superior",
    "DELETE FROM mailstore.messages; DELETE FROM mailstore.mailboxes WHERE mailbox_id = 1": "INBOX",
}


@pytest.mark.parametrize(("statement", "word"), BREAKS.items())
async def test_the_check_finds_a_broken_invariant(migrated: Postgres, statement: str, word: str) -> None:
    """The test breaks each invariant with SQL."""
    mailstore = Mailstore.of(migrated)
    await mailstore.deliveries.deliver([delivery(A), delivery(B)])
    assert await mailstore.broken_invariants() == []
    async with migrated.connection("test") as connection:
        await connection.execute(statement)
    faults = await mailstore.broken_invariants()
    assert any(word in fault for fault in faults), faults
    assert len(await mailstore.broken_invariants(A)) <= len(faults)
