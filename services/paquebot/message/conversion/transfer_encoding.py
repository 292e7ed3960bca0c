"""Transfer encodings for a next host that takes less than a message has (RFC 2045 §6): whether bytes fit, and the
encoded pieces of those that do not.

Ranges are of a message whose every line end is CRLF. Pieces are short and end with whole line ends, so that an
encoded part is never in memory whole. The decoded content is that of the range, byte for byte.
"""

import binascii
import enum
import re
from collections.abc import Iterable, Iterator
from typing import Final

BLOCK: Final = 64 * 1024
"""Bytes that are read in one step."""
MAX_LINE: Final = 998
"""Bytes of a line without its CRLF (RFC 5322 §2.1.1, RFC 2045 §2.8)."""
_STEP: Final = 16 * 1024  # the same where a byte costs more

_QP_LINE: Final = 75  # RFC 2045 §6.7 rule 5, without the "=" of a soft line break
_BASE64_LINE: Final = 57  # bytes that make a line of 76
_SHORT: Final = 1024
_MANY: Final = 5  # where one byte of this many must be escaped, base64 is shorter
_SPECIAL: Final = bytes((*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x3D, *range(0x7F, 0x100)))
_SOFT_DASHES: Final = b"=\r\n--"
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/=]+")
_NOT_QP: Final = re.compile(rb"[\x80-\xff]|=(?![0-9A-Fa-f]{2}|[ \t]*(?:\r\n|\Z))")  # nor what decoders leave as it is


class Encoding(enum.Enum):
    """How a range is encoded."""

    QUOTED_PRINTABLE = "quoted-printable"
    BASE64 = "base64"
    QUOTED_PRINTABLE_AGAIN = "quoted-printable, that was too wide"
    """It is quoted-printable already, with bytes or lines that are not allowed there."""
    BASE64_AGAIN = "base64, that was too wide"


def is_ascii(content: bytes, start: int, end: int) -> bool:
    return all(content[at : min(at + BLOCK, end)].isascii() for at in range(start, end, BLOCK))


def has_long_line(content: bytes, start: int, end: int, limit: int = MAX_LINE) -> bool:
    """A line in content[start:end] of more than `limit` bytes. One step for each `limit` bytes, not for each line."""
    while end - start > limit:
        line_end = content.rfind(b"\n", start, min(start + limit + 2, end))
        if line_end < 0:
            return True
        start = line_end + 1
    return False


def shorter(content: bytes, start: int, end: int) -> Encoding:
    """The encoding that is shorter for a text; for a short text the one that people can read."""
    if end - start <= _SHORT:
        return Encoding.QUOTED_PRINTABLE
    special = 0
    for at in range(start, end, BLOCK):
        block = content[at : min(at + BLOCK, end)]
        special += len(block) - len(block.translate(None, _SPECIAL))
    return Encoding.BASE64 if special * _MANY > end - start else Encoding.QUOTED_PRINTABLE


def encoded_pieces(
    content: bytes, start: int, end: int, encoding: Encoding, boundaries: Iterable[bytes]
) -> Iterator[bytes]:
    """content[start:end] encoded. No line of it is a delimiter of `boundaries` (RFC 2046 §5.1.1)."""
    match encoding:
        case Encoding.BASE64:
            return _base64(content, start, end)
        case Encoding.BASE64_AGAIN:
            return _base64_again(content, start, end)
        case Encoding.QUOTED_PRINTABLE:
            return _quoted_printable(content, start, end, tuple(boundaries))
        case Encoding.QUOTED_PRINTABLE_AGAIN:
            return _quoted_printable_again(content, start, end, tuple(boundaries))


def blocks(content: bytes, start: int, end: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """content[start:end] in ranges that end after a line end where there is one, and never inside one."""
    while start < end:
        cut = min(start + block, end)
        if cut < end:
            line_end = content.rfind(b"\n", start, cut) + 1
            cut = line_end or (cut - 1 if content[cut - 1 : cut] == b"\r" else cut)
        yield start, cut
        start = cut


def quoted_printable(data: bytes) -> bytes:
    """RFC 2045 §6.7, from and to lines that end with CRLF."""
    return binascii.b2a_qp(data.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")


def _quoted_printable(content: bytes, start: int, end: int, boundaries: tuple[bytes, ...]) -> Iterator[bytes]:
    fresh = True  # at the start of a line of the content, which is no delimiter
    for begin, cut in blocks(content, start, end):
        block = content[begin:cut]
        whole = cut == end or block.endswith(b"\n")
        text = quoted_printable(block)
        yield _no_delimiter(text if whole else _soft_end(text), boundaries, fresh=fresh)
        fresh = whole


def _soft_end(text: bytes) -> bytes:
    """With a soft line break after it; its last line may have no room for the "="."""
    if len(text) - text.rfind(b"\n") - 1 > _QP_LINE:
        cut = 3 if text[-3:-2] == b"=" else 1
        text = text[:-cut] + b"=\r\n" + text[-cut:]
    return text + b"=\r\n"


def _no_delimiter(text: bytes, boundaries: tuple[bytes, ...], *, fresh: bool) -> bytes:
    """After a soft line break a line may look like a delimiter: its first dash is escaped."""
    dashed = tuple(b"--" + boundary for boundary in boundaries)
    if not fresh and text.startswith(dashed):
        text = b"=2D" + text[1:]
    hit = text.find(_SOFT_DASHES) if dashed else -1
    while hit >= 0:
        start = hit + len(_SOFT_DASHES) - 2
        if text.startswith(dashed, start):
            text = text[:start] + b"=2D" + text[start + 1 :]
        hit = text.find(_SOFT_DASHES, start)
    return text


def _quoted_printable_again(content: bytes, start: int, end: int, boundaries: tuple[bytes, ...]) -> Iterator[bytes]:
    fresh, begin = True, start
    while begin < end:
        cut = next(blocks(content, begin, end, _STEP))[1]
        whole = cut == end or content[cut - 1] == 0x0A
        if not whole:  # never between "=" and its digits
            cut -= 1 if content[cut - 1] == 0x3D else 2 if content[cut - 2] == 0x3D else 0
        lines = _NOT_QP.sub(_escaped, content[begin:cut]).split(b"\r\n")
        text = b"\r\n".join(map(_softly_broken, lines))
        yield _no_delimiter(text if whole else text + b"=\r\n", boundaries, fresh=fresh)
        fresh, begin = whole, cut


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"=%02X" % match.group()[0]


def _softly_broken(line: bytes) -> bytes:
    """A line of quoted-printable, in several where it is too long."""
    if len(line) <= _QP_LINE + 1:
        return line
    pieces = []
    at = 0
    while len(line) - at > _QP_LINE + 1:
        cut = at + _QP_LINE
        cut -= 1 if line[cut - 1] == 0x3D else 2 if line[cut - 2] == 0x3D else 0
        pieces.append(line[at:cut])
        at = cut
    return b"=\r\n".join((*pieces, line[at:]))


def _base64(content: bytes, start: int, end: int) -> Iterator[bytes]:
    step = _BASE64_LINE * 1024
    for at in range(start, end, step):
        yield _base64_lines(content[at : min(at + step, end)])


def _base64_lines(data: bytes) -> bytes:
    lines = [
        binascii.b2a_base64(data[at : at + _BASE64_LINE], newline=False) for at in range(0, len(data), _BASE64_LINE)
    ]
    return b"\r\n".join((*lines, b""))


def _base64_again(content: bytes, start: int, end: int) -> Iterator[bytes]:
    """RFC 2045 §6.8: characters outside the alphabet are ignored; lines have 76 others."""
    left = b""
    for at in range(start, end, _STEP):
        digits = left + _NOT_BASE64.sub(b"", content[at : min(at + _STEP, end)])
        whole = len(digits) // 76 * 76
        left = digits[whole:]
        yield b"".join(digits[line : line + 76] + b"\r\n" for line in range(0, whole, 76))
    if left:
        yield left + b"\r\n"
