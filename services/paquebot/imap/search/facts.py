"""The facts of one message for a search: its place in the view, then columns, then the summary, then the body.

Text is compared without regard to case, after transfer encodings, charsets and encoded words are decoded (RFC 3501
§6.4.4). The search decodes each text of a message once, in steps, however many keys need it: a key only checks whether
its text was found so far.
"""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from paquebot.imap.mailbox_view.view import View
from paquebot.imap.search.texts import Field, TextsFound, field_values, header_text
from paquebot.mailstore import Flag, StoredMessage
from paquebot.message import (
    ADDRESS_FIELDS,
    MessageSummary,
    address_texts,
    decode_header_text,
    field_spans,
    fields,
    has_whole_envelope,
    knows_header_fields,
    parse_date,
)

_PIECE = 64 * 1024  # characters
_MAX_VALUES = 256 * 1024  # characters of field values that are compared together
_FIELD = 64  # in characters, the cost to skip a field
_COMPARISON = 1024  # in characters, the cost to compare a text with the values of a field at all
_ADDRESS_BYTE = 256  # to parse a byte of an address list takes as long as to compare this many characters


@dataclass(frozen=True, slots=True)
class Columns:
    """Dates are Unix time in seconds; `size` is RFC822.SIZE."""

    size: int
    internal_date: int
    save_date: int


@dataclass(slots=True)
class MessageFacts:
    """One message; a fact that is None was not loaded yet."""

    view: View
    number: int
    columns: Columns | None = None
    message: StoredMessage | None = None
    summary: MessageSummary | None = None
    body: bytes | None = None
    field_verdicts: dict[tuple[str, str], bool] = field(default_factory=dict)
    """By name and text, whether fields of the name have the text; those compared so far."""
    header_texts: TextsFound | None = None
    texts: TextsFound | None = None
    """Texts found in the header and in the body; None: not searched."""

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

    @property
    def knows_sent(self) -> bool:
        """Is the value of the Date field known, or its absence?"""
        if self.summary is None:
            return False
        return bool(self.summary.envelope.date) or self.body is not None or has_whole_envelope(self.summary)

    def header_contains(self, name: str, wanted: str) -> bool | None:
        """Does a field of this lower-case name have the text? An empty text: is there such a field? Addresses match as
        written in the message, and as `local@domain`."""
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

    def match_fields(self, wanted: Sequence[tuple[str, str]]) -> Iterator[int]:
        """Decide for each (name, text) whether a field has the text, if the summary or the body has the field. Each
        step yields its cost, in characters."""
        assert self.summary is not None
        open_ = [
            (name, text) for name, text in wanted if self.body is not None or knows_header_fields(self.summary, (name,))
        ]
        names = {name for name, _ in open_}
        values: dict[str, list[str]] = {}
        cost = size = 0
        for raw_name, raw in self._stored_fields():
            cost += _FIELD + len(raw)
            name = raw_name.decode("latin-1")
            for value in field_values(raw_name, raw) if name in names else ():
                found = values.setdefault(name, [])
                found.append(decode_header_text(value).casefold())
                size += len(found[-1])
                for length, text in address_texts(value) if name in ADDRESS_FIELDS else ():
                    found.append(text.casefold())
                    size += len(text)
                    yield _ADDRESS_BYTE * length
            if cost >= _PIECE:
                yield cost
                cost = 0
            if size >= _MAX_VALUES:  # compare a very long header in parts
                yield from self._compare(open_, values)
                values, size = {}, 0
        if cost:
            yield cost
        yield from self._compare(open_, values)
        self.field_verdicts |= dict.fromkeys(open_, False)

    def _compare(self, open_: list[tuple[str, str]], values: Mapping[str, list[str]]) -> Iterator[int]:
        """Remove from `open_` the texts that the values have."""
        for key in tuple(open_):
            name, text = key
            found = values.get(name, [])
            if any(text in value for value in found):
                self.field_verdicts[key] = True
                open_.remove(key)
            yield _COMPARISON + sum(map(len, found))

    def header(self) -> Iterator[str]:
        """The text of all fields, as of `header_text`."""
        return header_text(self._stored_fields())

    def _stored_fields(self) -> Iterator[Field]:
        assert self.message is not None and self.summary is not None
        yield from fields(self.message.prefix)
        if self.body is None:
            yield from ((field.name.encode("latin-1"), field.raw) for field in self.summary.headers)
            return
        for name, start, _, end in field_spans(self.body, 0, self.summary.body.body_offset):
            yield name, self.body[start:end]


def _is_in(wanted: str, texts: TextsFound | None) -> bool | None:
    if texts is None:
        return None
    return True if wanted in texts.found else (False if texts.complete else None)
