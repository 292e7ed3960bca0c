"""The header of a converted entity: its description of the body, and the fields that an encoded body needs."""

import codecs
from dataclasses import dataclass, field
from typing import Final

from paquebot.message.conversion.transfer_encoding import blocks, is_ascii
from paquebot.message.mime.parameters import decoded_value, media_type

_TEXT_PLAIN: Final = (b"TEXT", b"PLAIN")


@dataclass(slots=True)
class EntityHeader:
    """Where the body starts and the header lines end, the type, the transfer encoding, and the places of its fields."""

    start: int
    end: int
    body: int
    kind: tuple[bytes, bytes]
    boundary: bytes = b""
    encoding: bytes = b""
    encodings: list[tuple[int, int]] = field(default_factory=list)
    has_type: bool = False
    has_version: bool = False
    top: bool = False
    retyped: bool = False
    """A multipart without parts, which mail programs show as text: it gets that type where it is encoded."""


def set_type(header: EntityHeader, value: bytes) -> None:
    """RFC 2045 §5.2: an invalid media type is text/plain, and so is a multipart without a boundary."""
    found = media_type(value)
    header.kind = _TEXT_PLAIN
    if found is None:
        return
    header.kind = found[0], found[1]
    if found[0] == b"MULTIPART":
        for name, text in found[2]:
            if name in (b"boundary", b"boundary*") and not header.boundary:
                header.boundary = (text if name == b"boundary" else decoded_value(text)).rstrip(b" \t")


def added_fields(content: bytes, header: EntityHeader, label: bytes, body_end: int) -> bytes:
    """The fields that an encoded body needs. Text without a declared charset counts as UTF-8 if it can be."""
    lines = []
    if header.top and not header.has_version:
        lines.append(b"MIME-Version: 1.0\r\n")
    if header.top and not header.has_type:
        lines.append(text_type(content, header.body, body_end))
    lines.append(b"Content-Transfer-Encoding: %b\r\n" % label)
    before = b"" if header.end == header.start or content[header.end - 1] == 0x0A else b"\r\n"
    return before + b"".join(lines)


def text_type(content: bytes, start: int, end: int) -> bytes:
    return b"Content-Type: text/plain; charset=%b\r\n" % _charset(content, start, end)


def _charset(content: bytes, start: int, end: int) -> bytes:
    if is_ascii(content, start, end):
        return b"us-ascii"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for begin, cut in blocks(content, start, end):
            decoder.decode(content[begin:cut], final=cut == end)
    except UnicodeDecodeError:
        return b"unknown-8bit"  # RFC 1428 §3
    return b"utf-8"
