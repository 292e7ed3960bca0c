"""Whether a summary has all of its message's envelope, and of its structure.

Summaries of this program say so. Those of older programs do not, so they are compared with the bounds of those
programs (`limits.STORED`): where nothing can have been left out they are whole; else they count as cut.
"""

from dataclasses import dataclass
from typing import Final

from paquebot.message.limits import STORED
from paquebot.message.mime.section import is_multipart
from paquebot.message.summary.envelope import ENVELOPE_FIELDS
from paquebot.v1 import summary_pb2

_MAX_COST: Final = 6
"""The maximum cost of a byte of a serialised envelope, in bytes of its budget: the end of a group has 2 and cost 12."""
_COPIES: Final = 3
"""An address of From cost three times its bytes, and one that did not fit was at most as long as its field."""
_ENVELOPE_NAMES: Final = frozenset(name.decode("ascii") for name in ENVELOPE_FIELDS)
"""A summary keeps all of these fields, or marks that it omits some."""
_LONG_HEADER: Final = 1024
"""Bytes of a part's header; older programs read 64 parameters of a field, which a shorter one can hardly have."""


_BOTH_WHOLE: Final = summary_pb2.MessageSummary(
    envelope_extent=summary_pb2.EXTENT_WHOLE, body_extent=summary_pb2.EXTENT_WHOLE
).SerializeToString()


def is_surely_whole(summary: bytes) -> bool:
    """Of a serialised summary, without parsing it: fields are written in their order, so nearly all summaries end so.
    False: it must be parsed."""
    return summary.endswith(_BOTH_WHOLE)


def has_whole_envelope(summary: summary_pb2.MessageSummary) -> bool:
    """Whether nothing of the message's envelope is left out."""
    if summary.envelope_extent != summary_pb2.EXTENT_UNKNOWN:
        return summary.envelope_extent == summary_pb2.EXTENT_WHOLE
    envelope = summary.envelope
    lists = (envelope.from_, envelope.sender, envelope.reply_to, envelope.to, envelope.cc, envelope.bcc)
    if max(map(len, lists)) >= STORED.addresses:
        return False
    return _fitted(envelope.ByteSize(), _envelope_fields(summary))


def _envelope_fields(summary: summary_pb2.MessageSummary) -> int:
    """Bytes of the fields that the envelope is made of, where they are known; else of the header."""
    if not _ENVELOPE_NAMES.isdisjoint(summary.headers_left_out):
        return summary.body.body_offset
    return sum(len(field.raw) for field in summary.headers if field.name in _ENVELOPE_NAMES)


def has_whole_structure(summary: summary_pb2.MessageSummary) -> bool:
    """Whether nothing of its parts is left out, nor of the envelopes of embedded messages."""
    if summary.body_extent != summary_pb2.EXTENT_UNKNOWN:
        return summary.body_extent == summary_pb2.EXTENT_WHOLE
    seen = _Seen()
    return (
        _add(summary.body, 0, seen, is_message=True)
        and seen.parts < STORED.parts
        and summary.body.ByteSize() + seen.headers <= STORED.structure
        and (not seen.embedded or _fitted(summary.envelope.ByteSize() + seen.envelopes, seen.embedded))
    )


def _fitted(envelopes: int, header: int) -> bool:
    """`envelopes`: bytes of what was kept, `header`: of the headers or fields that it was kept from."""
    return _MAX_COST * envelopes + _COPIES * header < STORED.envelope


@dataclass(slots=True)
class _Seen:
    """Sums over the parts of a message."""

    parts: int = 0
    headers: int = 0
    """Bytes of the headers of all of them."""
    embedded: int = 0
    """Of the headers of embedded messages."""
    envelopes: int = 0
    """Bytes of their envelopes."""


def _add(part: summary_pb2.BodyPart, level: int, seen: _Seen, *, is_message: bool) -> bool:
    """Take in a part, or a message with the header of one. False: it is not known what it may have had."""
    header = part.body_offset - part.header_offset
    seen.parts += 1
    seen.headers += header
    if level >= STORED.depth or (header > _LONG_HEADER and not is_message):
        return False
    embeds = bool(part.parts) and not is_multipart(part)
    if embeds:
        message = part.parts[0]
        seen.embedded += message.body_offset - message.header_offset
        seen.envelopes += part.envelope.ByteSize()
    return all(_add(child, level + 1, seen, is_message=embeds) for child in part.parts)
