"""The bytes of BODY[...], BINARY[...] and their relatives, from the summary where it can tell, else from the body.

A message as a client sees it is the recipient's prefix (Return-Path, Delivered-To) and then the stored bytes;
the summary's offsets count in the stored bytes alone (invariant 5). RFC 3501 §6.4.5, RFC 3516.

What is long is never copied: forty sections of one message are forty views of it.
"""

import enum
from dataclasses import dataclass

from paquebot.imap.fetch.long_bytes import LongBytes, cut, joined
from paquebot.imap.fetch.long_headers import LongHeader
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
from paquebot.wire.imap.ast import SectionSpecifier


class Needs(enum.Enum):
    """What must be read before a section can be answered."""

    BODY = "body"


class UnknownEncoding(Exception):
    """A part's Content-Transfer-Encoding cannot be undone (RFC 3516 §4.3)."""


_ENCODINGS = frozenset({b"7BIT", b"8BIT", b"BINARY", b"BASE64", b"QUOTED-PRINTABLE"})
_LONG_HEADER = 16 * 1024
"""Bytes of a header above which its fields are gone through in steps: it may have one in every four bytes."""
_UNCHANGED = frozenset({b"7BIT", b"8BIT", b"BINARY"})
_TEXTS = {
    None: SectionText.WHOLE,
    SectionSpecifier.HEADER: SectionText.HEADER,
    SectionSpecifier.HEADER_FIELDS: SectionText.HEADER,
    SectionSpecifier.HEADER_FIELDS_NOT: SectionText.HEADER,
    SectionSpecifier.TEXT: SectionText.TEXT,
    SectionSpecifier.MIME: SectionText.MIME,
}


SectionBytes = bytes | LongBytes


def section(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: ast.FetchSection
) -> SectionBytes | LongHeader | Needs | None:
    """The bytes of a section, cut to its partial but for a LongHeader; None when the message has no such part."""
    found = _whole(message, summary, body, asked.section)
    return cut(found, asked.partial) if isinstance(found, bytes | LongBytes) else found


def _whole(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: ast.Section
) -> SectionBytes | LongHeader | Needs | None:
    at_top = not asked.path
    if at_top and asked.specifier is None:  # the whole message: no place of a part is needed
        return Needs.BODY if body is None else joined(message.prefix, body)
    fields = field_names(asked)
    if at_top and body is None and asked.specifier is SectionSpecifier.HEADER_FIELDS:
        cached = cached_header_fields(summary, fields)
        if cached is not None:
            return _prefix_fields(message, fields) + cached
    octets = section_bytes(summary, StoredSection(asked.path, _TEXTS[asked.specifier]))
    if octets is None:
        return None
    if body is None:
        return Needs.BODY
    found = memoryview(body)[octets.offset : octets.offset + octets.length]
    prefix = message.prefix if at_top else b""
    match asked.specifier:
        case SectionSpecifier.HEADER_FIELDS | SectionSpecifier.HEADER_FIELDS_NOT:
            negate = asked.specifier is SectionSpecifier.HEADER_FIELDS_NOT
            if len(found) > _LONG_HEADER:
                return _long_header(prefix, body, octets, fields, negate=negate)
            if negate:
                return header_fields(prefix + bytes(found), fields, negate=True)
            return (_prefix_fields(message, fields) if at_top else b"") + header_fields(bytes(found), fields)
        case SectionSpecifier.HEADER:
            return joined(prefix, found)
        case _:
            return joined(found)


def _long_header(prefix: bytes, body: bytes, header: ByteRange, fields: list[str], *, negate: bool) -> LongHeader:
    names = frozenset(name.lower().encode("utf-8", "surrogateescape") for name in fields)
    before = header_fields(prefix, fields, negate=negate)[: -len(b"\r\n")]
    return LongHeader(body, header.offset, header.offset + header.length, names, negate, before)


def field_names(asked: ast.Section) -> list[str]:
    return [name.decode("ascii", "replace") for name in asked.fields]


def _prefix_fields(message: StoredMessage, fields: list[str]) -> bytes:
    """The wanted fields of the recipient's prefix, without the empty line behind them."""
    prefix = message.prefix.lower()
    if not any(name.lower().encode("ascii", "replace") in prefix for name in fields):
        return b""  # nearly always: Return-Path and Delivered-To are asked for by few
    return header_fields(message.prefix, fields)[:-2]


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """A part that is too long to be decoded in one piece."""

    octets: memoryview
    encoding: bytes


def binary(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, path: tuple[int, ...]
) -> SectionBytes | EncodedPart | Needs | None:
    """A part without its transfer encoding (RFC 3516 §4.3), which `check_encoding` knows; BINARY[] is the message."""
    if not path:
        return Needs.BODY if body is None else joined(message.prefix, body)
    octets = section_bytes(summary, StoredSection(path, SectionText.WHOLE))
    part = part_at(summary, path)
    if octets is None or part is None:
        return None
    if body is None:
        return Needs.BODY
    found = memoryview(body)[octets.offset : octets.offset + octets.length]
    if is_multipart(part) or part.type == b"MESSAGE":
        return joined(found)
    encoding = part.encoding.upper()
    if len(found) <= SLICE:
        return decode_transfer(bytes(found), encoding)
    return joined(found) if encoding in _UNCHANGED else EncodedPart(found, encoding)


def check_encoding(summary: MessageSummary, path: tuple[int, ...]) -> None:
    """Raises UnknownEncoding: the part cannot be decoded."""
    part = part_at(summary, path) if path else None
    if part is None or is_multipart(part) or part.type == b"MESSAGE":
        return
    if part.encoding.upper() not in _ENCODINGS:
        raise UnknownEncoding
