"""From a job's entries to deliveries, one for each recipient; pure.

RFC 5321 §4.4: the final delivery puts Return-Path in front of the message; Delivered-To says for which address.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paquebot.mailstore import Delivery, DeliveryOutcome, NewMessage
from paquebot.mailstore.dates import of_microseconds
from paquebot.v1.mail_pb2 import LocalRecipient
from paquebot.v1.queue_pb2 import DeliverEntry


@dataclass(frozen=True, slots=True)
class RecipientDelivery:
    """One recipient of one entry; `delivery` is what the mailstore is asked for."""

    entry: DeliverEntry
    recipient: LocalRecipient
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class EntryOutcome:
    """What became of one recipient of one entry."""

    delivery: RecipientDelivery
    outcome: DeliveryOutcome


def deliveries_of(entry: DeliverEntry) -> Iterator[RecipientDelivery]:
    """One for each recipient of the entry, in order."""
    summary = entry.summary.SerializeToString()
    accepted = of_microseconds(entry.accepted_at_ms * 1000)
    for recipient in entry.recipients:
        message = NewMessage(
            email_id=entry.queue_id,
            blob=entry.blob,
            summary=summary,
            thread_key=entry.summary.thread_key,
            internal_date=accepted,
            prefix=prefix(entry.reverse_path, recipient.address),
        )
        delivery = Delivery(recipient.account_id, recipient.detail, recipient.quota_bytes, message)
        yield RecipientDelivery(entry, recipient, delivery)


def entries_of(deliveries: Sequence[RecipientDelivery]) -> list[DeliverEntry]:
    """The entries of `deliveries`, each with only the recipients in `deliveries`."""
    entries: dict[str, DeliverEntry] = {}
    for one in deliveries:
        if one.entry.queue_id not in entries:
            entry = DeliverEntry()
            entry.CopyFrom(one.entry)
            del entry.recipients[:]
            entries[one.entry.queue_id] = entry
        entries[one.entry.queue_id].recipients.append(one.recipient)
    return list(entries.values())


def prefix(reverse_path: str, address: str) -> bytes:
    """The header lines of this recipient, before the stored message; each address stays on its line."""
    lines = f"Return-Path: <{_one_line(reverse_path)}>\r\nDelivered-To: {_one_line(address)}\r\n"
    return lines.encode("utf-8", "replace")


def _one_line(address: str) -> str:
    if address.isprintable():
        return address
    return "".join(character for character in address if character.isprintable())
