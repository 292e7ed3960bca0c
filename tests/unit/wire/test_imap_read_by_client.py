"""FETCH responses read back by a client's parser that shares no code with ours."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from imapclient.response_parser import parse_fetch_response

from paquebot.v1.summary_pb2 import Address, BodyPart, ImapEnvelope, Parameter
from paquebot.wire.imap import FetchResponse
from paquebot.wire.imap.ast import FetchSection, Section

OCTETS = st.one_of(st.binary(max_size=12), st.sampled_from([b'a "b"', b"x\\", b"(a)", b"{3}", b"NIL", b"\r\n"])).map(
    lambda raw: raw.replace(b"\0", b"")
)
OPTIONAL = st.one_of(st.none(), OCTETS)
ADDRESSES = st.lists(st.builds(Address, name=OPTIONAL, adl=st.none(), mailbox=OPTIONAL, host=OPTIONAL), max_size=3)
ENVELOPES = st.builds(
    ImapEnvelope,
    subject=OPTIONAL,
    from_=ADDRESSES,
    sender=ADDRESSES,
    reply_to=ADDRESSES,
    to=ADDRESSES,
    cc=ADDRESSES,
    bcc=ADDRESSES,
    in_reply_to=OPTIONAL,
    message_id=OPTIONAL,
)
PARAMETERS = st.lists(st.builds(Parameter, name=st.sampled_from([b"charset", b"name"]), value=OCTETS), max_size=2)
COMMON = {
    "parameters": PARAMETERS,
    "disposition": st.one_of(st.none(), st.just(b"inline")),
    "disposition_parameters": PARAMETERS,
    "language": st.lists(st.just(b"en"), max_size=2),
    "location": OPTIONAL,
}
NUMBERS = st.integers(0, 2**40)
LEAVES = st.builds(
    BodyPart,
    type=st.sampled_from([b"TEXT", b"IMAGE"]),
    subtype=st.sampled_from([b"PLAIN", b"X-Y"]),
    encoding=st.sampled_from([b"7BIT", b"BASE64"]),
    id=OPTIONAL,
    description=OPTIONAL,
    md5=OPTIONAL,
    body_length=NUMBERS,
    lines=NUMBERS,
    **COMMON,
)


def _containers(children: st.SearchStrategy[BodyPart]) -> st.SearchStrategy[BodyPart]:
    multipart = st.builds(
        BodyPart,
        type=st.just(b"MULTIPART"),
        subtype=st.just(b"MIXED"),
        parts=st.lists(children, max_size=3),
        **COMMON,
    )
    embedded = st.builds(
        BodyPart,
        type=st.just(b"MESSAGE"),
        subtype=st.just(b"RFC822"),
        encoding=st.just(b"7BIT"),
        body_length=NUMBERS,
        lines=NUMBERS,
        envelope=ENVELOPES,
        parts=st.lists(children, max_size=1),
        **COMMON,
    )
    return st.one_of(multipart, embedded)


PARTS = st.recursive(LEAVES, _containers, max_leaves=8)


def lines_of(raw: bytes) -> list[Any]:
    """A response as imaplib returns it: a tuple for a line that ends in a literal, with its octets."""
    found: list[Any] = []
    position = len(b"* ")
    while True:
        end = raw.index(b"\r\n", position)
        line = raw[position:end]
        if not line.endswith(b"}"):
            return [*found, line]
        size = int(line[line.rindex(b"{") + 1 : -1])
        found.append((line, raw[end + 2 : end + 2 + size]))
        position = end + 2 + size


def read(out: bytearray) -> Any:
    text = bytes(out).replace(b" FETCH (", b" (", 1)
    return parse_fetch_response(lines_of(text), normalise_times=False, uid_is_key=False)[3]


@given(ENVELOPES)
def test_envelope(envelope: ImapEnvelope) -> None:
    out = bytearray()
    line = FetchResponse(out, 3)
    line.envelope(envelope)
    line.close()
    found = read(out)[b"ENVELOPE"]
    assert found.subject == optional(envelope, "subject")
    assert found.in_reply_to == optional(envelope, "in_reply_to")
    assert found.message_id == optional(envelope, "message_id")
    for addresses, written in ((found.from_, envelope.from_), (found.to, envelope.to), (found.bcc, envelope.bcc)):
        expected = [(optional(a, "name"), None, optional(a, "mailbox"), optional(a, "host")) for a in written]
        assert [(a.name, a.route, a.mailbox, a.host) for a in addresses or ()] == expected


def optional(message: Any, name: str) -> bytes | None:
    return getattr(message, name) if message.HasField(name) else None


@given(PARTS)
def test_structure(root: BodyPart) -> None:
    out = bytearray()
    line = FetchResponse(out, 3)
    line.uid(9)
    line.body_structure(root)
    line.body(root)
    line.section(FetchSection(Section()), b"a\r\n)")
    line.close()
    found = read(out)
    assert found[b"UID"] == 9
    assert found[b"BODY[]"] == b"a\r\n)"
    check_part(found[b"BODYSTRUCTURE"], root, extended=True)
    check_part(found[b"BODY"], root, extended=False)


def check_part(found: Any, part: BodyPart, *, extended: bool) -> None:
    """RFC 3501 §7.4.2: every field in its place."""
    if part.type == b"MULTIPART":
        children, rest = found[0], list(found[1:])
        assert rest.pop(0) == part.subtype
        assert len(children) == max(1, len(part.parts))
        for child, expected in zip(children, part.parts, strict=False):
            check_part(child, expected, extended=extended)
        parameters = [rest.pop(0)] if extended else []
        assert parameters == ([flat(part.parameters)] if extended else [])
    else:
        rest = check_single(list(found), part, extended=extended)
    if extended:
        assert rest.pop(0) == disposition(part)
        assert rest.pop(0) == (tuple(part.language) or None)
        assert rest.pop(0) == optional(part, "location")
    assert rest == []


def check_single(rest: list[Any], part: BodyPart, *, extended: bool) -> list[Any]:
    head = [part.type, part.subtype, flat(part.parameters), optional(part, "id"), optional(part, "description")]
    assert rest[:7] == [*head, part.encoding, part.body_length]
    rest = rest[7:]
    if part.type == b"MESSAGE":
        assert len(rest.pop(0)) == 10
        body = rest.pop(0)
        if part.parts and part.parts[0].type != b"MULTIPART":
            check_single(list(body), part.parts[0], extended=extended)
    if part.type in (b"TEXT", b"MESSAGE"):
        assert rest.pop(0) == part.lines
    if extended:
        assert rest.pop(0) == optional(part, "md5")
    return rest


def flat(parameters: Any) -> tuple[bytes, ...] | None:
    return tuple(value for parameter in parameters for value in (parameter.name, parameter.value)) or None


def disposition(part: BodyPart) -> tuple[Any, ...] | None:
    return (part.disposition, flat(part.disposition_parameters)) if part.HasField("disposition") else None
