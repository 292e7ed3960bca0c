"""Bytes too many to be copied for a response: views of what is in memory once, and written a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paquebot.runtime.net.connection import SLICE
from paquebot.wire.imap.ast import Partial


@dataclass(frozen=True, slots=True)
class LongBytes:
    """One after another: the parts of a section, such as a recipient's prefix and the message."""

    parts: tuple[memoryview, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def cut(self, partial: Partial) -> LongBytes:
        start, left, found = partial.offset, partial.count, []
        for part in self.parts:
            view = part[start : start + left]
            start = max(0, start - len(part))
            left -= len(view)
            if view:
                found.append(view)
        return LongBytes(tuple(found))

    def slices(self) -> Iterator[bytes]:
        for part in self.parts:
            for start in range(0, len(part), SLICE):
                yield bytes(part[start : start + SLICE])


def joined(*parts: bytes | memoryview) -> bytes | LongBytes:
    """The parts as one: copied when they are few bytes, which is nearly always, and the faster."""
    if sum(map(len, parts)) <= SLICE:
        return b"".join(parts)
    return LongBytes(tuple(memoryview(part) for part in parts))


def cut(octets: bytes | LongBytes, partial: Partial | None) -> bytes | LongBytes:
    """RFC 3501 §6.4.5: what lies behind the end is empty."""
    if partial is None:
        return octets
    if isinstance(octets, LongBytes):
        return joined(*octets.cut(partial).parts)
    return octets[partial.offset : partial.offset + partial.count]
