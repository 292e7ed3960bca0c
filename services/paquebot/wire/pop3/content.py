"""Messages as multi-line responses: CRLF line ends, dot-stuffing and the cut that TOP makes (RFC 1939 §3, §7).

The search and replace of `bytes` do the work on octets; Python handles only pieces of some kilobytes.
"""

from collections.abc import Iterator

from paquebot.wire.transparency import dot_stuffed

_PIECE = 64 * 1024


def stuffed(content: bytes, *, start: int = 0, end: int | None = None, piece: int = _PIECE) -> Iterator[bytes]:
    """RFC 1939 §3: `content[start:end]` in CRLF lines, made from pieces of about `piece` octets, at least 2.

    `start` must be the beginning of a line. A last line without an end gets one. A lone LF becomes CRLF: a client that
    takes it for a line end would take a "." of the message for the end of the response, and what follows for the next
    response.
    """
    return dot_stuffed(_pieces(content, start, len(content) if end is None else end, piece))


def _pieces(content: bytes, position: int, end: int, piece: int) -> Iterator[bytes]:
    while position < end:
        cut = _cut(content, position, min(position + piece, end), end)
        yield _in_crlf(content[position:cut])
        position = cut


def _in_crlf(lines: bytes) -> bytes:
    if lines.count(b"\n") == lines.count(b"\r\n"):
        return lines
    return lines.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _cut(content: bytes, position: int, wanted: int, end: int) -> int:
    """Where a piece ends: behind a line, or inside one that is longer than a piece, but never inside a CRLF."""
    if wanted == end:
        return end
    line_end = content.rfind(b"\n", position, wanted)
    if line_end >= 0:
        return line_end + 1
    return wanted - 1 if content[wanted - 1] == 0x0D else wanted


def top_of(content: bytes, lines: int) -> int:
    """RFC 1939 §7: where TOP ends: behind the header, the empty line and `lines` lines of the body."""
    return _after_lines(content, _body_of(content), lines)


def _body_of(content: bytes) -> int:
    """Behind the first empty line, which ends with CRLF or a lone LF."""
    if content.startswith((b"\r\n", b"\n")):
        return content.index(b"\n") + 1
    crlf = content.find(b"\n\r\n")
    lone = content.find(b"\n\n", 0, crlf + 1 if crlf >= 0 else len(content))
    if lone >= 0:
        return lone + 2
    return crlf + 3 if crlf >= 0 else len(content)


def _after_lines(content: bytes, low: int, lines: int) -> int:
    """The position behind `lines` line ends from `low` on, or the end. Halves the range, counting in each half."""
    if lines == 0:
        return low
    high = len(content)
    if content.count(b"\n", low, high) < lines:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        found = content.count(b"\n", low, middle)
        if found >= lines:
            high = middle
        else:
            lines -= found
            low = middle
    return high
