"""Reads and changes of sessions: states, changes, flags, expunges, recent messages, on a real database."""

from __future__ import annotations

import asyncio
import datetime

import pytest

from paquebot.mailstore import Flag, FlagOp, FlagRows, RecentRange
from paquebot.mailstore.errors import NoSuchAccount, NoSuchMailbox, TooManyKeywords
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.postgres.pool import Postgres
from tests.support.mailstore_fixtures import WHEN, delivery, new_message
from tests.support.mailstores import Mailstore

A = 1
ADD, REMOVE, REPLACE = FlagOp.ADD, FlagOp.REMOVE, FlagOp.REPLACE


async def fill(mailstore: Mailstore, *flags: Flag) -> None:
    """Messages 1, 2, ... of INBOX with these flags."""
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, INBOX_ID, [new_message(flags=flag) for flag in flags], quota_bytes=0)


def shown(rows: FlagRows) -> dict[int, tuple[Flag, int]]:
    pairs = zip(map(Flag, rows.flags), rows.mod_seqs, strict=True)
    return dict(zip(rows.uids, pairs, strict=True))


async def counts(mailstore: Mailstore) -> tuple[int, int, int]:
    inbox = await mailstore.mailboxes.find(A, "INBOX")
    return inbox.messages, inbox.unseen, inbox.deleted


async def test_state(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag.SEEN, Flag(0))
    await mailstore.messages.store_flags(A, INBOX_ID, [2], ADD, flags=Flag.FLAGGED, keywords=("x",))
    state = await mailstore.mailbox_reader.state(A, INBOX_ID)
    assert shown(state.rows) == {1: (Flag.SEEN, 2), 2: (Flag.FLAGGED, 3)}
    assert state.rows.keywords == {2: ("x",)}
    assert state.rows.uids.typecode == "I"
    assert (state.mailbox.uid_next, state.mailbox.highest_mod_seq) == (3, 3)
    empty = await mailstore.mailbox_reader.state(A, 2)
    assert len(empty.rows) == 0
    assert await mailstore.mailbox_reader.state_by_name(A, "inbox") == state
    with pytest.raises(NoSuchMailbox):
        await mailstore.mailbox_reader.state(A, 99)
    with pytest.raises(NoSuchMailbox):
        await mailstore.mailbox_reader.state_by_name(A, "nowhere")


async def test_append_claims_the_recent_messages_for_its_session(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag(0), Flag(0))
    appended = await mailstore.messages.append(A, INBOX_ID, [new_message(), new_message()], quota_bytes=0, claim=True)
    assert (list(appended.uids), appended.claimed) == ([3, 4], RecentRange(1, 5))
    inbox = await mailstore.mailboxes.find(A, "INBOX")
    assert (inbox.recent, inbox.recent_from) == (0, 5)
    assert (await mailstore.messages.append(A, INBOX_ID, [new_message()], quota_bytes=0)).claimed is None
    assert (await mailstore.mailboxes.find(A, "INBOX")).recent == 1
    assert await mailstore.messages.claim_recent(A, INBOX_ID) == RecentRange(5, 6)


async def test_keywords_keep_the_spelling_of_the_mailbox(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag(0))
    await mailstore.messages.append(A, INBOX_ID, [new_message(keywords=("Work",))], quota_bytes=0)
    await mailstore.messages.append(A, INBOX_ID, [new_message(keywords=("WORK", "new"))], quota_bytes=0)
    for words in (("work",), ("Work", "work")):
        await mailstore.messages.store_flags(A, INBOX_ID, [1], ADD, keywords=words)
    rows = (await mailstore.mailbox_reader.state(A, INBOX_ID)).rows
    assert rows.keywords == {1: ("Work",), 2: ("Work",), 3: ("Work", "new")}
    same = await mailstore.messages.store_flags(A, INBOX_ID, [3], REPLACE, keywords=("new", "Work"))
    assert same.changed == ()  # keywords have no order
    removed = await mailstore.messages.store_flags(A, INBOX_ID, [1, 3], REMOVE, keywords=("WORK", "unknown"))
    assert (removed.changed, removed.rows.keywords) == ((1, 3), {3: ("new",)})


async def test_missing_messages_and_mailboxes_cannot_be_changed(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag.DELETED)
    for change in (
        mailstore.messages.store_flags(A, 99, [1], ADD, flags=Flag.SEEN),
        mailstore.messages.expunge(A, 99),
        mailstore.messages.remove(A, 99, [1]),
        mailstore.messages.append(A, 99, [new_message()], quota_bytes=0),
    ):
        with pytest.raises(NoSuchMailbox):
            await change
    await mailstore.accounts.delete(A)
    for change in (
        mailstore.messages.expunge(A, INBOX_ID),
        mailstore.messages.append(A, INBOX_ID, [new_message()], quota_bytes=0),
    ):
        with pytest.raises(NoSuchAccount):
            await change


async def test_changes_since_a_mod_seq(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag(0), Flag.DELETED, Flag(0), Flag.DELETED)
    start = (await mailstore.mailbox_reader.state(A, INBOX_ID)).mailbox.highest_mod_seq
    assert len((await mailstore.mailbox_reader.changes_since(A, INBOX_ID, start)).rows) == 0
    await mailstore.messages.store_flags(A, INBOX_ID, [3], ADD, flags=Flag.ANSWERED)
    middle = (await mailstore.messages.expunge(A, INBOX_ID)).mod_seq
    await mailstore.deliveries.deliver([delivery(A)])
    changes = await mailstore.mailbox_reader.changes_since(A, INBOX_ID, start)
    assert shown(changes.rows) == {3: (Flag.ANSWERED, start + 1), 5: (Flag(0), start + 3)}
    assert changes.expunged is not None
    assert list(changes.expunged) == [2, 4]
    assert changes.mailbox.highest_mod_seq == start + 3
    later = await mailstore.mailbox_reader.changes_since(A, INBOX_ID, middle)
    assert (list(later.rows.uids), list(later.expunged or ())) == ([5], [])


async def test_flag_changes(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag.SEEN, Flag(0), Flag.DRAFT)
    added = await mailstore.messages.store_flags(A, INBOX_ID, [3, 1, 9], ADD, flags=Flag.SEEN | Flag.DELETED)
    assert shown(added.rows) == {1: (Flag.SEEN | Flag.DELETED, 3), 3: (Flag.SEEN | Flag.DELETED | Flag.DRAFT, 3)}
    assert (list(added.changed), list(added.modified), added.mod_seq) == ([1, 3], [], 3)
    assert await counts(mailstore) == (3, 1, 2)
    removed = await mailstore.messages.store_flags(A, INBOX_ID, [1, 2, 3], REMOVE, flags=Flag.SEEN)
    assert (list(removed.changed), removed.mod_seq) == ([1, 3], 4)
    assert shown(removed.rows)[2] == (Flag(0), 2)  # the message did not have the flag: nothing changed
    assert await counts(mailstore) == (3, 3, 2)
    replaced = await mailstore.messages.store_flags(A, INBOX_ID, range(1, 4), REPLACE, flags=Flag.FLAGGED)
    assert set(replaced.rows.flags) == {Flag.FLAGGED}
    assert await counts(mailstore) == (3, 3, 0)
    same = await mailstore.messages.store_flags(A, INBOX_ID, [1], ADD, flags=Flag.FLAGGED)
    assert (list(same.changed), same.mod_seq) == ([], 5)
    assert (await mailstore.mailboxes.find(A, "INBOX")).highest_mod_seq == 5


async def test_keywords(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag(0), Flag(0))
    await mailstore.messages.store_flags(A, INBOX_ID, [1, 2], ADD, keywords=("$Junk", "work"))
    again = await mailstore.messages.store_flags(A, INBOX_ID, [1], ADD, keywords=("$JUNK",))
    assert list(again.changed) == []  # RFC 9051 §2.3.2: compared without case
    await mailstore.messages.store_flags(A, INBOX_ID, [1], REMOVE, keywords=("WORK", "unknown"))
    replaced = await mailstore.messages.store_flags(A, INBOX_ID, [2], REPLACE, flags=Flag.SEEN, keywords=("x",))
    assert replaced.rows.keywords == {2: ("x",)}
    state = await mailstore.mailbox_reader.state(A, INBOX_ID)
    assert state.rows.keywords == {1: ("$Junk",), 2: ("x",)}
    assert set(state.mailbox.keywords) == {"$Junk", "work", "x"}
    await mailstore.messages.store_flags(A, INBOX_ID, [1], ADD, keywords=("y",))  # `work` is unused
    with pytest.raises(TooManyKeywords):
        await mailstore.messages.store_flags(A, INBOX_ID, [1], ADD, keywords=("z",))
    assert (await mailstore.mailbox_reader.state(A, INBOX_ID)).rows.keywords == {1: ("$Junk", "y"), 2: ("x",)}
    cleared = await mailstore.messages.store_flags(A, INBOX_ID, [1, 2], REPLACE)
    assert (list(cleared.changed), cleared.rows.keywords) == ([1, 2], {})


async def test_a_conditional_change_leaves_newer_messages_alone(mailstore: Mailstore) -> None:
    """RFC 7162 §3.1.3"""
    await fill(mailstore, Flag(0), Flag(0), Flag(0))
    first = await mailstore.messages.store_flags(A, INBOX_ID, [2], ADD, flags=Flag.SEEN)
    result = await mailstore.messages.store_flags(
        A, INBOX_ID, [1, 2, 3], ADD, flags=Flag.DELETED, unchanged_since=first.mod_seq - 1
    )
    assert (list(result.modified), list(result.changed)) == ([2], [1, 3])
    assert 2 not in result.rows.uids
    none = await mailstore.messages.store_flags(A, INBOX_ID, [1, 2, 3], ADD, flags=Flag.DRAFT, unchanged_since=0)
    assert (list(none.modified), len(none.rows)) == ([1, 2, 3], 0)


async def test_expunge(mailstore: Mailstore) -> None:
    await fill(mailstore, Flag.DELETED, Flag.SEEN, Flag.DELETED, Flag.DELETED | Flag.SEEN)
    some = await mailstore.messages.expunge(A, INBOX_ID, [1, 2, 99])  # RFC 4315 §2.1: only those with the flag
    assert list(some.uids) == [1]
    assert await counts(mailstore) == (3, 1, 2)
    rest = await mailstore.messages.expunge(A, INBOX_ID)
    assert (list(rest.uids), rest.mod_seq) == ([3, 4], some.mod_seq + 1)
    assert await counts(mailstore) == (1, 0, 0)
    nothing = await mailstore.messages.expunge(A, INBOX_ID)
    assert (list(nothing.uids), nothing.mod_seq) == ([], rest.mod_seq)
    assert list((await mailstore.messages.remove(A, INBOX_ID, [2])).uids) == [2]
    assert (await mailstore.accounts.usage(A)).total_size == 0
    await fill(mailstore, Flag(0))
    assert list((await mailstore.mailbox_reader.state(A, INBOX_ID)).rows.uids) == [5]


async def test_after_the_horizon_a_client_starts_again(mailstore: Mailstore) -> None:
    """RFC 7162 §3.2.5.2: a server without the records of expunges must not answer from them."""
    await fill(mailstore, *[Flag.DELETED] * 4)
    await mailstore.messages.remove(A, INBOX_ID, [1])
    second = await mailstore.messages.remove(A, INBOX_ID, [2])
    future = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert await mailstore.messages.forget_expunged(WHEN) == 0
    assert await mailstore.messages.forget_expunged(future) == 2
    third = await mailstore.messages.remove(A, INBOX_ID, [3])
    assert (await mailstore.mailbox_reader.changes_since(A, INBOX_ID, second.mod_seq - 1)).expunged is None
    changes = await mailstore.mailbox_reader.changes_since(A, INBOX_ID, second.mod_seq)
    assert list(changes.expunged or ()) == [3]
    assert third.mod_seq == second.mod_seq + 1


async def test_recent_messages_are_claimed_once(mailstore: Mailstore) -> None:
    """RFC 3501 §2.3.2"""
    await fill(mailstore, Flag(0), Flag(0))
    assert (await mailstore.mailboxes.find(A, "INBOX")).recent == 2
    claims = await asyncio.gather(*(mailstore.messages.claim_recent(A, INBOX_ID) for _ in range(4)))
    assert sorted(uid for claim in claims for uid in range(claim.first, claim.until)) == [1, 2]
    assert (await mailstore.mailboxes.find(A, "INBOX")).recent == 0
    await fill(mailstore, Flag(0))
    await mailstore.messages.remove(A, INBOX_ID, [3])
    assert (await mailstore.mailboxes.find(A, "INBOX")).recent == 0
    claim = await mailstore.messages.claim_recent(A, INBOX_ID)
    assert (claim.first, claim.until) == (3, 4)
    with pytest.raises(NoSuchMailbox):
        await mailstore.messages.claim_recent(A, 99)


async def test_messages_come_in_batches(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, INBOX_ID, [new_message(size=n) for n in range(1, 301)], quota_bytes=0)
    wanted = [*range(300, 0, -2), 7, 7, 999]
    found = [m async for m in mailstore.mailbox_reader.messages(A, INBOX_ID, wanted, with_summary=True)]
    assert [m.uid for m in found] == sorted({uid for uid in wanted if uid <= 300})
    assert all(m.size == m.uid and m.summary for m in found)
    [one] = [m async for m in mailstore.mailbox_reader.messages(A, INBOX_ID, [5], with_summary=False)]
    assert one.summary is None


async def test_search_rows(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, INBOX_ID, [new_message(size=n) for n in (10, 20, 30)], quota_bytes=0)
    rows = await mailstore.mailbox_reader.search_rows(A, INBOX_ID)
    assert (list(rows.uids), list(rows.sizes)) == ([1, 2, 3], [10, 20, 30])
    assert set(rows.internal_dates) == {int(WHEN.timestamp())}
    assert all(date > WHEN.timestamp() for date in rows.save_dates)
    some = await mailstore.mailbox_reader.search_rows(A, INBOX_ID, [2, 3, 99])
    assert list(some.uids) == [2, 3]


async def test_a_view_made_of_changes_equals_the_state(mailstore: Mailstore) -> None:
    """While writers change the mailbox, a session that only reads changes ends with the same view."""
    await fill(mailstore, *[Flag(0)] * 20)
    view = shown((await mailstore.mailbox_reader.state(A, INBOX_ID)).rows)
    seen = (await mailstore.mailbox_reader.state(A, INBOX_ID)).mailbox.highest_mod_seq
    writers = asyncio.gather(
        *(mailstore.deliveries.deliver([delivery(A), delivery(A)]) for _ in range(10)),
        *(
            mailstore.messages.store_flags(A, INBOX_ID, range(n, 40, 3), ADD, flags=Flag(1 << n % 5))
            for n in range(1, 12)
        ),
        *(mailstore.messages.remove(A, INBOX_ID, [n, n + 20]) for n in range(2, 18, 4)),
        *(mailstore.messages.copy(A, INBOX_ID, range(n, n + 3), INBOX_ID, quota_bytes=0) for n in range(1, 30, 7)),
        *(mailstore.messages.move(A, INBOX_ID, [n, n + 1], INBOX_ID) for n in range(3, 15, 5)),
    )
    done = False
    while not done:
        done = writers.done()
        changes = await mailstore.mailbox_reader.changes_since(A, INBOX_ID, seen)
        assert changes.expunged is not None
        view.update(shown(changes.rows))
        for uid in changes.expunged:
            view.pop(uid, None)
        assert changes.mailbox.messages == len(view)
        seen = changes.mailbox.highest_mod_seq
    await writers
    assert view == shown((await mailstore.mailbox_reader.state(A, INBOX_ID)).rows)


async def test_a_refresh_is_one_statement_along_an_index(mailstore: Mailstore, migrated: Postgres) -> None:
    """A session that polls must not cost a read of its mailbox."""
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, INBOX_ID, [new_message() for _ in range(3000)], quota_bytes=0)
    await migrated.execute("test", "ANALYZE mailstore.messages")
    plan = "EXPLAIN SELECT uid FROM mailstore.messages WHERE account_id = 1 AND mailbox_id = 1 AND mod_seq > 2"
    lines = [row[0] for row in await migrated.fetch("test", plan)]
    assert any("messages_by_mod_seq" in line for line in lines)
