"""The plain case of a delivery, in one round trip: new messages for INBOX of accounts that exist and have room.

The function in the database (migration deliver_at_once) does all of it or, when anything needs a decision, nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paquebot.mailstore.dates import storable
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.mailstore.rows import blob_values
from paquebot.mailstore.types import NO_LIMIT, Delivery, DeliveryOutcome, DeliveryResult, MailstoreLimits
from paquebot.runtime.postgres.pool import Connection, Postgres

# Where an account or its INBOX has no room for so many messages, no bytes are allowed, and nothing is done. Their
# number is read without the locks, so those who add at the same time may pass the bound by what they bring: it
# protects, it counts nothing.
_AT_ONCE = """
    SELECT account_id, first_uid, mod_seq FROM mailstore.deliver_at_once(
        $1, $2, $3, (
            SELECT CASE WHEN bool_or(a.messages + n.count > $19 OR b.messages + n.count > $20) THEN '{}'
                        ELSE $4::bigint[] END
            FROM unnest($1::bigint[], $2::integer[]) AS n (account_id, count)
            CROSS JOIN LATERAL (SELECT messages FROM mailstore.accounts WHERE account_id = n.account_id OFFSET 0) a
            CROSS JOIN LATERAL (
                SELECT messages FROM mailstore.mailboxes WHERE account_id = n.account_id AND mailbox_id = 1 OFFSET 0
            ) b
        ), $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
"""


@dataclass(slots=True)
class _Gain:
    """What an account gets, and the most bytes it may have then."""

    messages: int = 0
    octets: int = 0
    allowed: int = NO_LIMIT


async def deliver_at_once(
    postgres: Postgres, limits: MailstoreLimits, deliveries: Sequence[Delivery]
) -> list[DeliveryOutcome]:
    """All deliveries, in order; empty, and nothing was done, when one of them is not of the plain kind."""
    if not _are_plain(deliveries):
        return []
    gains, rows = _arguments(deliveries)
    accounts = [(account_id, gain.messages, gain.octets, gain.allowed) for account_id, gain in sorted(gains.items())]
    columns = [*zip(*accounts, strict=True), *zip(*rows, strict=True)]

    async def work(connection: Connection) -> dict[int, tuple[int, int]]:
        found = await connection.fetch(_AT_ONCE, *columns, limits.messages, limits.mailbox_messages)
        return {account_id: (first_uid, mod_seq) for account_id, first_uid, mod_seq in found}

    placed = await postgres.run_statement("deliver", work)
    if not placed:
        return []
    outcomes = []
    for account_id, place, *_ in rows:
        first_uid, mod_seq = placed[account_id]
        outcomes.append(DeliveryOutcome(DeliveryResult.DELIVERED, INBOX_ID, first_uid + place, mod_seq))
    return outcomes


def _are_plain(deliveries: Sequence[Delivery]) -> bool:
    """Without flags, for INBOX as far as is known here, and no message twice for one account."""
    for delivery in deliveries:
        if delivery.detail or delivery.message.flags or delivery.message.keywords:
            return False
    return len({(delivery.account_id, delivery.message.email_id) for delivery in deliveries}) == len(deliveries)


def _arguments(deliveries: Sequence[Delivery]) -> tuple[dict[int, _Gain], list[tuple[Any, ...]]]:
    """What each account gets, and a row for each message."""
    gains: dict[int, _Gain] = {}
    rows: list[tuple[Any, ...]] = []
    for delivery in deliveries:
        account_id, message = delivery.account_id, delivery.message
        size = message.size
        gain = gains.get(account_id)
        if gain is None:
            gain = gains[account_id] = _Gain()
        rows.append(
            (
                *(account_id, gain.messages, message.email_id, size, storable(message.internal_date)),
                *blob_values(message.blob),
                *(message.thread_key, message.prefix, message.summary),
            )
        )
        gain.messages += 1
        gain.octets += size
        if delivery.quota_bytes > 0:
            gain.allowed = min(gain.allowed, delivery.quota_bytes)
    return gains, rows
