"""The tree of mailboxes: RFC 3501 §6.3 on a real database."""

from __future__ import annotations

import pytest
from tests.support.mailstore_fixtures import PREFIX, SMALL_LIMITS, delivery, new_message

from paquebot.mailstore import Mailbox, Mailstore, SpecialUse
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

A, B = 1, 2


async def names(mailstore: Mailstore, account_id: int = A) -> list[str]:
    """Names without the special ones; a name that is not selectable in parentheses."""
    return [
        mailbox.name if mailbox.selectable else f"({mailbox.name})"
        for mailbox in await mailstore.mailboxes(account_id)
        if mailbox.special_use is None
    ]


async def test_a_new_account(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    await mailstore.ensure_account(A)
    mailboxes = await mailstore.mailboxes(A)
    assert {mailbox.name: mailbox.special_use for mailbox in mailboxes} == {
        "Archive": SpecialUse.ARCHIVE,
        "Drafts": SpecialUse.DRAFTS,
        "INBOX": None,
        "Junk": SpecialUse.JUNK,
        "Sent": SpecialUse.SENT,
        "Trash": SpecialUse.TRASH,
    }
    assert await mailstore.subscriptions(A) == ("Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash")
    inbox = await mailstore.find_mailbox(A, "inbox")
    assert inbox.mailbox_id == INBOX_ID
    assert (inbox.uid_next, inbox.highest_mod_seq, inbox.messages, inbox.recent) == (1, 1, 0, 0)
    assert inbox.uid_validity > 0
    assert await mailstore.mailboxes(B) == ()


async def test_create_makes_superiors(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    made = await mailstore.create_mailbox(A, "inbox/a/b/")
    assert made.name == "INBOX/a/b"
    assert await names(mailstore) == ["INBOX", "INBOX/a", "INBOX/a/b"]
    assert await mailstore.subscriptions(A) == ("Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash")
    for taken in ("INBOX", "Inbox/a", "INBOX/a/b"):
        with pytest.raises(MailboxExists):
            await mailstore.create_mailbox(A, taken)
    with pytest.raises(NoSuchAccount):
        await mailstore.create_mailbox(B, "x")


async def test_special_use_can_be_asked_for(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    made = await mailstore.create_mailbox(A, "Spam", special_use=SpecialUse.JUNK)
    assert made.special_use is SpecialUse.JUNK


async def test_bounds(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    for bad in ("", "/", "a//b", "/a", "a\x00b", "a\nb", "x" * 41, "a/b/c/d/e", "\ud800"):
        with pytest.raises(BadMailboxName):
            await mailstore.create_mailbox(A, bad)
    for name in ("a/b/c", "d"):
        await mailstore.create_mailbox(A, name)
    assert len(await mailstore.mailboxes(A)) == SMALL_LIMITS.mailboxes
    with pytest.raises(TooManyMailboxes):
        await mailstore.create_mailbox(A, "more")
    with pytest.raises(TooManyMailboxes):
        await mailstore.rename_mailbox(A, "d", "new/d")
    await mailstore.rename_mailbox(A, "d", "a/d")


async def test_delete_keeps_a_name_with_inferiors(mailstore: Mailstore) -> None:
    """RFC 3501 §6.3.4"""
    await mailstore.ensure_account(A)
    below = await mailstore.create_mailbox(A, "foo/bar")
    foo = await mailstore.find_mailbox(A, "foo")
    await mailstore.append(A, foo.mailbox_id, [new_message()], quota_bytes=0)
    await mailstore.append(A, below.mailbox_id, [new_message()], quota_bytes=0)
    await mailstore.delete_mailbox(A, "foo")
    assert await names(mailstore) == ["INBOX", "(foo)", "foo/bar"]
    assert (await mailstore.usage(A)).messages == 1
    with pytest.raises(NoSuchMailbox):
        await mailstore.snapshot(A, foo.mailbox_id)
    bare = await mailstore.find_mailbox(A, "foo")
    with pytest.raises(NotSelectable):
        await mailstore.snapshot(A, bare.mailbox_id)
    with pytest.raises(NotSelectable):
        await mailstore.append(A, bare.mailbox_id, [new_message()], quota_bytes=0)
    with pytest.raises(MailboxHasInferiors):
        await mailstore.delete_mailbox(A, "foo")
    with pytest.raises(MailboxExists):
        await mailstore.rename_mailbox(A, "Trash", "foo")
    again = await mailstore.create_mailbox(A, "foo")
    assert again.selectable
    assert again.mailbox_id not in (foo.mailbox_id, bare.mailbox_id)
    assert again.uid_validity > foo.uid_validity


async def test_the_last_inferior_takes_bare_names_along(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    await mailstore.create_mailbox(A, "a/b/c")
    await mailstore.delete_mailbox(A, "a/b")
    await mailstore.delete_mailbox(A, "a")
    assert await names(mailstore) == ["INBOX", "(a)", "(a/b)", "a/b/c"]
    await mailstore.delete_mailbox(A, "a/b/c")
    assert await names(mailstore) == ["INBOX"]


async def test_what_cannot_be_deleted(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    with pytest.raises(MailboxProtected):
        await mailstore.delete_mailbox(A, "Inbox")
    with pytest.raises(NoSuchMailbox):
        await mailstore.delete_mailbox(A, "none")
    with pytest.raises(NoSuchMailbox):
        await mailstore.find_mailbox(A, "none")


async def test_a_uid_validity_is_never_seen_again(mailstore: Mailstore) -> None:
    """RFC 3501 §2.3.1.1: for one name it only grows, whatever was deleted, made or renamed."""
    await mailstore.ensure_account(A)
    seen: list[Mailbox] = [await mailstore.create_mailbox(A, "x")]
    await mailstore.delete_mailbox(A, "x")
    seen.append(await mailstore.create_mailbox(A, "x"))
    await mailstore.rename_mailbox(A, "x", "y")
    seen.append(await mailstore.create_mailbox(A, "x"))
    await mailstore.delete_mailbox(A, "x")
    await mailstore.rename_mailbox(A, "y", "x")
    seen.append(await mailstore.find_mailbox(A, "x"))
    validities = [mailbox.uid_validity for mailbox in seen]
    assert validities == sorted(set(validities))
    assert seen[3].mailbox_id == seen[1].mailbox_id  # RFC 8474 §4.1: a rename keeps the id


async def test_rename_takes_inferiors_along(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    made = await mailstore.create_mailbox(A, "foo/bar")
    await mailstore.create_mailbox(A, "foobar")
    await mailstore.append(A, made.mailbox_id, [new_message()], quota_bytes=0)
    await mailstore.rename_mailbox(A, "foo", "z/y")
    assert await names(mailstore) == ["INBOX", "foobar", "z", "z/y", "z/y/bar"]
    assert len((await mailstore.snapshot(A, made.mailbox_id)).rows) == 1
    for old, new, error in (
        ("none", "a", NoSuchMailbox),
        ("z/y", "foobar", MailboxExists),
        ("z/y", "z/y", MailboxExists),
        ("z/y", "z/y/below", BadMailboxName),
        ("z/y", "a/b/c/d", BadMailboxName),  # z/y/bar would be too deep
        ("INBOX", "Trash", MailboxExists),
    ):
        with pytest.raises(error):
            await mailstore.rename_mailbox(A, old, new)
    assert await names(mailstore) == ["INBOX", "foobar", "z", "z/y", "z/y/bar"]


async def test_rename_of_inbox_moves_its_messages(mailstore: Mailstore) -> None:
    """RFC 3501 §6.3.5: INBOX stays, empty, and its inferiors stay where they are."""
    await mailstore.deliver([delivery(A), delivery(A)])
    await mailstore.create_mailbox(A, "INBOX/below")
    before = await mailstore.find_mailbox(A, "INBOX")
    await mailstore.rename_mailbox(A, "INBOX", "old/mail")
    assert await names(mailstore) == ["INBOX", "INBOX/below", "old", "old/mail"]
    inbox, old = await mailstore.find_mailbox(A, "INBOX"), await mailstore.find_mailbox(A, "old/mail")
    assert (inbox.messages, old.messages) == (0, 2)
    assert (inbox.mailbox_id, inbox.uid_validity, inbox.uid_next) == (INBOX_ID, before.uid_validity, 3)
    changes = await mailstore.changes_since(A, INBOX_ID, before.highest_mod_seq)
    assert changes.expunged is not None
    assert list(changes.expunged) == [1, 2]


async def test_names_compare_in_nfc(mailstore: Mailstore) -> None:
    await mailstore.ensure_account(A)
    await mailstore.create_mailbox(A, "E\u0301te\u0301")
    assert (await mailstore.find_mailbox(A, "\u00c9t\u00e9")).name == "\u00c9t\u00e9"


async def test_status_of_many(mailstore: Mailstore) -> None:
    await mailstore.deliver([delivery(A, size=10), delivery(A, size=20)])
    found = await mailstore.status(A, ["inbox", "INBOX", "Trash", "none"])
    assert found.keys() == {"inbox", "INBOX", "Trash"}
    inbox = found["inbox"]
    assert (inbox.messages, inbox.unseen, inbox.recent, inbox.deleted, inbox.uid_next) == (2, 2, 2, 0, 3)
    assert inbox.octets == (await mailstore.usage(A)).octets == 30 + 2 * len(PREFIX)


async def test_subscriptions_outlive_mailboxes(mailstore: Mailstore) -> None:
    """RFC 3501 §6.3.6"""
    await mailstore.ensure_account(A)
    await mailstore.create_mailbox(A, "x")
    await mailstore.subscribe(A, "x")
    await mailstore.subscribe(A, "x")
    await mailstore.subscribe(A, "never/was")
    await mailstore.delete_mailbox(A, "x")
    await mailstore.unsubscribe(A, "Junk")
    await mailstore.unsubscribe(A, "Junk")
    assert await mailstore.subscriptions(A) == (
        "Archive", "Drafts", "INBOX", "Sent", "Trash", "never/was", "x",
    )  # fmt: skip
    for number in range(2 * SMALL_LIMITS.mailboxes - 7):
        await mailstore.subscribe(A, f"s{number}")
    with pytest.raises(TooManyMailboxes):
        await mailstore.subscribe(A, "more")
    await mailstore.subscribe(A, "x")  # a name that is there already is no more of them


async def test_a_deleted_account_stays_deleted(mailstore: Mailstore) -> None:
    await mailstore.deliver([delivery(A), delivery(B)])
    await mailstore.lock_maildrop(A, "pop", 60)
    await mailstore.delete_account(A)
    await mailstore.delete_account(A)
    assert await mailstore.mailboxes(A) == ()
    assert await mailstore.subscriptions(A) == ()
    assert (await mailstore.usage(A)).octets == 0
    assert [use.account_id async for use in mailstore.blobs()] == [B]
    with pytest.raises(NoSuchAccount):
        await mailstore.ensure_account(A)
    await mailstore.delete_account(99)  # never had mail
    with pytest.raises(NoSuchAccount):
        await mailstore.ensure_account(99)
