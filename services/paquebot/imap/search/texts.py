"""The texts of headers and parts in pieces, and a search for all wanted texts in them at once.

A piece is decoded once, folded, compared with every text that was not found so far, and dropped: only which texts were
found is kept. The cost is counted in bytes decoded and characters compared, and also for each part and comparison,
however short.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from paquebot.message import (
    BodyPart,
    decode_header_text,
    embedded_message,
    field_value,
    is_multipart,
    text_pieces,
)

_DECODING = 8  # to decode and fold a byte takes about as long as to compare it with this many texts
_TOGETHER = 16  # texts that are compared with a piece in one step
_EMPTY_PIECE = 64 * 1024  # the cost of a piece without text: bytes whose charset was guessed
_PART, _COMPARISON = 8192, 128  # in characters, the cost to begin a part, and to compare a text with a piece at all
_LONGEST_FIELD: Final = 256 * 1024
"""Bytes of a field that are decoded at once; a longer one is cut at white space."""
_PIECE: Final = 64 * 1024  # characters of header text
_FIELDS_PER_STEP: Final = 1000

Field = tuple[bytes, bytes]
"""A lower-case name, b"" for a line that is not a field, and the raw field."""


@dataclass(slots=True)
class TextsFound:
    """In one header or body so far. `complete`: all of it was searched, so the other texts are not in it."""

    found: set[str] = field(default_factory=set)
    complete: bool = False


def search_texts(parts: Iterable[Iterable[str]], wanted: Iterable[str], texts: TextsFound) -> Iterator[int]:
    """Add to `texts` the folded texts of `wanted` that are found. Each step yields its cost.

    Each part is searched separately. The caller may stop as soon as it knows enough.
    """
    missing = [text for text in wanted if text]
    texts.found.add("")  # it is in every text
    for part in parts:
        tail = ""
        yield _PART
        for piece in part:
            if not piece:
                yield _EMPTY_PIECE
                continue
            text = tail + piece.casefold()
            yield _DECODING * len(piece)
            for start in range(0, len(missing), _TOGETHER):
                some = missing[start : start + _TOGETHER]
                texts.found.update(one for one in some if one in text)
                yield (len(text) + _COMPARISON) * len(some)
            missing = [one for one in missing if one not in texts.found]
            overlap = max(map(len, missing), default=1) - 1
            tail = text[max(0, len(text) - overlap) :]
    texts.complete = True


def part_texts(content: bytes, root: BodyPart) -> Iterator[Iterable[str]]:
    """The text of every text part, and the header of every embedded message, in pieces."""
    return _part_texts(root, memoryview(content))


def _part_texts(part: BodyPart, content: memoryview) -> Iterator[Iterable[str]]:
    embedded = embedded_message(part)
    if is_multipart(part):
        for child in part.parts:
            yield from _part_texts(child, content)
    elif embedded is not None:
        yield _embedded_header_text(content[embedded.header_offset : embedded.body_offset])
        yield from _part_texts(embedded, content)
    elif part.type == b"TEXT":
        body = content[part.body_offset : part.body_offset + part.body_length]
        yield text_pieces(body, part.encoding, _charset(part))


def _charset(part: BodyPart) -> str:
    return next((p.value.decode("latin-1") for p in part.parameters if p.name.lower() == b"charset"), "")


# --- headers ---------------------------------------------------------------------------------------------


def field_values(name: bytes, raw: bytes) -> Iterator[bytes]:
    """The unfolded value of a field; a very long one in several parts, without the white space between them."""
    if len(raw) <= _LONGEST_FIELD:
        yield field_value(raw) if name else raw
        return
    start = raw.find(b":") + 1 if name else 0
    while start < len(raw):
        end = _cut(raw, start)
        yield field_value(b":" + raw[start:end])
        start = end


def _cut(raw: bytes, start: int) -> int:
    end = start + _LONGEST_FIELD
    if end >= len(raw):
        return len(raw)
    space = max(raw.rfind(b" ", start, end), raw.rfind(b"\n", start, end))
    return space + 1 if space > start else end


def header_text(header: Iterable[Field]) -> Iterator[str]:
    """The text of all fields as `name: value`, separated by NUL, which no wanted text has. An empty piece is a step
    without text."""
    parts: list[str] = []
    size = 0
    for count, (name, raw) in enumerate(header, 1):
        parts.append(f"{name.decode('latin-1')}: ")
        for value in field_values(name, raw):
            parts += (decode_header_text(value), " ")
            size += len(parts[-2]) + 1
            if size >= _PIECE:
                yield from _pieces("".join(parts))
                parts, size = [], 0
        parts.append("\0")
        if count % _FIELDS_PER_STEP == 0:
            yield ""
    yield from _pieces("".join(parts))


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _embedded_header_text(header: memoryview) -> Iterator[str]:
    """The header of an embedded message as it is, but its encoded words decoded."""
    for start in range(0, len(header), _LONGEST_FIELD):
        yield decode_header_text(bytes(header[start : start + _LONGEST_FIELD]))
