"""The content of a message on the wire: where it ends, and whether its lines end with CRLF.

Invariants: only <CRLF>.<CRLF> ends DATA, however the octets are cut into segments (a receiver that takes <LF>.<LF> or
a mixture for the end lets one message smuggle another); content with a bare CR or LF is always refused, so none is
ever relayed. Lines may be of any length: 1,000 octets is the minimum that every server must accept, not a limit. No
Python loop looks at single octets, and a line without an end costs as much as the same number of octets in short lines.
RFC 5321 §2.3.8, §4.1.1.4, §4.5.2 (transparency), §4.5.3.1.6 (line length); RFC 3030 §2.
"""

_END = b"\r\n.\r\n"
MIN_LINE_LIMIT = 1000  # octets with CRLF, without the transparency dot; RFC 5321 §4.5.3.1.6


class BadContent(ValueError):
    """The content is refused; it has been read to its end."""


class BareLineEnd(BadContent):
    """CR without LF or LF without CR (RFC 5321 §2.3.8)."""


class ContentLineTooLong(BadContent):
    """A line is longer than the limit."""


class DataDecoder:
    """Collects what follows 354 up to <CRLF>.<CRLF>."""

    __slots__ = ("_buffer", "_discarded", "_end")

    def __init__(self) -> None:
        # The CRLF of the DATA command begins the end mark of an empty message (RFC 5321 §4.1.1.4).
        self._buffer = bytearray(b"\r\n")
        self._discarded = 0
        self._end = -1

    @property
    def size(self) -> int:
        """Octets received so far, the end mark included."""
        return self._discarded + len(self._buffer) - 2

    def feed(self, data: bytes | bytearray) -> bytes | None:
        """Add `data`. None: the end mark is not there yet; else what follows it, the next commands."""
        buffer = self._buffer
        start = max(0, len(buffer) - len(_END) + 1)
        buffer += data
        end = buffer.find(_END, start)
        if end < 0:
            return None
        rest = bytes(buffer[end + len(_END) :])
        del buffer[end + len(_END) :]
        self._end = end
        return rest

    def discard(self) -> None:
        """Drop what was received, and only search for the end from now on: the message is refused already."""
        surplus = len(self._buffer) - len(_END) + 1
        if surplus > 0:
            del self._buffer[:surplus]
            self._discarded += surplus

    def content(self, *, max_line: int = 0) -> bytes:
        """The content, after `feed` has found the end, without its transparency dots; `max_line` as in
        `check_line_lengths`. Raises BadContent."""
        # From behind the first CRLF to the last dot.
        content = bytes(memoryview(self._buffer)[2 : self._end + 2]) if self._end > 0 else b""
        dotted = content.startswith(b".") or self._buffer.find(b"\r\n.", 2, self._end) >= 0
        self._buffer = bytearray()  # free it: one copy of a large message is enough
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
    def size(self) -> int:
        """Octets received so far."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer += data

    def content(self, *, max_line: int = 0) -> bytes:
        """The content, after the last chunk; a last line without CRLF gets one. Raises BadContent.

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
    """RFC 5321 §4.5.2: remove a dot at the start of a line with other characters behind it."""
    content = content.replace(b"\r\n.", b"\r\n")
    return content[1:] if content.startswith(b".") else content


def check_line_lengths(content: bytes, max_line: int) -> None:
    """`max_line`: octets with CRLF, 0: any. Raises ContentLineTooLong. Takes one step per `max_line`
    octets, not per line."""
    at = 0
    while max_line and len(content) - at > max_line:
        newline = content.rfind(b"\n", at, at + max_line)
        if newline < 0:
            raise ContentLineTooLong(f"a line of more than {max_line} octets")
        at = newline + 1
