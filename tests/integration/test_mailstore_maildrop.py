"""POP3's maildrop: an exclusive lease that expires after its pod is gone, and removals only at the session's end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from paquebot.mailstore.errors import MaildropLocked, MaildropLost, NoSuchAccount
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.postgres.pool import Postgres
from tests.support.mailstore_fixtures import delivery
from tests.support.mailstores import Mailstore

A = 1
MINUTE = 60.0


async def test_a_session_sees_inbox_as_it_was_at_the_login(mailstore: Mailstore) -> None:
    await mailstore.deliveries.deliver([delivery(A, size=10), delivery(A, size=20)])
    await mailstore.messages.remove(A, INBOX_ID, [1])
    maildrop = await mailstore.maildrops.lock(A, "one", MINUTE)
    inbox = await mailstore.mailboxes.find(A, "INBOX")
    assert (maildrop.mailbox_id, maildrop.uid_validity) == (INBOX_ID, inbox.uid_validity)
    assert [(message.uid, message.size) for message in maildrop.messages] == [(2, inbox.total_size)]
    await mailstore.maildrops.unlock(A, "one")
    empty = await mailstore.maildrops.lock(2, "one", MINUTE)  # created on first use
    assert empty.messages == ()


async def test_one_session_at_a_time(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    owners = [f"session {n}" for n in range(6)]
    answers = await asyncio.gather(
        *(mailstore.maildrops.lock(A, owner, MINUTE) for owner in owners), return_exceptions=True
    )
    assert sum(isinstance(answer, MaildropLocked) for answer in answers) == 5
    [owner] = [owner for owner, answer in zip(owners, answers, strict=True) if not isinstance(answer, Exception)]
    await mailstore.maildrops.lock(A, owner, MINUTE)  # the holder may take its own lease again
    await mailstore.maildrops.unlock(A, "another owner")
    with pytest.raises(MaildropLocked):
        await mailstore.maildrops.lock(A, "late", MINUTE)
    await mailstore.maildrops.unlock(A, owner)
    await mailstore.maildrops.lock(A, "late", MINUTE)


async def test_deletions_are_applied_when_the_maildrop_closes(mailstore: Mailstore) -> None:
    await mailstore.deliveries.deliver([delivery(A), delivery(A), delivery(A)])
    await mailstore.maildrops.lock(A, "one", MINUTE)
    closed = await mailstore.maildrops.close(A, "one", INBOX_ID, [1, 3])
    assert list(closed.uids) == [1, 3]
    maildrop = await mailstore.maildrops.lock(A, "two", MINUTE)
    assert [message.uid for message in maildrop.messages] == [2]
    with pytest.raises(MaildropLost):
        await mailstore.maildrops.close(A, "one", INBOX_ID, [2])


async def test_an_expired_lease(mailstore: Mailstore, migrated: Postgres) -> None:
    await mailstore.deliveries.deliver([delivery(A)])
    await mailstore.maildrops.lock(A, "dead pod", MINUTE)
    await migrated.execute("test", "UPDATE mailstore.maildrop_locks SET expires_at = now() - interval '1 s'")
    await mailstore.maildrops.renew(A, "dead pod", MINUTE)  # no other session took the maildrop
    with pytest.raises(MaildropLocked):
        await mailstore.maildrops.lock(A, "next", MINUTE)
    await migrated.execute("test", "UPDATE mailstore.maildrop_locks SET expires_at = now() - interval '1 s'")
    await mailstore.maildrops.lock(A, "next", MINUTE)
    with pytest.raises(MaildropLost):
        await mailstore.maildrops.renew(A, "dead pod", MINUTE)
    with pytest.raises(MaildropLost):
        await mailstore.maildrops.close(A, "dead pod", INBOX_ID, [1])
    await mailstore.maildrops.unlock(A, "dead pod")
    assert (await mailstore.accounts.usage(A)).messages == 1
    await mailstore.maildrops.renew(A, "next", MINUTE)


async def test_a_deleted_account(mailstore: Mailstore) -> None:
    await mailstore.accounts.ensure(A)
    await mailstore.maildrops.lock(A, "one", MINUTE)
    await mailstore.accounts.delete(A)
    with pytest.raises(MaildropLost):
        await mailstore.maildrops.close(A, "one", INBOX_ID, [])
    with pytest.raises(NoSuchAccount):
        await mailstore.maildrops.lock(A, "one", MINUTE)


# The call of versions before migration crlf_sizes.
_APPENDED_BEFORE = """
    SELECT first_uid FROM mailstore.append_messages(
        $1, 1, 1000000, false, '{}', '{q}', '{30}', ARRAY[now()], '{0}', '{""}', '{01ARZ3NDEKTSV4RRFFQ69G5FAV}',
        '{0}', '{10}', '{30}', '{1}', '{0}', ARRAY[''::bytea], ARRAY[''::bytea], ARRAY[''::bytea])
"""


async def test_sizes_as_sent(mailstore: Mailstore, migrated: Postgres) -> None:
    """Appended by this version, appended by an older one, delivered, copied; then sizes that POP3 counted."""
    await mailstore.accounts.ensure(A)
    appended = replace(delivery(A, size=20).message, crlf_bytes=24, prefix=b"")
    await mailstore.messages.append(A, INBOX_ID, [appended], quota_bytes=0, claim=False)
    assert await migrated.fetchval("test", _APPENDED_BEFORE, A) == 2
    came_over_smtp = delivery(A, size=50)
    assert came_over_smtp.message.prefix
    await mailstore.deliveries.deliver([came_over_smtp])
    await mailstore.messages.copy(A, INBOX_ID, [1, 2], INBOX_ID, quota_bytes=0)

    async def listed() -> list[tuple[int, bool]]:
        found = [(message.size, message.is_exact) for message in (await mailstore.maildrops.lock(A, "x", 60)).messages]
        assert len(found) == 5
        return found

    delivered = came_over_smtp.message.size
    assert await listed() == [(24, True), (30, False), (delivered, True), (24, True), (30, False)]
    await mailstore.maildrops.keep_sizes(A, INBOX_ID, {1: 99, 2: 31, 5: 32, 77: 1})
    assert await listed() == [(24, True), (31, True), (delivered, True), (24, True), (32, True)]
