"""HEADER.FIELDS of a header that is too long to be gone through at once (RFC 3501 §6.4.5).

It is gone through twice, in steps: a literal says its size before its bytes, and nothing is kept but what goes out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paquebot.message import field_spans
from paquebot.runtime.net.connection import SLICE
from paquebot.wire.imap.ast import Partial

_FIELDS: Final = 1000
"""Fields that are looked at in one step, about half a millisecond."""


@dataclass(frozen=True, slots=True)
class LongHeader:
    """The fields of body[start:end] with one of `names` (lower case), or with `negate` those with none of them, and an
    empty line. `before`: what goes before them, the recipient's own fields."""

    body: bytes
    start: int
    end: int
    names: frozenset[bytes]
    negate: bool
    before: bytes

    def size(self) -> Iterator[int | None]:
        """None after each step; at last the bytes of all."""
        size, last = len(self.before), 0
        for found in self._ranges():
            if found is None:
                yield None
            else:
                size, last = size + found[1] - found[0], found[1]
        yield size + len(self._end(last))

    def octets(self, partial: Partial) -> Iterator[bytes]:
        """What of them `partial` names, in pieces; an empty piece is a step without any."""
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
        """The empty line, and the line end that the message's last line may lack."""
        return b"\r\n" if not last or self.body[last - 1 : last] == b"\n" else b"\r\n\r\n"

    def _ranges(self) -> Iterator[tuple[int, int] | None]:
        """Where the fields are; those that follow each other are one range. None after each step."""
        begin = until = 0
        for count, (name, start, _, end) in enumerate(field_spans(self.body, self.start, self.end), 1):
            if (name in self.names) is not self.negate:
                if until and until != start:
                    yield begin, until
                    begin = start
                begin, until = begin if until else start, end
            if count % _FIELDS == 0:
                yield None
        if until:
            yield begin, until
