"""Sections too long to be made at once: the fields of a long header, and long parts that are decoded.

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
