"""What a search knows of one message: its place in the view, then columns, then the summary, then the body.

Text is compared without regard to case, after transfer encodings, charsets and encoded words are undone
(RFC 3501 §6.4.4). Each text of a message is decoded once, however many keys ask for it, and the body's not by a key
but by the search (`search_texts`), a piece at a time: a key only asks whether its text was found so far.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from paquebot.imap.search_texts import TextsFound
from paquebot.imap.view import View
from paquebot.mailstore.types import Flag, StoredMessage
from paquebot.message import (
    MAX_HEADER,
    MessageSummary,
    decode_header_text,
    field_value,
    fields,
    knows_header_fields,
    parse_date,
)


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
    texts: TextsFound | None = None
    """What of the body was looked through."""
    _header_text: str | None = field(default=None, repr=False)
    _fields: dict[str, list[str]] | None = field(default=None, repr=False)

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
        """Has a field of this lower-case name the text? An empty text asks whether there is one."""
        if self.message is None or self.summary is None:
            return None
        if self.body is None and not knows_header_fields(self.summary, (name,)):
            return None
        return any(wanted in value for value in self._values().get(name, ()))

    def body_contains(self, wanted: str) -> bool | None:
        """Is the text in a part of the message?"""
        if self.texts is None:
            return None
        return True if wanted in self.texts.found else (False if self.texts.complete else None)

    def text_contains(self, wanted: str) -> bool | None:
        """Is the text in the header or in a part of the message?"""
        if self.body is None or self.message is None:
            return None
        return wanted in self._whole_header() or self.body_contains(wanted)

    def _values(self) -> dict[str, list[str]]:
        """The folded values of the fields by lower-case name: of all, or of those that the summary has."""
        if self._fields is None:
            self._fields = {}
            for name, value in self._decoded_fields():
                self._fields.setdefault(name.decode("latin-1"), []).append(value.casefold())
        return self._fields

    def _whole_header(self) -> str:
        """All fields, folded. NUL, which no search text holds, stands between them."""
        if self._header_text is None:
            decoded = self._decoded_fields()
            self._header_text = "\0".join(f"{name.decode('latin-1')}: {value}" for name, value in decoded).casefold()
        return self._header_text

    def _decoded_fields(self) -> Iterator[tuple[bytes, str]]:
        assert self.message is not None and self.summary is not None
        if self.body is not None:
            stored = fields(self.body[: min(self.summary.body.body_offset, MAX_HEADER)])
        else:
            stored = ((field.name.encode("latin-1"), field.raw) for field in self.summary.headers)
        for name, raw in chain(fields(self.message.prefix), stored):
            yield name, decode_header_text(field_value(raw) if name else raw)
