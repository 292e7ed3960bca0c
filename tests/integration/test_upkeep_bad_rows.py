"""Upkeep of a mailstore with bad rows: snapshot, sweep and compaction name bad rows and continue, `verify` finds them
and repairs what it can, and a rebuild restores what a snapshot has."""

from __future__ import annotations

import datetime

import asyncpg
import pytest

from paquebot.blobs import BlobsUnavailable
from paquebot.janitor.run import RunResult, run
from paquebot.janitor.snapshots.objects import PartReader
from paquebot.janitor.snapshots.snapshot import snapshot
from paquebot.janitor.troubles import Stage, Troubles
from paquebot.janitor.verification.verify import verify
from paquebot.mailstore.dates import EARLIEST, LATEST
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.snapshots.export import AccountExport
from paquebot.mailstore.uid_ceilings import within_uid_ceilings
from paquebot.mailstore.upkeep import figures
from paquebot.runtime.postgres.pool import PostgresTroubled
from paquebot.v1.snapshot_pb2 import SnapshotMessage
from tests.support.bad_rows import spoil, spoil_mailbox
from tests.support.counted import value
from tests.support.rebuild_world import ALICE, BOB, Platform

CAROL = 3
_INFINITE = "SELECT count(*) FROM mailstore.messages WHERE NOT isfinite(internal_date) OR NOT isfinite(save_date)"


async def three_accounts(platform: Platform) -> None:
    for subject, account in (("a", ALICE), ("b", BOB), ("c", CAROL)):
        await platform.arrive(f"{subject} one", account)
        await platform.arrive(f"{subject} two", account)


async def janitor(platform: Platform) -> RunResult:
    return await run(platform.janitor, platform.settings, snapshot_only=False, drop_orphans=False, dry_run=False)


async def infinite(platform: Platform) -> int:
    return int(await platform.stores.postgres.fetchval("test", _INFINITE))


async def test_a_snapshot_has_every_message_and_repairs_dates(platform: Platform) -> None:
    await three_accounts(platform)
    await spoil(platform.stores.postgres, BOB, 1, "internal_date = '-infinity'")
    await spoil(platform.stores.postgres, BOB, 2, "save_date = '200000-01-01 00:00:00+00'")
    troubles = Troubles(Stage.SNAPSHOT)
    done = await snapshot(platform.janitor, platform.settings, troubles)
    assert (done.accounts, done.written_accounts, done.bad_accounts, done.bad_rows) == (3, 3, 0, 2)
    assert [one.subject for one in troubles.found] == [
        "account 2, mailbox 1, UID 1",
        "account 2, mailbox 1, UID 2",
    ]
    assert (done.mended_rows, await infinite(platform)) == (2, 0)
    dates = [
        (message.internal_date, message.save_date)
        async for message in platform.mailstore.mailbox_reader.messages(BOB, INBOX_ID, [1, 2], with_summary=False)
    ]
    assert (dates[0][0], dates[1][1]) == (EARLIEST, LATEST)
    before = {account: await platform.contents(account) for account in (ALICE, BOB, CAROL)}
    await platform.lose_mailstore()
    await platform.rebuild()
    for account, contents in before.items():
        assert await platform.contents(account) == contents


async def test_a_bad_account_does_not_stop_the_snapshot(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account's previous snapshot stays valid."""
    await three_accounts(platform)
    await platform.snapshot()
    for account in (ALICE, BOB, CAROL):
        await platform.mailstore.mailboxes.subscribe(account, "changed")
    admin = platform.stores.postgres
    await admin.execute("test", "ALTER TABLE mailstore.messages ALTER COLUMN thread_key DROP NOT NULL")
    await spoil(admin, BOB, 1, "thread_key = NULL, flags = 17")
    export = AccountExport._message

    def damaged(self: AccountExport, row: asyncpg.Record) -> SnapshotMessage | None:
        if row["thread_key"] is None:
            raise PostgresTroubled("an invalid page")
        return export(self, row)

    monkeypatch.setattr(AccountExport, "_message", damaged)
    troubles = Troubles(Stage.SNAPSHOT)
    done = await snapshot(platform.janitor, platform.settings, troubles)
    assert (done.accounts, done.written_accounts, done.bad_accounts) == (3, 2, 1)
    assert [(one.subject, "PostgresTroubled" in one.reason) for one in troubles.found] == [("account 2", True)]
    monkeypatch.undo()
    await platform.lose_mailstore()
    await platform.rebuild_only()
    assert len((await platform.contents(BOB))["INBOX"]) == 2
    subscriptions = platform.mailstore.mailboxes.subscriptions
    assert await subscriptions(ALICE) != await subscriptions(BOB)


async def test_an_outage_ends_a_snapshot(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    await three_accounts(platform)

    async def away(*_: object) -> None:
        raise BlobsUnavailable("put: away")

    monkeypatch.setattr(platform.janitor.blobs, "put_object", away)
    monkeypatch.setattr(platform.janitor.blobs, "probe", away)
    with pytest.raises(BlobsUnavailable):
        await platform.snapshot()


async def test_a_run_continues_and_saves_its_count_for_the_metric(platform: Platform) -> None:
    await three_accounts(platform)
    await spoil(platform.stores.postgres, BOB, 1, "internal_date = 'infinity', flags = 255")
    await spoil(platform.stores.postgres, CAROL, 1, "blob_offset = -9")
    ran = await janitor(platform)
    assert ran.away is None
    assert ran.record["snapshot_accounts"] == 3
    assert [trouble.partition(":")[0] for trouble in ran.troubles] == ["snapshot"]
    await figures.observe(platform.stores.postgres)
    assert value("paquebot_mailstore_upkeep_failures", stage="snapshot") == 1
    assert value("paquebot_mailstore_upkeep_failures", stage="sweep") == 0
    await platform.mailstore.mailboxes.subscribe(BOB, "changed")
    again = await janitor(platform)
    assert await infinite(platform) == 0
    assert "a date" not in " ".join(again.troubles), "the janitor repaired it"


async def test_a_pack_that_cannot_be_examined_keeps_its_records(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep handles the other packs; the records of deliveries from this one stay."""
    await three_accounts(platform)
    packs = [info.pack async for info in platform.stores.blobs.list_packs()]
    for account in (ALICE, BOB, CAROL):
        await platform.mailstore.messages.remove(account, INBOX_ID, [1, 2])
    settings = platform.settings
    for name in ("min_age", "orphan_age", "records_age"):
        object.__setattr__(settings, name, 0.0)
    read_index = platform.janitor.blobs.read_index

    async def refused(info: object) -> object:
        if getattr(info, "pack", "") == packs[2]:
            raise BlobsUnavailable("get: InternalError")
        return await read_index(info)  # type: ignore[arg-type]

    monkeypatch.setattr(platform.janitor.blobs, "read_index", refused)
    ran = await janitor(platform)
    assert [f"pack {packs[2]}" in trouble for trouble in ran.troubles] == [True]
    assert [info.pack async for info in platform.stores.blobs.list_packs()] == [packs[2]]
    monkeypatch.undo()
    assert (await janitor(platform)).troubles == []
    assert [info.pack async for info in platform.stores.blobs.list_packs()] == []


async def test_verify_reads_every_row_as_the_services_do_and_repairs(platform: Platform) -> None:
    await three_accounts(platform)
    postgres = platform.stores.postgres
    await spoil(postgres, ALICE, 1, "internal_date = '-infinity'")
    await spoil(postgres, ALICE, 2, "flags = 255")
    await spoil(postgres, BOB, 1, "summary = '\\xffffffff'")
    await spoil(postgres, BOB, 2, "mod_seq = -3")
    await spoil(postgres, CAROL, 1, "blob_offset = -9")
    await spoil(postgres, CAROL, 2, "pack = 'no pack at all'")
    await spoil_mailbox(postgres, CAROL, "keywords = '{good,\"a b\"}'", 2)
    await spoil_mailbox(postgres, CAROL, "name = E'od\\x01d'", 3)
    found = await verify(platform.stores, settle=0)
    assert found.bad_rows == 7
    faults = " | ".join(found.faults)
    for row in (
        "(account 1, mailbox 1, UID 1) is bad: a date",
        "(account 1, mailbox 1, UID 2) is bad: a flag",
        "(account 2, mailbox 1, UID 1) is bad: the summary",
        "(account 2, mailbox 1, UID 2) is bad: a number",
        "(account 3, mailbox 1, UID 1) is bad: ValueError",
        "pack no pack at all is not in the bucket",
        "(account 3, mailbox 2) is bad: a keyword",
        "(account 3, mailbox 3) is bad: the name",
    ):
        assert row in faults
    mended = await verify(platform.janitor, settle=0, mend=60.0)
    assert mended.mended_rows == 6
    left = await verify(platform.stores, settle=0)
    assert left.bad_rows == 2, "the place of one message is unknown; the other row is renamed by its owner"
    assert "UID 2) is bad" not in " | ".join(left.faults)
    [message] = [one async for one in platform.mailstore.mailbox_reader.messages(BOB, INBOX_ID, [1], with_summary=True)]
    assert b"b one" in (message.summary or b"")


async def test_a_uid_above_the_ceiling_is_a_temporary_failure(platform: Platform) -> None:
    """The janitor's next snapshot raises the ceiling, so the value is not impossible."""
    await platform.arrive("one", ALICE)
    await platform.snapshot()
    await spoil_mailbox(platform.stores.postgres, ALICE, "uid_ceiling = uid_next")
    with pytest.raises(PostgresTroubled, match="mailboxes_uid_ceiling"):
        await platform.append(ALICE, "INBOX", "over it")
    assert await within_uid_ceilings(_value()) == 1


async def _value() -> int:
    return 1


async def test_an_old_snapshot_with_dates_out_of_range_is_restored(platform: Platform) -> None:
    await platform.arrive("one", ALICE)
    await platform.arrive("two", ALICE)
    await platform.snapshot()
    ancient = int((EARLIEST - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds()) * 10**6 * 2
    await platform.lose_mailstore()
    part = PartReader.parts

    async def odd(self: object, entry: object):  # type: ignore[no-untyped-def]
        async for one in part(self, entry):  # type: ignore[arg-type]
            for message in one.messages:
                message.internal_date_us, message.flags = ancient, 255
            yield one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartReader, "parts", odd)
        await platform.rebuild()
    dates = [
        message.internal_date
        async for message in platform.mailstore.mailbox_reader.messages(ALICE, INBOX_ID, [1, 2], with_summary=False)
    ]
    assert dates == [EARLIEST, EARLIEST]
