"""ENVELOPE, BODY and BODYSTRUCTURE from a message's summary.

The result follows RFC 3501 §9 for any summary: a multipart without parts and an embedded message without a body get an
empty text part, because the grammar requires one.

RFC 3501 §7.4.2 and §9 (body, envelope); RFC 9051 §9 (message/global).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from paquebot.v1 import summary_pb2
from paquebot.wire.imap.responses import is_plain, write_nstring, write_string

_EMPTY_ENVELOPE: Final = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
_EMPTY_TEXT: Final = b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 0 0)'


_STEP: Final = 200
"""Addresses that are written in one step, about half a millisecond."""
_WORTH: Final = 8 * 1024
"""Octets after which the parts written so far are a step."""
_LARGE: Final = 16 * 1024
"""Octets of a serialised part, children included, that is written in one step."""

# HasField is called only for an empty field: that is rare, and the call is slow.


def write_envelope(out: bytearray, envelope: summary_pb2.ImapEnvelope) -> None:
    """`envelope_steps` without the steps."""
    for _ in envelope_steps(out, envelope):
        pass


def envelope_steps(out: bytearray, envelope: summary_pb2.ImapEnvelope) -> Iterator[None]:
    """envelope = "(" date SP subject SP from SP sender SP reply-to SP to SP cc SP bcc SP in-reply-to SP
    message-id ")" ; yields after each step of a long one, and the caller may empty `out` then."""
    out += b"("
    write_nstring(out, envelope.date or (b"" if envelope.HasField("date") else None))
    out += b" "
    write_nstring(out, envelope.subject or (b"" if envelope.HasField("subject") else None))
    out += b" "
    authors, start = envelope.from_, len(out)
    written = b""
    if len(authors) <= _STEP:
        _write_addresses(out, authors)
        written = bytes(out[start:])
    else:
        yield from _address_steps(out, authors)
    for addresses in (envelope.sender, envelope.reply_to):  # nearly always the authors (RFC 3501 §7.4.2)
        out += b" "
        if written and addresses == authors:
            out += written
        elif len(addresses) <= _STEP:
            _write_addresses(out, addresses)
        else:
            yield from _address_steps(out, addresses)
    for addresses in (envelope.to, envelope.cc, envelope.bcc):
        out += b" "
        if len(addresses) <= _STEP:
            _write_addresses(out, addresses)
        else:
            yield from _address_steps(out, addresses)
    out += b" "
    write_nstring(out, envelope.in_reply_to or (b"" if envelope.HasField("in_reply_to") else None))
    out += b" "
    write_nstring(out, envelope.message_id or (b"" if envelope.HasField("message_id") else None))
    out += b")"


def _write_addresses(out: bytearray, addresses: Sequence[summary_pb2.Address]) -> None:
    """ "(" 1*address ")" / nil"""
    if not addresses:
        out += b"NIL"
        return
    out += b"("
    for address in addresses:
        _write_address(out, address)
    out += b")"


def _address_steps(out: bytearray, addresses: Sequence[summary_pb2.Address]) -> Iterator[None]:
    """`_write_addresses` for very many."""
    out += b"("
    for start in range(0, len(addresses), _STEP):
        for address in addresses[start : start + _STEP]:
            _write_address(out, address)
        yield
    out += b")"


def _write_address(out: bytearray, address: summary_pb2.Address) -> None:
    """address = "(" name SP adl SP mailbox SP host ")" """
    name, mailbox, host = address.name, address.mailbox, address.host
    if name and mailbox and host and is_plain(name + mailbox + host) and not address.HasField("adl"):
        out += b'("%b" NIL "%b" "%b")' % (name, mailbox, host)
        return
    out += b"("
    write_nstring(out, name or (b"" if address.HasField("name") else None))
    out += b" "
    write_nstring(out, address.adl or (b"" if address.HasField("adl") else None))
    out += b" "
    write_nstring(out, mailbox or (b"" if address.HasField("mailbox") else None))
    out += b" "
    write_nstring(out, host or (b"" if address.HasField("host") else None))
    out += b")"


def write_body_structure(out: bytearray, part: summary_pb2.BodyPart, *, extended: bool, rev2: bool = False) -> None:
    """body = "(" (body-type-1part / body-type-mpart) ")"; `extended` adds the extension data (BODYSTRUCTURE),
    `rev2` writes message/global like message/rfc822, which IMAP4rev1's grammar does not know."""
    out += b"("
    if part.type == b"MULTIPART":
        _write_multipart(out, part, extended=extended, rev2=rev2)
    else:
        _write_single(out, part, extended=extended, rev2=rev2)
    out += b")"


def structure_steps(
    out: bytearray, part: summary_pb2.BodyPart, *, extended: bool, rev2: bool = False
) -> Iterator[None]:
    """`write_body_structure` in steps, as `envelope_steps`."""
    if part.ByteSize() <= _LARGE or not part.parts:
        write_body_structure(out, part, extended=extended, rev2=rev2)
        if len(out) >= _WORTH:
            yield
        return
    out += b"("
    if part.type == b"MULTIPART":
        for child in part.parts:
            yield from structure_steps(out, child, extended=extended, rev2=rev2)
        _end_multipart(out, part, extended=extended)
    else:
        _begin_single(out, part)
        if _is_embedding(part, rev2=rev2):
            out += b" "
            yield from envelope_steps(out, part.envelope)
            out += b" "
            for child in part.parts:
                yield from structure_steps(out, child, extended=extended, rev2=rev2)
            out += b" %d" % part.lines
        _end_single(out, part, extended=extended)
    out += b")"


def _write_multipart(out: bytearray, part: summary_pb2.BodyPart, *, extended: bool, rev2: bool) -> None:
    """body-type-mpart = 1*body SP media-subtype [SP body-ext-mpart]"""
    for child in part.parts:
        write_body_structure(out, child, extended=extended, rev2=rev2)
    _end_multipart(out, part, extended=extended)


def _end_multipart(out: bytearray, part: summary_pb2.BodyPart, *, extended: bool) -> None:
    """The part after the children."""
    if not part.parts:
        out += _EMPTY_TEXT
    out += b" "
    write_string(out, part.subtype or b"MIXED")
    if extended:
        out += b" "
        _write_parameters(out, part.parameters)
        _write_common_extension(out, part)


def _write_single(out: bytearray, part: summary_pb2.BodyPart, *, extended: bool, rev2: bool) -> None:
    """body-type-1part = (body-type-basic / body-type-msg / body-type-text) [SP body-ext-1part]"""
    _begin_single(out, part)
    if _is_embedding(part, rev2=rev2):
        _write_embedded(out, part, extended=extended, rev2=rev2)
    _end_single(out, part, extended=extended)


def _is_embedding(part: summary_pb2.BodyPart, *, rev2: bool) -> bool:
    return part.type == b"MESSAGE" and (part.subtype == b"RFC822" or (rev2 and part.subtype == b"GLOBAL"))


def _begin_single(out: bytearray, part: summary_pb2.BodyPart) -> None:
    """Up to the lines of a text."""
    media = part.type or b"TEXT"
    write_string(out, media)
    out += b" "
    write_string(out, part.subtype or b"PLAIN")
    out += b" "
    _write_fields(out, part)
    if media == b"TEXT":
        out += b" %d" % part.lines


def _end_single(out: bytearray, part: summary_pb2.BodyPart, *, extended: bool) -> None:
    """The extension data."""
    if extended:
        out += b" "
        write_nstring(out, part.md5 or (b"" if part.HasField("md5") else None))
        _write_common_extension(out, part)


def _write_embedded(out: bytearray, part: summary_pb2.BodyPart, *, extended: bool, rev2: bool) -> None:
    """body-type-msg's own: SP envelope SP body SP body-fld-lines"""
    out += b" "
    if part.HasField("envelope"):
        write_envelope(out, part.envelope)
    else:
        out += _EMPTY_ENVELOPE
    out += b" "
    if part.parts:
        write_body_structure(out, part.parts[0], extended=extended, rev2=rev2)
    else:
        out += _EMPTY_TEXT
    out += b" %d" % part.lines


def _write_fields(out: bytearray, part: summary_pb2.BodyPart) -> None:
    """body-fields = body-fld-param SP body-fld-id SP body-fld-desc SP body-fld-enc SP body-fld-octets"""
    _write_parameters(out, part.parameters)
    out += b" "
    write_nstring(out, part.id or (b"" if part.HasField("id") else None))
    out += b" "
    write_nstring(out, part.description or (b"" if part.HasField("description") else None))
    out += b" "
    write_string(out, part.encoding or b"7BIT")
    out += b" %d" % part.body_length


def _write_parameters(out: bytearray, parameters: Sequence[summary_pb2.Parameter]) -> None:
    """body-fld-param = "(" string SP string *(SP string SP string) ")" / nil"""
    if not parameters:
        out += b"NIL"
        return
    separator = b"("
    for parameter in parameters:
        out += separator
        write_string(out, parameter.name)
        out += b" "
        write_string(out, parameter.value)
        separator = b" "
    out += b")"


def _write_common_extension(out: bytearray, part: summary_pb2.BodyPart) -> None:
    """SP body-fld-dsp SP body-fld-lang SP body-fld-loc, the end of both kinds of extension data"""
    if part.HasField("disposition"):
        out += b" ("
        write_string(out, part.disposition)
        out += b" "
        _write_parameters(out, part.disposition_parameters)
        out += b") "
    else:
        out += b" NIL "
    if part.language:
        separator = b"("
        for language in part.language:
            out += separator
            write_string(out, language)
            separator = b" "
        out += b") "
    else:
        out += b"NIL "
    write_nstring(out, part.location or (b"" if part.HasField("location") else None))
