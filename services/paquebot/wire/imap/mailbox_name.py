"""Mailbox names: modified UTF-7 and UTF-8 forms, what a name may be, and LIST's patterns.

Inside Paquebot a name is Unicode with levels separated by "/", and INBOX (as a whole or as the first level) is in upper
case. Decoding is strict: a name that is not the canonical modified UTF-7 of its text is refused, so two different
strings of US-ASCII never mean one mailbox. 8-bit octets, which modified UTF-7 does not have, are UTF-8.

RFC 3501 §5.1, §5.1.3 (modified UTF-7), §6.3.8 (LIST); RFC 6855 §3 and RFC 9051 §5.1 (UTF-8 names).
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable

from paquebot.wire.imap.errors import MailboxNameError

DELIMITER = "/"
INBOX = "INBOX"
MAX_NAME_OCTETS = 2400  # of the UTF-8 form: a little less than a PostgreSQL index can have
MAX_LEVELS = 64
NO_NAME = "\0"
"""Stands for octets that are not a name, where an existing mailbox is meant: no mailbox has it, no pattern matches
it."""


def decode_mutf7(raw: bytes) -> str:
    """RFC 3501 §5.1.3. Raises MailboxNameError unless `raw` is the canonical encoding of its text."""
    parts: list[str] = []
    position, size = 0, len(raw)
    while position < size:
        shift = raw.find(b"&", position)
        if shift < 0:
            shift = size
        parts.append(raw[position:shift].decode("latin-1"))
        if shift == size:
            break
        close = raw.find(b"-", shift)
        if close < 0:
            raise MailboxNameError("modified UTF-7 shift without an end")
        parts.append("&" if close == shift + 1 else _unshift(raw[shift + 1 : close]))
        position = close + 1
    text = "".join(parts)
    if encode_mutf7(text) != raw:
        raise MailboxNameError("not canonical modified UTF-7")
    return text


def _unshift(chunk: bytes) -> str:
    padded = chunk.replace(b",", b"/") + b"=" * (-len(chunk) % 4)
    try:
        return binascii.a2b_base64(padded).decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError):
        raise MailboxNameError("broken base64 in modified UTF-7") from None


def encode_mutf7(text: str) -> bytes:
    """RFC 3501 §5.1.3. Raises MailboxNameError for unpaired surrogates."""
    out = bytearray()
    shifted: list[str] = []
    for char in text:
        if " " <= char <= "~":
            if shifted:
                out += _shift("".join(shifted))
                shifted.clear()
            out += b"&-" if char == "&" else char.encode("ascii")
        else:
            shifted.append(char)
    if shifted:
        out += _shift("".join(shifted))
    return bytes(out)


def _shift(text: str) -> bytes:
    try:
        units = text.encode("utf-16-be")
    except UnicodeEncodeError:
        raise MailboxNameError("unpaired surrogate in a mailbox name") from None
    return b"&" + binascii.b2a_base64(units, newline=False).rstrip(b"=").replace(b"/", b",") + b"-"


def decode_name_text(raw: bytes, *, utf8: bool = False) -> str:
    """Octets of a name or pattern as text; with `utf8` (UTF8=ACCEPT enabled) they are UTF-8.

    8-bit octets, which modified UTF-7 does not have, are UTF-8 without it too: clients send names as a person typed
    them, and RFC 3501 §5.1 takes 8-bit names for UTF-8. Raises MailboxNameError.
    """
    if not utf8 and raw.isascii():
        return decode_mutf7(raw)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MailboxNameError("not UTF-8") from None


def decode_mailbox_name(raw: bytes, *, utf8: bool = False) -> str:
    """A name from the wire, INBOX in upper case. Raises MailboxNameError."""
    return fold_inbox(decode_name_text(raw, utf8=utf8))


def encode_mailbox_name(name: str, *, utf8: bool = False) -> bytes:
    """A name for the wire, not yet quoted. Raises MailboxNameError for unpaired surrogates."""
    if not utf8:
        return encode_mutf7(name)
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError:
        raise MailboxNameError("unpaired surrogate in a mailbox name") from None


def fold_inbox(name: str) -> str:
    """INBOX is case-insensitive (RFC 3501 §5.1), alone and as the first level."""
    head = name[:5]
    if head != INBOX and head.isascii() and head.upper() == INBOX and name[5:6] in ("", DELIMITER):
        return INBOX + name[5:]
    return name


def check_new_name(name: str) -> str:
    """The name that CREATE or RENAME may give a mailbox: without the trailing delimiter by which a client
    announces children (RFC 3501 §6.3.3). Raises MailboxNameError with the reason."""
    name = name.removesuffix(DELIMITER)
    levels = name.split(DELIMITER)
    if not all(levels):
        raise MailboxNameError("a level of the name is empty")
    if len(levels) > MAX_LEVELS:
        raise MailboxNameError("too many levels")
    if len(encode_mailbox_name(name, utf8=True)) > MAX_NAME_OCTETS:
        raise MailboxNameError("the name is too long")
    # RFC 9051 §5.1 asks for Net-Unicode (RFC 5198 §2): no C0 or C1 controls, no U+2028 or U+2029.
    if any(char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029" for char in name):
        raise MailboxNameError("control characters cannot be part of a name")
    return fold_inbox(name)


class ListPatterns:
    """The patterns of a LIST, made once and matched against many names: a name matches if one of them does.

    Each bit of one integer is a place in a pattern that the name may have matched up to, so the work for a name is
    linear in its length, for any patterns and any number of them. `*` matches anything, `%` anything but the delimiter
    (RFC 3501 §6.3.8). The grammar bounds the patterns together (`Limits.list_characters`), and with them the integer.
    """

    __slots__ = ("_accept", "_any", "_delimiter", "_level", "_masks", "_start", "_wild")

    def __init__(self, patterns: Iterable[str], delimiter: str = DELIMITER) -> None:
        self._delimiter = delimiter
        self._masks: dict[str, int] = {}
        self._any = self._level = self._start = self._accept = 0
        first = 0
        for elements in dict.fromkeys(map(_collapse, patterns)):
            # A pattern of more literal characters than a name can have matches none; leaving it out keeps the bits few.
            if sum(element not in "%*" for element in elements) <= MAX_NAME_OCTETS:
                self._add(elements, first)
                first += len(elements) + 1
        self._wild = self._any | self._level
        self._start |= (self._start & self._wild) << 1

    def _add(self, elements: str, first: int) -> None:
        """Add a pattern whose states are the bits from `first` on; the last bit means that all of it matched."""
        self._start |= 1 << first
        self._accept |= 1 << first + len(elements)
        for index, element in enumerate(elements, first):
            bit = 1 << index
            if element == "*":
                self._any |= bit
            elif element == "%":
                self._level |= bit
            else:
                self._masks[element] = self._masks.get(element, 0) | bit

    def matches(self, name: str) -> bool:
        # INBOX matches in any case (RFC 3501 §5.1); its names begin in upper case here.
        folded = 5 if name[:5] == INBOX and name[5:6] in ("", self._delimiter) else 0
        masks = self._masks
        states = self._start
        for index, char in enumerate(name):
            fits = masks.get(char, 0)
            if index < folded:
                fits |= masks.get(char.lower(), 0)
            stay = self._any if char == self._delimiter else self._wild
            states = (states & fits) << 1 | states & stay
            states |= (states & self._wild) << 1
            if not states:
                return False
        return bool(states & self._accept)


def _collapse(pattern: str) -> str:
    """The pattern, each run of wildcards as one: a run with `*` in it is `*`."""
    elements: list[str] = []
    for char in pattern:
        if char in "%*" and elements and elements[-1] in "%*":
            if char == "*":
                elements[-1] = "*"
        else:
            elements.append(char)
    return "".join(elements)


def list_matches(pattern: str, name: str, delimiter: str = DELIMITER) -> bool:
    """One pattern against one name; for many names make ListPatterns."""
    return ListPatterns([pattern], delimiter).matches(name)
