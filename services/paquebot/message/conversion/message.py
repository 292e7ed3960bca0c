"""A message converted for a next host that takes less than it has: bytes over 127, or lines that are too long.

RFC 6152 §3 permits it ("gateway transformation"): leaves get a transfer encoding that fits, the parts of composite
parts are converted in turn, header fields become ASCII, and long lines of the header are folded. The decoded content
stays the same. What is signed from end to end (RFC 1847) is never changed: RFC 8551 §3.1.3 asks to return it.

`conversion` makes a list of edits; `pieces` applies them, in short pieces one after another. Both are linear in the
message, and neither keeps a second copy of it. Line ends are all CRLF. RFC 2045 §6.4, RFC 2046, RFC 6532 §3.7.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from paquebot.message.conversion.entity_header import EntityHeader, added_fields, set_type, text_type
from paquebot.message.conversion.fields import Unconvertible, ascii_field, folded
from paquebot.message.conversion.transfer_encoding import (
    MAX_LINE,
    Encoding,
    blocks,
    encoded_pieces,
    has_long_line,
    is_ascii,
    shorter,
)
from paquebot.message.header import field_spans, unfold
from paquebot.message.limits import MAX_DEPTH, MAX_HEADERS_TOTAL
from paquebot.message.mime.boundary_lines import Ahead, BoundaryLines
from paquebot.message.mime.parameters import token

MAX_CONVERTED: Final = 20_000
"""Maximum of parts, and of edits."""
_MAX_TEXT: Final = 2 * 1024 * 1024  # bytes of header fields, before and after
_TOO_MANY: Final = "the message has too many parts and fields to be converted"
_TEXT_PLAIN: Final = (b"TEXT", b"PLAIN")
_RFC822: Final = (b"MESSAGE", b"RFC822")
_SIGNED: Final = (b"MULTIPART", b"SIGNED")
_PARTIAL: Final = (b"MESSAGE", b"PARTIAL")
_AGAIN: Final = {b"BASE64": Encoding.BASE64_AGAIN, b"QUOTED-PRINTABLE": Encoding.QUOTED_PRINTABLE_AGAIN}
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/=]+")
_LABELS: Final = {
    Encoding.BASE64: b"base64",
    Encoding.QUOTED_PRINTABLE: b"quoted-printable",
}


@dataclass(frozen=True, slots=True)
class ConversionRules:
    """The limits of a host. `seven_bit`: only ASCII; `line`: maximum bytes of a line; `gentle`: nothing that breaks a
    signature, which leaves folding; `strict`: each address keeps its meaning."""

    seven_bit: bool = False
    line: int = MAX_LINE
    gentle: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Edit:
    """content[start:end] becomes `text`, or is encoded; `boundaries`: of the multiparts around it."""

    start: int
    end: int
    text: bytes = b""
    encoding: Encoding | None = None
    boundaries: tuple[bytes, ...] = ()


def conversion(content: bytes, rules: ConversionRules) -> list[Edit]:
    """In order, not overlapping. Raises Unconvertible."""
    walk = _Walk(content, rules)
    walk.entity(0, 0, _TEXT_PLAIN, top=True)
    return walk.edits


def pieces(content: bytes, edits: list[Edit]) -> Iterator[bytes]:
    """The message with the edits, ended by CRLF; no piece ends inside a line end."""
    last = b""
    for piece in _pieces(content, edits):
        yield (last := piece)
    if not last.endswith(b"\r\n"):
        yield b"\r\n"


def _pieces(content: bytes, edits: list[Edit]) -> Iterator[bytes]:
    at = 0
    for edit in (*edits, Edit(len(content), len(content))):
        for begin, cut in blocks(content, at, edit.start):
            yield content[begin:cut]
        if edit.encoding is not None:
            yield from encoded_pieces(content, edit.start, edit.end, edit.encoding, edit.boundaries)
        elif edit.text:
            yield edit.text
        at = edit.end


class _Walk:
    """One pass over a message; positions only grow."""

    def __init__(self, content: bytes, rules: ConversionRules) -> None:
        self.edits: list[Edit] = []
        self._content = content
        self._rules = rules
        self._boundaries = BoundaryLines(content)
        self._open: list[bytes] = []
        self._blank = Ahead(content, b"\n\r\n")
        self._text = 0
        self._parts = 0
        self._signed = False

    def entity(self, start: int, level: int, default: tuple[bytes, bytes], *, top: bool = False) -> None:
        """The entity at `start`; afterwards `delimiter` is where it ended. `top`: a message's own entity."""
        self._parts += 1
        if self._parts > MAX_CONVERTED:
            raise Unconvertible(_TOO_MANY)
        if level > MAX_DEPTH:
            self._too_deep(start)
            return
        header = self._header(start, default, top=top)
        if header.boundary:
            self._multipart(header, level)
        elif header.kind == _RFC822 and not self._is_encoded(header):
            self._fields(header, self._composite_label(header))
            self.entity(header.body, level + 1, _TEXT_PLAIN, top=True)
        else:
            self._boundaries.seek(header.body)
            self._leaf(header, max(header.body, self._boundaries.content_end()))

    def _is_encoded(self, header: EntityHeader) -> bool:
        """A message with a transfer encoding, which RFC 2045 §6.4 forbids; many messages that declare one have none."""
        line = self._content[header.body : header.body + MAX_LINE].partition(b"\r\n")[0]
        return header.encoding == b"QUOTED-PRINTABLE" or (
            header.encoding == b"BASE64" and _BASE64.fullmatch(line) is not None
        )

    def _too_deep(self, start: int) -> None:
        self._boundaries.seek(start)
        if self._misfits(start, max(start, self._boundaries.content_end())):
            raise Unconvertible("the parts of the message are nested too deeply to be converted")

    # --- the body ---

    def _leaf(self, header: EntityHeader, end: int) -> None:
        if not self._misfits(header.body, end):
            self._fields(header)
            return
        if header.kind == _PARTIAL:
            raise Unconvertible("a part of a message cannot be converted alone")
        encoding = _AGAIN.get(header.encoding)
        if encoding is not None:
            self._fields(header)
        else:
            encoding = self._encoding(header.kind[0], header.body, end)
            self._fields(header, _LABELS[encoding], end)
        self._encode(header.body, end, encoding)

    def _encoding(self, kind: bytes, start: int, end: int) -> Encoding:
        """Some programs that read reports do not decode them, so reports stay readable where they can."""
        if kind == b"MESSAGE":
            return Encoding.QUOTED_PRINTABLE
        textual = kind in (b"TEXT", b"MULTIPART")
        return shorter(self._content, start, end) if textual else Encoding.BASE64

    def _multipart(self, header: EntityHeader, level: int) -> None:
        """RFC 2046 §5.1.1. Text around the parts means nothing; it is converted only to keep to the rules for lines."""
        if self._rules.seven_bit and not header.boundary.isascii():
            raise Unconvertible("a boundary of the message is not in ASCII")
        boundaries, outer = self._boundaries, self._signed
        shadowed = boundaries.open(header.boundary, level)
        boundaries.seek(header.body)
        mark = boundaries.delimiter
        if mark is None or mark.level != level or mark.closes:
            boundaries.close(header.boundary, shadowed)
            boundaries.seek(header.body)
            self._leaf(replace(header, retyped=True), max(header.body, boundaries.content_end()))
            return
        self._fields(header, self._composite_label(header))
        self._signed = outer or header.kind == _SIGNED
        self._open.append(header.boundary)
        self._around(header.body, boundaries.content_end())
        default = _RFC822 if header.kind[1] == b"DIGEST" else _TEXT_PLAIN
        while (mark := boundaries.delimiter) is not None and mark.level == level and not mark.closes:
            self.entity(mark.next_line, level + 1, default)
        boundaries.close(header.boundary, shadowed)
        self._open.pop()
        self._signed = outer
        if mark is not None and mark.level == level:
            boundaries.seek(mark.next_line)
            self._around(mark.next_line, boundaries.content_end())

    def _around(self, start: int, end: int) -> None:
        if start < end and self._misfits(start, end):
            self._encode(start, end, Encoding.QUOTED_PRINTABLE)

    def _misfits(self, start: int, end: int) -> bool:
        rules = self._rules
        return (rules.seven_bit and not is_ascii(self._content, start, end)) or has_long_line(
            self._content, start, end, rules.line
        )

    def _composite_label(self, header: EntityHeader) -> bytes:
        """RFC 2045 §6.4: of a multipart or a message it is 7bit, 8bit or binary, as its parts are."""
        if self._rules.gentle:
            return b""
        if header.encoding == b"BINARY" or (header.encoding == b"8BIT" and self._rules.seven_bit):
            return b"7bit" if self._rules.seven_bit else b"8bit"
        return b""

    # --- the header ---

    def _header(self, start: int, default: tuple[bytes, bytes], *, top: bool) -> EntityHeader:
        content = self._content
        body = start + 2 if content.startswith(b"\r\n", start) else min(self._blank.find(start) + 3, len(content))
        delimiter = self._boundaries.line_in(start, body)
        blank = (
            delimiter is None
            and content[body - 2 : body] == b"\r\n"
            and (body == start + 2 or content[body - 3] == 0x0A)
        )
        body = body if delimiter is None else delimiter
        header = EntityHeader(start, body - 2 if blank else body, body, default, top=top)
        for name, begin, value, end in field_spans(content, start, min(header.end, start + MAX_HEADERS_TOTAL)):
            if name == b"content-transfer-encoding":
                header.encodings.append((begin, end))
                if len(header.encodings) == 1:
                    header.encoding = token(unfold(content[value:end])).upper()
            elif name == b"content-type" and not header.has_type:
                header.has_type = True
                set_type(header, unfold(content[value:end]))
            elif name == b"mime-version":
                header.has_version = True
        return header

    def _fields(self, header: EntityHeader, label: bytes = b"", body_end: int = 0) -> None:
        """Edit fields that do not fit, and the transfer encoding where it becomes another one."""
        labels = header.encodings if label else []
        written = False
        if labels or (label and header.retyped) or self._misfits(header.start, header.end):
            if header.end - header.start > MAX_HEADERS_TOTAL:
                raise Unconvertible(_TOO_MANY)
            for name, begin, _, end in field_spans(self._content, header.start, header.end):
                if labels and name == b"content-transfer-encoding":
                    self._forbid()
                    self._replace(begin, end, b"" if written else b"Content-Transfer-Encoding: %b\r\n" % label)
                    written = True
                elif label and header.retyped and name == b"content-type":
                    self._replace(begin, end, text_type(self._content, header.body, body_end))
                elif self._misfits(begin, end):
                    if not name and header.end == header.body:  # no empty line follows: it may well be the text
                        raise Unconvertible("the message has text in the place of its header")
                    self._field(name, begin, end)
        if label and not written:
            self._forbid()
            self._replace(header.end, header.end, added_fields(self._content, header, label, body_end))

    def _field(self, name: bytes, begin: int, end: int) -> None:
        rules, text = self._rules, self._content[begin:end]
        self._spend(end - begin)
        if self._signed:
            self._forbid()
        if rules.seven_bit and not text.isascii():
            self._forbid()
            text = ascii_field(name, text, strict=rules.strict)
        self._replace(begin, end, folded(text, rules.line, gently=rules.gentle))

    # --- edits ---

    def _replace(self, start: int, end: int, text: bytes) -> None:
        self._spend(len(text))
        self._add(Edit(start, end, text))

    def _spend(self, size: int) -> None:
        self._text += size
        if self._text > _MAX_TEXT:
            raise Unconvertible(_TOO_MANY)

    def _encode(self, start: int, end: int, encoding: Encoding) -> None:
        self._forbid()
        self._add(Edit(start, end, encoding=encoding, boundaries=tuple(self._open)))

    def _forbid(self) -> None:
        if self._signed or self._rules.gentle:
            raise Unconvertible("a signed message cannot be converted without breaking its signature")

    def _add(self, edit: Edit) -> None:
        if len(self.edits) >= MAX_CONVERTED or self._boundaries.exhausted:
            raise Unconvertible(_TOO_MANY)
        self.edits.append(edit)
