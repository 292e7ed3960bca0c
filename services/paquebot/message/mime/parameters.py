"""The value of Content-Type and Content-Disposition: a word, and parameters.

Invariants: names are lower case and in the order of the message; a parameter that RFC 2231 §3 splits is
joined; one that it encodes (§4) keeps its form charset'lang'value under the name with a star.
RFC 2045 §5.1, RFC 2183 §2, RFC 2231.
"""

import functools
from typing import Final
from urllib.parse import unquote_to_bytes

from paquebot.message.addresses.address_list import skip_comment
from paquebot.message.limits import MAX_PARAMETERS, MAX_TYPE

Parameters = list[tuple[bytes, bytes]]

_TOKEN: Final = bytes(octet for octet in range(0x21, 0x7F) if octet not in b'()<>@,;:\\"/[]?=')
_BLANK: Final = b" \t"
_SHORT: Final = 48  # bytes; a value with a boundary is longer, and unique to its message


def media_type(value: bytes) -> tuple[bytes, bytes, Parameters] | None:
    """RFC 2045 §5.1: (TYPE, SUBTYPE, parameters) in upper case, or None when the value is no media type.

    The caller must not change it: the results of short values, which most mail has, are cached.
    """
    return _cached_media_type(value) if len(value) <= _SHORT else _media_type(value)


def _media_type(value: bytes) -> tuple[bytes, bytes, Parameters] | None:
    word, rest = _first_word(value)
    major, slash, minor = word.upper().partition(b"/")
    major, minor = major.strip(_BLANK), minor.strip(_BLANK)
    if not slash or not _is_token(major) or not _is_token(minor):
        return None
    return major, minor, parameters(rest)


_cached_media_type = functools.lru_cache(maxsize=256)(_media_type)


def disposition(value: bytes) -> tuple[bytes, Parameters] | None:
    """RFC 2183 §2: (type in lower case, parameters), or None when the value does not start with a token."""
    word, rest = _first_word(value)
    return (word.lower(), parameters(rest)) if _is_token(word) else None


def token(value: bytes) -> bytes:
    """The first word of a value, without the comments and parameters after it."""
    return _first_word(value)[0]


def _is_token(word: bytes) -> bool:
    return 0 < len(word) <= MAX_TYPE and not word.translate(None, _TOKEN)


def _first_word(value: bytes) -> tuple[bytes, bytes]:
    """The text before the first ";", and the rest; a missing ";" before the first parameter is tolerated."""
    pos = _skip_blank(value, 0)
    word, _, rest = value[pos:].partition(b";")
    if b"(" in word or b"=" in word or b" " in word or b"\t" in word:
        return _word_before_gap(value, pos)
    return word, rest


def _word_before_gap(value: bytes, pos: int) -> tuple[bytes, bytes]:
    """The word at `pos`, with white space around its slashes taken out, and what follows the gap after it."""
    words: list[bytes] = []
    while True:
        end = pos
        while end < len(value) and value[end] not in b" \t(;=":
            end += 1
        words.append(value[pos:end])
        rest = _skip_blank(value, end)
        if not value.startswith(b"/", rest) or b"/" in words[-1]:
            return b"/".join(words), value[rest:]
        pos = _skip_blank(value, rest + 1)


def _skip_blank(value: bytes, pos: int) -> int:
    """RFC 5322 §3.2.2 CFWS: white space and comments."""
    end = len(value)
    while pos < end:
        octet = value[pos]
        if octet == 0x28:
            pos = skip_comment(value, pos)
        elif octet == 0x20 or octet == 0x09:
            pos += 1
        else:
            break
    return pos


def parameters(text: bytes) -> Parameters:
    """RFC 2045 §5.1: *(";" parameter), tolerant of empty parameters, blanks around "=" and lost quotes."""
    found: Parameters = []
    pos = 0
    while pos < len(text) and len(found) < MAX_PARAMETERS:
        pos = _skip_blank(text, pos)
        equals = text.find(b"=", pos)
        if equals < 0:
            break
        semicolon = text.rfind(b";", pos, equals)  # everything before it has no "=": empty or broken parameters
        if semicolon >= 0:
            pos = _skip_blank(text, semicolon + 1)
            if pos > equals:  # the "=" is in a comment; never go back, or each comment would be read many times
                continue
        name = text[pos:equals].partition(b"(")[0].rstrip(_BLANK).lower()
        value, pos = _value(text, _skip_blank(text, equals + 1))
        if name:
            found.append((name, value))
    return _joined(found) if any(b"*" in name for name, _ in found) else found


def _value(text: bytes, pos: int) -> tuple[bytes, int]:
    """value = token / quoted-string; and the offset after the ";" that follows."""
    if text.startswith(b'"', pos):
        return _quoted(text, pos + 1)
    end = text.find(b";", pos)
    end = end if end >= 0 else len(text)
    value = text[pos:end].rstrip(_BLANK)
    if value.endswith(b")"):
        comment = value.find(b" (")
        value = value[:comment].rstrip(_BLANK) if comment >= 0 else value
    return value, end + 1


def _quoted(text: bytes, start: int) -> tuple[bytes, int]:
    end = text.find(b'"', start)
    end = end if end >= 0 else len(text)
    value = text[start:end]
    if b"\\" in value:
        value, end = _quoted_with_pairs(text, start)
    semicolon = text.find(b";", end)
    return value, semicolon + 1 if semicolon >= 0 else len(text)


def _quoted_with_pairs(text: bytes, start: int) -> tuple[bytes, int]:
    """A quoted string with backslashes. One before an ordinary character is a path's, as in "C:\\file.txt"."""
    value = bytearray()
    pos = start
    while pos < len(text) and text[pos] != 0x22:
        if text[pos] == 0x5C and text[pos + 1 : pos + 2] in (b'"', b"\\"):
            pos += 1
        value.append(text[pos])
        pos += 1
    return bytes(value), pos


def _joined(found: Parameters) -> Parameters:
    """RFC 2231 §3 and §4.1: name*0, name*1* … become one parameter, at the place of the first."""
    plain: Parameters = []
    segments: dict[bytes, dict[int, tuple[bool, bytes]]] = {}
    for name, value in found:
        base, number, extended = _segment(name)
        if number is None:
            plain.append((name, value))
            continue
        if base not in segments:
            segments[base] = {}
            plain.append((base + b"*", b""))
        segments[base].setdefault(number, (extended, value))
    return [_whole(name, segments.get(name[:-1]), value) for name, value in plain]


def _segment(name: bytes) -> tuple[bytes, int | None, bool]:
    """name*2* is (name, 2, True); a name without a number is (name, None, ...)."""
    extended = name.endswith(b"*")
    base, star, number = (name[:-1] if extended else name).rpartition(b"*")
    if not star or not base or not number.isdigit() or len(number) > 3:
        return name, None, extended
    return base, int(number), extended


def _whole(name: bytes, segments: dict[int, tuple[bool, bytes]] | None, value: bytes) -> tuple[bytes, bytes]:
    if not segments or value:
        return name, value
    ordered = [segments[number] for number in sorted(segments)]
    if not any(extended for extended, _ in ordered):
        return name[:-1], b"".join(text for _, text in ordered)
    return name, b"".join(text if extended else _percent_encoded(text) for extended, text in ordered)


def decoded_value(extended: bytes) -> bytes:
    """RFC 2231 §4: the bytes of charset'language'value, percent-encoding undone."""
    return unquote_to_bytes(extended.split(b"'", 2)[-1])


# RFC 2231 §7: attribute-char stands for itself.
_ATTRIBUTE_CHAR: Final = frozenset(_TOKEN) - frozenset(b"*'%")


def _percent_encoded(text: bytes) -> bytes:
    return b"".join(b"%c" % octet if octet in _ATTRIBUTE_CHAR else b"%%%02X" % octet for octet in text)
