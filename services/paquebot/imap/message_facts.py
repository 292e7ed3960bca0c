"""What a search knows of one message: its place in the view, then columns, then the summary, then the body.

Text is compared without regard to case, after transfer encodings, charsets and encoded words are undone
(RFC 3501 §6.4.4). Each text of a message is decoded once, however many keys ask for it, and not by a key but by the
search, in steps: a key only asks whether its text was found so far.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from paquebot.imap.search_texts import TextsFound
from paquebot.imap.view import View
from paquebot.mailstore.types import Flag, StoredMessage
from paquebot.message import (
    ADDRESS_FIELDS,
    MAX_HEADER,
    MessageSummary,
    address_texts,
    decode_header_text,
    field_value,
    fields,
    knows_header_fields,
    parse_date,
)

_PIECE = 64 * 1024  # characters
_LOOK = 1024  # in characters, what it costs to look for a field at all
_READING = 256  # to read an octet of an address list takes as long as to compare so many characters


@dataclass(frozen=True, slots=True)
class Columns:
    """Dates are Unix time in seconds; `size` is RFC822.SIZE."""

    size: int
    internal_date: int
    save_date: int


@dataclass(slots=True)
class Facts:
    """One message; what is None was not loaded yet."""

    view: View
    number: int
    columns: Columns | None = None
    message: StoredMessage | None = None
    summary: MessageSummary | None = None
    body: bytes | None = None
    field_verdicts: dict[tuple[str, str], bool] = field(default_factory=dict)
    """Whether fields of a name have a text: what was looked at so far."""
    header_texts: TextsFound | None = None
    texts: TextsFound | None = None
    """What of the header and of the body was looked through."""

    @property
    def uid(self) -> int:
        return self.view.uid(self.number)

    @property
    def flags(self) -> Flag:
        return self.view.flags(self.number)

    @property
    def keywords(self) -> tuple[str, ...]:
        return self.view.keywords(self.number)

    @property
    def recent(self) -> bool:
        return self.view.is_recent(self.number)

    @property
    def mod_seq(self) -> int:
        return self.view.mod_seq_of(self.number)

    @property
    def sent(self) -> datetime.date | None:
        """The day of the Date field in its own zone; None without a readable one."""
        if self.summary is None:
            return None
        at = parse_date(self.summary.envelope.date)
        return None if at is None else at.date()

    def header_contains(self, name: str, wanted: str) -> bool | None:
        """Has a field of this lower-case name the text? An empty text asks whether there is one. Addresses are found as
        they stand in the message, and as `local@domain`."""
        return self.field_verdicts.get((name, wanted))

    def body_contains(self, wanted: str) -> bool | None:
        """Is the text in a part of the message?"""
        return _is_in(wanted, self.texts)

    def text_contains(self, wanted: str) -> bool | None:
        """Is the text in the header or in a part of the message?"""
        in_header, in_body = _is_in(wanted, self.header_texts), _is_in(wanted, self.texts)
        if in_header or in_body:
            return True
        return None if in_header is None or in_body is None else False

    def look_at_fields(self, wanted: Sequence[tuple[str, str]]) -> Iterator[int]:
        """Answer for each (name, text) whether a field has it, where the summary or the body can tell. Each step yields
        what it cost, in characters."""
        assert self.summary is not None
        names = {name for name, _ in wanted}
        values: dict[str, list[str]] = {}
        cost = 0
        for raw_name, raw in self._stored_fields():
            cost += len(raw)
            name = raw_name.decode("latin-1")
            if name in names:
                value = field_value(raw)
                found = values.setdefault(name, [])
                found.append(decode_header_text(value).casefold())
                for octets, text in address_texts(value) if name in ADDRESS_FIELDS else ():
                    found.append(text.casefold())
                    yield _READING * octets
            if cost >= _PIECE:
                yield cost
                cost = 0
        if cost:
            yield cost
        for name, text in wanted:
            if self.body is not None or knows_header_fields(self.summary, (name,)):
                found = values.get(name, [])
                self.field_verdicts[name, text] = any(text in value for value in found)
                yield _LOOK + sum(map(len, found))

    def header(self) -> Iterator[str]:
        """The text of all fields, a piece at a time. NUL, which no search text holds, stands between them."""
        decoded = ((name, decode_header_text(field_value(raw) if name else raw)) for name, raw in self._stored_fields())
        text = "\0".join(f"{name.decode('latin-1')}: {value}" for name, value in decoded)
        return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))

    def _stored_fields(self) -> Iterator[tuple[bytes, bytes]]:
        """(lower-case name, raw field); a line that is no field has the name b""."""
        assert self.message is not None and self.summary is not None
        if self.body is not None:
            stored = fields(self.body[: min(self.summary.body.body_offset, MAX_HEADER)])
        else:
            stored = ((field.name.encode("latin-1"), field.raw) for field in self.summary.headers)
        return chain(fields(self.message.prefix), stored)


def _is_in(wanted: str, texts: TextsFound | None) -> bool | None:
    if texts is None:
        return None
    return True if wanted in texts.found else (False if texts.complete else None)
