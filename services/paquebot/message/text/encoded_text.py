"""From bytes to text: encoded words in headers, transfer encodings and charsets in bodies.

Tolerant throughout, because it serves SEARCH, SORT and people: text that cannot be decoded stays as it is
or becomes U+FFFD, and nothing raises. RFC 2045 §6, RFC 2047, RFC 2231 §5 (language in encoded words).
"""

import binascii
from encodings.aliases import aliases
from typing import Final

from paquebot.message.text.quoted_printable import decode_quoted_printable

# Labels that mail uses and that the codec registry lacks, or maps to too small a charset.
_LABELS: Final = {
    "gb2312": "gb18030",
    "x-gbk": "gb18030",
    "gbk": "gb18030",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8",
    "windows-874": "cp874",
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "iso-8859-1": "cp1252",
    "unicode-1-1-utf-8": "utf-8",
    "x-mac-roman": "mac-roman",
}
_ASCII_LABELS: Final = frozenset({"", "us-ascii", "ascii", "ansi_x3.4-1968", "unknown-8bit", "x-unknown", "8bit"})
# Only labels from this table reach the codec registry: it searches files for each new label and keeps
# each one. Codecs of Python that are no charset of mail are not in it, or are refused by bytes.decode.
_CHARSETS: Final = frozenset({*aliases, *aliases.values(), "koi8_u", "koi8_t", "cp737", "cp856", "cp874"})
_MAX_LABEL: Final = 64
# RFC 2047 §2 allows 75; some senders put a whole subject into one word.
_MAX_ENCODED_WORD: Final = 4096


def decode_charset(data: bytes, charset: str) -> str:
    """The text of `data`. An absent, ASCII or unknown charset means UTF-8 if the data is UTF-8, else Windows-1252."""
    codec = codec_of(charset)
    return _guess(data) if codec is None else data.decode(codec, "replace")


def codec_of(charset: str) -> str | None:
    """Python's name of a charset; None: it is absent, ASCII or unknown, and its text must be guessed."""
    label = charset.strip().lower()
    if label in _ASCII_LABELS or len(label) > _MAX_LABEL:
        return None
    codec = _LABELS.get(label, label).replace("-", "_")
    if codec not in _CHARSETS:
        return None
    try:
        b"a".decode(codec, "replace")
    except LookupError:  # a codec that is not from bytes to text
        return None
    return codec


def _guess(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def decode_transfer(body: bytes, encoding: bytes) -> bytes:
    """RFC 2045 §6: a part's bytes without their transfer encoding; an unknown one changes nothing."""
    match encoding.strip().upper():
        case b"BASE64":
            return _base64(body)
        case b"QUOTED-PRINTABLE":
            return decode_quoted_printable(body)
        case _:
            return body


_BASE64_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
NOT_BASE64: Final = bytes(set(range(256)) - set(_BASE64_ALPHABET))


def _base64(data: bytes) -> bytes:
    """RFC 2045 §6.8: "=" ends the data, characters outside the alphabet are ignored; a broken end is cut."""
    digits = data.partition(b"=")[0].translate(None, NOT_BASE64)
    digits = digits[:-1] if len(digits) % 4 == 1 else digits
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def decode_part_text(body: bytes, encoding: bytes, charset: str) -> str:
    """The text of a text part: `body` as stored, its transfer encoding (any case) and charset ("" when absent)."""
    return decode_charset(decode_transfer(body, encoding), charset)


def decode_header_text(value: bytes) -> str:
    """The text of an unstructured value: encoded words decoded (RFC 2047), raw 8-bit read as UTF-8 if it is.

    White space between two encoded words is dropped (§6.2); neighbours in one charset are joined before they
    are decoded, because senders split characters between words.
    """
    if b"=?" not in value:
        return _guess(value)
    text: list[str] = []
    pending = bytearray()
    pending_charset = ""
    pos = 0
    while (word := _next_word(value, pos)) is not None:
        start, end, charset, data = word
        between = value[pos:start]
        joins = pos > 0 and not between.strip(b" \t\r\n")
        if not joins or charset != pending_charset:
            text.append(decode_charset(bytes(pending), pending_charset))
            pending.clear()
        if not joins:
            text.append(_guess(between))
        pending += data
        pending_charset = charset
        pos = end
    text.append(decode_charset(bytes(pending), pending_charset))
    text.append(_guess(value[pos:]))
    return "".join(text)


def _next_word(value: bytes, pos: int) -> tuple[int, int, str, bytes] | None:
    """The next encoded word at or after `pos`: (start, end, charset, bytes)."""
    start = value.find(b"=?", pos)
    while start >= 0:
        if (word := _word(value, start)) is not None:
            return start, *word
        start = value.find(b"=?", start + 2)
    return None


def _word(value: bytes, start: int) -> tuple[int, str, bytes] | None:
    """RFC 2047 §2: encoded-word = "=?" charset "?" encoding "?" encoded-text "?=" """
    first = value.find(b"?", start + 2, start + 2 + _MAX_LABEL)
    if first < 0 or value[first + 2 : first + 3] != b"?":
        return None
    end = value.find(b"?=", first + 3, first + _MAX_ENCODED_WORD)
    if end < 0:
        return None
    label = value[start + 2 : first].partition(b"*")[0]  # RFC 2231 §5: charset*language
    if not label or b" " in label or not label.isascii():
        return None
    encoded = value[first + 3 : end]
    match value[first + 1 : first + 2]:
        case b"B" | b"b":
            data = _base64(encoded)
        case b"Q" | b"q":
            data = binascii.a2b_qp(encoded, header=True)
        case _:
            return None
    return end + 2, label.decode("ascii").lower(), data
