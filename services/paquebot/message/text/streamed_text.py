"""The same as `encoded_text`, a piece at a time: the decoded text is never in memory whole, however long the part is.

An empty piece is a step without a result, after which the caller can let other tasks run.
RFC 2045 §6, RFC 3516.
"""

import binascii
import codecs
from collections.abc import Iterable, Iterator

from paquebot.message.text.encoded_text import NOT_BASE64, codec_of, decode_part_text
from paquebot.message.text.quoted_printable import quoted_printable_pieces

PIECE = 64 * 1024
"""Bytes that are read for one piece."""


def decoded_pieces(body: memoryview, encoding: bytes, *, piece: int = PIECE) -> Iterator[bytes]:
    """A part's bytes without their transfer encoding, as `decode_transfer` of all of them gives."""
    match encoding.strip().upper():
        case b"BASE64":
            return _base64(body, piece)
        case b"QUOTED-PRINTABLE":
            return quoted_printable_pieces(body, piece)
        case _:
            return _slices(body, piece)


def text_pieces(body: memoryview, encoding: bytes, charset: str, *, piece: int = PIECE) -> Iterator[str]:
    """The text of a text part, as `decode_part_text`."""
    if len(body) <= piece:
        yield decode_part_text(bytes(body), encoding, charset)
        return
    codec = codec_of(charset)
    if codec is None:
        yield from _guessed(body, encoding, piece)
    else:
        yield from _text(decoded_pieces(body, encoding, piece=piece), codec)


def _guessed(body: memoryview, encoding: bytes, piece: int) -> Iterator[str]:
    """UTF-8 when all of it is, else Windows-1252."""
    codec = "utf-8"
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for chunk in decoded_pieces(body, encoding, piece=piece):
            decoder.decode(chunk)
            yield ""
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        codec = "cp1252"
    yield from _text(decoded_pieces(body, encoding, piece=piece), codec)


def _text(pieces: Iterable[bytes], codec: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)("replace")
    for chunk in pieces:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _slices(body: memoryview, piece: int) -> Iterator[bytes]:
    for start in range(0, len(body), piece):
        yield bytes(body[start : start + piece])


def _base64(body: memoryview, piece: int) -> Iterator[bytes]:
    """RFC 2045 §6.8: "=" ends the data, characters outside the alphabet are ignored; a broken end is cut."""
    rest = b""
    for chunk in _slices(body, piece):
        data, end, _ = chunk.partition(b"=")
        digits = rest + data.translate(None, NOT_BASE64)
        if end:
            rest = digits
            break
        whole = len(digits) - len(digits) % 4
        rest = digits[whole:]
        yield binascii.a2b_base64(digits[:whole])
    rest = rest[:-1] if len(rest) % 4 == 1 else rest
    yield binascii.a2b_base64(rest + b"=" * (-len(rest) % 4))
