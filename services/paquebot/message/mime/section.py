"""Where the bytes of an IMAP section are in the stored message.

The summary gives a section as one range, so that a body is fetched with one ranged read.
RFC 3501 §6.4.5: part numbers, HEADER, TEXT, MIME.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from paquebot.v1 import summary_pb2


class SectionText(Enum):
    """The requested text of a part: its body (BODY[n]), or RFC 3501's section-text."""

    WHOLE = "BODY"
    HEADER = "HEADER"
    TEXT = "TEXT"
    MIME = "MIME"


@dataclass(frozen=True, slots=True)
class StoredSection:
    """BODY[path.text]: part numbers from 1 on, none for the message itself."""

    path: tuple[int, ...] = ()
    text: SectionText = SectionText.WHOLE


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A range of the stored message."""

    offset: int
    length: int

    def of(self, content: bytes) -> bytes:
        """The bytes themselves."""
        return content[self.offset : self.offset + self.length]

    def partial(self, origin: int, length: int) -> "ByteRange":
        """RFC 3501 §6.4.5 <origin.length>: cut to the range; empty when it starts after the end."""
        start = min(origin, self.length)
        return ByteRange(self.offset + start, min(length, self.length - start))


def part_at(summary: summary_pb2.MessageSummary, path: Sequence[int]) -> summary_pb2.BodyPart | None:
    """The part with this number, or None. The empty path is the root.

    RFC 3501 §6.4.5: every message has a part 1; in a message/rfc822 part, numbers continue in the embedded message.
    """
    part = summary.body
    container: summary_pb2.BodyPart | None = summary.body
    for number in path:
        if container is None or number < 1:
            return None
        if is_multipart(container):
            if number > len(container.parts):
                return None
            part = container.parts[number - 1]
        elif number == 1:
            part = container
        else:
            return None
        container = part if is_multipart(part) else embedded_message(part)
    return part


def is_multipart(part: summary_pb2.BodyPart) -> bool:
    """Whether the part's children are parts (and not an embedded message)."""
    return part.type == b"MULTIPART"


def embedded_message(part: summary_pb2.BodyPart) -> summary_pb2.BodyPart | None:
    """The message in a message/rfc822 or message/global part; None for other parts."""
    return part.parts[0] if part.type == b"MESSAGE" and part.parts else None


def charset(part: summary_pb2.BodyPart) -> str:
    """The charset parameter of a part, "" without one, as `decode_part_text` takes it."""
    for parameter in part.parameters:
        if parameter.name == b"charset":
            return parameter.value.decode("ascii", "replace")
    return ""


def section_bytes(summary: summary_pb2.MessageSummary, section: StoredSection) -> ByteRange | None:
    """The range of a section, or None when the message has no such section (NIL in IMAP).

    For HEADER.FIELDS ask for HEADER, and give its bytes to `header_fields`.
    """
    if not section.path:
        return _message_bytes(summary.body, section.text)
    part = part_at(summary, section.path)
    if part is None:
        return None
    match section.text:
        case SectionText.WHOLE:
            return _body(part)
        case SectionText.MIME:
            return _header(part)
        case SectionText.HEADER | SectionText.TEXT:
            embedded = embedded_message(part)
            return None if embedded is None else _message_bytes(embedded, section.text)


def _message_bytes(message: summary_pb2.BodyPart, text: SectionText) -> ByteRange | None:
    match text:
        case SectionText.WHOLE:
            end = message.body_offset + message.body_length
            return ByteRange(message.header_offset, end - message.header_offset)
        case SectionText.HEADER:
            return _header(message)
        case SectionText.TEXT:
            return _body(message)
        case SectionText.MIME:  # RFC 3501 §6.4.5: MIME needs a part number
            return None


def _header(part: summary_pb2.BodyPart) -> ByteRange:
    return ByteRange(part.header_offset, part.body_offset - part.header_offset)


def _body(part: summary_pb2.BodyPart) -> ByteRange:
    return ByteRange(part.body_offset, part.body_length)
