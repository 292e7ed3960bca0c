"""The janitor's snapshots in the bucket: only changed accounts, UID ceilings kept, old objects deleted."""

from __future__ import annotations

import pytest

from paquebot.blobs import BlobsUnavailable
from paquebot.janitor.snapshots import objects as snapshot_objects
from paquebot.mailstore import Flag, FlagOp
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.uid_ceilings import UID_ROOM
from tests.support.rebuild_world import ALICE, BOB, Platform, furnish


async def test_the_ceiling_holds_and_moves_with_the_snapshots(platform: Platform) -> None:
    async def ceiling() -> int:
        return int(
            await platform.stores.postgres.fetchval(
                "test", "SELECT uid_ceiling FROM mailstore.mailboxes WHERE account_id = 1 AND mailbox_id = 1"
            )
        )

    async def assign_uids(uid_next: int) -> None:
        sql = "UPDATE mailstore.mailboxes SET uid_next = $1 WHERE account_id = 1 AND mailbox_id = 1"
        await platform.stores.postgres.execute("test", sql, uid_next)

    await platform.arrive("one", ALICE)
    assert await ceiling() == 2**32
    await platform.snapshot()
    assert await ceiling() == 2 + UID_ROOM
    await platform.arrive("two", ALICE)
    await platform.snapshot()
    assert await ceiling() == 2 + UID_ROOM, "while half of the UIDs are left"
    await assign_uids(UID_ROOM - 5)
    await platform.snapshot()
    assert await ceiling() == UID_ROOM - 5 + UID_ROOM
    await assign_uids(2 * UID_ROOM - 5)
    with pytest.raises(Exception, match="mailboxes_uid_ceiling"):
        await platform.arrive("over it", ALICE)


async def test_only_accounts_that_changed_are_written(platform: Platform) -> None:
    await furnish(platform)
    first = await platform.snapshot()
    assert (first.accounts, first.written_accounts, first.written_objects) == (2, 2, 1)
    again = await platform.snapshot()
    assert (again.accounts, again.written_accounts, again.written_objects) == (2, 0, 0)
    await platform.mailstore.messages.store_flags(BOB, INBOX_ID, [1], FlagOp.ADD, flags=Flag.SEEN)
    await platform.mailstore.mailboxes.subscribe(ALICE, "x")
    third = await platform.snapshot()
    assert (third.accounts, third.written_accounts) == (2, 2)
    runs = [key async for key, _ in platform.stores.blobs.list_objects(snapshot_objects.RUNS)]
    assert {key.split("/")[-2] for key in runs} == {again.run, third.run}, "the newest and the one before"


async def test_old_objects_are_deleted_and_outdated_ones_rewritten(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paquebot.janitor.snapshots.snapshot._SAFE_AGE_MS", 0)
    for account in range(1, 9):
        await platform.mailstore.accounts.ensure(account)
    await platform.snapshot()
    for account in range(2, 9):
        await platform.mailstore.mailboxes.subscribe(account, "changed")
    changed = await platform.snapshot()
    assert changed.written_accounts == 7
    rest = await platform.snapshot()
    assert rest.written_accounts == 1, "its object had little other current data"
    for _ in range(2):
        last = await platform.snapshot()
    assert last.written_accounts == 0
    kept = [key async for key, _ in platform.stores.blobs.list_objects(snapshot_objects.OBJECTS)]
    assert len(kept) == 2
    await platform.lose_mailstore()
    assert (await platform.rebuild()).accounts == 8


async def test_an_unfinished_run_does_not_count(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    await platform.arrive("one", ALICE)
    first = await platform.snapshot()
    await platform.arrive("two", ALICE)

    async def fail(*_: object) -> None:
        raise BlobsUnavailable("put")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_objects.ManifestWriter, "complete", fail)
        with pytest.raises(BlobsUnavailable):
            await platform.snapshot()
    run = await snapshot_objects.newest_run(platform.stores.blobs)
    assert run is not None
    assert run.run == first.run
