"""A header field converted for a next host that takes less: folded where a line is too long (RFC 5322 §2.2.3), in
ASCII where it has other bytes (RFC 2047, RFC 2231).

A field is raw, with its name and its line ends, which are CRLF. Text that is not UTF-8 has an undeclared charset:
RFC 1428's unknown-8bit.
"""

import base64
import re
from collections.abc import Iterator
from typing import Final

from paquebot.message.conversion.transfer_encoding import MAX_LINE, has_long_line
from paquebot.wire.address import BadAddress, normal_domain

MAX_FIELD: Final = 512 * 1024
"""Maximum bytes of a field that is converted."""

ADDRESSES: Final = frozenset(
    (
        *(b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"),
        *(b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to", b"resent-cc", b"resent-bcc"),
        *(b"return-path", b"disposition-notification-to", b"errors-to", b"mail-followup-to", b"mail-reply-to"),
    )
)
_PARAMETERS: Final = frozenset((b"content-type", b"content-disposition"))
_STRUCTURED: Final = frozenset(
    (
        *(b"date", b"resent-date", b"message-id", b"resent-message-id", b"in-reply-to", b"references"),
        *(b"received", b"received-spf", b"mime-version", b"content-transfer-encoding", b"content-id"),
        *(b"authentication-results", b"dkim-signature", b"autocrypt", b"delivered-to", b"x-original-to"),
        *(b"arc-seal", b"arc-message-signature", b"arc-authentication-results", b"auto-submitted"),
    )
)
"""Fields where an encoded word may not stand (RFC 2047 §5), or would mean something else to programs."""

_WORD: Final = 42  # bytes that make an encoded word of at most 75 characters, in either encoding and charset
_WORDS: Final = re.compile(rb"[^ \t\r\n]+")
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]+")
_ENCODED_WORD: Final = re.compile(rb"=\?[^?\s]+\?[QqBb]\?[^?\s]*\?=")
_Q_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_ATTRIBUTE_CHAR: Final = _Q_SAFE - frozenset(b"*/") | frozenset(b".")
_QUOTED: Final = rb'"(?P<quoted>(?:[^"\\]|\\.)*+)(?:"|\\?\Z)|'
_UNQUOTED: Final = (
    rb"\((?P<comment>[^()]*)\)|<(?P<angle>[^<>]*)>|(?P<blank>[ \t\r\n]+)"
    rb'|(?P<word>[^ \t\r\n"(),:;<>]+)|(?P<other>.)'
)
_TOKENS: Final = re.compile(_QUOTED + _UNQUOTED, re.DOTALL)
_TOKENS_LOST_QUOTE: Final = re.compile(_UNQUOTED, re.DOTALL)
_PAIRS: Final = re.compile(rb"\\.", re.DOTALL)
_PARAMETER: Final = re.compile(
    rb";([ \t\r\n]*)([!#$%&+\-.0-9A-Za-z^_`{|}~]+)[ \t]*=[ \t]*"
    rb'("(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[^;"\r\n]*)',
    re.DOTALL,
)


class Unconvertible(ValueError):
    """The message cannot be converted for this host; the text states why, and may be shown to its sender."""


def ascii_field(name: bytes, field: bytes, *, strict: bool) -> bytes:
    """The field (`name` in lower case, b"": no field) in ASCII. An address without an ASCII form raises Unconvertible
    if `strict`, and gets question marks otherwise, as do bytes that no encoding may replace."""
    if len(field) > MAX_FIELD:
        raise Unconvertible("a header field is too long to be converted")
    text = field.removesuffix(b"\r\n")  # an unclosed quote continues to the end, but no further
    return _ascii(name, text, strict=strict) + field[len(text) :]


def _ascii(name: bytes, field: bytes, *, strict: bool) -> bytes:
    colon = field.find(b":") + 1 if name else 0
    head, value = field[:colon], field[colon:]
    if not name or name in _STRUCTURED or not head.isascii():
        return _NOT_ASCII.sub(_question_marks, field)
    if name in ADDRESSES:
        return head + _ascii_addresses(value, strict=strict)
    if name in _PARAMETERS:
        return head + _NOT_ASCII.sub(_question_marks, _PARAMETER.sub(_ascii_parameter, value))
    blank = b"" if value[:1] in (b" ", b"\t", b"\r") else b" "
    return head + blank + _ascii_text(value)


def _question_marks(match: re.Match[bytes]) -> bytes:
    return b"?" * len(_decoded(match.group())[0])


def _decoded(data: bytes) -> tuple[str, str]:
    """Text and charset."""
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "unknown-8bit"


# --- text: RFC 2047 §5 (1) ---


def _ascii_text(value: bytes) -> bytes:
    """Each run of words with other bytes as encoded words. White space between them is part of the text, for
    decoders drop it (§6.2); so is white space beside an encoded word that was there before."""
    out: list[bytes] = []
    done = 0
    for start, end in _runs(value):
        before, after = _beside(value, done, start), _beside(value, end, len(value), following=True)
        out.append(value[done:start])
        out.append(_encoded_words((b" " if before else b"") + _unfolded(value[start:end]) + (b" " if after else b"")))
        done = end
    return b"".join((*out, value[done:]))


def _runs(value: bytes) -> Iterator[tuple[int, int]]:
    """Each run of adjacent words with other bytes, from the first to the last."""
    start = end = -1
    for match in _WORDS.finditer(value):
        if not match.group().isascii():
            start, end = start if start >= 0 else match.start(), match.end()
        elif start >= 0:
            yield start, end
            start = -1
    if start >= 0:
        yield start, end


def _beside(value: bytes, start: int, end: int, *, following: bool = False) -> bool:
    """The nearest word of value[start:end], before its end or `following` its start, is an encoded word."""
    if following:
        match = _WORDS.search(value, start, end)
        return match is not None and _ENCODED_WORD.fullmatch(match.group()) is not None
    words = value[start:end].rsplit(None, 1)
    return bool(words) and _ENCODED_WORD.fullmatch(words[-1].strip()) is not None


def _unfolded(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"")


def _encoded_words(data: bytes) -> bytes:
    """RFC 2047 §2, folded; no character is divided (§5)."""
    charset = _decoded(data)[1]
    one = 4 if charset == "utf-8" else 1
    words = []
    at = 0
    while at < len(data):
        cut = min(at + _WORD, len(data))
        while one > 1 and cut < len(data) and data[cut] & 0xC0 == 0x80 and cut > at + _WORD - one:
            cut -= 1
        words.append(_encoded_word(data[at:cut], charset))
        at = cut
    return b"\r\n ".join(words)


def _encoded_word(data: bytes, charset: str) -> bytes:
    """At most _WORD bytes. `Q` can be read by people; base64 is never too long."""
    q = b"".join(b"%c" % octet if octet in _Q_SAFE else b"_" if octet == 0x20 else b"=%02X" % octet for octet in data)
    kind, text = (b"Q", q) if len(q) <= _WORD * 4 // 3 else (b"B", base64.b64encode(data))
    return b"=?%b?%b?%b?=" % (charset.encode(), kind, text)


# --- addresses: RFC 2047 §5 (2) and (3) ---


def _ascii_addresses(value: bytes, *, strict: bool) -> bytes:
    """Words of names and comments as encoded words, domains as A-labels."""
    out: list[bytes] = []
    words: list[bytes] = []  # of a name, with the white space after each
    balanced = _PAIRS.sub(b"", value).count(b'"') % 2 == 0
    for match in (_TOKENS if balanced else _TOKENS_LOST_QUOTE).finditer(value):
        kind, text = str(match.lastgroup), match.group()
        if kind in ("quoted", "word") and not _is_address(value, match):
            words.append(_unquoted(match.group("quoted")) if kind == "quoted" and not text.isascii() else text)
            continue
        if kind == "blank" and words:
            words.append(text)
            continue
        out.append(_name(words))
        words.clear()
        match kind:
            case "comment":
                text = b"(" + _ascii_text(match.group("comment")) + b")"
            case "angle" | "word" | "quoted":
                text = _ascii_address(text, strict=strict)
            case _:
                text = _NOT_ASCII.sub(_question_marks, text)
        out.append(text)
    out.append(_name(words))
    return b"".join(out)


def _is_address(value: bytes, match: re.Match[bytes]) -> bool:
    return b"@" in match.group() if match.lastgroup == "word" else value[match.end() : match.end() + 1] == b"@"


def _unquoted(inner: bytes) -> bytes:
    return _PAIRS.sub(lambda match: match.group()[1:], inner)


def _name(words: list[bytes]) -> bytes:
    """A display name. A quoted string that must be encoded is encoded with its blanks: it is one word."""
    text = b"".join(words)
    if text.isascii():
        return text
    last = text.rstrip(b" \t\r\n")
    first = last.lstrip(b" \t\r\n")
    return text[: len(last) - len(first)] + _encoded_words(_unfolded(first)) + text[len(last) :]


def _ascii_address(text: bytes, *, strict: bool) -> bytes:
    """The domain as A-labels (RFC 5891 §4)."""
    if text.isascii():
        return text
    start, at, domain = text.rpartition(b"@")
    closing = b">" if domain.endswith(b">") else b""
    try:
        domain = normal_domain(domain.removesuffix(b">").decode("utf-8")).encode("ascii")
    except (UnicodeDecodeError, BadAddress):
        domain = domain.removesuffix(b">")
    found = start + at + domain + closing
    if strict and not found.isascii():
        raise Unconvertible("the host does not take UTF-8 addresses and headers")
    return _NOT_ASCII.sub(_question_marks, found)


# --- parameters: RFC 2231 §3 and §4 ---


def _ascii_parameter(match: re.Match[bytes]) -> bytes:
    blank, name, value = match.groups()
    if value.isascii():
        return match.group()
    text = _unquoted(value[1:].removesuffix(b'"')) if value.startswith(b'"') else value.rstrip(b" \t")
    encoded = [b"%c" % octet if octet in _ATTRIBUTE_CHAR else b"%%%02X" % octet for octet in _unfolded(text)]
    charset = _decoded(text)[1].encode() + b"''"
    width = max(1, (72 - len(name) - len(charset)) // 3)
    parts = [b"".join(encoded[at : at + width]) for at in range(0, len(encoded), width)]
    if len(parts) == 1:
        return b";%b%b*=%b%b" % (blank, name, charset, parts[0])
    lines = (b";\r\n %b*%d*=%b%b" % (name, n, b"" if n else charset, part) for n, part in enumerate(parts))
    return b"".join(lines)


# --- folding ---


def folded(field: bytes, max_line: int = MAX_LINE, *, gently: bool = False) -> bytes:
    """The field with no line of more than `max_line` bytes. At white space, which unfolding
    restores; else after a comma, a semicolon or between `><`, where white space means nothing; else anywhere. `gently`:
    at white space alone, or Unconvertible."""
    if not has_long_line(field, 0, len(field), max_line):
        return field
    if len(field) > MAX_FIELD:
        raise Unconvertible("a header field is too long to be converted")
    out: list[bytes] = []
    for line in field.split(b"\r\n"):
        out.extend(_folded_line(line, max_line, gently=gently))
    return b"\r\n".join(out)


def _folded_line(line: bytes, max_line: int, *, gently: bool) -> Iterator[bytes]:
    if len(line) > max_line:  # white space at the end of a line means nothing, and would be its own line
        line = line.rstrip(b" \t") or b" "
    at, lead = 0, b""
    while len(lead) + len(line) - at > max_line:
        limit = at + max_line - len(lead)
        cut = _white_space_before(line, at, limit)
        if cut:
            yield lead + line[at:cut]
            at, lead = cut, b""
            continue
        if gently:
            raise Unconvertible("a header field is too long, and signed")
        cut = _separator_before(line, at, limit)
        yield lead + line[at:cut]
        at, lead = cut, b" "
    yield lead + line[at:]


def _white_space_before(line: bytes, start: int, limit: int) -> int:
    """Where the last run of white space begins that has something else before it; 0: nowhere."""
    cut = max(line.rfind(b" ", start, limit + 1), line.rfind(b"\t", start, limit + 1))
    while cut > start and line[cut - 1] in b" \t":
        cut -= 1
    return cut if cut > start else 0


def _separator_before(line: bytes, start: int, limit: int) -> int:
    """After a separator, or at `limit`, but not inside a character."""
    between = line.rfind(b"><", start, limit) + 1
    cut = max(between, line.rfind(b",", start, limit) + 1, line.rfind(b";", start, limit) + 1)
    if cut > start + 1:
        return cut
    cut = limit
    while cut > limit - 4 and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
