"""Messages as multi-line responses: CRLF line ends, dot-stuffing and the cut that TOP makes (RFC 1939 §3, §7).

The work on each octet is done by the search and replace of `bytes`; Python sees only pieces of some kilobytes.
"""

import re
from collections.abc import Iterator

_PIECE = 64 * 1024
_LONE_LF = re.compile(rb"(?<!\r)\n")


def canonical(message: bytes) -> bytes:
    """The message with every line ended by CRLF; the same object when it is so already.

    A lone LF must not stay: a client that takes it for a line end would see a "." of the message as the end of the
    response, and what follows as our next one.
    """
    if message.count(b"\n") == message.count(b"\r\n"):
        return message
    return _LONE_LF.sub(b"\r\n", message)


def stuffed(message: bytes, *, start: int = 0, end: int | None = None, piece: int = _PIECE) -> Iterator[bytes]:
    """RFC 1939 §3: `message[start:end]`, of CRLF lines, in pieces of about `piece` octets, at least 2.

    `start` must be the beginning of a line. A line that the message leaves open at `end` is ended.
    """
    end = len(message) if end is None else end
    line_start = True
    position = start
    while position < end:
        cut = _cut(message, position, min(position + piece, end), end)
        octets = message[position:cut].replace(b"\r\n.", b"\r\n..")
        yield b"." + octets if line_start and octets.startswith(b".") else octets
        line_start = message.endswith(b"\r\n", position, cut)
        position = cut
    if not line_start:
        yield b"\r\n"


def _cut(message: bytes, position: int, wanted: int, end: int) -> int:
    """Where a piece ends: behind a line, or inside one that is longer than a piece, but never inside a CRLF."""
    if wanted == end:
        return end
    line_end = message.rfind(b"\n", position, wanted)
    if line_end >= 0:
        return line_end + 1
    return wanted - 1 if message[wanted - 1] == 0x0D else wanted


def top_of(message: bytes, lines: int) -> int:
    """RFC 1939 §7: where TOP ends: behind the header, the empty line and `lines` lines of the body."""
    if message.startswith(b"\r\n"):
        body = 2
    else:
        header_end = message.find(b"\r\n\r\n")
        body = len(message) if header_end < 0 else header_end + 4
    return _after_lines(message, body, lines)


def _after_lines(message: bytes, low: int, lines: int) -> int:
    """The position behind `lines` line ends from `low` on, or the end. Halves the range, counting in each half."""
    if lines == 0:
        return low
    high = len(message)
    if message.count(b"\n", low, high) < lines:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        found = message.count(b"\n", low, middle)
        if found >= lines:
            high = middle
        else:
            lines -= found
            low = middle
    return high
