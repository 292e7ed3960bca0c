"""The tree of mailboxes: RFC 3501 §6.3 on a real database."""

from __future__ import annotations

import pytest

from paquebot.mailstore import Mailbox, SpecialUse
from paquebot.mailstore.errors import (
    BadMailboxName,
    MailboxExists,
    MailboxHasInferiors,
    MailboxProtected,
    NoSuchAccount,
    NoSuchMailbox,
    NotSelectable,
    TooManyMailboxes,
)
from paquebot.mailstore.mailboxes.names import INBOX_ID
from tests.support.mailstore_fixtures import PREFIX, SMALL_LIMITS, delivery, new_message
from tests.support.mailstores import Mailstore

A, B = 1, 2


async def names(mailstore: Mailstore, account_id: int = A) -> list[str]:
    """Return the names without those with a special use; a name that is not selectable is in parentheses."""
    return [
        mailbox.name if mailbox.selectable else f"({mailbox.name})"
        for mailbox in await mailstore.mailboxes.list_all(account_id)
        if mailbox.special_use is None
    ]


async def test_a_new_account(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.accounts.ensure(A)
    mailboxes = await mailstore.mailboxes.list_all(A)
    assert {mailbox.name: mailbox.special_use for mailbox in mailboxes} == {
        "Archive": SpecialUse.ARCHIVE,
        "Drafts": SpecialUse.DRAFTS,
        "INBOX": None,
        "Junk": SpecialUse.JUNK,
        "Sent": SpecialUse.SENT,
        "Trash": SpecialUse.TRASH,
    }
    assert await mailstore.mailboxes.subscriptions(A) == ("Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash")
    inbox = await mailstore.mailboxes.find(A, "inbox")
    assert inbox.mailbox_id == INBOX_ID
    assert (inbox.uid_next, inbox.highest_mod_seq, inbox.messages, inbox.recent) == (1, 1, 0, 0)
    assert inbox.uid_validity > 0
    assert await mailstore.mailboxes.list_all(B) == ()


async def test_create_makes_superiors(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    made = await mailstore.mailboxes.create(A, "inbox/a/b/")
    assert made.name == "INBOX/a/b"
    assert await names(mailstore) == ["INBOX", "INBOX/a", "INBOX/a/b"]
    assert await mailstore.mailboxes.subscriptions(A) == ("Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash")
    for taken in ("INBOX", "Inbox/a", "INBOX/a/b"):
        with pytest.raises(MailboxExists):
            await mailstore.mailboxes.create(A, taken)
    with pytest.raises(NoSuchAccount):
        await mailstore.mailboxes.create(B, "x")


async def test_special_use_can_be_asked_for(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    made = await mailstore.mailboxes.create(A, "Spam", special_use=SpecialUse.JUNK)
    assert made.special_use is SpecialUse.JUNK


async def test_limits_of_the_tree(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    for bad in ("", "/", "a//b", "/a", "a\x00b", "a\nb", "x" * 41, "a/b/c/d/e", "\ud800"):
        with pytest.raises(BadMailboxName):
            await mailstore.mailboxes.create(A, bad)
    for name in ("a/b/c", "d"):
        await mailstore.mailboxes.create(A, name)
    assert len(await mailstore.mailboxes.list_all(A)) == SMALL_LIMITS.mailboxes
    with pytest.raises(TooManyMailboxes):
        await mailstore.mailboxes.create(A, "more")
    with pytest.raises(TooManyMailboxes):
        await mailstore.mailboxes.rename(A, "d", "new/d")
    await mailstore.mailboxes.rename(A, "d", "a/d")


async def test_delete_keeps_a_name_with_inferiors(mailstore: Mailstore) -> None:
    """RFC 3501 §6.3.4"""
    await mailstore.accounts.ensure(A)
    below = await mailstore.mailboxes.create(A, "foo/bar")
    foo = await mailstore.mailboxes.find(A, "foo")
    await mailstore.messages.append(A, foo.mailbox_id, [new_message()], quota_bytes=0)
    await mailstore.messages.append(A, below.mailbox_id, [new_message()], quota_bytes=0)
    await mailstore.mailboxes.delete(A, "foo")
    assert await names(mailstore) == ["INBOX", "(foo)", "foo/bar"]
    assert (await mailstore.accounts.usage(A)).messages == 1
    with pytest.raises(NoSuchMailbox):
        await mailstore.mailbox_reader.state(A, foo.mailbox_id)
    bare = await mailstore.mailboxes.find(A, "foo")
    with pytest.raises(NotSelectable):
        await mailstore.mailbox_reader.state(A, bare.mailbox_id)
    with pytest.raises(NotSelectable):
        await mailstore.messages.append(A, bare.mailbox_id, [new_message()], quota_bytes=0)
    with pytest.raises(MailboxHasInferiors):
        await mailstore.mailboxes.delete(A, "foo")
    with pytest.raises(MailboxExists):
        await mailstore.mailboxes.rename(A, "Trash", "foo")
    again = await mailstore.mailboxes.create(A, "foo")
    assert again.selectable
    assert again.mailbox_id not in (foo.mailbox_id, bare.mailbox_id)
    assert again.uid_validity > foo.uid_validity


async def test_names_without_messages_are_deleted_with_their_last_inferior(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.mailboxes.create(A, "a/b/c")
    await mailstore.mailboxes.delete(A, "a/b")
    await mailstore.mailboxes.delete(A, "a")
    assert await names(mailstore) == ["INBOX", "(a)", "(a/b)", "a/b/c"]
    await mailstore.mailboxes.delete(A, "a/b/c")
    assert await names(mailstore) == ["INBOX"]


async def test_inbox_and_missing_names_cannot_be_deleted(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    with pytest.raises(MailboxProtected):
        await mailstore.mailboxes.delete(A, "Inbox")
    with pytest.raises(NoSuchMailbox):
        await mailstore.mailboxes.delete(A, "none")
    with pytest.raises(NoSuchMailbox):
        await mailstore.mailboxes.find(A, "none")


async def test_a_uid_validity_is_never_seen_again(mailstore: Mailstore) -> None:
    """RFC 3501 §2.3.1.1: for one name it only grows when mailboxes are deleted, made or renamed."""
    await mailstore.accounts.ensure(A)
    seen: list[Mailbox] = [await mailstore.mailboxes.create(A, "x")]
    await mailstore.mailboxes.delete(A, "x")
    seen.append(await mailstore.mailboxes.create(A, "x"))
    await mailstore.mailboxes.rename(A, "x", "y")
    seen.append(await mailstore.mailboxes.create(A, "x"))
    await mailstore.mailboxes.delete(A, "x")
    await mailstore.mailboxes.rename(A, "y", "x")
    seen.append(await mailstore.mailboxes.find(A, "x"))
    validities = [mailbox.uid_validity for mailbox in seen]
    assert validities == sorted(set(validities))
    assert seen[3].mailbox_id == seen[1].mailbox_id  # RFC 8474 §4.1: a rename keeps the id


async def test_rename_renames_inferiors(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    made = await mailstore.mailboxes.create(A, "foo/bar")
    await mailstore.mailboxes.create(A, "foobar")
    await mailstore.messages.append(A, made.mailbox_id, [new_message()], quota_bytes=0)
    await mailstore.mailboxes.rename(A, "foo", "z/y")
    assert await names(mailstore) == ["INBOX", "foobar", "z", "z/y", "z/y/bar"]
    assert len((await mailstore.mailbox_reader.state(A, made.mailbox_id)).rows) == 1
    for old, new, error in (
        ("none", "a", NoSuchMailbox),
        ("z/y", "foobar", MailboxExists),
        ("z/y", "z/y", MailboxExists),
        ("z/y", "z/y/below", BadMailboxName),
        ("z/y", "a/b/c/d", BadMailboxName),  # z/y/bar would be too deep
        ("INBOX", "Trash", MailboxExists),
    ):
        with pytest.raises(error):
            await mailstore.mailboxes.rename(A, old, new)
    assert await names(mailstore) == ["INBOX", "foobar", "z", "z/y", "z/y/bar"]


async def test_rename_of_inbox_moves_its_messages(mailstore: Mailstore) -> None:
    """RFC 3501 §6.3.5: INBOX stays, empty, and its inferiors stay where they are."""
    await mailstore.deliveries.deliver([delivery(A), delivery(A)])
    await mailstore.mailboxes.create(A, "INBOX/below")
    before = await mailstore.mailboxes.find(A, "INBOX")
    await mailstore.mailboxes.rename(A, "INBOX", "old/mail")
    assert await names(mailstore) == ["INBOX", "INBOX/below", "old", "old/mail"]
    inbox, old = await mailstore.mailboxes.find(A, "INBOX"), await mailstore.mailboxes.find(A, "old/mail")
    assert (inbox.messages, old.messages) == (0, 2)
    assert (inbox.mailbox_id, inbox.uid_validity, inbox.uid_next) == (INBOX_ID, before.uid_validity, 3)
    changes = await mailstore.mailbox_reader.changes_since(A, INBOX_ID, before.highest_mod_seq)
    assert changes.expunged is not None
    assert list(changes.expunged) == [1, 2]


async def test_names_compare_in_nfc(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.mailboxes.create(A, "E\u0301te\u0301")
    assert (await mailstore.mailboxes.find(A, "\u00c9t\u00e9")).name == "\u00c9t\u00e9"


async def test_status_of_many(mailstore: Mailstore) -> None:
    await mailstore.deliveries.deliver([delivery(A, size=10), delivery(A, size=20)])
    found = await mailstore.mailboxes.status(A, ["inbox", "INBOX", "Trash", "none"])
    assert found.keys() == {"inbox", "INBOX", "Trash"}
    inbox = found["inbox"]
    assert (inbox.messages, inbox.unseen, inbox.recent, inbox.deleted, inbox.uid_next) == (2, 2, 2, 0, 3)
    assert inbox.total_size == (await mailstore.accounts.usage(A)).total_size == 30 + 2 * len(PREFIX)


async def test_subscriptions_outlive_mailboxes(mailstore: Mailstore) -> None:
    """RFC 3501 §6.3.6"""
    await mailstore.accounts.ensure(A)
    await mailstore.mailboxes.create(A, "x")
    await mailstore.mailboxes.subscribe(A, "x")
    await mailstore.mailboxes.subscribe(A, "x")
    await mailstore.mailboxes.subscribe(A, "never/was")
    await mailstore.mailboxes.delete(A, "x")
    await mailstore.mailboxes.unsubscribe(A, "Junk")
    await mailstore.mailboxes.unsubscribe(A, "Junk")
    assert await mailstore.mailboxes.subscriptions(A) == (
        "Archive", "Drafts", "INBOX", "Sent", "Trash", "never/was", "x",
    )  # fmt: skip
    for number in range(2 * SMALL_LIMITS.mailboxes - 7):
        await mailstore.mailboxes.subscribe(A, f"s{number}")
    with pytest.raises(TooManyMailboxes):
        await mailstore.mailboxes.subscribe(A, "more")
    await mailstore.mailboxes.subscribe(A, "x")  # a name that is subscribed already adds none


async def test_a_deleted_account_stays_deleted(mailstore: Mailstore) -> None:
    await mailstore.deliveries.deliver([delivery(A), delivery(B)])
    await mailstore.maildrops.lock(A, "pop", 60)
    await mailstore.accounts.delete(A)
    await mailstore.accounts.delete(A)
    assert await mailstore.mailboxes.list_all(A) == ()
    assert await mailstore.mailboxes.subscriptions(A) == ()
    assert (await mailstore.accounts.usage(A)).total_size == 0
    assert [use.account_id async for use in mailstore.pack_uses.of_accounts()] == [B]
    with pytest.raises(NoSuchAccount):
        await mailstore.accounts.ensure(A)
    await mailstore.accounts.delete(99)  # never had mail
    with pytest.raises(NoSuchAccount):
        await mailstore.accounts.ensure(99)
