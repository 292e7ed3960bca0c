"""Every address that some mail program may find in an address list, however broken the list is.

Programs differ where a list breaks the grammar: one reads `bob@a.example <ann@b.example>` as Ann with an odd name,
another as Bob; and some find angle brackets in quoted strings, comments and encoded words, too. The check of what an
author may write must find all of them. Any other quoted, commented or encoded text is a name to every program.
RFC 5322 §3.4; linear in the length of the value.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paquebot.message.addresses.address_list import MailAddress, addresses, skip_comment
from paquebot.message.limits import MAX_ADDRESSES
from paquebot.message.text.encoded_text import decode_header_text

_SPACE: Final = b" \t"
_SPECIALS: Final = b'"(<>@,;:\\ \t)['
_ENDS: Final = frozenset("\0\r\n")  # characters that end a text, or a line, for some programs
_SKIPPED: Final = (b">", b")", b"\\", b":")  # some programs skip these where they make no sense
_NO_LITERAL: Final = bytes.maketrans(b"[]", b"  ")
_MARKS: Final = bytes(0x21 if octet in _SPECIALS else 0x61 for octet in range(256))


@dataclass(frozen=True, slots=True)
class NamedAddresses:
    """`certain`: the addresses that every program finds, as (local part, domain); `possible`: what else looks like one.

    `readable`: there is one way to read the list: each part between commas has an address, or all parts without one
    are words of the name before one address in angle brackets, which ends the list. No name ends a line or a
    text before its end, and each quoted string, comment and literal has its own.
    """

    certain: tuple[tuple[bytes, bytes], ...]
    possible: tuple[tuple[bytes, bytes], ...]
    readable: bool


def named_addresses(value: bytes) -> NamedAddresses:
    """Of an unfolded value."""
    entries = [entry for entry in addresses(value) if entry.mailbox is not None and entry.host is not None]
    certain = dict.fromkeys((entry.mailbox or b"", entry.host or b"") for entry in entries if entry.host)
    if len(entries) == len(certain) == 1 and _is_plain(value, *certain):
        return NamedAddresses(tuple(certain), (), readable=True)
    words = [entry.mailbox or b"" for entry in entries if not entry.host]
    tokens = _without_comments(value)
    # A program without quoted pairs ends quoted strings elsewhere.
    plainer = _without_comments(value.replace(b"\\", b"")) if b"\\" in value else ()
    # One without domain literals finds addresses in them.
    barer = _without_comments(value.translate(_NO_LITERAL)) if b"[" in value or b"]" in value else ()
    text = _names(value)
    found = (*_at_signs(tokens), *_at_signs(plainer), *_at_signs(barer), *_in_brackets(text))
    possible = dict.fromkeys(one for one in found if one not in certain)
    readable = len(entries) < MAX_ADDRESSES and (not words or _is_name(entries, words, tokens))
    readable = readable and not _ENDS.intersection(text) and (not certain or _is_closed(value))
    return NamedAddresses(tuple(certain), tuple(possible), readable)


def _is_plain(value: bytes, address: tuple[bytes, bytes]) -> bool:
    """Whether the value has a single place where an address can be, and has it there in one piece. Nearly all values
    do, and no program finds another address in them. Some programs read `x+ bob@a.example` as the words of one local
    part, others as Bob."""
    if not value.isascii() or b"=?" in value or value.count(b"@") != 1 or value.count(b"<") > 1:
        return False
    return b"%b@%b" % address in value and b"!" not in address[0].translate(_MARKS)


def _is_name(entries: list[MailAddress], words: list[bytes], tokens: tuple[bytes, ...]) -> bool:
    """Whether these words are the parts of a name with a comma in it, such as `Kock, Arne <arne@a.example>`."""
    ends = [token for token in tokens if token not in (b",", b";")][-1:] == [b">"]
    if not ends or tokens.count(b"<") != 1 or not entries[-1].host:
        return False
    return len(words) == len(entries) - 1 and not any("@" in _decoded(word) for word in words)


def _is_closed(value: bytes) -> bool:
    """Whether each quoted string, comment and literal has an end, so that text after the value is not part of it."""
    return sum(1 for _ in _tokens(value + b" x")) > sum(1 for _ in _tokens(value))


def _without_comments(value: bytes) -> tuple[bytes, ...]:
    return tuple(token for token in _tokens(value) if not token.startswith(b"("))


def _names(value: bytes) -> str:
    """The decoded text of everything but specials, so that brackets in it come only from quoted or encoded text."""
    return _decoded(b" ".join(token.strip(b'"()') for token in _tokens(value) if token not in _SPECIALS))


def _decoded(text: bytes) -> str:
    """As people see it: wide forms of `@`, `<` and `>` look the same to them."""
    return unicodedata.normalize("NFKC", decode_header_text(text))


def _in_brackets(text: str) -> Iterator[tuple[bytes, bytes]]:
    for part in text.split("<")[1:]:
        local, at, domain = part.partition(">")[0].rpartition("@")
        if at:
            yield local.strip().encode("utf-8", "replace"), domain.strip().encode("utf-8", "replace")


def _tokens(value: bytes) -> Iterator[bytes]:
    """Atoms, specials, domain literals, and quoted strings and comments with their marks; without white space."""
    marks = value.translate(_MARKS)
    pos, end = 0, len(value)
    while pos < end:
        start = pos
        match value[pos : pos + 1]:
            case b"(":
                pos = skip_comment(value, pos)
            case b'"':
                pos = _closed(value, pos, b'"')
            case b"[":
                pos = _closed(value, pos, b"]")
            case _:
                if marks[pos] == 0x61:
                    found = marks.find(b"!", pos)
                    pos = found if found >= 0 else end
                else:
                    pos += 1
        if (token := value[start:pos]) not in _SPACE:
            yield token


def _closed(value: bytes, pos: int, close: bytes) -> int:
    """The offset after what begins at `pos` and ends with `close`; the end of the value when it is not closed."""
    pos += 1
    while pos < len(value) and value[pos] != close[0]:
        pos += 2 if value[pos] == 0x5C else 1
    return min(pos + 1, len(value))


def _at_signs(tokens: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    """The two sides of each `@`: the word before it, and the words after it that dots join."""
    for at, token in enumerate(tokens):
        if token == b"@":
            yield _word(tokens[at - 1]) if at else b"", _domain(tokens, at + 1)


def _word(token: bytes) -> bytes:
    """Empty for a special."""
    if token.startswith(b'"'):
        return token.strip(b'"').replace(b"\\", b"")
    return b"" if token in _SPECIALS else token


def _domain(tokens: tuple[bytes, ...], at: int) -> bytes:
    while at < len(tokens) and tokens[at] in _SKIPPED:
        at += 1
    found = _word(tokens[at]) if at < len(tokens) else b""
    joined = [found]
    while at + 1 < len(tokens) and (joined[-1].endswith(b".") or tokens[at + 1].startswith(b".")):
        at += 1
        joined.append(_word(tokens[at]))
        if not joined[-1]:
            break
    return b"".join(joined)
