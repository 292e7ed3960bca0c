"""The numbers of messages of an account and of a mailbox have limits for each way of arrival: COPY can double them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from paquebot.mailstore import DeliveryResult, MailstoreLimits
from paquebot.mailstore.errors import OverMessageQuota, TooManyMessages
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.postgres.pool import Postgres
from tests.support.mailstore_fixtures import delivery, new_message
from tests.support.mailstores import Mailstore

A, B = 1, 2
SENT = 3
LIMITS = MailstoreLimits(messages=5, mailbox_messages=3)


@pytest.fixture
async def bounded(migrated: Postgres) -> AsyncIterator[Mailstore]:
    """A mailstore with limits of three messages in a mailbox and five in an account; the account exists."""
    store = Mailstore.of(migrated, LIMITS)
    await store.accounts.ensure(A)
    yield store
    assert await store.broken_invariants() == []


async def filled(store: Mailstore, mailbox_id: int, count: int) -> list[int]:
    """Append `count` messages to the mailbox; returns their UIDs."""
    messages = [new_message() for _ in range(count)]
    return list((await store.messages.append(A, mailbox_id, messages, quota_bytes=0)).uids)


async def results(store: Mailstore, count: int, *, detail: str = "") -> list[DeliveryResult]:
    """Deliver `count` messages to A one after another; return the results."""
    return [(await store.deliveries.deliver([delivery(A, detail=detail)]))[0].result for _ in range(count)]


async def test_a_mailbox_copied_into_itself_stays_within_its_limit(bounded: Mailstore) -> None:
    uids = await filled(bounded, INBOX_ID, 1)
    copied = await bounded.messages.copy(A, INBOX_ID, uids, INBOX_ID, quota_bytes=0)
    with pytest.raises(TooManyMessages) as refused:
        await bounded.messages.copy(A, INBOX_ID, [*uids, *copied.uids], INBOX_ID, quota_bytes=0)
    assert refused.value.limit == 3
    assert (await bounded.accounts.usage(A)).messages == 2


async def test_copies_stay_within_the_limit_of_the_account(bounded: Mailstore) -> None:
    uids = await filled(bounded, INBOX_ID, 3)
    with pytest.raises(OverMessageQuota) as refused:
        await bounded.messages.copy(A, INBOX_ID, uids, SENT, quota_bytes=0)
    assert (refused.value.limit, refused.value.used, refused.value.asked) == (5, 3, 3)
    await bounded.messages.copy(A, INBOX_ID, uids[:2], SENT, quota_bytes=0)
    assert (await bounded.accounts.usage(A)).messages == 5


async def test_a_move_needs_space_only_in_its_target(bounded: Mailstore) -> None:
    uids = await filled(bounded, INBOX_ID, 3)
    await filled(bounded, SENT, 2)  # the account is full now
    await bounded.messages.move(A, INBOX_ID, uids[:1], SENT)
    with pytest.raises(TooManyMessages):
        await bounded.messages.move(A, INBOX_ID, uids[1:], SENT)
    await bounded.messages.move(A, INBOX_ID, uids[1:], INBOX_ID)
    assert (await bounded.accounts.usage(A)).messages == 5


async def test_appended_messages_are_counted(bounded: Mailstore) -> None:
    with pytest.raises(TooManyMessages):
        await filled(bounded, INBOX_ID, 4)
    await filled(bounded, INBOX_ID, 3)
    with pytest.raises(OverMessageQuota):
        await filled(bounded, SENT, 3)
    await filled(bounded, SENT, 2)
    with pytest.raises(OverMessageQuota):
        await filled(bounded, SENT, 1)


@pytest.mark.parametrize("detail", ["", "none"], ids=["at once", "step by step"])
async def test_a_full_inbox_is_over_quota(bounded: Mailstore, detail: str) -> None:
    assert await results(bounded, 4, detail=detail) == [DeliveryResult.DELIVERED] * 3 + [DeliveryResult.OVER_QUOTA]
    assert (await bounded.accounts.usage(A)).messages == 3


async def test_a_batch_is_delivered_up_to_the_limit(bounded: Mailstore) -> None:
    await bounded.accounts.ensure(B)
    outcomes = await bounded.deliveries.deliver([*(delivery(A) for _ in range(4)), delivery(B)])
    assert [outcome.result for outcome in outcomes] == [
        *[DeliveryResult.DELIVERED] * 3, DeliveryResult.OVER_QUOTA, DeliveryResult.DELIVERED,
    ]  # fmt: skip


async def test_an_account_with_the_maximum_of_messages_is_over_quota(bounded: Mailstore) -> None:
    await filled(bounded, SENT, 3)
    assert await results(bounded, 3) == [DeliveryResult.DELIVERED] * 2 + [DeliveryResult.OVER_QUOTA]


async def test_removed_messages_free_space(bounded: Mailstore) -> None:
    uids = await filled(bounded, INBOX_ID, 3)
    await bounded.messages.move(A, INBOX_ID, uids[:1], SENT)
    assert await results(bounded, 2) == [DeliveryResult.DELIVERED, DeliveryResult.OVER_QUOTA]


def test_invalid_limits() -> None:
    for wrong in ({"messages": 0}, {"mailbox_messages": 0}, {"keywords": 0}, {"mailboxes": 5}):
        with pytest.raises(ValueError, match="PAQUEBOT_"):
            MailstoreLimits(**wrong)
