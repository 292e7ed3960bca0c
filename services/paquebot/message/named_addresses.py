"""Every address that some reader may find in an address list, however broken the list is.

Readers differ where a list is not of its grammar: one takes `bob@a.example <ann@b.example>` for Ann with an odd name,
another for Bob. Whoever decides what an author may write has to see both. Text in comments and quoted strings is no
address to any of them; of encoded words only those are that stand alone between commas, as a name that was not quoted.
RFC 5322 §3.4; linear in the length of the value.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from paquebot.message.address_list import MailAddress, addresses, skip_comment
from paquebot.message.encoded_text import decode_header_text
from paquebot.message.limits import MAX_ADDRESSES

_SPACE: Final = b" \t"
_SPECIALS: Final = b'"(<>@,;:\\ \t)['
_MARKS: Final = bytes(0x21 if octet in _SPECIALS else 0x61 for octet in range(256))


@dataclass(frozen=True, slots=True)
class NamedAddresses:
    """`certain`: those that every reader finds, as (local part, domain); `possible`: what else looks like one.

    `readable`: there is one way to understand the whole: each part between commas has an address, or all that have
    none are words of the name before one address in angle brackets, which ends the list.
    """

    certain: tuple[tuple[bytes, bytes], ...]
    possible: tuple[tuple[bytes, bytes], ...]
    readable: bool


def named_addresses(value: bytes) -> NamedAddresses:
    """Of an unfolded value."""
    entries = [entry for entry in addresses(value) if entry.mailbox is not None and entry.host is not None]
    certain = dict.fromkeys((entry.mailbox or b"", entry.host or b"") for entry in entries if entry.host)
    words = [entry.mailbox or b"" for entry in entries if not entry.host]
    tokens = tuple(_tokens(value))
    # A reader that knows no quoted pairs ends quoted strings elsewhere.
    plainer = tuple(_tokens(value.replace(b"\\", b""))) if b"\\" in value else ()
    possible = dict.fromkeys(found for found in (*_at_signs(tokens), *_at_signs(plainer)) if found not in certain)
    readable = len(entries) < MAX_ADDRESSES and (not words or _is_name(entries, words, tokens))
    return NamedAddresses(tuple(certain), tuple(possible), readable)


def _is_name(entries: list[MailAddress], words: list[bytes], tokens: tuple[bytes, ...]) -> bool:
    """Are these words the parts of a name with a comma in it, such as `Kock, Arne <arne@a.example>`?"""
    ends = [token for token in tokens if token not in (b",", b";")][-1:] == [b">"]
    if not ends or tokens.count(b"<") != 1 or not entries[-1].host:
        return False
    texts = (unicodedata.normalize("NFKC", decode_header_text(word)) for word in words)
    return len(words) == len(entries) - 1 and not any("@" in text for text in texts)


def _tokens(value: bytes) -> Iterator[bytes]:
    """Atoms, specials, domain literals, and quoted strings with their quotes; comments and white space are left out."""
    marks = value.translate(_MARKS)
    pos, end = 0, len(value)
    while pos < end:
        start = pos
        match value[pos : pos + 1]:
            case b"(":
                pos = skip_comment(value, pos)
                continue
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
    """The offset behind what begins at `pos` and ends with `close`; the end of the value when it does not end."""
    pos += 1
    while pos < len(value) and value[pos] != close[0]:
        pos += 2 if value[pos] == 0x5C else 1
    return min(pos + 1, len(value))


def _at_signs(tokens: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    """What stands on both sides of each `@`: the word before it, and the words after it that dots join."""
    for at, token in enumerate(tokens):
        if token == b"@":
            yield _word(tokens[at - 1]) if at else b"", _domain(tokens, at + 1)


def _word(token: bytes) -> bytes:
    """Empty for a special."""
    if token.startswith(b'"'):
        return token.strip(b'"').replace(b"\\", b"")
    return b"" if token in _SPECIALS else token


def _domain(tokens: tuple[bytes, ...], at: int) -> bytes:
    found = _word(tokens[at]) if at < len(tokens) else b""
    joined = [found]
    while at + 1 < len(tokens) and (joined[-1].endswith(b".") or tokens[at + 1].startswith(b".")):
        at += 1
        joined.append(_word(tokens[at]))
        if not joined[-1]:
            break
    return b"".join(joined)
