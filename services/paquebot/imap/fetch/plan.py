"""What a FETCH needs for its items, so that it reads no more than that: the view, the row, the summary, the body.

The items are looked up once for a command: a message costs a call for each of them, and no question which it is.
"""

import enum
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from paquebot.imap.fetch import sections
from paquebot.imap.fetch.long_bytes import LongBytes, cut
from paquebot.imap.fetch.long_headers import LongHeader
from paquebot.imap.fetch.sections import EncodedPart, Needs
from paquebot.imap.mailbox_view import flags
from paquebot.imap.mailbox_view.view import View
from paquebot.mailstore import StoredMessage
from paquebot.message import (
    MessageSummary,
    decoded_pieces,
    has_whole_envelope,
    has_whole_structure,
    is_surely_whole,
    knows_header_fields,
)
from paquebot.wire.imap.ast import (
    FetchAttribute,
    FetchBinary,
    FetchBinarySize,
    FetchItem,
    FetchPreview,
    FetchSection,
    Partial,
    SectionForm,
    SectionSpecifier,
)
from paquebot.wire.imap.fetch_response import FetchResponse, item_name
from paquebot.wire.imap.responses import without_nul

ViewWriter = Callable[[FetchResponse, View, int], None]
Writer = Callable[[FetchResponse, StoredMessage, MessageSummary, bytes | None], Iterator[bytes] | None]
"""Writes one item from the row, the summary and the body. Raises NeedsBody, and has written nothing then.

What is long is not written but returned, as steps: before each, the caller sends what the response has; then the bytes
of the step, if any. A step without bytes is work."""

_OF_VIEW: Mapping[FetchAttribute, ViewWriter] = {
    FetchItem.UID: lambda response, view, number: response.uid(view.uid(number)),
    FetchItem.FLAGS: lambda response, view, number: response.flags(flags.flag_names(view, number)),
    FetchItem.MODSEQ: lambda response, view, number: response.mod_seq(view.mod_seq_of(number)),
}
_OF_ROW: Mapping[FetchAttribute, Writer] = {
    FetchItem.INTERNALDATE: lambda response, message, summary, body: response.internal_date(message.internal_date),
    FetchItem.RFC822_SIZE: lambda response, message, summary, body: response.size(message.size),
    FetchItem.SAVEDATE: lambda response, message, summary, body: response.save_date(message.save_date),
    FetchItem.EMAILID: lambda response, message, summary, body: response.email_id(message.email_id),
    FetchItem.THREADID: lambda response, message, summary, body: response.thread_id(message.thread_id),
}
_LONG = 64 * 1024  # bytes of a summary from which its items are written in steps


def _is_long(message: StoredMessage, summary: MessageSummary) -> bool:
    stored = message.summary or b""
    return len(stored) >= _LONG or (not is_surely_whole(stored) and summary.ByteSize() >= _LONG)


def _of_summary(
    write: Callable[[FetchResponse, MessageSummary], None],
    write_long: Callable[[FetchResponse, MessageSummary], Iterator[None]],
) -> Writer:
    def write_either(
        response: FetchResponse, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[bytes] | None:
        if _is_long(message, summary):
            return (b"" for _ in write_long(response, summary))
        write(response, summary)
        return None

    return write_either


_OF_SUMMARY: Mapping[FetchAttribute, Writer] = {
    FetchItem.ENVELOPE: _of_summary(
        lambda response, summary: response.envelope(summary.envelope),
        lambda response, summary: response.long_envelope(summary.envelope),
    ),
    FetchItem.BODY: _of_summary(
        lambda response, summary: response.body(summary.body),
        lambda response, summary: response.long_body(summary.body),
    ),
    FetchItem.BODYSTRUCTURE: _of_summary(
        lambda response, summary: response.body_structure(summary.body),
        lambda response, summary: response.long_body_structure(summary.body),
    ),
}


class Source(enum.IntEnum):
    """Where the items of a FETCH come from: what every message surely needs."""

    VIEW = 0
    ROW = 1
    BODY = 2


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """A FETCH's items. A message may need its body though `source` does not say so (a header field that did not
    fit into its summary)."""

    source: Source
    with_summary: bool
    sets_seen: bool
    with_flags: bool
    """FLAGS or MODSEQ are asked for."""
    tells_flags: bool
    """FLAGS are asked for."""
    of_view: tuple[ViewWriter, ...]
    """For the items that the view answers, in the client's order; they come before the others."""
    of_row: tuple[Writer, ...]
    fields: frozenset[str]
    """The header fields that a summary may know."""
    decoded: frozenset[tuple[int, ...]]
    """Paths of the parts whose transfer encoding is undone."""
    tells_envelope: bool
    tells_structure: bool
    """The structure is told, or a part is looked up in it."""

    def needs_body(self, summary: MessageSummary) -> bool:
        """Cannot this summary answer what others can?"""
        return (bool(self.fields) and not knows_header_fields(summary, self.fields)) or self.needs_whole(summary)

    def needs_whole(self, summary: MessageSummary) -> bool:
        """Is something asked of which this summary may have left out a part?"""
        return (self.tells_envelope and not has_whole_envelope(summary)) or (
            self.tells_structure and not has_whole_structure(summary)
        )

    def check_encodings(self, summary: MessageSummary) -> None:
        """Raises UnknownEncoding: a part that is asked for cannot be decoded (RFC 3516 §4.3)."""
        for path in self.decoded:
            sections.check_encoding(summary, path)


def plan_fetch(attributes: tuple[FetchAttribute, ...]) -> FetchPlan:
    """The plan for the items of a FETCH; one that is asked for twice is answered once."""
    attributes = tuple(dict.fromkeys(attributes))
    return FetchPlan(
        source=max((_source(attribute) for attribute in attributes), default=Source.VIEW),
        with_summary=any(_asks_summary(attribute) for attribute in attributes),
        sets_seen=any(_sets_seen(attribute) for attribute in attributes),
        with_flags=not {FetchItem.FLAGS, FetchItem.MODSEQ}.isdisjoint(attributes),
        tells_flags=FetchItem.FLAGS in attributes,
        of_view=tuple(_OF_VIEW[attribute] for attribute in attributes if attribute in _OF_VIEW),
        of_row=tuple(_writer(attribute) for attribute in attributes if attribute not in _OF_VIEW),
        fields=frozenset(name for attribute in attributes if _is_cached(attribute) for name in _fields(attribute)),
        decoded=frozenset(
            attribute.path for attribute in attributes if isinstance(attribute, FetchBinary | FetchBinarySize)
        ),
        tells_envelope=FetchItem.ENVELOPE in attributes,
        tells_structure=any(_asks_structure(attribute) for attribute in attributes),
    )


def _source(attribute: FetchAttribute) -> Source:
    match attribute:
        case FetchSection():
            return Source.ROW if _is_cached(attribute) else Source.BODY
        case FetchBinary() | FetchBinarySize() | FetchPreview():
            return Source.BODY
        case _:
            return Source.VIEW if attribute in _OF_VIEW else Source.ROW


def _is_cached(attribute: FetchAttribute) -> bool:
    """A list of common fields is in the summary; the summary itself says when it is not."""
    return (
        isinstance(attribute, FetchSection)
        and attribute.section.specifier is SectionSpecifier.HEADER_FIELDS
        and not attribute.section.path
    )


def _fields(attribute: FetchAttribute) -> list[str]:
    return sections.field_names(attribute.section) if isinstance(attribute, FetchSection) else []


def _asks_summary(attribute: FetchAttribute) -> bool:
    """All but columns and whole messages: the summary has what is told, or where it is."""
    match attribute:
        case FetchSection(section):
            return bool(section.path) or section.specifier is not None
        case FetchBinary(path) | FetchBinarySize(path):
            return bool(path)
        case _:
            return attribute in _OF_SUMMARY


def _asks_structure(attribute: FetchAttribute) -> bool:
    match attribute:
        case FetchSection(section):
            return bool(section.path)
        case FetchBinary(path) | FetchBinarySize(path):
            return bool(path)
        case _:
            return attribute in (FetchItem.BODY, FetchItem.BODYSTRUCTURE)


def _sets_seen(attribute: FetchAttribute) -> bool:
    """RFC 3501 §6.4.5: BODY[...], RFC822 and RFC822.TEXT do; RFC822.HEADER is a BODY.PEEK."""
    match attribute:
        case FetchSection():
            return not attribute.peek and attribute.form is not SectionForm.RFC822_HEADER
        case FetchBinary():
            return not attribute.peek
        case _:
            return False


class NeedsBody(Exception):
    """An item of this message cannot be answered without its body."""


def _writer(attribute: FetchAttribute) -> Writer:
    match attribute:
        case FetchSection():
            return _section_writer(attribute)
        case FetchBinary():
            return _binary_writer(attribute)
        case FetchBinarySize():
            return _binary_size_writer(attribute)
        case FetchPreview():
            return lambda response, message, summary, body: response.preview(None)
        case _:
            return _OF_ROW.get(attribute) or _OF_SUMMARY[attribute]


def _section_writer(asked: FetchSection) -> Writer:
    name = item_name(asked)

    def write(
        response: FetchResponse, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[bytes] | None:
        found = sections.section(message, summary, body, asked)
        if isinstance(found, Needs):
            raise NeedsBody
        if isinstance(found, LongBytes):
            response.section_head(asked, len(found))
            return map(without_nul, found.slices())
        if isinstance(found, LongHeader):
            return map(without_nul, _fields_of(response, asked, found))
        response.named_section(name, found)
        return None

    return write


def _fields_of(response: FetchResponse, asked: FetchSection, header: LongHeader) -> Iterator[bytes]:
    size = 0
    for found in header.size():
        size = found or 0
        yield b""
    partial = asked.partial or Partial(0, size)
    response.section_head(asked, max(0, min(size - partial.offset, partial.count)))
    yield from header.octets(partial)


def _binary_writer(asked: FetchBinary) -> Writer:
    return lambda response, message, summary, body: _write_binary(response, asked, _part(message, summary, body, asked))


def _binary_size_writer(asked: FetchBinarySize) -> Writer:
    return lambda response, message, summary, body: _write_size(response, asked, _part(message, summary, body, asked))


def _part(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: FetchBinary | FetchBinarySize
) -> bytes | LongBytes | EncodedPart | None:
    found = sections.binary(message, summary, body, asked.path)
    if isinstance(found, Needs):
        raise NeedsBody
    return found


def _write_binary(
    response: FetchResponse, asked: FetchBinary, part: bytes | LongBytes | EncodedPart | None
) -> Iterator[bytes] | None:
    if isinstance(part, EncodedPart):
        return _decoded(response, asked, part)
    found = None if part is None else cut(part, asked.partial)
    if isinstance(found, LongBytes):
        response.binary_head(asked, len(found))
        return found.slices()
    response.binary(asked, found)
    return None


def _write_size(
    response: FetchResponse, asked: FetchBinarySize, part: bytes | LongBytes | EncodedPart | None
) -> Iterator[bytes] | None:
    if isinstance(part, EncodedPart):
        return _decoded_size(response, asked, part)
    response.binary_size(asked, len(part or b""))
    return None


def _decoded(response: FetchResponse, asked: FetchBinary, part: EncodedPart) -> Iterator[bytes]:
    """Decoded twice: a literal says its size before its bytes, and the bytes are not kept."""
    start, left = (asked.partial.offset, asked.partial.count) if asked.partial is not None else (0, sys.maxsize)
    size = 0
    for octets in decoded_pieces(part.octets, part.encoding):
        size += len(octets)
        if size >= start + left:
            break
        yield b""
    left = max(0, min(size - start, left))
    response.binary_head(asked, left)
    place = 0
    for octets in decoded_pieces(part.octets, part.encoding):
        wanted = octets[max(0, start - place) :][:left]
        place += len(octets)
        left -= len(wanted)
        yield wanted
        if not left:
            return


def _decoded_size(response: FetchResponse, asked: FetchBinarySize, part: EncodedPart) -> Iterator[bytes]:
    size = 0
    for octets in decoded_pieces(part.octets, part.encoding):
        size += len(octets)
        yield b""
    response.binary_size(asked, size)
