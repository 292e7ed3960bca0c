"""Messages that come in: delivery and append.

A delivery and its record are one transaction under the account's lock, so a message has its effect once in an
account (invariant 3). The subaddress detail of a delivery names a mailbox when one of that name exists,
compared without case, at the top or below INBOX (top first): alice+lists@ goes to `lists`, else to
`INBOX/lists`, else to INBOX. It never names a mailbox with a special use, so no sender can write into Sent or
Drafts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from paquebot.mailstore import keywords
from paquebot.mailstore.accounts import add_accounts
from paquebot.mailstore.errors import OverQuota
from paquebot.mailstore.locks import LockedAccount, lock_account, lock_accounts, lock_mailbox
from paquebot.mailstore.names import INBOX_ID
from paquebot.mailstore.types import Appended, Delivery, DeliveryResult, Flag, Limits, NewMessage, Outcome
from paquebot.runtime.postgres import Connection, Postgres

_PLACED = """
    WITH incoming AS (
        SELECT * FROM unnest(
            $1::bigint[], $2::int[], $3::int[], $4::smallint[], $5::text[], $6::bigint[], $7::timestamptz[],
            $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::smallint[], $13::smallint[],
            $14::text[], $15::bytea[], $16::bytea[], $17::bytea[]
        ) AS i (
            account_id, mailbox_id, place, flags, keywords, size, internal_date,
            pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
            queue_id, thread_key, prefix, summary
        )
    ), used AS (
        UPDATE mailstore.accounts a
        SET octets = a.octets + n.octets, messages = a.messages + n.messages
        FROM (SELECT account_id, sum(size) AS octets, count(*) AS messages FROM incoming GROUP BY 1) n
        WHERE a.account_id = n.account_id
    ), box AS (
        UPDATE mailstore.mailboxes b
        SET uid_next = b.uid_next + n.messages,
            highest_mod_seq = b.highest_mod_seq + 1,
            messages = b.messages + n.messages,
            unseen = b.unseen + n.unseen,
            deleted = b.deleted + n.deleted,
            octets = b.octets + n.octets
        FROM (
            SELECT account_id, mailbox_id, count(*) AS messages, sum(size) AS octets,
                   count(*) FILTER (WHERE flags & 1 = 0) AS unseen,
                   count(*) FILTER (WHERE flags & 8 <> 0) AS deleted
            FROM incoming GROUP BY 1, 2
        ) n
        WHERE b.account_id = n.account_id AND b.mailbox_id = n.mailbox_id
        RETURNING b.account_id, b.mailbox_id, b.uid_next - n.messages AS first_uid, b.highest_mod_seq
    )
"""
_INSERT = """
    INSERT INTO mailstore.messages (
        account_id, mailbox_id, uid, mod_seq, flags, keywords, size, internal_date, save_date,
        pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
        queue_id, thread_key, prefix, summary
    )
    SELECT account_id, mailbox_id, first_uid + place, highest_mod_seq, flags,
           CASE keywords WHEN '' THEN '{}' ELSE string_to_array(keywords, ' ') END,
           size, internal_date, now(),
           pack, blob_offset, blob_length, blob_size, blob_compression, blob_encryption,
           queue_id, thread_key, prefix, summary
    FROM incoming JOIN box USING (account_id, mailbox_id)
    RETURNING account_id, mailbox_id, uid, mod_seq
"""
_RECORD = """
    , recorded AS (
        INSERT INTO mailstore.deliveries (account_id, queue_id, delivered_at)
        SELECT account_id, queue_id, now() FROM incoming
    )
"""
_APPEND = _PLACED + _INSERT
_DELIVER = _PLACED + _RECORD + _INSERT


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A message on its way into a mailbox; `place` counts the arrivals of that mailbox from 0."""

    account_id: int
    mailbox_id: int
    place: int
    message: NewMessage

    def columns(self) -> tuple[object, ...]:
        message, blob = self.message, self.message.blob
        return (
            self.account_id,
            self.mailbox_id,
            self.place,
            int(message.flags),
            " ".join(message.keywords),
            message.size,
            message.internal_date,
            blob.pack,
            blob.offset,
            blob.length,
            blob.size,
            blob.compression,
            blob.encryption,
            message.email_id,
            message.thread_key,
            message.prefix,
            message.summary,
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    uid: int
    mod_seq: int


async def _insert(connection: Connection, sql: str, arrivals: Sequence[_Arrival]) -> list[_Placed]:
    """Insert under the accounts' locks; the answer is in the order of `arrivals`."""
    columns = zip(*(arrival.columns() for arrival in arrivals), strict=True)
    inserted = await connection.fetch(sql, *map(list, columns))
    mailboxes: dict[tuple[int, int], list[_Placed]] = {}
    for row in sorted(inserted, key=lambda row: int(row["uid"])):
        key = row["account_id"], row["mailbox_id"]
        mailboxes.setdefault(key, []).append(_Placed(row["uid"], row["mod_seq"]))
    return [mailboxes[arrival.account_id, arrival.mailbox_id][arrival.place] for arrival in arrivals]


# Delivery


async def deliver(postgres: Postgres, deliveries: Sequence[Delivery]) -> list[Outcome]:
    if not deliveries:
        return []

    async def work(connection: Connection) -> list[Outcome]:
        return await _deliver(connection, deliveries)

    return await postgres.run("deliver", work)


async def _deliver(connection: Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    accounts = await _accounts(connection, {delivery.account_id for delivery in deliveries})
    before = await _recorded(connection, [_key(delivery) for delivery in deliveries])
    mailboxes = await _named_mailboxes(connection, deliveries)
    results = _decide(deliveries, accounts, before)
    arrivals = list(_arrivals(deliveries, results, mailboxes))
    placed = await _insert(connection, _DELIVER, arrivals) if arrivals else []
    outcomes = (
        Outcome(DeliveryResult.DELIVERED, arrival.mailbox_id, at.uid, at.mod_seq)
        for arrival, at in zip(arrivals, placed, strict=True)
    )
    return [next(outcomes) if result is DeliveryResult.DELIVERED else Outcome(result) for result in results]


def _key(delivery: Delivery) -> tuple[int, str]:
    return delivery.account_id, delivery.message.email_id


async def _accounts(connection: Connection, wanted: set[int]) -> dict[int, LockedAccount]:
    """The accounts, locked, the missing ones made; without those that were deleted."""
    locked = await lock_accounts(connection, sorted(wanted))
    if len(locked) < len(wanted):
        await add_accounts(connection, sorted(wanted - locked.keys()))
        locked = await lock_accounts(connection, sorted(wanted))
    return locked


_RECORDED = """
    SELECT account_id, queue_id FROM mailstore.deliveries
    JOIN unnest($1::bigint[], $2::text[]) AS k (account_id, queue_id) USING (account_id, queue_id)
"""


async def _recorded(connection: Connection, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    found = await connection.fetch(_RECORDED, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["account_id"], row["queue_id"]) for row in found}


async def delivered(postgres: Postgres, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    async with postgres.connection("delivered") as connection:
        return await _recorded(connection, keys)


_NAMED = """
    SELECT account_id, mailbox_id, name FROM mailstore.mailboxes
    WHERE account_id = ANY($1::bigint[]) AND selectable AND special_use IS NULL
"""


async def _named_mailboxes(connection: Connection, deliveries: Sequence[Delivery]) -> dict[tuple[int, str], int]:
    """(account id, case-folded name) of the mailboxes that a detail may name → mailbox id."""
    accounts = {delivery.account_id for delivery in deliveries if delivery.detail}
    if not accounts:
        return {}
    found = await connection.fetch(_NAMED, sorted(accounts))
    return {(row["account_id"], row["name"].casefold()): row["mailbox_id"] for row in found}


def _decide(
    deliveries: Sequence[Delivery], accounts: Mapping[int, LockedAccount], before: Iterable[tuple[int, str]]
) -> list[DeliveryResult]:
    """What to do with each, in order: a message that does not fit leaves room for a smaller one after it."""
    done = set(before)
    used = {account_id: account.octets for account_id, account in accounts.items()}
    results: list[DeliveryResult] = []
    for delivery in deliveries:
        result = DeliveryResult.DELIVERED
        size = delivery.message.size
        if delivery.account_id not in used:
            result = DeliveryResult.NO_ACCOUNT
        elif _key(delivery) in done:
            result = DeliveryResult.DUPLICATE
        elif 0 < delivery.quota_octets < used[delivery.account_id] + size:
            result = DeliveryResult.OVER_QUOTA
        else:
            done.add(_key(delivery))
            used[delivery.account_id] += size
        results.append(result)
    return results


def _arrivals(
    deliveries: Sequence[Delivery],
    results: Sequence[DeliveryResult],
    mailboxes: Mapping[tuple[int, str], int],
) -> Iterator[_Arrival]:
    places: dict[tuple[int, int], int] = {}
    for delivery, result in zip(deliveries, results, strict=True):
        if result is DeliveryResult.DELIVERED:
            mailbox_id = _mailbox_for(delivery, mailboxes)
            place = places.get((delivery.account_id, mailbox_id), 0)
            places[delivery.account_id, mailbox_id] = place + 1
            yield _Arrival(delivery.account_id, mailbox_id, place, delivery.message)


def _mailbox_for(delivery: Delivery, mailboxes: Mapping[tuple[int, str], int]) -> int:
    detail = delivery.detail.casefold()
    at_top = mailboxes.get((delivery.account_id, detail))
    below_inbox = mailboxes.get((delivery.account_id, "inbox/" + detail))
    return at_top or below_inbox or INBOX_ID


# Append


async def append(
    postgres: Postgres,
    limits: Limits,
    account_id: int,
    mailbox_id: int,
    messages: Sequence[NewMessage],
    quota_octets: int,
) -> Appended:
    async def work(connection: Connection) -> Appended:
        account = await lock_account(connection, account_id)
        need_quota(account, sum(message.size for message in messages), quota_octets)
        mailbox = await lock_mailbox(connection, account_id, mailbox_id)
        mailbox.need_selectable()
        mailbox.need_uids(len(messages))
        if not messages:
            return Appended(mailbox.uid_validity, (), mailbox.highest_mod_seq)
        spelled = await keywords.spell(
            connection, mailbox, {word for message in messages for word in message.keywords}, limits
        )
        placed = await _insert(connection, _APPEND, list(_appends(account_id, mailbox_id, messages, spelled)))
        return Appended(mailbox.uid_validity, tuple(at.uid for at in placed), placed[0].mod_seq)

    return await postgres.run("append", work)


def _appends(
    account_id: int, mailbox_id: int, messages: Sequence[NewMessage], spelled: keywords.Spelling
) -> Iterator[_Arrival]:
    for place, message in enumerate(messages):
        respelled = NewMessage(
            email_id=message.email_id,
            blob=message.blob,
            summary=message.summary,
            thread_key=message.thread_key,
            internal_date=message.internal_date,
            flags=Flag(message.flags),
            keywords=spelled(message.keywords),
            prefix=message.prefix,
        )
        yield _Arrival(account_id, mailbox_id, place, respelled)


def need_quota(account: LockedAccount, asked: int, quota_octets: int) -> None:
    """Raises OverQuota unless `asked` more octets fit into the limit (0: none)."""
    if quota_octets and account.octets + asked > quota_octets:
        raise OverQuota(quota_octets, account.octets, asked)
