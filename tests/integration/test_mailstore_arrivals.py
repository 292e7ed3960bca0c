"""Messages that arrive and are copied: delivery, append, copy, move, quota, on a real database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paquebot.mailstore import (
    Delivery,
    DeliveryOutcome,
    DeliveryResult,
    Flag,
    FlagOp,
    MailstoreLimits,
    NewMessage,
    StoredMessage,
)
from paquebot.mailstore.deliveries.at_once import are_plain, deliver_at_once
from paquebot.mailstore.errors import BadKeyword, MailboxFull, NoSuchMailbox, OverQuota, TooManyKeywords
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.postgres.pool import Connection, Postgres
from tests.support.mailstore_fixtures import PREFIX, SMALL_LIMITS, WHEN, delivery, new_message
from tests.support.mailstores import Mailstore

A, B, C, D = 1, 2, 3, 4
DRAFTS, SENT = 2, 3


async def read(mailstore: Mailstore, account_id: int, mailbox_id: int) -> list[StoredMessage]:
    state = await mailstore.mailbox_reader.state(account_id, mailbox_id)
    uids = state.rows.uids
    return [m async for m in mailstore.mailbox_reader.messages(account_id, mailbox_id, uids, with_summary=True)]


async def results(mailstore: Mailstore, *deliveries: Delivery, refuse: bool = False) -> list[str]:
    outcomes = await mailstore.deliveries.deliver(deliveries, refuse_over_quota=refuse)
    return [outcome.result.value for outcome in outcomes]


async def test_delivered_messages_are_in_their_mailboxes(mailstore: Mailstore) -> None:
    first, second, other = delivery(A), delivery(A, size=200), delivery(B)
    outcomes = await mailstore.deliveries.deliver([first, other, second])
    assert [(o.result, o.mailbox_id, o.uid, o.mod_seq) for o in outcomes] == [
        (DeliveryResult.DELIVERED, INBOX_ID, 1, 2),
        (DeliveryResult.DELIVERED, INBOX_ID, 1, 2),
        (DeliveryResult.DELIVERED, INBOX_ID, 2, 2),
    ]
    one, two = await read(mailstore, A, INBOX_ID)
    assert one.blob == first.message.blob
    assert one.summary == first.message.summary
    assert one.thread_id == first.message.thread_key.hex()
    assert (one.email_id, two.email_id) == (first.message.email_id, second.message.email_id)
    assert (one.prefix, one.size, two.size) == (PREFIX, 100 + len(PREFIX), 200 + len(PREFIX))
    assert one.internal_date == WHEN
    assert one.save_date > WHEN
    assert (one.flags, one.keywords) == (Flag(0), ())
    assert await mailstore.deliveries.deliver([]) == []


async def test_each_message_has_its_effect_once(mailstore: Mailstore) -> None:
    one, other = delivery(A), delivery(B)
    also_b = replace(one, account_id=B)
    assert await results(mailstore, one, one, also_b) == ["delivered", "duplicate", "delivered"]
    assert await results(mailstore, one, other, also_b) == ["duplicate", "delivered", "duplicate"]
    assert (await mailstore.accounts.usage(A)).messages == 1
    assert (await mailstore.accounts.usage(B)).messages == 2
    queue_id = one.message.email_id
    assert await mailstore.deliveries.delivered([(A, queue_id), (B, queue_id), (C, queue_id)]) == {
        (A, queue_id),
        (B, queue_id),
    }


async def test_over_quota_changes_nothing(mailstore: Mailstore) -> None:
    size = 100 + len(PREFIX)
    fits, too_much, small = delivery(A, quota=size), delivery(A, quota=size + 50), delivery(A, quota=size + 50, size=10)
    assert await results(mailstore, fits, too_much, small) == ["delivered", "over_quota", "delivered"]
    assert await results(mailstore, too_much) == ["over_quota"]
    await mailstore.messages.remove(A, INBOX_ID, [1])
    assert await results(mailstore, too_much) == ["delivered"]


async def test_a_refusal_is_final(mailstore: Mailstore) -> None:
    big = delivery(A, quota=50)
    assert await results(mailstore, big, refuse=True) == ["over_quota"]
    assert await results(mailstore, replace(big, quota_bytes=0)) == ["over_quota"]
    assert await mailstore.deliveries.delivered([(A, big.message.email_id)]) == {(A, big.message.email_id)}
    assert (await mailstore.accounts.usage(A)).messages == 0


async def rows_of(postgres: Postgres, *names: str) -> list[list[tuple[object, ...]]]:
    """Return all rows of the mailstore's tables, without the times of their transactions."""
    found = []
    for name in names:
        rows = await postgres.fetch("test", f"SELECT * FROM mailstore.{name} ORDER BY 1, 2, 3")
        found.append([tuple(v for k, v in row.items() if k not in ("save_date", "delivered_at")) for row in rows])
    return found


async def at_once(postgres: Postgres, deliveries: list[Delivery]) -> list[DeliveryOutcome]:
    """Return the outcomes when the deliveries are simple and the database function does them; otherwise none."""

    async def work(connection: Connection) -> list[DeliveryOutcome]:
        return await deliver_at_once(connection, MailstoreLimits(), deliveries)

    return await postgres.run_statement("deliver", work) if are_plain(deliveries) else []


async def test_at_once_or_step_by_step(mailstore: Mailstore, migrated: Postgres) -> None:
    """Both ways write the same rows: A and B in one call, C and D step by step because of a detail."""
    for account_id in (A, B, C, D):
        await mailstore.accounts.ensure(account_id)
    first, second, third = delivery(A, size=70, quota=1000), delivery(B), delivery(A, quota=900)
    batch = [first, second, third]
    again = [replace(one, account_id=one.account_id + 2, detail="none") for one in batch]
    together = await at_once(migrated, batch)
    step_by_step = await mailstore.deliveries.deliver(again)
    assert together == step_by_step
    assert [outcome.uid for outcome in together] == [1, 1, 2]
    for table in await rows_of(migrated, "messages", "deliveries", "accounts", "mailboxes"):
        at_once_rows = [row for row in table if row[0] in (A, B)]
        others = [(row[0] - 2, *row[1:]) for row in table if row[0] in (C, D)]
        assert at_once_rows == others != []


async def test_a_delivery_that_needs_a_decision_is_done_step_by_step(mailstore: Mailstore, migrated: Postgres) -> None:
    """One delivery is not simple, so the function does nothing of the call."""
    known = delivery(A)
    await mailstore.deliveries.deliver([known])
    await mailstore.accounts.ensure(B)
    await mailstore.accounts.ensure(C)
    await mailstore.accounts.delete(C)
    used = (await mailstore.accounts.usage(A)).total_size
    twice = delivery(A)
    tables = ("messages", "deliveries", "accounts", "mailboxes")
    before = await rows_of(migrated, *tables)
    for bad in (
        [known],
        [twice, twice],
        [delivery(C)],
        [delivery(D)],
        [delivery(A, detail="lists")],
        [delivery(A, quota=used + 99)],
        [delivery(A), delivery(A, quota=used + 100 + len(PREFIX))],
        [replace(twice, message=replace(twice.message, flags=Flag.SEEN))],
    ):
        assert await at_once(migrated, [delivery(B), *bad, delivery(A)]) == []
    assert await rows_of(migrated, *tables) == before


async def test_a_deleted_account_gets_nothing(mailstore: Mailstore) -> None:
    await mailstore.accounts.delete(A)
    assert await results(mailstore, delivery(A), delivery(B)) == ["no_account", "delivered"]


async def test_a_message_delivered_before_its_account_was_deleted(mailstore: Mailstore) -> None:
    """A late copy of the job must not report a failure to the sender."""
    one = delivery(A)
    await mailstore.deliveries.deliver([one])
    await mailstore.accounts.delete(A)
    assert await results(mailstore, one, delivery(A)) == ["duplicate", "no_account"]
    assert await mailstore.deliveries.delivered([(A, one.message.email_id)]) == {(A, one.message.email_id)}


async def test_detail(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    top = await mailstore.mailboxes.create(A, "\u00c9t\u00e9")
    await mailstore.mailboxes.create(A, "INBOX/\u00e9t\u00e9")
    below = await mailstore.mailboxes.create(A, "INBOX/x")
    outcomes = await mailstore.deliveries.deliver(
        [delivery(A, detail=detail) for detail in ("\u00e9T\u00c9", "X", "sent", "inbox", "none", "x/y")]
    )
    assert [outcome.mailbox_id for outcome in outcomes] == [
        top.mailbox_id, below.mailbox_id, INBOX_ID, INBOX_ID, INBOX_ID, INBOX_ID,
    ]  # fmt: skip


async def test_append(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    messages = [
        new_message(flags=Flag.SEEN | Flag.DELETED, keywords=("$Forwarded", "a")),
        new_message(keywords=("A", "$forwarded", "a")),
    ]
    appended = await mailstore.messages.append(A, SENT, messages, quota_bytes=0)
    sent = await mailstore.mailboxes.find(A, "Sent")
    assert (appended.uid_validity, list(appended.uids), appended.mod_seq) == (sent.uid_validity, [1, 2], 2)
    one, two = await read(mailstore, A, SENT)
    assert one.flags == Flag.SEEN | Flag.DELETED
    assert set(one.keywords) == {word for word in sent.keywords if word.lower() in ("$forwarded", "a")}
    assert set(two.keywords) == set(one.keywords)  # one spelling per mailbox
    assert (sent.messages, sent.unseen, sent.deleted) == (2, 1, 1)
    nothing = await mailstore.messages.append(A, SENT, [], quota_bytes=0)
    assert (list(nothing.uids), nothing.mod_seq) == ([], 2)


async def test_append_is_all_or_none(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    with pytest.raises(OverQuota) as caught:
        await mailstore.messages.append(A, SENT, [new_message(size=60), new_message(size=60)], quota_bytes=119)
    assert (caught.value.limit, caught.value.used, caught.value.asked) == (119, 0, 120)
    with pytest.raises(TooManyKeywords):
        await mailstore.messages.append(
            A, SENT, [new_message(), new_message(keywords=("a", "b", "c", "d"))], quota_bytes=0
        )
    with pytest.raises(NoSuchMailbox):
        await mailstore.messages.append(A, 77, [new_message()], quota_bytes=0)
    for word in ("", "two words"):
        with pytest.raises(BadKeyword):
            await mailstore.messages.append(A, SENT, [new_message(keywords=(word,))], quota_bytes=0)
    assert (await mailstore.accounts.usage(A)).messages == 0
    await mailstore.messages.append(A, SENT, [new_message(size=60), new_message(size=60)], quota_bytes=120)


async def test_a_full_mailbox(mailstore: Mailstore, migrated: Postgres) -> None:
    await mailstore.accounts.ensure(A)
    await migrated.execute("test", "UPDATE mailstore.mailboxes SET uid_next = 4294967295 WHERE mailbox_id = 3")
    appended = await mailstore.messages.append(A, SENT, [new_message()], quota_bytes=0)
    assert list(appended.uids) == [2**32 - 1]
    with pytest.raises(MailboxFull):
        await mailstore.messages.append(A, SENT, [new_message()], quota_bytes=0)
    with pytest.raises(MailboxFull):
        await mailstore.messages.copy(A, SENT, appended.uids, SENT, quota_bytes=0)
    await mailstore.mailbox_reader.state(A, SENT)


async def filled(mailstore: Mailstore) -> list[NewMessage]:
    messages = [
        new_message(flags=Flag.SEEN, keywords=("$x",)),
        new_message(size=50),
        new_message(flags=Flag.DELETED, keywords=("y", "$X")),
    ]
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, DRAFTS, messages, quota_bytes=0)
    return messages


async def test_copy_keeps_flags_dates_and_ids(mailstore: Mailstore) -> None:
    messages = await filled(mailstore)
    await mailstore.messages.append(A, SENT, [new_message(keywords=("$X",))], quota_bytes=0)
    copied = await mailstore.messages.copy(A, DRAFTS, [3, 1, 99], SENT, quota_bytes=0)
    sent = await mailstore.mailboxes.find(A, "Sent")
    assert (copied.uid_validity, list(copied.source_uids), list(copied.uids)) == (sent.uid_validity, [1, 3], [2, 3])
    _, one, three = await read(mailstore, A, SENT)
    assert (one.email_id, three.email_id) == (messages[0].email_id, messages[2].email_id)
    assert (one.flags, one.keywords) == (Flag.SEEN, ("$X",))  # spelled as in the target
    assert (three.flags, three.keywords) == (Flag.DELETED, ("y", "$X"))
    assert one.mod_seq == three.mod_seq == copied.mod_seq
    assert one.thread_id == messages[0].thread_key.hex()
    assert one.internal_date == WHEN
    assert one.summary == messages[0].summary
    assert (sent.messages, sent.unseen, sent.deleted) == (3, 2, 1)
    assert len(await read(mailstore, A, DRAFTS)) == 3
    nothing = await mailstore.messages.copy(A, DRAFTS, [98, 99], SENT, quota_bytes=0)
    assert (list(nothing.uids), nothing.mod_seq) == ([], sent.highest_mod_seq)


async def test_copy_into_the_same_mailbox(mailstore: Mailstore) -> None:
    await filled(mailstore)
    copied = await mailstore.messages.copy(A, DRAFTS, [1, 2, 3], DRAFTS, quota_bytes=0)
    assert list(copied.uids) == [4, 5, 6]
    assert len(await read(mailstore, A, DRAFTS)) == 6


async def test_copy_respects_the_quota_and_move_needs_none(mailstore: Mailstore) -> None:
    await filled(mailstore)
    used = (await mailstore.accounts.usage(A)).total_size
    with pytest.raises(OverQuota):
        await mailstore.messages.copy(A, DRAFTS, [2], SENT, quota_bytes=used + 49)
    await mailstore.messages.copy(A, DRAFTS, [2], SENT, quota_bytes=used + 50)
    await mailstore.messages.move(A, DRAFTS, [2], SENT)
    assert (await mailstore.accounts.usage(A)).total_size == used + 50


async def test_copy_is_all_or_none(mailstore: Mailstore) -> None:
    await filled(mailstore)
    await mailstore.messages.append(A, SENT, [new_message(keywords=("p", "q"))], quota_bytes=0)
    for action in (
        mailstore.messages.copy(A, DRAFTS, [1, 2, 3], SENT, quota_bytes=0),
        mailstore.messages.move(A, DRAFTS, [1, 2, 3], SENT),
    ):
        with pytest.raises(TooManyKeywords):
            await action
    assert len(await read(mailstore, A, DRAFTS)) == 3
    assert len(await read(mailstore, A, SENT)) == 1
    for source, target in ((77, SENT), (DRAFTS, 77)):
        with pytest.raises(NoSuchMailbox) as caught:
            await mailstore.messages.copy(A, source, [1], target, quota_bytes=0)
        assert caught.value.name == "77"


async def test_unused_keywords_make_room(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, SENT, [new_message(keywords=("a", "b", "c"))], quota_bytes=0)
    await mailstore.messages.store_flags(A, SENT, [1], FlagOp.REMOVE, keywords=["A", "b"])
    await mailstore.messages.store_flags(A, SENT, [1], FlagOp.ADD, keywords=["d", "e"])
    [message] = await read(mailstore, A, SENT)
    assert set(message.keywords) == {"c", "d", "e"}
    assert len((await mailstore.mailboxes.find(A, "Sent")).keywords) <= SMALL_LIMITS.keywords


async def test_move(mailstore: Mailstore) -> None:
    messages = await filled(mailstore)
    before = await mailstore.mailboxes.find(A, "Drafts")
    moved = await mailstore.messages.move(A, DRAFTS, [2, 3], SENT)
    assert (list(moved.source_uids), list(moved.uids)) == ([2, 3], [1, 2])
    changes = await mailstore.mailbox_reader.changes_since(A, DRAFTS, before.highest_mod_seq)
    assert changes.expunged is not None
    assert (list(changes.expunged), len(changes.rows)) == ([2, 3], 0)
    assert changes.mailbox.highest_mod_seq == moved.source_mod_seq
    two, three = await read(mailstore, A, SENT)
    assert (two.email_id, three.email_id) == (messages[1].email_id, messages[2].email_id)
    assert two.mod_seq == moved.mod_seq
    assert three.keywords == ("y", "$x")
    assert three.summary == messages[2].summary
    nothing = await mailstore.messages.move(A, DRAFTS, [2, 3], SENT)
    assert list(nothing.uids) == []


async def test_move_into_the_same_mailbox(mailstore: Mailstore) -> None:
    await filled(mailstore)
    moved = await mailstore.messages.move(A, DRAFTS, [1, 2], DRAFTS)
    assert list(moved.uids) == [4, 5]
    assert [message.uid for message in await read(mailstore, A, DRAFTS)] == [3, 4, 5]
    changes = await mailstore.mailbox_reader.changes_since(A, DRAFTS, 2)
    assert changes.expunged is not None
    assert (list(changes.expunged), list(changes.rows.uids)) == ([1, 2], [4, 5])


async def test_a_message_without_a_thread(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.messages.append(A, SENT, [replace(new_message(), thread_key=b"", summary=b"")], quota_bytes=0)
    [message] = await read(mailstore, A, SENT)
    assert (message.thread_id, message.summary) == (None, b"")
