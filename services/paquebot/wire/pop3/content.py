"""Messages as multi-line responses: CRLF line ends, dot-stuffing and the cut that TOP makes (RFC 1939 §3, §7).

The work on each octet is done by the search and replace of `bytes`; Python sees only pieces of some kilobytes.
"""

from collections.abc import Iterator

from paquebot.wire.transparency import dot_stuffed

_PIECE = 64 * 1024


def stuffed(message: bytes, *, start: int = 0, end: int | None = None, piece: int = _PIECE) -> Iterator[bytes]:
    """RFC 1939 §3: `message[start:end]` in CRLF lines, in pieces of about `piece` octets of it, at least 2.

    `start` must be the beginning of a line. A line that the message leaves open at `end` is ended. A lone LF becomes
    CRLF: a client that takes it for a line end would see a "." of the message as the end of the response, and what
    follows as our next one.
    """
    return dot_stuffed(_pieces(message, start, len(message) if end is None else end, piece))


def _pieces(message: bytes, position: int, end: int, piece: int) -> Iterator[bytes]:
    while position < end:
        cut = _cut(message, position, min(position + piece, end), end)
        yield _in_crlf(message[position:cut])
        position = cut


def _in_crlf(octets: bytes) -> bytes:
    if octets.count(b"\n") == octets.count(b"\r\n"):
        return octets
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


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
    return _after_lines(message, _body_of(message), lines)


def _body_of(message: bytes) -> int:
    """Behind the first empty line, which ends with CRLF or a lone LF."""
    if message.startswith((b"\r\n", b"\n")):
        return message.index(b"\n") + 1
    crlf = message.find(b"\n\r\n")
    lone = message.find(b"\n\n", 0, crlf + 1 if crlf >= 0 else len(message))
    if lone >= 0:
        return lone + 2
    return crlf + 3 if crlf >= 0 else len(message)


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
