"""The plain case of a delivery, in one round trip: new messages for INBOX of accounts that exist and have room.

The database function (migration deliver_at_once) does all of it or, when anything needs a decision, nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paquebot.mailstore.blob_rows import blob_values
from paquebot.mailstore.dates import storable
from paquebot.mailstore.deliveries.types import Delivery, DeliveryOutcome, DeliveryResult
from paquebot.mailstore.limits import NO_QUOTA, MailstoreLimits
from paquebot.mailstore.mailboxes.names import INBOX_ID
from paquebot.runtime.postgres.pool import Connection

# Where an account or its INBOX has no room for all messages, the statement passes no limits, and the function does
# nothing. It reads the counts of messages without the locks, so deliveries at the same time may pass the bound by their
# own messages: the bound protects the platform and need not be exact.
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
    """The messages for an account, and its maximum of bytes after them."""

    messages: int = 0
    total_size: int = 0
    allowed: int = NO_QUOTA


async def deliver_at_once(
    connection: Connection, limits: MailstoreLimits, deliveries: Sequence[Delivery]
) -> list[DeliveryOutcome]:
    """All of plain deliveries, in order; empty when nothing was done, because one of them needs a decision."""
    gains, rows = _arguments(deliveries)
    accounts = [
        (account_id, gain.messages, gain.total_size, gain.allowed) for account_id, gain in sorted(gains.items())
    ]
    columns = [*zip(*accounts, strict=True), *zip(*rows, strict=True)]
    found = await connection.fetch(_AT_ONCE, *columns, limits.messages, limits.mailbox_messages)
    if not found:
        return []
    placed = {account_id: (first_uid, mod_seq) for account_id, first_uid, mod_seq in found}
    outcomes = []
    for account_id, place, *_ in rows:
        first_uid, mod_seq = placed[account_id]
        outcomes.append(DeliveryOutcome(DeliveryResult.DELIVERED, INBOX_ID, first_uid + place, mod_seq))
    return outcomes


def are_plain(deliveries: Sequence[Delivery]) -> bool:
    """Whether all are without flags and detail, and no message comes twice for one account."""
    for delivery in deliveries:
        if delivery.detail or delivery.message.flags or delivery.message.keywords:
            return False
    return len({(delivery.account_id, delivery.message.email_id) for delivery in deliveries}) == len(deliveries)


def _arguments(deliveries: Sequence[Delivery]) -> tuple[dict[int, _Gain], list[tuple[Any, ...]]]:
    """The messages for each account, and a row for each message."""
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
        gain.total_size += size
        if delivery.quota_bytes > 0:
            gain.allowed = min(gain.allowed, delivery.quota_bytes)
    return gains, rows
