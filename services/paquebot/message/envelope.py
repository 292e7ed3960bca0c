"""The IMAP envelope of a message: the fields that RFC 3501 §7.4.2 lists, read from an already split header.

Invariants: an absent field is unset, an empty one is b""; sender and reply-to are already defaulted to from.
"""

from typing import Final

from paquebot.message.address_list import addresses
from paquebot.message.header import unfold
from paquebot.message.limits import Budget
from paquebot.v1 import summary_pb2

HeaderValues = dict[bytes, list[bytes]]
"""Raw (still folded) values by lower-case field name, in the order of the message."""

ENVELOPE_FIELDS: Final = frozenset(
    (b"date", b"subject", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"in-reply-to", b"message-id")
)

# Octets that one address costs beside its text, in the serialised summary.
_ADDRESS_OVERHEAD: Final = 12


def fill_envelope(envelope: summary_pb2.ImapEnvelope, values: HeaderValues, budget: Budget) -> None:
    """Set the envelope of a header; text beyond the budget is left out, address lists are cut to what fits."""
    if (date := _text(values, b"date", budget)) is not None:
        envelope.date = date
    if (subject := _text(values, b"subject", budget)) is not None:
        envelope.subject = subject
    if (in_reply_to := _text(values, b"in-reply-to", budget)) is not None:
        envelope.in_reply_to = in_reply_to
    if (message_id := _text(values, b"message-id", budget)) is not None:
        envelope.message_id = message_id
    from_ = _address_list(values, b"from", budget)
    # RFC 3501 §7.4.2: absent or empty Sender and Reply-To take the value of From.
    sender = _address_list(values, b"sender", budget) or from_
    reply_to = _address_list(values, b"reply-to", budget) or from_
    envelope.from_.extend(from_)
    envelope.sender.extend(sender)
    envelope.reply_to.extend(reply_to)
    envelope.to.extend(_address_list(values, b"to", budget))
    envelope.cc.extend(_address_list(values, b"cc", budget))
    envelope.bcc.extend(_address_list(values, b"bcc", budget))


def _text(values: HeaderValues, name: bytes, budget: Budget) -> bytes | None:
    """The first field of this name (RFC 5322 §3.6 allows no second)."""
    found = values.get(name)
    if found is None:
        return None
    text = unfold(found[0])
    return text if budget.take(len(text)) else None


def _address_list(values: HeaderValues, name: bytes, budget: Budget) -> list[summary_pb2.Address]:
    """The entries of all fields of this name, one list after another."""
    kept: list[summary_pb2.Address] = []
    for value in values.get(name, ()):
        for found in addresses(unfold(value)):
            if not budget.take(_ADDRESS_OVERHEAD + sum(map(len, filter(None, found)))):
                return kept
            kept.append(summary_pb2.Address(name=found.name, adl=found.adl, mailbox=found.mailbox, host=found.host))
    return kept
