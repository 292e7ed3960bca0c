"""What a search knows of one message: its place in the view, then columns, then the summary, then the body.

Text is compared without regard to case, after transfer encodings, charsets and encoded words are undone
(RFC 3501 §6.4.4).
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field

from paquebot.imap.view import View
from paquebot.mailstore.types import Flag, StoredMessage
from paquebot.message import (
    BodyPart,
    MessageSummary,
    cached_header_fields,
    decode_header_text,
    decode_part_text,
    embedded_message,
    field_value,
    fields,
    header_fields,
    is_multipart,
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
    _body_text: str | None = field(default=None, repr=False)

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
        found = cached_header_fields(self.summary, (name,))
        if found is None:
            if self.body is None:
                return None
            found = header_fields(self._header(self.body), (name,))
        return _has(header_fields(self.message.prefix, (name,)), wanted) or _has(found, wanted)

    def body_contains(self, wanted: str) -> bool | None:
        """Is the text in a part of the message?"""
        if self.body is None or self.summary is None:
            return None
        if self._body_text is None:
            self._body_text = "\n".join(_texts(self.summary.body, self.body)).casefold()
        return wanted in self._body_text

    def text_contains(self, wanted: str) -> bool | None:
        """Is the text in the header or in a part of the message?"""
        if self.body is None or self.message is None:
            return None
        header = self.message.prefix + self._header(self.body)
        return _has(header, wanted, whole=True) or self.body_contains(wanted)

    def _header(self, raw: bytes) -> bytes:
        assert self.summary is not None
        return raw[: self.summary.body.body_offset]


def _has(header: bytes, wanted: str, *, whole: bool = False) -> bool:
    """Does a field's value have the text; with `whole`, its name too?"""
    for name, raw in fields(header):
        value = decode_header_text(field_value(raw) if name else raw)
        if wanted in value.casefold() or (whole and wanted in f"{name.decode('latin-1')}: {value}".casefold()):
            return True
    return False


def _texts(part: BodyPart, raw: bytes) -> Iterator[str]:
    """The text of every text part, and the header of every embedded message."""
    embedded = embedded_message(part)
    if is_multipart(part):
        for child in part.parts:
            yield from _texts(child, raw)
    elif embedded is not None:
        yield decode_header_text(raw[embedded.header_offset : embedded.body_offset])
        yield from _texts(embedded, raw)
    elif part.type == b"TEXT":
        body = raw[part.body_offset : part.body_offset + part.body_length]
        yield decode_part_text(body, part.encoding, _charset(part))


def _charset(part: BodyPart) -> str:
    return next((p.value.decode("latin-1") for p in part.parameters if p.name.lower() == b"charset"), "")
