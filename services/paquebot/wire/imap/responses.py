"""The responses of an IMAP server, as octets: status lines, strings in their safest form, and untagged data.

Invariants: text for people is printable US-ASCII on one line; a string is an atom or quoted only if the grammar allows
it, else a literal; a plain literal never has NUL. Functions that return bytes return whole
lines with CRLF; `write_*` append a fragment to a bytearray.

RFC 3501 §4.3, §7 and §9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from paquebot.wire.imap import response_codes
from paquebot.wire.imap.ast import SearchReturn, StatusItem
from paquebot.wire.imap.errors import BadMailboxEncoding, BadSyntax
from paquebot.wire.imap.grammar.tokens import ASTRING_CHARS
from paquebot.wire.imap.mailbox_name import DELIMITER, encode_mailbox_name
from paquebot.wire.imap.sequence_set import compressed, range_text

# TEXT-CHAR without the quoted-specials and controls: octets that are quoted without escapes.
_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\')
_UTF8_QUOTABLE = _PLAIN + b'"\\' + bytes(range(0x80, 0x100))  # RFC 6855 §3
_ASTRING = bytes(ASTRING_CHARS)
_MAX_QUOTED = 1024  # octets; longer strings are literals, which no reader has to scan
_TOGETHER = 2000  # numbers or ranges of a long response that are made in one step
_NUL_SUBSTITUTE = b"\x80"  # keeps sizes and offsets; literals cannot carry NUL (RFC 3501 §9, CHAR8)

# --- strings ---------------------------------------------------------------------------------------------


def without_nul(octets: bytes) -> bytes:
    """The octets with each NUL replaced by an octet that a literal may have; the same object if there is none."""
    return octets.replace(b"\0", _NUL_SUBSTITUTE) if b"\0" in octets else octets


def is_plain(value: bytes) -> bool:
    """May it be quoted without escapes?"""
    return len(value) <= _MAX_QUOTED and not value.translate(None, _PLAIN)


def write_string(out: bytearray, value: bytes) -> None:
    """string = quoted / literal"""
    if len(value) <= _MAX_QUOTED:
        odd = value.translate(None, _PLAIN)
        if not odd:
            out += b'"' + value + b'"'
            return
        if not odd.translate(None, b'"\\'):
            out += b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            return
    write_literal(out, value)


def write_nstring(out: bytearray, value: bytes | None) -> None:
    """nstring = string / nil"""
    if value is None:
        out += b"NIL"
    else:
        write_string(out, value)


def write_astring(out: bytearray, value: bytes) -> None:
    """astring; NIL is quoted, because some clients would take it for a missing string"""
    if value and not value.translate(None, _ASTRING) and value.upper() != b"NIL":
        out += value
    else:
        write_string(out, value)


def write_literal(out: bytearray, value: bytes) -> None:
    """literal, NUL replaced"""
    out += b"{%d}\r\n" % len(value)
    out += without_nul(value)


def write_literal8(out: bytearray, value: bytes) -> None:
    """literal if the grammar allows it, else literal8 (RFC 3516 §4.2.1)"""
    out += b"~{%d}\r\n" % len(value) if b"\0" in value else b"{%d}\r\n" % len(value)
    out += value


def write_mailbox(out: bytearray, name: str, *, utf8: bool = False) -> None:
    """mailbox, in modified UTF-7 or, after ENABLE UTF8=ACCEPT, in UTF-8 (RFC 6855 §3)"""
    raw = encode_mailbox_name(name, utf8=utf8)
    if not utf8 or raw.isascii():
        write_astring(out, raw)
    elif raw.translate(None, _UTF8_QUOTABLE):
        write_literal(out, raw)
    else:
        out += b'"%b"' % raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def write_flags(out: bytearray, flags: Iterable[str]) -> None:
    """flag-list"""
    out += b"(%b)" % " ".join(flags).encode("ascii")


# --- status responses: RFC 3501 §7.1 ---------------------------------------------------------------------


def _status(prefix: bytes, text: str, code: bytes | None) -> bytes:
    words = " ".join(text.split()) or "-"
    line = "".join(char if " " <= char <= "~" else "?" for char in words).encode("ascii")
    if code is None:
        # A client would read "[" at the start of the text as a code.
        return b"%b %b\r\n" % (prefix, line if line[:1] != b"[" else b"- " + line)
    return b"%b [%b] %b\r\n" % (prefix, code, line)


def ok(tag: bytes, text: str, code: bytes | None = None) -> bytes:
    return _status(tag + b" OK", text, code)


def no(tag: bytes, text: str, code: bytes | None = None) -> bytes:
    return _status(tag + b" NO", text, code)


def bad(tag: bytes | None, text: str, code: bytes | None = None) -> bytes:
    """BAD, untagged if the command's tag could not be read (RFC 3501 §7.1.3)."""
    return _status((tag or b"*") + b" BAD", text, code)


def not_understood(fault: BadSyntax) -> bytes:
    """The completion of a command that could not be parsed."""
    text = f"{fault.message} at octet {fault.position}"
    if isinstance(fault, BadMailboxEncoding) and fault.tag is not None:
        return no(fault.tag, text, response_codes.CANNOT)
    return bad(fault.tag, text)


def untagged_ok(text: str, code: bytes | None = None) -> bytes:
    return _status(b"* OK", text, code)


def untagged_no(text: str, code: bytes | None = None) -> bytes:
    return _status(b"* NO", text, code)


def bye(text: str, code: bytes | None = None) -> bytes:
    return _status(b"* BYE", text, code)


def continuation(text: str = "go ahead") -> bytes:
    """continue-req, before a literal or while IDLE"""
    return _status(b"+", text, None)


def challenge(payload: bytes) -> bytes:
    """continue-req of AUTHENTICATE: `payload` already in base64, perhaps empty (RFC 3501 §7.5)"""
    return b"+ %b\r\n" % payload


# --- untagged data: RFC 3501 §7.2 to §7.4 ----------------------------------------------------------------


def capability(names: Iterable[str]) -> bytes:
    return b"* CAPABILITY %b\r\n" % " ".join(names).encode("ascii")


def enabled(names: Iterable[str]) -> bytes:
    """RFC 5161 §3.2; an empty list if nothing was enabled"""
    return " ".join(("* ENABLED", *names)).encode("ascii") + b"\r\n"


def exists(count: int) -> bytes:
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    return b"* %d RECENT\r\n" % count


def expunge(sequence_number: int) -> bytes:
    return b"* %d EXPUNGE\r\n" % sequence_number


def vanished(ranges: Iterable[tuple[int, int]], *, earlier: bool) -> Iterator[bytes]:
    """RFC 7162 §3.2.10; ascending ranges of UIDs, nothing if there is none. In pieces: there may be very many."""
    begun = False
    for piece in _pieces(map(range_text, ranges), ","):
        if not begun:
            yield b"* VANISHED (EARLIER) " if earlier else b"* VANISHED "
            begun = True
        yield piece
    if begun:
        yield b"\r\n"


def _pieces(words: Iterable[str], separator: str) -> Iterator[bytes]:
    """The words with the separator between them, many words at a time."""
    words = iter(words)
    before = ""
    while some := list(islice(words, _TOGETHER)):
        yield (before + separator.join(some)).encode("ascii")
        before = separator


def flags(names: Iterable[str]) -> bytes:
    out = bytearray(b"* FLAGS ")
    write_flags(out, names)
    out += b"\r\n"
    return bytes(out)


def list_line(
    attributes: Iterable[str],
    name: str,
    *,
    delimiter: str | None = DELIMITER,
    child_info: Sequence[str] = (),
    utf8: bool = False,
) -> bytes:
    """LIST; `child_info` are the selection options that children match (RFC 5258 §4, CHILDINFO)."""
    out = _listed(b"* LIST ", attributes, delimiter, name, utf8=utf8)
    if child_info:
        out += b' ("CHILDINFO" (%b))' % " ".join(f'"{option}"' for option in child_info).encode("ascii")
    out += b"\r\n"
    return bytes(out)


def lsub_line(attributes: Iterable[str], name: str, *, delimiter: str | None = DELIMITER, utf8: bool = False) -> bytes:
    out = _listed(b"* LSUB ", attributes, delimiter, name, utf8=utf8)
    out += b"\r\n"
    return bytes(out)


def _listed(prefix: bytes, attributes: Iterable[str], delimiter: str | None, name: str, *, utf8: bool) -> bytearray:
    """mailbox-list; an empty name (the answer about the delimiter, RFC 3501 §6.3.8) is \"\""""
    out = bytearray(prefix)
    write_flags(out, attributes)
    out += b" "
    write_nstring(out, None if delimiter is None else delimiter.encode("ascii"))
    out += b" "
    write_mailbox(out, name, utf8=utf8)
    return out


def namespace(personal: Sequence[tuple[str, str]]) -> bytes:
    """RFC 2342 §5: (prefix, delimiter) of the personal namespaces; there are no others"""
    out = bytearray(b"* NAMESPACE ")
    if personal:
        out += b"("
        for prefix, delimiter in personal:
            out += b"("
            write_string(out, encode_mailbox_name(prefix))
            out += b" "
            write_string(out, delimiter.encode("ascii"))
            out += b")"
        out += b")"
    else:
        out += b"NIL"
    out += b" NIL NIL\r\n"
    return bytes(out)


def identity(parameters: Iterable[tuple[bytes, bytes | None]]) -> bytes:
    """ID (RFC 2971 §3.2); no parameters is NIL"""
    out = bytearray(b"* ID ")
    mark = len(out)
    for name, value in parameters:
        out += b"(" if len(out) == mark else b" "
        write_string(out, name)
        out += b" "
        write_nstring(out, value)
    out += b"NIL\r\n" if len(out) == mark else b")\r\n"
    return bytes(out)


StatusValue = int | str | None


def status(name: str, values: Mapping[StatusItem, StatusValue], *, utf8: bool = False) -> bytes:
    """STATUS; numbers, MAILBOXID's object id as str (RFC 8474 §4.3), APPENDLIMIT's None as NIL (RFC 7889 §4)"""
    out = bytearray(b"* STATUS ")
    write_mailbox(out, name, utf8=utf8)
    separator = b" ("
    for item, value in values.items():
        out += separator + item.value
        if value is None:
            out += b" NIL"
        elif isinstance(value, str):
            out += b" (%b)" % value.encode("ascii")
        else:
            out += b" %d" % value
        separator = b" "
    out += b")\r\n" if values else b" ()\r\n"
    return bytes(out)


def search(numbers: Sequence[int], *, mod_seq: int | None = None) -> Iterator[bytes]:
    """SEARCH in pieces, with the highest mod-sequence if the program had MODSEQ (RFC 7162 §3.1.5)"""
    yield b"* SEARCH " if numbers else b"* SEARCH"
    yield from _pieces(map(str, numbers), " ")
    if numbers and mod_seq is not None:
        yield b" (MODSEQ %d)" % mod_seq
    yield b"\r\n"


def esearch(
    tag: bytes,
    numbers: Sequence[int],
    returns: frozenset[SearchReturn],
    *,
    uid: bool,
    mod_seq: int | None = None,
) -> Iterator[bytes]:
    """ESEARCH (RFC 4731 §3.1) in pieces: `numbers` ascending; no MIN, MAX and ALL if nothing was found."""
    out = bytearray(b"* ESEARCH (TAG ")
    write_string(out, tag)
    out += b") UID" if uid else b")"
    if numbers:
        if SearchReturn.MIN in returns:
            out += b" MIN %d" % numbers[0]
        if SearchReturn.MAX in returns:
            out += b" MAX %d" % numbers[-1]
        if SearchReturn.ALL in returns:
            yield bytes(out) + b" ALL "
            yield from _pieces(compressed(numbers), ",")
            out.clear()
    if SearchReturn.COUNT in returns:
        out += b" COUNT %d" % len(numbers)
    if numbers and mod_seq is not None:
        out += b" MODSEQ %d" % mod_seq  # RFC 7162 §3.1.10
    yield bytes(out) + b"\r\n"
