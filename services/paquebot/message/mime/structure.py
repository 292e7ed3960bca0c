"""The MIME structure of a message, found in one scan from its first byte to its last.

Invariants, whatever the bytes:
- every range lies inside its parent's range; siblings follow each other and do not overlap;
- a part is a multipart if and only if it has children and is no MESSAGE/RFC822 or MESSAGE/GLOBAL; those have
  exactly one child, the embedded message. What cannot be parsed (bounds, a missing boundary) gets a
  type without children;
- the line end before a delimiter belongs to the delimiter (RFC 2046 §5.1.1).

RFC 2045 §5.2 (defaults), RFC 2046 §5.1 (multipart), §5.1.5 (digest), §5.2.1 (message/rfc822), RFC 6532 §3.7.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from paquebot.message.header import field_spans, unfold
from paquebot.message.limits import MAX_BOUNDARY, MAX_TYPE, Bounds, ParseBudget
from paquebot.message.mime.boundary_lines import Ahead, BoundaryLines
from paquebot.message.mime.parameters import Parameters, decoded_value, disposition, media_type, token
from paquebot.message.summary.envelope import ENVELOPE_FIELDS, HeaderValues, fill_envelope
from paquebot.v1 import summary_pb2

CONTENT_FIELDS: Final = frozenset(
    (
        b"content-type",
        b"content-transfer-encoding",
        b"content-disposition",
        b"content-id",
        b"content-description",
        b"content-md5",
        b"content-language",
        b"content-location",
    )
)
if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

    _KeptParameters = RepeatedCompositeFieldContainer[summary_pb2.Parameter]

_MESSAGE_FIELDS: Final = CONTENT_FIELDS | ENVELOPE_FIELDS

_TEXT_PLAIN: Final = (b"TEXT", b"PLAIN")
_EMBEDDED_RFC822: Final = (b"MESSAGE", b"RFC822")
_EMBEDDED: Final = frozenset((_EMBEDDED_RFC822, (b"MESSAGE", b"GLOBAL")))
_OPAQUE: Final = (b"APPLICATION", b"OCTET-STREAM")
# Bytes that one parameter costs beside its text, in the serialised summary.
_PARAMETER_OVERHEAD: Final = 6
_CR: Final = 0x0D


@dataclass(frozen=True, slots=True)
class PartHeader:
    """One header.

    Raw values by name, (name, raw field) of the fields kept whole, where the body starts, whether all of it was read.
    """

    values: HeaderValues
    kept: list[tuple[bytes, bytes]]
    body_offset: int
    whole: bool


class StructureScan:
    """The scan over one message; positions only grow."""

    def __init__(self, content: bytes, bounds: Bounds) -> None:
        self.content = content
        self.bounds = bounds
        self.envelope_budget = ParseBudget(bounds.envelope, bounds.addresses)
        self.structure_budget = ParseBudget(bounds.structure)
        self.header_bytes = bounds.headers
        self.parts = 0
        self._left_out = False
        self.boundaries = BoundaryLines(content)
        self.blank_crlf = Ahead(content, b"\n\r\n")
        self.blank_lf = Ahead(content, b"\n\n")
        self.counted_to = 0
        self.lines = 0

    @property
    def is_cut(self) -> bool:
        """Whether anything was left out so far."""
        return self._left_out or self.envelope_budget.refused or self.structure_budget.refused

    def header(self, start: int, wanted: frozenset[bytes], keep: frozenset[bytes] = frozenset()) -> PartHeader:
        """Read the header at `start`: the values of the `wanted` fields, the `keep` fields whole.

        It ends after the first empty line, or at a delimiter before it.
        """
        body_offset = self._after_empty_line(start)
        # A line at body_offset itself may be the delimiter of a multipart that only this header announces.
        delimiter = self.boundaries.line_in(start, body_offset)
        body_offset = body_offset if delimiter is None else delimiter
        limit = min(body_offset, start + self.bounds.header, start + self.header_bytes)
        self.header_bytes -= limit - start
        if limit < body_offset:
            self._left_out = True
        content = self.content
        values: HeaderValues = {}
        kept: list[tuple[bytes, bytes]] = []
        for name, begin, value, end in field_spans(content, start, limit):
            if name in wanted:
                values.setdefault(name, []).append(content[value:end])
            if name in keep:
                kept.append((name, content[begin:end]))
        return PartHeader(values, kept, body_offset, limit == body_offset)

    def _after_empty_line(self, start: int) -> int:
        if self.content.startswith((b"\r\n", b"\n"), start):
            return start + (2 if self.content[start] == _CR else 1)
        crlf = self.blank_crlf.find(start)
        lone = self.blank_lf.find(start)
        return min(lone + 2 if lone < crlf else crlf + 3, len(self.content))

    def entity(
        self, part: summary_pb2.BodyPart, start: int, header: PartHeader, level: int, default: tuple[bytes, bytes]
    ) -> None:
        """Fill `part` with the entity at `start`; afterwards `boundaries.delimiter` is where it ended."""
        self.parts += 1
        kind, parameters = _media(header.values, default)
        boundary = _boundary(parameters) if kind[0] == b"MULTIPART" else b""
        if boundary or kind in _EMBEDDED:
            if level >= self.bounds.depth or self.parts >= self.bounds.parts:
                kind, boundary = _OPAQUE, b""
                self._left_out = True
        elif kind[0] == b"MULTIPART":
            kind = _TEXT_PLAIN  # RFC 2045 §5.2: as with a broken Content-Type
        part.type, part.subtype = kind
        if boundary:
            self._multipart(part, header.body_offset, boundary, level)
        elif kind in _EMBEDDED:
            self._embedded_message(part, header.body_offset, level)
        else:
            self.boundaries.seek(header.body_offset)
        self._place(part, start, header.body_offset)
        if kind[0] == b"TEXT":
            part.lines = self.content.count(b"\n", part.body_offset, part.body_offset + part.body_length)
        self._parameters(part.parameters, parameters)
        self._describe(part, header.values)

    def _multipart(self, part: summary_pb2.BodyPart, body_offset: int, boundary: bytes, level: int) -> None:
        """RFC 2046 §5.1.1: [preamble] 1*(delimiter body-part) close-delimiter [epilogue]"""
        default = _EMBEDDED_RFC822 if part.subtype == b"DIGEST" else _TEXT_PLAIN  # RFC 2046 §5.1.5
        boundaries = self.boundaries
        shadowed = boundaries.open(boundary, level)
        boundaries.seek(body_offset)
        preamble_end = boundaries.content_end()
        # A delimiter of an outer level ends this multipart too (RFC 2046 §5.1.2).
        while (mark := boundaries.delimiter) is not None and mark.level == level and not mark.closes:
            if self.parts < self.bounds.parts:
                header = self.header(mark.next_line, CONTENT_FIELDS)
                self.entity(part.parts.add(), mark.next_line, header, level + 1, default)
            else:
                self._left_out = True
                boundaries.seek(mark.next_line)
        boundaries.close(boundary, shadowed)
        if mark is not None and mark.level == level:
            boundaries.seek(mark.next_line)  # the epilogue is part of this multipart's body
        if not part.parts:
            self._preamble_as_text(part.parts.add(), body_offset, preamble_end)

    def _preamble_as_text(self, part: summary_pb2.BodyPart, start: int, end: int) -> None:
        """A multipart without parts shows its text as one (RFC 3501 §9 asks for at least one)."""
        self.parts += 1
        part.type, part.subtype = _TEXT_PLAIN
        part.encoding = b"7BIT"
        start = min(start, self.boundaries.content_end())
        part.header_offset = part.body_offset = start
        part.body_length = max(0, end - start)
        part.lines = self.content.count(b"\n", start, start + part.body_length)

    def _embedded_message(self, part: summary_pb2.BodyPart, body_offset: int, level: int) -> None:
        """RFC 2046 §5.2.1: the body is a message with its own header."""
        lines = self._lines_before(body_offset)
        header = self.header(body_offset, _MESSAGE_FIELDS)
        fill_envelope(part.envelope, header.values, self.envelope_budget)
        self.entity(part.parts.add(), body_offset, header, level + 1, _TEXT_PLAIN)
        part.lines = max(0, self._lines_before(self.boundaries.content_end()) - lines)

    def _place(self, part: summary_pb2.BodyPart, start: int, body_offset: int) -> None:
        end = self.boundaries.content_end()
        # A delimiter directly after the header takes the empty line, or the line end, as its own.
        part.header_offset = min(start, end)
        part.body_offset = min(body_offset, end)
        part.body_length = end - part.body_offset

    def _lines_before(self, pos: int) -> int:
        """Line ends before `pos`, each byte counted once while positions grow."""
        if pos < self.counted_to:
            return self.lines - self.content.count(b"\n", pos, self.counted_to)
        self.lines += self.content.count(b"\n", self.counted_to, pos)
        self.counted_to = pos
        return self.lines

    def _parameters(self, kept: "_KeptParameters", parameters: Parameters) -> None:
        for name, value in parameters:
            if self.structure_budget.take(len(name) + len(value) + _PARAMETER_OVERHEAD):
                kept.add(name=name, value=value)

    def _describe(self, part: summary_pb2.BodyPart, values: HeaderValues) -> None:
        """The other Content- fields (RFC 2045 §6 to §8, RFC 1864, RFC 2183, RFC 2557, RFC 3282)."""
        encoding = values.get(b"content-transfer-encoding")
        part.encoding = (token(unfold(encoding[0]))[:MAX_TYPE].upper() if encoding else b"") or b"7BIT"
        if len(values) == (encoding is not None) + (b"content-type" in values):
            return  # nearly always: there are no other fields
        if (value := self._text(values, b"content-id")) is not None:
            part.id = value
        if (value := self._text(values, b"content-description")) is not None:
            part.description = value
        if (value := self._text(values, b"content-md5")) is not None:
            part.md5 = value
        if (value := self._text(values, b"content-location")) is not None:
            part.location = b"".join(value.split())  # RFC 2557 §4.4: white space in it is folding
        if (value := self._text(values, b"content-language")) is not None:
            part.language.extend(found for tag in value.split(b",") if (found := token(tag)))
        if b"content-disposition" in values:
            parsed = disposition(unfold(values[b"content-disposition"][0]))
            if parsed is not None:
                part.disposition = parsed[0]
                self._parameters(part.disposition_parameters, parsed[1])

    def _text(self, values: HeaderValues, name: bytes) -> bytes | None:
        found = values.get(name)
        if found is None:
            return None
        text = unfold(found[0])
        return text if self.structure_budget.take(len(text)) else None


def _media(values: HeaderValues, default: tuple[bytes, bytes]) -> tuple[tuple[bytes, bytes], Parameters]:
    """RFC 2045 §5.2: an absent Content-Type takes the default, a broken one is text/plain."""
    found = values.get(b"content-type")
    if found is None:
        return default, []
    parsed = media_type(unfold(found[0]))
    return ((parsed[0], parsed[1]), parsed[2]) if parsed is not None else (_TEXT_PLAIN, [])


def _boundary(parameters: Parameters) -> bytes:
    """RFC 2046 §5.1.1: a boundary never ends with white space; b"" when there is none that could be found."""
    for name, value in parameters:
        if name in (b"boundary", b"boundary*") and len(value) <= MAX_BOUNDARY:
            plain = value if name == b"boundary" else decoded_value(value)
            return plain.rstrip(b" \t")
    return b""
