"""Boundary lines: where the parts of open multiparts end.

Invariant: positions only grow, so that each byte is searched once for each kind of line.
RFC 2046 §5.1.1 and §5.1.2.
"""

from dataclasses import dataclass
from typing import Final

from paquebot.message.limits import MAX_BOUNDARY, MAX_DASH_LINES

_CR: Final = 0x0D


@dataclass(frozen=True, slots=True)
class Delimiter:
    """A boundary line: where the content before it ends, where the next line starts, the level of its multipart."""

    content_end: int
    next_line: int
    level: int
    closes: bool


class Ahead:
    """The next place of a needle at or after positions that only grow, so that each byte is searched once."""

    __slots__ = ("at", "content", "needle")

    def __init__(self, content: bytes, needle: bytes) -> None:
        self.content = content
        self.needle = needle
        self.at = -1

    def find(self, pos: int) -> int:
        """Offset of the next needle, or the length of the message."""
        if self.at < pos:
            at = self.content.find(self.needle, pos)
            self.at = at if at >= 0 else len(self.content)
        return self.at


class BoundaryLines:
    """The multiparts that are open, and the next line that delimits one of them."""

    __slots__ = ("_content", "_dash_lines", "_dashes", "_levels", "delimiter")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._levels: dict[bytes, int] = {}
        self._dashes = Ahead(content, b"\n--")
        self._dash_lines = MAX_DASH_LINES
        self.delimiter: Delimiter | None = None  # where the entity just read ended; None: end of message

    def open(self, boundary: bytes, level: int) -> int | None:
        """From now on lines with this boundary delimit. Returns the level of an outer multipart with the same boundary,
        for `close`."""
        shadowed = self._levels.get(boundary)
        self._levels[boundary] = level
        return shadowed

    def close(self, boundary: bytes, shadowed: int | None) -> None:
        """Undo `open`."""
        if shadowed is None:
            del self._levels[boundary]
        else:
            self._levels[boundary] = shadowed

    @property
    def exhausted(self) -> bool:
        """There were too many lines with dashes, so delimiters may have been missed."""
        return self._dash_lines <= 0

    def content_end(self) -> int:
        """Where the content before the delimiter ends; the line end before it is the delimiter's own."""
        return len(self._content) if self.delimiter is None else self.delimiter.content_end

    def seek(self, pos: int) -> None:
        """Find the next delimiter of an open multipart whose line starts at `pos` or later."""
        self.delimiter = None
        if self._levels:
            self._find(pos, len(self._content))

    def line_in(self, start: int, end: int) -> int | None:
        """The start of the first delimiter line that starts in content[start:end]."""
        at = self._find(start, end - 1) if self._levels else None
        return None if at is None else at + 1

    def _find(self, pos: int, limit: int) -> int | None:
        """Look for a delimiter from the line at `pos` on; the offset before its line, or None up to `limit`."""
        content = self._content
        at = self._dashes.find(pos - 1)
        while at < limit and self._dash_lines > 0:
            self._dash_lines -= 1
            line_end = content.find(b"\n", at + 3)
            line_end = line_end if line_end >= 0 else len(content)
            if line_end - at <= MAX_BOUNDARY and self._match(content[at + 3 : line_end].rstrip(b" \t\r"), at):
                return at
            at = self._dashes.find(line_end)
        return None

    def _match(self, line: bytes, at: int) -> bool:
        """RFC 2046 §5.1.1: boundary, or boundary "--", with white space after it; the innermost level wins."""
        level = self._levels.get(line, -1)
        closing = self._levels.get(line[:-2], -1) if line.endswith(b"--") else -1
        if level < 0 and closing < 0:
            return False
        content_end = at - 1 if at and self._content[at - 1] == _CR else at
        next_line = self._content.find(b"\n", at + 3) + 1 or len(self._content)
        self.delimiter = Delimiter(content_end, next_line, max(level, closing), closing > level)
        return True
