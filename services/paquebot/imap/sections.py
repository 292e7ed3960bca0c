"""The octets of BODY[...], BINARY[...] and their relatives, from the summary where it can tell, else from the body.

A message as a client sees it is the recipient's prefix (Return-Path, Delivered-To) and then the stored octets;
the summary's offsets count in the stored octets alone (invariant 5). RFC 3501 §6.4.5, RFC 3516.
"""

import enum

from paquebot.mailstore.types import StoredMessage
from paquebot.message import (
    MessageSummary,
    Section,
    SectionText,
    cached_header_fields,
    decode_transfer,
    header_fields,
    is_multipart,
    part_at,
    section_octets,
)
from paquebot.wire.imap import ast
from paquebot.wire.imap.ast import Partial, SectionSpecifier


class Needs(enum.Enum):
    """What must be read before a section can be answered."""

    BODY = "body"


class UnknownEncoding(Exception):
    """A part's Content-Transfer-Encoding cannot be undone (RFC 3516 §4.3)."""


_ENCODINGS = frozenset({b"7BIT", b"8BIT", b"BINARY", b"BASE64", b"QUOTED-PRINTABLE"})
_TEXTS = {
    None: SectionText.WHOLE,
    SectionSpecifier.HEADER: SectionText.HEADER,
    SectionSpecifier.HEADER_FIELDS: SectionText.HEADER,
    SectionSpecifier.HEADER_FIELDS_NOT: SectionText.HEADER,
    SectionSpecifier.TEXT: SectionText.TEXT,
    SectionSpecifier.MIME: SectionText.MIME,
}


def section(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: ast.FetchSection
) -> bytes | Needs | None:
    """The octets of a section, cut to its partial; None when the message has no such part."""
    found = _whole(message, summary, body, asked.section)
    if found is None or isinstance(found, Needs) or asked.partial is None:
        return found
    return cut(found, asked.partial)


def cut(octets: bytes, partial: Partial | None) -> bytes:
    """RFC 3501 §6.4.5: what lies behind the end is empty."""
    return octets if partial is None else octets[partial.offset : partial.offset + partial.count]


def _whole(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, asked: ast.Section
) -> bytes | Needs | None:
    at_top = not asked.path
    if at_top and asked.specifier is None:  # the whole message: no place of a part is needed
        return Needs.BODY if body is None else message.prefix + body
    fields = [name.decode("ascii", "replace") for name in asked.fields]
    if at_top and body is None and asked.specifier is SectionSpecifier.HEADER_FIELDS:
        cached = cached_header_fields(summary, fields)
        if cached is not None:
            return _prefix_fields(message, fields) + cached
    octets = section_octets(summary, Section(asked.path, _TEXTS[asked.specifier]))
    if octets is None:
        return None
    if body is None:
        return Needs.BODY
    found = octets.of(body)
    match asked.specifier:
        case SectionSpecifier.HEADER_FIELDS:
            return (_prefix_fields(message, fields) if at_top else b"") + header_fields(found, fields)
        case SectionSpecifier.HEADER_FIELDS_NOT:
            header = message.prefix + found if at_top else found
            return header_fields(header, fields, negate=True)
        case SectionSpecifier.HEADER if at_top:
            return message.prefix + found
        case _:
            return found


def _prefix_fields(message: StoredMessage, fields: list[str]) -> bytes:
    """The wanted fields of the recipient's prefix, without the empty line behind them."""
    prefix = message.prefix.lower()
    if not any(name.lower().encode("ascii", "replace") in prefix for name in fields):
        return b""  # nearly always: Return-Path and Delivered-To are asked for by few
    return header_fields(message.prefix, fields)[:-2]


def binary(
    message: StoredMessage, summary: MessageSummary, body: bytes | None, path: tuple[int, ...]
) -> bytes | Needs | None:
    """A part without its transfer encoding (RFC 3516 §4.3); BINARY[] is the message itself."""
    if not path:
        return Needs.BODY if body is None else message.prefix + body
    octets = section_octets(summary, Section(path, SectionText.WHOLE))
    part = part_at(summary, path)
    if octets is None or part is None:
        return None
    if body is None:
        return Needs.BODY
    found = octets.of(body)
    if is_multipart(part) or part.type == b"MESSAGE":
        return found
    if part.encoding.upper() not in _ENCODINGS:
        raise UnknownEncoding
    return decode_transfer(found, part.encoding)
