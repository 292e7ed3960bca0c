"""Sections too long to be copied or looked through at once: views of the one body, written a slice at a time.

A literal gives its size before its bytes. So a header's fields, and the bytes of an encoded part, are read twice: once
for the size and once to write them. Nothing is kept in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paquebot.message import decoded_pieces, field_spans
from paquebot.runtime.net.connection import SLICE
from paquebot.wire.imap.ast import Partial

_FIELDS_PER_STEP: Final = 1000
"""About half a millisecond."""


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


@dataclass(frozen=True, slots=True)
class LongHeader:
    """The fields of body[start:end] whose lower-case name is in `names`, or with `negate` is not, and an empty line.

    `before` goes before them: the fields of the recipient's prefix.
    """

    body: bytes
    start: int
    end: int
    names: frozenset[bytes]
    negate: bool
    before: bytes

    def size(self, until: int) -> Iterator[int | None]:
        """None after each step; at last the size, counted as far as `until`."""
        size, last = len(self.before), 0
        for found in self._ranges():
            if found is None:
                yield None
                continue
            size, last = size + found[1] - found[0], found[1]
            if size >= until:
                break
        yield size + len(self._end(last))

    def chunks(self, partial: Partial) -> Iterator[bytes]:
        """The bytes that `partial` asks for; an empty chunk is a step that found none."""
        skip, left = partial.offset, partial.count
        out = bytearray()
        for part in self._parts():
            if part is None:
                yield b""
                continue
            view = part[skip : skip + left]
            skip, left = max(0, skip - len(part)), left - len(view)
            for at in range(0, len(view), SLICE):
                out += view[at : at + SLICE]
                if len(out) >= SLICE:
                    yield bytes(out)
                    out.clear()
            if not left:
                break
        yield bytes(out)

    def _parts(self) -> Iterator[memoryview | None]:
        view, last = memoryview(self.body), 0
        yield memoryview(self.before)
        for found in self._ranges():
            if found is None:
                yield None
            else:
                last = found[1]
                yield view[found[0] : last]
        yield memoryview(self._end(last))

    def _end(self, last: int) -> bytes:
        """The empty line, and the line end that the last line of the message may lack."""
        return b"\r\n" if not last or self.body[last - 1 : last] == b"\n" else b"\r\n\r\n"

    def _ranges(self) -> Iterator[tuple[int, int] | None]:
        """The ranges of the fields; adjacent fields are one range. None after each step."""
        begin = until = 0
        for count, (name, start, _, end) in enumerate(field_spans(self.body, self.start, self.end), 1):
            if (name in self.names) is not self.negate:
                if until and until != start:
                    yield begin, until
                    begin = start
                begin, until = begin if until else start, end
            if count % _FIELDS_PER_STEP == 0:
                yield None
        if until:
            yield begin, until


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """A part too long to be decoded in one piece."""

    data: memoryview
    encoding: bytes

    def size(self, until: int) -> Iterator[int | None]:
        """None after each step; at last the decoded size, counted as far as `until`."""
        size = 0
        for piece in decoded_pieces(self.data, self.encoding):
            size += len(piece)
            if size >= until:
                break
            yield None
        yield size

    def chunks(self, partial: Partial) -> Iterator[bytes]:
        """The decoded bytes that `partial` asks for; an empty chunk is a step that found none."""
        place, left = 0, partial.count
        for piece in decoded_pieces(self.data, self.encoding):
            wanted = piece[max(0, partial.offset - place) :][:left]
            place += len(piece)
            left -= len(wanted)
            yield wanted
            if not left:
                return
