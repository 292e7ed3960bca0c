"""The text of header fields, of which there may be very many and each may be very long, in pieces of bounded length."""

from collections.abc import Iterable, Iterator
from typing import Final

from paquebot.message import decode_header_text, field_value

_LONGEST: Final = 256 * 1024
"""Bytes of a field that are decoded at once; a longer one is cut where it has white space."""
_PIECE: Final = 64 * 1024  # characters
_FIELDS: Final = 1000  # that are gone through in one step

Field = tuple[bytes, bytes]
"""A lower-case name, b"" for a line that is no field, and the raw field."""


def field_values(name: bytes, raw: bytes) -> Iterator[bytes]:
    """The unfolded value of a field; of a very long one, part after part, the white space between them left out."""
    if len(raw) <= _LONGEST:
        yield field_value(raw) if name else raw
        return
    start = raw.find(b":") + 1 if name else 0
    while start < len(raw):
        end = _cut(raw, start)
        yield field_value(b":" + raw[start:end])
        start = end


def _cut(raw: bytes, start: int) -> int:
    end = start + _LONGEST
    if end >= len(raw):
        return len(raw)
    space = max(raw.rfind(b" ", start, end), raw.rfind(b"\n", start, end))
    return space + 1 if space > start else end


def header_text(header: Iterable[Field]) -> Iterator[str]:
    """The text of all fields as `name: value`. NUL, which no search text holds, stands between them. An empty piece is
    a step in which nothing came together."""
    parts: list[str] = []
    held = 0
    for count, (name, raw) in enumerate(header, 1):
        parts.append(f"{name.decode('latin-1')}: ")
        for value in field_values(name, raw):
            parts += (decode_header_text(value), " ")
            held += len(parts[-2]) + 1
            if held >= _PIECE:
                yield from _pieces("".join(parts))
                parts, held = [], 0
        parts.append("\0")
        if count % _FIELDS == 0:
            yield ""
    yield from _pieces("".join(parts))


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def embedded_header_text(header: memoryview) -> Iterator[str]:
    """The text of the header of an embedded message, as it stands there but for its encoded words."""
    for start in range(0, len(header), _LONGEST):
        yield decode_header_text(bytes(header[start : start + _LONGEST]))
