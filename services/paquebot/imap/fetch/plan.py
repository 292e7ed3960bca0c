"""The plan of a FETCH: where its items come from, so that it reads no more than they need, and how each is written.

The plan is made once for a command: a message then costs one call for each item.
"""

import enum
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from paquebot.imap.fetch import sections
from paquebot.imap.fetch.long_sections import EncodedPart, LongHeader
from paquebot.imap.fetch.sections import LongBytes, cut
from paquebot.imap.mailbox_view.view import View
from paquebot.mailstore import StoredMessage
from paquebot.message import (
    MessageSummary,
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

_LONG_SUMMARY = 64 * 1024  # bytes of a summary from which its items are written in steps

ViewWriter = Callable[[FetchResponse, View, int], None]
RowWriter = Callable[[FetchResponse, StoredMessage, MessageSummary, bytes | None], Iterator[bytes] | None]
"""Writes one item from the row, the summary and the body.

A long item is not written but returned, as steps: before each, the caller sends what the response has, and then the
bytes of the step. A step without bytes is work."""


class Source(enum.IntEnum):
    """The minimum that every message needs."""

    VIEW = 0
    ROW = 1
    BODY = 2


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """The items of a FETCH.

    One message may need its body though `source` is less: for a header field that its summary had no room for.
    """

    source: Source
    with_summary: bool
    sets_seen: bool
    returns_flags: bool
    returns_mod_seq: bool
    view_writers: tuple[ViewWriter, ...]
    """For the items that the view has, in the client's order; they come before the others."""
    row_writers: tuple[RowWriter, ...]
    header_fields: frozenset[str]
    """The header fields that a summary may have."""
    decoded_parts: frozenset[tuple[int, ...]]
    """Paths of the parts whose transfer encoding is decoded."""
    uses_envelope: bool
    uses_structure: bool
    """The structure is returned, or a part is found by it."""

    def needs_body(self, summary: MessageSummary) -> bool:
        """Does this summary lack what others have?"""
        if self.header_fields and not knows_header_fields(summary, self.header_fields):
            return True
        return self.needs_whole_summary(summary)

    def needs_whole_summary(self, summary: MessageSummary) -> bool:
        """Does a FETCH item use a part that this summary had no room for?"""
        return (self.uses_envelope and not has_whole_envelope(summary)) or (
            self.uses_structure and not has_whole_structure(summary)
        )

    def check_encodings(self, summary: MessageSummary) -> None:
        """Raises UnknownEncoding: one of the parts cannot be decoded (RFC 3516 §4.3)."""
        for path in self.decoded_parts:
            sections.check_encoding(summary, path)


@dataclass(frozen=True, slots=True)
class _ItemPlan:
    """The needs of one item, and its writer: `write_view`, or else `write_row`."""

    source: Source
    write_row: RowWriter | None = None
    write_view: ViewWriter | None = None
    with_summary: bool = False
    sets_seen: bool = False
    header_fields: tuple[str, ...] = ()
    decoded_part: tuple[int, ...] | None = None
    uses_envelope: bool = False
    uses_structure: bool = False


def plan_fetch(attributes: tuple[FetchAttribute, ...]) -> FetchPlan:
    """The plan for the items of a FETCH; an item that occurs twice is answered once."""
    attributes = tuple(dict.fromkeys(attributes))
    items = [_item_plan(attribute) for attribute in attributes]
    return FetchPlan(
        source=max((item.source for item in items), default=Source.VIEW),
        with_summary=any(item.with_summary for item in items),
        sets_seen=any(item.sets_seen for item in items),
        returns_flags=FetchItem.FLAGS in attributes,
        returns_mod_seq=FetchItem.MODSEQ in attributes,
        view_writers=tuple(item.write_view for item in items if item.write_view is not None),
        row_writers=tuple(item.write_row for item in items if item.write_row is not None),
        header_fields=frozenset(name for item in items for name in item.header_fields),
        decoded_parts=frozenset(item.decoded_part for item in items if item.decoded_part is not None),
        uses_envelope=any(item.uses_envelope for item in items),
        uses_structure=any(item.uses_structure for item in items),
    )


def _item_plan(asked: FetchAttribute) -> _ItemPlan:
    match asked:
        case FetchSection(section):
            # The summary has common header fields; it names those that it has no space for.
            in_summary = section.specifier is SectionSpecifier.HEADER_FIELDS and not section.path
            return _ItemPlan(
                Source.ROW if in_summary else Source.BODY,
                _section_writer(asked),
                with_summary=bool(section.path) or section.specifier is not None,
                # RFC 3501 §6.4.5: RFC822 and RFC822.TEXT set \Seen as BODY[...] does; RFC822.HEADER is a BODY.PEEK.
                sets_seen=not asked.peek and asked.form is not SectionForm.RFC822_HEADER,
                header_fields=tuple(sections.field_names(section)) if in_summary else (),
                uses_structure=bool(section.path),
            )
        case FetchBinary(path):
            return _binary_plan(path, _binary_writer(asked), sets_seen=not asked.peek)
        case FetchBinarySize(path):
            return _binary_plan(path, _binary_size_writer(asked), sets_seen=False)
        case FetchPreview():
            return _ItemPlan(Source.BODY, lambda response, message, summary, body: response.preview(None))
        case _:
            return _ITEM_PLANS[asked]


def _binary_plan(path: tuple[int, ...], write: RowWriter, *, sets_seen: bool) -> _ItemPlan:
    in_part = bool(path)
    return _ItemPlan(
        Source.BODY, write, with_summary=in_part, sets_seen=sets_seen, decoded_part=path, uses_structure=in_part
    )


def _section_writer(asked: FetchSection) -> RowWriter:
    name = item_name(asked)

    def write(
        response: FetchResponse, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[bytes] | None:
        found = sections.section(message, summary, body, asked)
        if isinstance(found, LongBytes):
            response.section_head(asked, len(found))
            return map(without_nul, found.slices())
        if isinstance(found, LongHeader):
            return map(without_nul, _in_steps(found, asked.partial, lambda size: response.section_head(asked, size)))
        response.named_section(name, found)
        return None

    return write


def _in_steps(
    section: LongHeader | EncodedPart, partial: Partial | None, write_head: Callable[[int], None]
) -> Iterator[bytes]:
    wanted = partial or Partial(0, sys.maxsize)
    size = 0
    for counted in section.size(wanted.offset + wanted.count):
        size = counted or 0
        yield b""
    write_head(max(0, min(size - wanted.offset, wanted.count)))
    yield from section.chunks(wanted)


def _binary_writer(asked: FetchBinary) -> RowWriter:
    def write(
        response: FetchResponse, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[bytes] | None:
        part = sections.binary(message, summary, body, asked.path)
        if isinstance(part, EncodedPart):
            return _in_steps(part, asked.partial, lambda size: response.binary_head(asked, size))
        found = None if part is None else cut(part, asked.partial)
        if isinstance(found, LongBytes):
            response.binary_head(asked, len(found))
            return found.slices()
        response.binary(asked, found)
        return None

    return write


def _binary_size_writer(asked: FetchBinarySize) -> RowWriter:
    def write(
        response: FetchResponse, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[bytes] | None:
        part = sections.binary(message, summary, body, asked.path)
        if isinstance(part, EncodedPart):
            return _count_in_steps(part, lambda size: response.binary_size(asked, size))
        response.binary_size(asked, len(part or b""))
        return None

    return write


def _count_in_steps(part: EncodedPart, write: Callable[[int], None]) -> Iterator[bytes]:
    size = 0
    for counted in part.size(sys.maxsize):
        size = counted or 0
        yield b""
    write(size)


def _summary_writer(
    write: Callable[[FetchResponse, MessageSummary], None],
    write_long: Callable[[FetchResponse, MessageSummary], Iterator[None]],
) -> RowWriter:
    def write_either(
        response: FetchResponse, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[bytes] | None:
        if _is_long(message, summary):
            return (b"" for _ in write_long(response, summary))
        write(response, summary)
        return None

    return write_either


def _is_long(message: StoredMessage, summary: MessageSummary) -> bool:
    stored = message.summary or b""
    return len(stored) >= _LONG_SUMMARY or (not is_surely_whole(stored) and summary.ByteSize() >= _LONG_SUMMARY)


def _view_item(write: ViewWriter) -> _ItemPlan:
    return _ItemPlan(Source.VIEW, write_view=write)


def _column(write: RowWriter) -> _ItemPlan:
    return _ItemPlan(Source.ROW, write)


_ITEM_PLANS: Mapping[FetchAttribute, _ItemPlan] = {
    FetchItem.UID: _view_item(lambda response, view, number: response.uid(view.uid(number))),
    FetchItem.FLAGS: _view_item(lambda response, view, number: response.flags(view.flag_names(number))),
    FetchItem.MODSEQ: _view_item(lambda response, view, number: response.mod_seq(view.mod_seq_of(number))),
    FetchItem.INTERNALDATE: _column(
        lambda response, message, summary, body: response.internal_date(message.internal_date)
    ),
    FetchItem.RFC822_SIZE: _column(lambda response, message, summary, body: response.size(message.size)),
    FetchItem.SAVEDATE: _column(lambda response, message, summary, body: response.save_date(message.save_date)),
    FetchItem.EMAILID: _column(lambda response, message, summary, body: response.email_id(message.email_id)),
    FetchItem.THREADID: _column(lambda response, message, summary, body: response.thread_id(message.thread_id)),
    FetchItem.ENVELOPE: _ItemPlan(
        Source.ROW,
        _summary_writer(
            lambda response, summary: response.envelope(summary.envelope),
            lambda response, summary: response.long_envelope(summary.envelope),
        ),
        with_summary=True,
        uses_envelope=True,
    ),
    FetchItem.BODY: _ItemPlan(
        Source.ROW,
        _summary_writer(
            lambda response, summary: response.body(summary.body),
            lambda response, summary: response.long_body(summary.body),
        ),
        with_summary=True,
        uses_structure=True,
    ),
    FetchItem.BODYSTRUCTURE: _ItemPlan(
        Source.ROW,
        _summary_writer(
            lambda response, summary: response.body_structure(summary.body),
            lambda response, summary: response.long_body_structure(summary.body),
        ),
        with_summary=True,
        uses_structure=True,
    ),
}
