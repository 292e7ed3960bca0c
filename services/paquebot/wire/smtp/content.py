"""The content of a message on the wire: where it ends, and that its lines are lines.

Invariants: only <CRLF>.<CRLF> ends DATA, whatever the borders of the segments (a receiver that takes <LF>.<LF> or
a mixture for the end lets one message smuggle another); a message with a bare CR or LF is never taken, so none is
ever sent on. Lines may be of any length: 1,000 octets are what everybody must take, no limit. No octet is looked at in
a Python loop, and a line that does not end costs what as many octets in short lines do.
RFC 5321 §2.3.8, §4.1.1.4, §4.5.2 (transparency), §4.5.3.1.6 (line length); RFC 3030 §2.
"""

_END = b"\r\n.\r\n"
SHORTEST_LIMIT = 1000  # octets with CRLF, without the transparency dot; RFC 5321 §4.5.3.1.6


class BadContent(ValueError):
    """The content cannot be taken; it has been read to its end."""


class BareLineEnd(BadContent):
    """CR without LF or LF without CR (RFC 5321 §2.3.8)."""


class ContentLineTooLong(BadContent):
    """A line of more than the allowed octets."""


class DataDecoder:
    """Collects what follows 354 up to <CRLF>.<CRLF>."""

    __slots__ = ("_buffer", "_discarded", "_end")

    def __init__(self) -> None:
        # The CRLF of the DATA command begins the end mark of an empty message (RFC 5321 §4.1.1.4).
        self._buffer = bytearray(b"\r\n")
        self._discarded = 0
        self._end = -1

    @property
    def octets(self) -> int:
        """Received so far, the end mark included."""
        return self._discarded + len(self._buffer) - 2

    def feed(self, octets: bytes | bytearray) -> bytes | None:
        """Take what came. None: more is to come; else what follows the end mark, the next commands."""
        buffer = self._buffer
        start = max(0, len(buffer) - len(_END) + 1)
        buffer += octets
        end = buffer.find(_END, start)
        if end < 0:
            return None
        rest = bytes(buffer[end + len(_END) :])
        del buffer[end + len(_END) :]
        self._end = end
        return rest

    def discard(self) -> None:
        """Forget what came, and go on to look for the end: the message is refused already."""
        surplus = len(self._buffer) - len(_END) + 1
        if surplus > 0:
            del self._buffer[:surplus]
            self._discarded += surplus

    def content(self, *, max_line: int = 0) -> bytes:
        """The message after `feed` found the end, its transparency dots removed; `max_line` as in
        `check_line_lengths`. Raises BadContent."""
        # From after the first CRLF to before the last dot.
        content = bytes(memoryview(self._buffer)[2 : self._end + 2]) if self._end > 0 else b""
        dotted = content.startswith(b".") or self._buffer.find(b"\r\n.", 2, self._end) >= 0
        self._buffer = bytearray()  # only one copy of a large message
        _check_line_ends(content)
        if dotted:
            content = _without_transparency(content)
        check_line_lengths(content, max_line)
        return content


class ChunkCollector:
    """Collects the chunks of BDAT (RFC 3030 §2)."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def octets(self) -> int:
        return len(self._buffer)

    def feed(self, octets: bytes | bytearray) -> None:
        self._buffer += octets

    def content(self, *, max_line: int = 0) -> bytes:
        """The message after the last chunk; a last line without CRLF gets one. Raises BadContent.

        Without BINARYMIME (not offered) the content is lines, as with DATA (RFC 3030 §3).
        """
        if self._buffer and not self._buffer.endswith((b"\n", b"\r")):
            self._buffer += b"\r\n"
        content = bytes(self._buffer)
        self._buffer = bytearray()
        _check_line_ends(content)
        check_line_lengths(content, max_line)
        return content


def _check_line_ends(content: bytes) -> None:
    crlf = content.count(b"\r\n")
    if content.count(b"\n") != crlf or content.count(b"\r") != crlf:
        raise BareLineEnd("a bare CR or LF")


def _without_transparency(content: bytes) -> bytes:
    """RFC 5321 §4.5.2: a dot at the start of a line, with something after it, goes."""
    content = content.replace(b"\r\n.", b"\r\n")
    return content[1:] if content.startswith(b".") else content


def check_line_lengths(content: bytes, max_line: int) -> None:
    """`max_line`: octets with CRLF, 0: any. Raises LineTooLong. One step for each `max_line` octets, not a line."""
    at = 0
    while max_line and len(content) - at > max_line:
        newline = content.rfind(b"\n", at, at + max_line)
        if newline < 0:
            raise ContentLineTooLong(f"a line of more than {max_line} octets")
        at = newline + 1
