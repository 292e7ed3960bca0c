"""Quoted-printable, decoded at once or a piece at a time (RFC 2045 §6.7).

White space at the end of an encoded line was added in transport and is not part of the text (rule 3); after a soft line
break it changes nothing (rule 5). `binascii.a2b_qp` keeps the first and reads the second as text, so it gets lines
without either. Text that is not quoted-printable stays as it is; a lone CR ends a line, as in mail of old Macs.
"""

import binascii
import re
from collections.abc import Generator, Iterator
from typing import Final

_WHITE_SPACE: Final = b" \t"
_HEX_DIGITS: Final = b"0123456789ABCDEFabcdef"
_EQUALS: Final = 0x3D
_ENDINGS: Final = (b" \r", b" \n", b"\t\r", b"\t\n")
# A run matches from its first byte alone, and only once: the work is linear in any text.
_BEFORE_LINE_END: Final = re.compile(rb"[ \t](?<![ \t]{2})[ \t]*+(?=[\r\n])")
# Without LF after it, a2b_qp takes all up to the next LF for the soft line break.
_UNFINISHED: Final = re.compile(rb"=[0-9A-Fa-f]?\Z")
# It takes "==" for one "=", so only the last of an odd run is a soft line break.
_SOFT_BREAK_OF_CR: Final = re.compile(rb"(?<!=)((?:==)*+)=\r(?!\n)")


def decode_quoted_printable(data: bytes) -> bytes:
    """The bytes that were encoded."""
    return _decoded(data.rstrip(_WHITE_SPACE))


def _decoded(data: bytes) -> bytes:
    """Of data that more data follows."""
    if any(ending in data for ending in _ENDINGS):
        data = _BEFORE_LINE_END.sub(b"", data)
    if b"=\r" in data:
        data = _SOFT_BREAK_OF_CR.sub(rb"\1=\n", data)
    return binascii.a2b_qp(data)


def quoted_printable_pieces(body: memoryview, piece: int) -> Iterator[bytes]:
    """As `decode_quoted_printable`, from `piece` bytes at a time. An empty piece is a step without a result.

    A line longer than a piece is cut; RFC 2045 §6.7 allows 76 bytes.
    """
    start = 0
    while start < len(body):
        data = bytes(body[start : start + piece])
        if start + len(data) == len(body):
            yield decode_quoted_printable(data)
            return
        if cut := _cut(data):
            yield _decoded(data[:cut])
            start += cut
        else:
            start = yield from _undecided(body, start, piece)


def _cut(data: bytes) -> int:
    """After the last line end; in a longer line, before bytes whose meaning depends on the next ones."""
    # A CR at the end may belong to an LF.
    line_end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
    if line_end:
        return line_end
    text = data.removesuffix(b"\r").rstrip(_WHITE_SPACE)
    escape = _UNFINISHED.search(text, max(0, len(text) - 2))
    if escape is None:
        return len(text)
    # a2b_qp takes "==" for one "=": where a run of them is cut, pairs stay together.
    run = text[: escape.end()].rstrip(_HEX_DIGITS)
    return len(run) - (len(run) - len(run.rstrip(b"="))) % 2


def _undecided(body: memoryview, start: int, piece: int) -> Generator[bytes, None, int]:
    """White space of a whole piece, perhaps after an "=": it is text, unless the line ends after it. Returns where
    the rest begins."""
    soft = body[start] == _EQUALS
    end = start + soft
    while run := _white_space(body[end : end + piece]):
        end += run
        yield b""
    line_end = bytes(body[end : end + 2])
    if line_end and line_end[0] not in b"\r\n":
        for at in range(start, end, piece):
            yield bytes(body[at : min(at + piece, end)])
        return end
    return end + (2 if line_end == b"\r\n" else len(line_end[:1])) if soft else end


def _white_space(data: memoryview) -> int:
    """The length of the white space at the beginning."""
    return len(data) - len(bytes(data).lstrip(_WHITE_SPACE))
