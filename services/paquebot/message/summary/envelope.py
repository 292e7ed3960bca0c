"""The IMAP envelope of a message: the fields that RFC 3501 §7.4.2 lists, read from an already split header.

Invariants: an absent field is unset, an empty one is b""; sender and reply-to are already defaulted to from.
"""

from typing import TYPE_CHECKING, Final

from paquebot.message.addresses.address_list import address_entries
from paquebot.message.header import unfold
from paquebot.message.limits import ParseBudget
from paquebot.v1 import summary_pb2

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    _KeptAddresses = RepeatedCompositeFieldContainer[summary_pb2.Address]

HeaderValues = dict[bytes, list[bytes]]
"""Raw (still folded) values by lower-case field name, in the order of the message."""

ENVELOPE_FIELDS: Final = frozenset(
    (b"date", b"subject", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"in-reply-to", b"message-id")
)

# Bytes that one address costs beside its text, in the serialised summary.
_ADDRESS_OVERHEAD: Final = 12


def fill_envelope(envelope: summary_pb2.ImapEnvelope, values: HeaderValues, budget: ParseBudget) -> None:
    """Set the envelope of a header; text beyond the budget is omitted, address lists are shortened to what fits, and
    `budget.refused` is set."""
    if (date := _text(values, b"date", budget)) is not None:
        envelope.date = date
    if (subject := _text(values, b"subject", budget)) is not None:
        envelope.subject = subject
    if (in_reply_to := _text(values, b"in-reply-to", budget)) is not None:
        envelope.in_reply_to = in_reply_to
    if (message_id := _text(values, b"message-id", budget)) is not None:
        envelope.message_id = message_id
    _add_addresses(envelope.from_, values, b"from", budget, copies=3)  # sender and reply-to may repeat it
    _add_addresses(envelope.sender, values, b"sender", budget)
    _add_addresses(envelope.reply_to, values, b"reply-to", budget)
    _add_addresses(envelope.to, values, b"to", budget)
    _add_addresses(envelope.cc, values, b"cc", budget)
    _add_addresses(envelope.bcc, values, b"bcc", budget)
    # RFC 3501 §7.4.2: absent or empty Sender and Reply-To take the value of From.
    if not envelope.sender:
        envelope.sender.extend(envelope.from_)
    if not envelope.reply_to:
        envelope.reply_to.extend(envelope.from_)


def _text(values: HeaderValues, name: bytes, budget: ParseBudget) -> bytes | None:
    """The first field of this name (RFC 5322 §3.6 allows no second)."""
    found = values.get(name)
    if found is None:
        return None
    text = unfold(found[0])
    return text if budget.take(len(text)) else None


def _add_addresses(
    kept: "_KeptAddresses", values: HeaderValues, name: bytes, budget: ParseBudget, copies: int = 1
) -> None:
    """The entries of all fields of this name, one list after another."""
    for value in values.get(name, ()):
        for display_name, adl, mailbox, host in address_entries(unfold(value)):
            text = len(display_name or b"") + len(adl or b"") + len(mailbox or b"") + len(host or b"")
            if not budget.take_entries((_ADDRESS_OVERHEAD + text) * copies, copies):
                return
            kept.add(name=display_name, adl=adl, mailbox=mailbox, host=host)
