"""ENVELOPE and BODYSTRUCTURE: the RFC's examples, and forms that the grammar requires for odd messages."""

from __future__ import annotations

from paquebot.v1.summary_pb2 import Address, BodyPart, ImapEnvelope, Parameter
from paquebot.wire.imap import FetchResponse
from paquebot.wire.imap.body_structure import write_body_structure, write_envelope


def structure(part: BodyPart, *, extended: bool = True, rev2: bool = False) -> bytes:
    out = bytearray()
    write_body_structure(out, part, extended=extended, rev2=rev2)
    return bytes(out)


def envelope_text(envelope: ImapEnvelope) -> bytes:
    out = bytearray()
    write_envelope(out, envelope)
    return bytes(out)


GRAY = Address(name=b"Terry Gray", mailbox=b"gray", host=b"cac.washington.edu")
GRAY_TEXT = b'(("Terry Gray" NIL "gray" "cac.washington.edu"))'
ENVELOPE = ImapEnvelope(
    date=b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
    subject=b"IMAP4rev1 WG mtg summary and minutes",
    from_=[GRAY],
    sender=[GRAY],
    reply_to=[GRAY],
    to=[Address(mailbox=b"imap", host=b"cac.washington.edu")],
    cc=[
        Address(mailbox=b"minutes", host=b"CNRI.Reston.VA.US"),
        Address(name=b"John Klensin", mailbox=b"KLENSIN", host=b"MIT.EDU"),
    ],
    message_id=b"<B27397-0100000@cac.washington.edu>",
)
# RFC 3501 §7.4.2 and §8
ENVELOPE_TEXT = (
    b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" '
    + GRAY_TEXT
    + b" "
    + GRAY_TEXT
    + b" "
    + GRAY_TEXT
    + b' ((NIL NIL "imap" "cac.washington.edu")) ((NIL NIL "minutes" "CNRI.Reston.VA.US")'
    b'("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL "<B27397-0100000@cac.washington.edu>")'
)
ASCII = [Parameter(name=b"CHARSET", value=b"US-ASCII")]


def text(lines: int, size: int) -> BodyPart:
    return BodyPart(type=b"TEXT", subtype=b"PLAIN", parameters=ASCII, encoding=b"7BIT", lines=lines, body_length=size)


def test_envelope_of_the_rfc() -> None:
    assert envelope_text(ENVELOPE) == ENVELOPE_TEXT


def test_empty_envelope() -> None:
    assert envelope_text(ImapEnvelope()) == b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"


def test_an_empty_field_is_not_an_absent_one() -> None:
    assert envelope_text(ImapEnvelope(subject=b"")).startswith(b'(NIL "" NIL')


def test_groups_and_awkward_names() -> None:
    group = [Address(mailbox=b"A Group"), Address(name=b'"x"', mailbox=b"b\xff", host=b"h"), Address()]
    assert b'((NIL NIL "A Group" NIL)("\\"x\\"" NIL {2}\r\nb\xff "h")(NIL NIL NIL NIL))' in envelope_text(
        ImapEnvelope(to=group)
    )


def test_simple_text_of_the_rfc() -> None:
    """RFC 3501 §7.4.2: a text of 48 lines and 2279 octets; and §8's BODY."""
    assert structure(text(48, 2279), extended=False) == (
        b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 2279 48)'
    )


def test_multipart_of_the_rfc() -> None:
    """RFC 3501 §7.4.2: a text and a text attachment"""
    attachment = BodyPart(
        type=b"TEXT",
        subtype=b"PLAIN",
        parameters=[*ASCII, Parameter(name=b"NAME", value=b"cc.diff")],
        id=b"<960723163407.20117h@cac.washington.edu>",
        description=b"Compiler diff",
        encoding=b"BASE64",
        body_length=4554,
        lines=73,
    )
    root = BodyPart(type=b"MULTIPART", subtype=b"MIXED", parts=[text(23, 1152), attachment])
    assert structure(root, extended=False) == (
        b'(("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 1152 23)("TEXT" "PLAIN" ("CHARSET" "US-ASCII" '
        b'"NAME" "cc.diff") "<960723163407.20117h@cac.washington.edu>" "Compiler diff" "BASE64" 4554 73) "MIXED")'
    )


def test_extension_data_of_both_kinds() -> None:
    part = BodyPart(
        type=b"IMAGE",
        subtype=b"PNG",
        encoding=b"BASE64",
        body_length=9,
        md5=b"Q2hlY2s=",
        disposition=b"attachment",
        disposition_parameters=[Parameter(name=b"FILENAME", value=b"a.png")],
        language=[b"en", b"fr"],
        location=b"http://x/",
    )
    single = (
        b'("IMAGE" "PNG" NIL NIL NIL "BASE64" 9 "Q2hlY2s=" ("attachment" ("FILENAME" "a.png")) ("en" "fr") "http://x/")'
    )
    assert structure(part) == single
    root = BodyPart(
        type=b"MULTIPART",
        subtype=b"RELATED",
        parameters=[Parameter(name=b"BOUNDARY", value=b"b")],
        disposition=b"inline",
        parts=[part],
    )
    assert structure(root) == b"(" + single + b' "RELATED" ("BOUNDARY" "b") ("inline" NIL) NIL NIL)'
    assert structure(root, extended=False) == b'(("IMAGE" "PNG" NIL NIL NIL "BASE64" 9) "RELATED")'


def test_embedded_message() -> None:
    inner = text(1, 10)
    part = BodyPart(
        type=b"MESSAGE", subtype=b"RFC822", encoding=b"7BIT", body_length=342, lines=9, envelope=ENVELOPE, parts=[inner]
    )
    body = structure(inner, extended=False)
    basic = b'"MESSAGE" "RFC822" NIL NIL NIL "7BIT" 342 ' + ENVELOPE_TEXT + b" "
    assert structure(part, extended=False) == b"(" + basic + body + b" 9)"
    assert structure(part) == b"(" + basic + structure(inner) + b" 9 NIL NIL NIL NIL)"


def test_message_global_is_basic_in_rev1_only() -> None:
    part = BodyPart(type=b"MESSAGE", subtype=b"GLOBAL", body_length=5, lines=1, envelope=ENVELOPE, parts=[text(0, 0)])
    assert structure(part, extended=False) == b'("MESSAGE" "GLOBAL" NIL NIL NIL "7BIT" 5)'
    assert ENVELOPE_TEXT in structure(part, rev2=True)


def test_missing_parts_are_written_as_the_grammar_requires() -> None:
    """RFC 3501 §9: a multipart has at least one body, an embedded message an envelope and a body."""
    empty = b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 0 0)'
    assert structure(BodyPart(type=b"MULTIPART"), extended=False) == b"(" + empty + b' "MIXED")'
    nils = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    cut_off = BodyPart(type=b"MESSAGE", subtype=b"RFC822", body_length=7)
    assert structure(cut_off, extended=False) == (
        b'("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 7 ' + nils + b" " + empty + b" 0)"
    )
    assert structure(BodyPart(), extended=False) == b'("TEXT" "PLAIN" NIL NIL NIL "7BIT" 0 0)'


def test_in_a_fetch_line() -> None:
    out = bytearray()
    line = FetchResponse(out, 12)
    line.envelope(ImapEnvelope())
    line.body(text(1, 2))
    line.body_structure(text(1, 2))
    line.close()
    part = b'"TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 2 1'
    assert bytes(out) == (
        b"* 12 FETCH (ENVELOPE (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) BODY ("
        + part
        + b") BODYSTRUCTURE ("
        + part
        + b" NIL NIL NIL NIL))\r\n"
    )
