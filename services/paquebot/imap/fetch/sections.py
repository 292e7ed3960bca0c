"""The bytes of BODY[...] and BINARY[...]: from the summary if it has them, else from the body.

A client sees the recipient's prefix (Return-Path, Delivered-To) and then the stored bytes of a message; the summary's
offsets count in the stored bytes alone (invariant 5). RFC 3501 §6.4.5, RFC 3516.

A long section is never copied: forty sections of one message are forty views of it, written a slice at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paquebot.imap.fetch.long_sections import EncodedPart, LongHeader
from paquebot.mailstore import StoredMessage
from paquebot.message import (
    ByteRange,
    MessageSummary,
    SectionText,
    StoredSection,
    cached_header_fields,
    decode_transfer,
    header_fields,
    is_multipart,
    part_at,
    section_bytes,
)
from paquebot.runtime.net.connection import SLICE
from paquebot.wire.imap import ast
from paquebot.wire.imap.ast import Partial, SectionSpecifier

_ENCODINGS = frozenset({b"7BIT", b"8BIT", b"BINARY", b"BASE64", b"QUOTED-PRINTABLE"})
_IDENTITY_ENCODINGS = frozenset({b"7BIT", b"8BIT", b"BINARY"})
_LONG_HEADER = 16 * 1024
"""Bytes of a header above which its fields are gone through in steps: it may have a field in every four bytes."""
_TEXTS = {
    None: SectionText.WHOLE,
    SectionSpecifier.HEADER: SectionText.HEADER,
    SectionSpecifier.HEADER_FIELDS: SectionText.HEADER,
    SectionSpecifier.HEADER_FIELDS_NOT: SectionText.HEADER,
    SectionSpecifier.TEXT: SectionText.TEXT,
    SectionSpecifier.MIME: SectionText.MIME,
}


@dataclass(frozen=True, slots=True)
class LongBytes:
    """The parts of a section, one after another: the recipient's prefix and the message, for example."""

    parts: tuple[memoryview, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def cut(self, partial: Partial) -> LongBytes:
        start, left, cut_parts = partial.offset, partial.count, []
        for part in self.parts:
            view = part[start : start + left]
            start = max(0, start - len(part))
            left -= len(view)
            if view:
                cut_parts.append(view)
        return LongBytes(tuple(cut_parts))

    def slices(self) -> Iterator[bytes]:
        for part in self.parts:
            for start in range(0, len(part), SLICE):
                yield bytes(part[start : start + SLICE])


def joined(*parts: bytes | memoryview) -> bytes | LongBytes:
    """The parts as one: copied if they are short, which they nearly always are, because that is faster."""
    if sum(map(len, parts)) <= SLICE:
        return b"".join(parts)
    return LongBytes(tuple(memoryview(part) for part in parts))


def cut(section: bytes | LongBytes, partial: Partial | None) -> bytes | LongBytes:
    """RFC 3501 §6.4.5: a partial beyond the end is empty."""
    if partial is None:
        return section
    if isinstance(section, LongBytes):
        return joined(*section.cut(partial).parts)
    return section[partial.offset : partial.offset + partial.count]


SectionBytes = bytes | LongBytes


class BodyNotRead(Exception):
    """Only the body has the section, and the plan of the FETCH did not read it."""


class UnknownEncoding(Exception):
    """A part's Content-Transfer-Encoding cannot be decoded (RFC 3516 §4.3)."""


def section(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: ast.FetchSection
) -> SectionBytes | LongHeader | None:
    """The bytes of a section, cut to its partial (but a LongHeader is not cut); None: there is no such part.

    Raises BodyNotRead.
    """
    found = _whole(message, summary, body, asked.section)
    return cut(found, asked.partial) if isinstance(found, bytes | LongBytes) else found


def _whole(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: ast.Section
) -> SectionBytes | LongHeader | None:
    at_top = not asked.path
    if at_top and asked.specifier is None:
        return _whole_message(message, body)
    fields = field_names(asked)
    if at_top and body is None and asked.specifier is SectionSpecifier.HEADER_FIELDS:
        cached = cached_header_fields(summary, fields)
        if cached is not None:
            return _prefix_fields(message, fields) + cached
    place = section_bytes(summary, StoredSection(asked.path, _TEXTS[asked.specifier]))
    if place is None:
        return None
    if body is None:
        raise BodyNotRead
    found = memoryview(body)[place.offset : place.offset + place.length]
    prefix = message.prefix if at_top else b""
    match asked.specifier:
        case SectionSpecifier.HEADER_FIELDS | SectionSpecifier.HEADER_FIELDS_NOT:
            negate = asked.specifier is SectionSpecifier.HEADER_FIELDS_NOT
            if len(found) > _LONG_HEADER:
                return _long_header(prefix, body, place, fields, negate=negate)
            if negate:
                return header_fields(prefix + bytes(found), fields, negate=True)
            return (_prefix_fields(message, fields) if at_top else b"") + header_fields(bytes(found), fields)
        case SectionSpecifier.HEADER:
            return joined(prefix, found)
        case _:
            return joined(found)


def _whole_message(message: StoredMessage, body: bytes | None) -> SectionBytes:
    if body is None:
        raise BodyNotRead
    return joined(message.prefix, body)


def _long_header(prefix: bytes, body: bytes, header: ByteRange, fields: list[str], *, negate: bool) -> LongHeader:
    names = frozenset(name.lower().encode("utf-8", "surrogateescape") for name in fields)
    before = header_fields(prefix, fields, negate=negate)[: -len(b"\r\n")]
    return LongHeader(body, header.offset, header.offset + header.length, names, negate, before)


def field_names(asked: ast.Section) -> list[str]:
    return [name.decode("ascii", "replace") for name in asked.fields]


def _prefix_fields(message: StoredMessage, fields: list[str]) -> bytes:
    """The fields asked for in the recipient's prefix, without the empty line after them."""
    prefix = message.prefix.lower()
    if not any(name.lower().encode("ascii", "replace") in prefix for name in fields):
        return b""  # nearly always: few clients ask for Return-Path or Delivered-To
    return header_fields(message.prefix, fields)[:-2]


def binary(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, path: tuple[int, ...]
) -> SectionBytes | EncodedPart | None:
    """A part, its transfer encoding decoded (RFC 3516 §4.3) or to be decoded in steps; BINARY[] is the message.

    `check_encoding` has accepted the part. None: there is no such part. Raises BodyNotRead.
    """
    if not path:
        return _whole_message(message, body)
    place = section_bytes(summary, StoredSection(path, SectionText.WHOLE))
    part = part_at(summary, path)
    if place is None or part is None:
        return None
    if body is None:
        raise BodyNotRead
    found = memoryview(body)[place.offset : place.offset + place.length]
    if is_multipart(part) or part.type == b"MESSAGE":
        return joined(found)
    encoding = part.encoding.upper()
    if len(found) <= SLICE:
        return decode_transfer(bytes(found), encoding)
    return joined(found) if encoding in _IDENTITY_ENCODINGS else EncodedPart(found, encoding)


def check_encoding(summary: MessageSummary, path: tuple[int, ...]) -> None:
    """Raises UnknownEncoding: the part cannot be decoded."""
    part = part_at(summary, path) if path else None
    if part is None or is_multipart(part) or part.type == b"MESSAGE":
        return
    if part.encoding.upper() not in _ENCODINGS:
        raise UnknownEncoding
