"""Deliveries: messages for any accounts, each put into its mailbox once.

A delivery and its record are one transaction under the account's lock, so a message has its effect once in an account
(invariant 3). The subaddress detail of a delivery names a mailbox when one of that name exists, compared without
case, at the top or below INBOX (top first): alice+lists@ goes to `lists`, else to `INBOX/lists`, else to INBOX. It
never names a mailbox with a special use, so no sender can write into Sent or Drafts.

Most calls bring only new messages for INBOX of accounts with room: `deliver_at_once` does these in one round trip. The
other calls are decided here, step by step.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from paquebot.mailstore.accounts import add_accounts
from paquebot.mailstore.deliveries.at_once import are_plain, deliver_at_once
from paquebot.mailstore.deliveries.new_rows import NewRow, insert
from paquebot.mailstore.deliveries.types import Delivery, DeliveryOutcome, DeliveryResult
from paquebot.mailstore.limits import MailstoreLimits
from paquebot.mailstore.locks import LockedAccount, lock_accounts
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.uid_ceilings import within_uid_ceilings
from paquebot.runtime.postgres.pool import Connection, Postgres

_Place = tuple[int, int]
"""A mailbox: the account's id and its own."""
_BATCH = 2000

_DELETED = "SELECT account_id FROM mailstore.accounts WHERE account_id = ANY($1::bigint[]) AND deleted_at IS NOT NULL"
_FORGET = """
    DELETE FROM mailstore.deliveries WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM mailstore.deliveries WHERE delivered_at < $1 LIMIT $2))
"""


class Deliveries:
    """One per process."""

    __slots__ = ("_limits", "_postgres")

    def __init__(self, postgres: Postgres, limits: MailstoreLimits | None = None) -> None:
        self._postgres = postgres
        self._limits = limits or MailstoreLimits()

    async def deliver(
        self, deliveries: Sequence[Delivery], *, refuse_over_quota: bool = False
    ) -> list[DeliveryOutcome]:
        """Put each message into its account, in one transaction; the outcome at place i is of delivery i.

        Each (queue id, account) has its effect once, even if it is repeated. Accounts are created on first use. With
        `refuse_over_quota` a message over quota, in bytes or messages, is recorded as refused: it stays OVER_QUOTA when
        it is delivered again, even if there is space by then.
        """
        if not deliveries:
            return []

        async def at_once(connection: Connection) -> list[DeliveryOutcome]:
            return await deliver_at_once(connection, self._limits, deliveries)

        async def step_by_step(connection: Connection) -> list[DeliveryOutcome]:
            return await _deliver(connection, self._limits, deliveries, refuse_over_quota=refuse_over_quota)

        if are_plain(deliveries):
            outcomes = await within_uid_ceilings(self._postgres.run_statement("deliver", at_once))
            if outcomes:
                return outcomes
        return await within_uid_ceilings(self._postgres.run("deliver", step_by_step))

    async def delivered(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """The (account id, queue id) that were delivered or refused, or name a deleted account: a recovery need not
        deliver these again."""
        async with self._postgres.connection("delivered") as connection:
            recorded = set(await _recorded(connection, keys))
            rows = await connection.fetch(_DELETED, list({account_id for account_id, _ in keys}))
        deleted = {row["account_id"] for row in rows}
        return recorded | {key for key in keys if key[0] in deleted}

    async def forget(self, older_than: datetime) -> int:
        """Delete the records of deliveries before `older_than`; return how many."""
        total = 0
        while True:
            async with self._postgres.connection("forget_deliveries") as connection:
                status: str = await connection.execute(_FORGET, older_than, _BATCH)
            forgotten = int(status.rpartition(" ")[2])
            total += forgotten
            if forgotten < _BATCH:
                return total


async def _deliver(
    connection: Connection, limits: MailstoreLimits, deliveries: Sequence[Delivery], *, refuse_over_quota: bool
) -> list[DeliveryOutcome]:
    accounts = await _accounts(connection, {delivery.account_id for delivery in deliveries})
    before = await _recorded(connection, [_key(delivery) for delivery in deliveries])
    named = await _named_mailboxes(connection, deliveries)
    mailboxes = [(delivery.account_id, _mailbox_for(delivery, named)) for delivery in deliveries]
    room = _Room(limits, accounts, await _counted(connection, mailboxes))
    results = _decide(deliveries, mailboxes, before, room)
    if refuse_over_quota:
        await _record_refusals(connection, deliveries, results)
    new_rows = list(_new_rows(deliveries, results, mailboxes))
    placed = await insert(connection, new_rows) if new_rows else []
    outcomes = (
        DeliveryOutcome(DeliveryResult.DELIVERED, row.mailbox_id, at.uid, at.mod_seq)
        for row, at in zip(new_rows, placed, strict=True)
    )
    return [next(outcomes) if result is DeliveryResult.DELIVERED else DeliveryOutcome(result) for result in results]


def _key(delivery: Delivery) -> tuple[int, str]:
    return delivery.account_id, delivery.message.email_id


async def _accounts(connection: Connection, wanted: set[int]) -> dict[int, LockedAccount]:
    """Make the missing accounts and lock all of them; without those that were deleted."""
    locked = await lock_accounts(connection, sorted(wanted))
    if len(locked) < len(wanted):
        await add_accounts(connection, sorted(wanted - locked.keys()))
        locked = await lock_accounts(connection, sorted(wanted))
    return locked


_RECORDED = """
    SELECT d.* FROM unnest($1::bigint[], $2::text[]) AS k (account_id, queue_id) CROSS JOIN LATERAL (
        SELECT account_id, queue_id, refused FROM mailstore.deliveries d
        WHERE d.account_id = k.account_id AND d.queue_id = k.queue_id OFFSET 0
    ) d
"""


async def _recorded(connection: Connection, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], bool]:
    """Those of `keys` that have a record, and whether it records a refusal."""
    found = await connection.fetch(_RECORDED, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["account_id"], row["queue_id"]): row["refused"] for row in found}


_REFUSE = """
    INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at, refused)
    SELECT account_id, queue_id, now(), true FROM unnest($1::bigint[], $2::text[]) AS k (account_id, queue_id)
    ON CONFLICT DO NOTHING
"""


async def _record_refusals(
    connection: Connection, deliveries: Sequence[Delivery], results: Sequence[DeliveryResult]
) -> None:
    refused = [
        _key(delivery)
        for delivery, result in zip(deliveries, results, strict=True)
        if result is DeliveryResult.OVER_QUOTA
    ]
    if refused:
        await connection.execute(_REFUSE, [key[0] for key in refused], [key[1] for key in refused])


_NAMED = """
    SELECT account_id, mailbox_id, name FROM mailstore.mailboxes
    WHERE account_id = ANY($1::bigint[]) AND selectable AND special_use IS NULL
"""


async def _named_mailboxes(connection: Connection, deliveries: Sequence[Delivery]) -> dict[tuple[int, str], int]:
    """(account id, case-folded name) → mailbox id, of the mailboxes that a detail may name."""
    accounts = {delivery.account_id for delivery in deliveries if delivery.detail}
    if not accounts:
        return {}
    found = await connection.fetch(_NAMED, sorted(accounts))
    return {(row["account_id"], row["name"].casefold()): row["mailbox_id"] for row in found}


_COUNTED = """
    SELECT account_id, mailbox_id, messages FROM mailstore.mailboxes
    WHERE account_id = ANY($1::bigint[]) AND mailbox_id = ANY($2::int[])
"""


async def _counted(connection: Connection, mailboxes: Sequence[_Place]) -> dict[_Place, int]:
    """The number of messages in each of the mailboxes; no other transaction adds one while the accounts are locked."""
    accounts, ids = {account_id for account_id, _ in mailboxes}, {mailbox_id for _, mailbox_id in mailboxes}
    found = await connection.fetch(_COUNTED, sorted(accounts), sorted(ids))
    return {(row["account_id"], row["mailbox_id"]): row["messages"] for row in found}


class _Room:
    """The room that accounts and their mailboxes still have while messages are put into them."""

    def __init__(
        self, limits: MailstoreLimits, accounts: Mapping[int, LockedAccount], counted: Mapping[_Place, int]
    ) -> None:
        self._limits = limits
        self._sizes = {account_id: account.total_size for account_id, account in accounts.items()}
        self._messages = {account_id: account.messages for account_id, account in accounts.items()}
        self._counted = dict(counted)

    def __contains__(self, account_id: int) -> bool:
        return account_id in self._sizes

    def reserve(self, delivery: Delivery, mailbox: _Place) -> bool:
        """Reserve room for the delivery. False: there is none."""
        account_id, size = delivery.account_id, delivery.message.size
        if (
            0 < delivery.quota_bytes < self._sizes[account_id] + size
            or self._messages[account_id] >= self._limits.messages
            or self._counted[mailbox] >= self._limits.mailbox_messages
        ):
            return False
        self._sizes[account_id] += size
        self._messages[account_id] += 1
        self._counted[mailbox] += 1
        return True


def _decide(
    deliveries: Sequence[Delivery],
    mailboxes: Sequence[_Place],
    before: Mapping[tuple[int, str], bool],
    room: _Room,
) -> list[DeliveryResult]:
    """The result for each, in order: a message that does not fit leaves room for a smaller one after it."""
    refused_before = dict(before)
    results: list[DeliveryResult] = []
    for delivery, mailbox in zip(deliveries, mailboxes, strict=True):
        key = _key(delivery)
        if key in refused_before:
            result = DeliveryResult.OVER_QUOTA if refused_before[key] else DeliveryResult.DUPLICATE
        elif delivery.account_id not in room:
            result = DeliveryResult.NO_ACCOUNT
        elif not room.reserve(delivery, mailbox):
            result = DeliveryResult.OVER_QUOTA
        else:
            result = DeliveryResult.DELIVERED
            refused_before[key] = False
        results.append(result)
    return results


def _new_rows(
    deliveries: Sequence[Delivery], results: Sequence[DeliveryResult], mailboxes: Sequence[_Place]
) -> Iterator[NewRow]:
    places: dict[_Place, int] = {}
    for delivery, result, mailbox in zip(deliveries, results, mailboxes, strict=True):
        if result is DeliveryResult.DELIVERED:
            place = places.get(mailbox, 0)
            places[mailbox] = place + 1
            yield NewRow(*mailbox, place, delivery.message)


def _mailbox_for(delivery: Delivery, mailboxes: Mapping[tuple[int, str], int]) -> int:
    detail = delivery.detail.casefold()
    at_top = mailboxes.get((delivery.account_id, detail))
    below_inbox = mailboxes.get((delivery.account_id, "inbox/" + detail))
    return at_top or below_inbox or INBOX_ID
