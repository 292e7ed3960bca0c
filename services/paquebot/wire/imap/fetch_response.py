"""FETCH responses: items written one after another into a buffer, sections under the names of the command.

For thousands of messages in a row: plain loops, no copy except the one into the buffer. ENVELOPE and
BODYSTRUCTURE come from the summary made at acceptance; their strings are the message's own octets.

RFC 3501 §7.4.2; RFC 3516 §4.2.1 and §4.3 (BINARY), RFC 7162 §3.1.4.2 (MODSEQ), RFC 8474 §5 (object ids),
RFC 8514 (SAVEDATE), RFC 8970 (PREVIEW).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from paquebot.v1 import summary_pb2
from paquebot.wire.imap.ast import FetchBinary, FetchBinarySize, FetchSection, Partial, Section, SectionForm
from paquebot.wire.imap.body_structure import envelope_steps, structure_steps, write_body_structure, write_envelope
from paquebot.wire.imap.grammar.dates import MONTHS
from paquebot.wire.imap.responses import without_nul as _without_nul
from paquebot.wire.imap.responses import write_astring, write_flags, write_literal8, write_string


def internal_date(moment: datetime.datetime) -> bytes:
    """date-time in quotes, in the moment's own zone, which it must have"""
    zone = b"+0000" if moment.tzinfo is datetime.UTC else _zone(moment)
    month = MONTHS[moment.month - 1].encode("ascii")
    date = (moment.day, month, moment.year, moment.hour, moment.minute, moment.second, zone)
    return b'"%2d-%b-%04d %02d:%02d:%02d %b"' % date


def _zone(moment: datetime.datetime) -> bytes:
    """zone = ("+" / "-") 4DIGIT"""
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError("an internal date must have a zone")
    minutes = offset.days * 1440 + offset.seconds // 60
    hours, rest = divmod(abs(minutes), 60)
    return b"%b%02d%02d" % (b"-" if minutes < 0 else b"+", hours, rest)


def section_text(section: Section) -> bytes:
    """The section between its brackets, "1.2.HEADER.FIELDS (Date From)", as the response repeats it."""
    out = bytearray(".".join(map(str, section.path)).encode("ascii"))
    if section.specifier is not None:
        if section.path:
            out += b"."
        out += section.specifier.value
    if section.fields:
        separator = b" ("
        for field in section.fields:
            out += separator
            write_astring(out, field)
            separator = b" "
        out += b")"
    return bytes(out)


def item_name(attribute: FetchSection | FetchBinary | FetchBinarySize) -> bytes:
    """The response's name of a section: never PEEK, and of a partial only the offset (RFC 3501 §7.4.2)."""
    if isinstance(attribute, FetchSection):
        if attribute.form is not SectionForm.BODY:
            name: bytes = attribute.form.value
            return name
        return b"BODY[%b]%b" % (section_text(attribute.section), _origin(attribute.partial))
    path = ".".join(map(str, attribute.path)).encode("ascii")
    if isinstance(attribute, FetchBinarySize):
        return b"BINARY.SIZE[%b]" % path
    return b"BINARY[%b]%b" % (path, _origin(attribute.partial))


def _origin(partial: Partial | None) -> bytes:
    return b"" if partial is None else b"<%d>" % partial.offset


class FetchResponse:
    """One `* n FETCH (...)` line, appended to `out` item by item; `close` ends it.

    For a large section call `section_head`, send what is in `out`, then the octets themselves (through
    `responses.without_nul`), and continue writing.
    """

    __slots__ = ("_out", "_separator")

    def __init__(self, out: bytearray, sequence_number: int) -> None:
        self._out = out
        self._separator = b"* %d FETCH (" % sequence_number

    def _item(self, name: bytes) -> bytearray:
        self._out += self._separator
        self._out += name
        self._separator = b" "
        return self._out

    def close(self) -> None:
        """End the line, if an item was written."""
        if self._separator == b" ":
            self._out += b")\r\n"

    def uid(self, uid: int) -> None:
        self._item(b"UID %d" % uid)

    def flags(self, flags: Iterable[str]) -> None:
        write_flags(self._item(b"FLAGS "), flags)

    def mod_seq(self, mod_seq: int) -> None:
        self._item(b"MODSEQ (%d)" % mod_seq)

    def internal_date(self, moment: datetime.datetime) -> None:
        self._item(b"INTERNALDATE " + internal_date(moment))

    def save_date(self, moment: datetime.datetime | None) -> None:
        self._item(b"SAVEDATE " + (b"NIL" if moment is None else internal_date(moment)))

    def size(self, octets: int) -> None:
        self._item(b"RFC822.SIZE %d" % octets)

    def email_id(self, object_id: str) -> None:
        self._item(b"EMAILID (" + object_id.encode("ascii") + b")")

    def thread_id(self, object_id: str | None) -> None:
        """RFC 8474 §5.2: NIL if the server has no threads."""
        self._item(b"THREADID NIL" if object_id is None else b"THREADID (%b)" % object_id.encode("ascii"))

    def preview(self, text: str | None) -> None:
        """RFC 8970 §3.1: UTF-8; None if it is not known yet."""
        out = self._item(b"PREVIEW ")
        if text is None:
            out += b"NIL"
        else:
            write_string(out, text.encode("utf-8", "replace"))

    def envelope(self, envelope: summary_pb2.ImapEnvelope) -> None:
        write_envelope(self._item(b"ENVELOPE "), envelope)

    def body_structure(self, root: summary_pb2.BodyPart, *, rev2: bool = False) -> None:
        write_body_structure(self._item(b"BODYSTRUCTURE "), root, extended=True, rev2=rev2)

    def body(self, root: summary_pb2.BodyPart, *, rev2: bool = False) -> None:
        """BODY: the structure without extension data."""
        write_body_structure(self._item(b"BODY "), root, extended=False, rev2=rev2)

    def long_envelope(self, envelope: summary_pb2.ImapEnvelope) -> Iterator[None]:
        """`envelope` in steps: after each the caller may send `out`."""
        return envelope_steps(self._item(b"ENVELOPE "), envelope)

    def long_body_structure(self, root: summary_pb2.BodyPart) -> Iterator[None]:
        """`body_structure` in such steps."""
        return structure_steps(self._item(b"BODYSTRUCTURE "), root, extended=True)

    def long_body(self, root: summary_pb2.BodyPart) -> Iterator[None]:
        """`body` in such steps."""
        return structure_steps(self._item(b"BODY "), root, extended=False)

    def section(self, attribute: FetchSection, octets: bytes | None) -> None:
        """The section's octets, already cut to its partial; None if the message has no such part."""
        self.named_section(item_name(attribute), octets)

    def named_section(self, name: bytes, octets: bytes | None) -> None:
        """`section` for thousands of messages: `name` is the attribute's `item_name`."""
        if octets is None:
            self._item(b"%b NIL" % name)
        else:
            self._item(b"%b {%d}\r\n" % (name, len(octets)))
            self._out += _without_nul(octets)

    def section_head(self, attribute: FetchSection, size: int) -> None:
        """Everything of a section before its `size` octets, which the caller sends."""
        self._item(item_name(attribute) + b" {%d}\r\n" % size)

    def binary_head(self, attribute: FetchBinary, size: int) -> None:
        """Everything of a part before its `size` decoded octets, which the caller sends as they are: a literal8, which
        may have NUL."""
        self._item(item_name(attribute) + b" ~{%d}\r\n" % size)

    def binary(self, attribute: FetchBinary, octets: bytes | None) -> None:
        """Decoded octets, as a literal8 if they have NUL (RFC 3516 §4.3)."""
        out = self._item(item_name(attribute) + b" ")
        if octets is None:
            out += b"NIL"
        else:
            write_literal8(out, octets)

    def binary_size(self, attribute: FetchBinarySize, size: int) -> None:
        self._item(item_name(attribute) + b" %d" % size)
