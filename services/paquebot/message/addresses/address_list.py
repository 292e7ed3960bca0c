"""Address lists of header fields (From, To, Cc …) as IMAP wants them: display name, route, local part, domain.

One cursor from left to right that never fails: text that is no address is kept as it can be shown.
RFC 5322 §3.4 and §4.4 (obsolete routes), without quoting, as RFC 3501 §7.4.2 asks.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from paquebot.message.limits import MAX_ADDRESSES


class MailAddress(NamedTuple):
    """One entry of an address list; an absent item is None.

    A mailbox has `mailbox` and `host` (b"" when the text had none). The start of a group has its name in
    `mailbox` and no host; the end of a group has neither (RFC 3501 §7.4.2).
    """

    name: bytes | None
    adl: bytes | None
    mailbox: bytes | None
    host: bytes | None


_MAX_ROUTE: Final = 2048  # bytes of an obsolete route that are read
_GROUP_END: Final = MailAddress(None, None, None, None)

# Every byte that ends an atom becomes "!", so that one find() reaches the next of them.
_SPECIALS: Final = b'"(<>@,;:\\ \t)'
_MARKS: Final = bytes(0x21 if octet in _SPECIALS else 0x61 for octet in range(256))


def addresses(value: bytes) -> list[MailAddress]:
    """The entries of an unfolded address list, at most MAX_ADDRESSES of them."""
    return list(islice(address_entries(value), MAX_ADDRESSES))


def address_entries(value: bytes) -> Iterator[MailAddress]:
    """All entries, each parsed when it is taken: there may be very many."""
    plain = _plain_mailboxes(value) if len(value) <= _MAX_PLAIN else None
    return _AddressList(value).parse() if plain is None else iter(plain)


_MAX_PLAIN: Final = 64 * 1024  # bytes of a list whose entries are read at once

# Without any of these, and with quotes only around whole names, commas divide the list and no cursor is needed.
_NOT_PLAIN: Final = b"(;:\\[\t"


def _plain_mailboxes(value: bytes) -> list[MailAddress] | None:
    """The common forms `Name <local@domain>`, `"Name" <local@domain>` and `local@domain`; None for any other."""
    if len(value.translate(None, _NOT_PLAIN)) != len(value):
        return None
    found: list[MailAddress] = []
    pos = 0
    while pos < len(value):
        name = b""
        if value.startswith(b'"', pos):
            close = value.find(b'"', pos + 1)
            name = value[pos + 1 : close]
            pos = close + 1
            if close < 0 or value[pos : pos + 2] != b" <":
                return None
        comma = value.find(b",", pos)
        end = comma if comma >= 0 else len(value)
        mailbox = _plain_mailbox(value[pos:end], name)
        if mailbox is None:
            return None
        found.append(mailbox)
        pos = end + 2 if value.startswith(b" ", end + 1) else end + 1
    return found


def _plain_mailbox(text: bytes, name: bytes) -> MailAddress | None:
    phrase, bracket, spec = text.partition(b"<")
    if bracket:
        if not spec.endswith(b">"):
            return None
        spec = spec[:-1]
        name = name or b" ".join(phrase.split())
    else:
        spec, phrase = phrase, b""
    local, _, host = spec.partition(b"@")
    if not local or not host or b"@" in host or b'"' in text or b" " in spec or b"<" in spec or b">" in spec:
        return None
    return MailAddress(name or None, None, local, host)


class _AddressList:
    """The cursor over one address list, and the words of the entry that is being read."""

    __slots__ = ("after_at", "before_at", "comment", "found", "in_group", "marks", "pos", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.marks = value.translate(_MARKS)
        self.pos = 0
        self.found: list[MailAddress] = []
        self.in_group = False
        self._begin_entry()

    def _begin_entry(self) -> None:
        self.before_at: list[bytes] = []  # words of a phrase, or of a local part
        self.after_at: list[bytes] | None = None  # words after the first "@", or None before it
        self.comment: bytes | None = None

    def parse(self) -> Iterator[MailAddress]:
        """address-list = (address *("," address)) / obs-addr-list"""
        end = len(self.value)
        while self.pos < end:
            self._step()
            if self.found:
                yield from self.found
                self.found.clear()
        self._finish_bare()
        if self.in_group:
            self.found.append(_GROUP_END)
        yield from self.found

    def _step(self) -> None:
        match self.value[self.pos : self.pos + 1]:
            case b'"':
                self._add_word(self._enclosed(b'"'))
            case b"(":
                self.comment = self._comment()
            case b"<":
                self._angle_address()
            case b",":
                self.pos += 1
                self._finish_bare()
            case b":" if self.after_at is None and not self.in_group:
                self.pos += 1
                self._start_group()
            case b";":
                self.pos += 1
                self._end_group()
            case b"@":
                self.pos += 1
                self._at_sign()
            case b" " | b"\t" | b">" | b")" | b"\\" | b":":
                self.pos += 1
            case _:
                self._add_word(self._atom())

    def _add_word(self, word: bytes) -> None:
        (self.before_at if self.after_at is None else self.after_at).append(word)

    def _at_sign(self) -> None:
        if self.after_at is None:
            self.after_at = []
        else:
            self.after_at.append(b"@")

    def _atom(self) -> bytes:
        start = self.pos
        if self.value.startswith(b"[", start):  # RFC 5322 §3.4.1: domain-literal = "[" *dtext "]"
            return b"[" + self._enclosed(b"]") + b"]"
        end = self.marks.find(b"!", start + 1)
        self.pos = end if end >= 0 else len(self.value)
        return self.value[start : self.pos]

    def _enclosed(self, close: bytes) -> bytes:
        """RFC 5322 §3.2.4: content up to `close`, quoted pairs undone; a missing close ends with the value."""
        value = self.value
        start = self.pos + 1
        end = value.find(close, start)
        slash = value.find(b"\\", start, end if end >= 0 else len(value))
        if slash < 0:
            self.pos = end + 1 if end >= 0 else len(value)
            return value[start : end if end >= 0 else len(value)]
        pos = slash
        while pos < len(value) and value[pos] != close[0]:
            pos += 2 if value[pos] == _BACKSLASH else 1
        self.pos = min(pos + 1, len(value))
        return _without_quoting(value[start:pos])

    def _comment(self) -> bytes:
        """RFC 5322 §3.2.2: a comment's text; comments nest and have quoted pairs."""
        value, start = self.value, self.pos + 1
        self.pos = skip_comment(value, self.pos)
        end = self.pos - 1 if value.endswith(b")", start, self.pos) else self.pos
        return _without_quoting(value[start:end]).strip()

    def _phrase(self) -> bytes | None:
        """The display name: its words, or a comment that stands for it."""
        name = b" ".join(self.before_at)
        if self.after_at is not None:  # an address that was not quoted: john@example.org <john@example.org>
            name += b"@" + b" ".join(self.after_at)
        return name or self.comment

    def _angle_address(self) -> None:
        """angle-addr = [CFWS] "<" [obs-route] addr-spec ">" [CFWS]"""
        name = self._phrase()
        self._begin_entry()
        self.pos += 1
        adl = self._route()
        self._addr_spec()
        mailbox = b"".join(self.before_at)
        host = b"".join(self.after_at or ())
        self._trailing()
        self.found.append(MailAddress(name or self.comment, adl, mailbox, host))
        self._begin_entry()

    def _route(self) -> bytes | None:
        """RFC 5322 §4.4: obs-route = obs-domain-list ":" """
        value, pos = self.value, self.pos
        while value.startswith((b" ", b"\t"), pos):
            pos += 1
        if not value.startswith((b"@", b","), pos):
            return None
        # Bounded: many unclosed "<@" must not each be searched to the end.
        close = value.find(b">", pos, pos + _MAX_ROUTE)
        colon = value.find(b":", pos, close) if close >= 0 else -1
        if colon < 0:
            return None
        self.pos = colon + 1
        return b"".join(value[pos:colon].split())

    def _addr_spec(self) -> None:
        """addr-spec = local-part "@" domain, up to ">" or to where the next entry must begin"""
        end = len(self.value)
        while self.pos < end:
            match self.value[self.pos : self.pos + 1]:
                case b">":
                    self.pos += 1
                    return
                case b"," | b";" | b"<":
                    return
                case b":":
                    self.pos += 1
                    self._add_word(b":")
                case _:
                    self._step()

    def _trailing(self) -> None:
        """The text between an angle address and the next separator; a comment may be the name."""
        end = len(self.value)
        while self.pos < end and self.value[self.pos] not in b",;<":
            if self.value[self.pos] == _COLON:
                self.pos += 1
            else:
                self._step()

    def _finish_bare(self) -> None:
        """An entry without angle brackets: addr-spec, or words that are no address."""
        if self.after_at is not None:
            mailbox, host = b"".join(self.before_at), b"".join(self.after_at)
            self.found.append(MailAddress(self.comment, None, mailbox, host))
        elif self.before_at:
            self.found.append(MailAddress(self.comment, None, b" ".join(self.before_at), b""))
        self._begin_entry()

    def _start_group(self) -> None:
        """group = display-name ":" [group-list] ";" """
        self.found.append(MailAddress(None, None, self._phrase() or b"", None))
        self.in_group = True
        self._begin_entry()

    def _end_group(self) -> None:
        self._finish_bare()
        if self.in_group:
            self.found.append(_GROUP_END)
        self.in_group = False


_BACKSLASH: Final = 0x5C
_COLON: Final = 0x3A


def _without_quoting(text: bytes) -> bytes:
    """RFC 5322 §3.2.1: quoted-pair = "\\" (VCHAR / WSP)"""
    if b"\\" not in text:
        return text
    halves = text.split(b"\\\\")
    return b"\\".join(half.replace(b"\\", b"") for half in halves)


def skip_comment(value: bytes, pos: int) -> int:
    """The offset after the comment that starts at `pos`; the end of the value when it is not closed."""
    depth = 0
    end = len(value)
    while pos < end:
        octet = value[pos]
        pos += 2 if octet == _BACKSLASH else 1
        if octet == 0x28:
            depth += 1
        elif octet == 0x29:
            depth -= 1
            if depth == 0:
                break
    return min(pos, end)
