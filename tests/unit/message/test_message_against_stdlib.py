"""Well-formed messages of the standard library: both parsers must find the same parts, bytes and addresses."""

import email
import email.message
import email.policy
from email.headerregistry import Address as StdlibAddress
from email.message import EmailMessage, MIMEPart

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paquebot.message import BodyPart, decode_header_text, decode_transfer, parse_date, summarise

pytestmark = pytest.mark.slow

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=60)
LINES = st.lists(TEXT, max_size=6).map("\n".join)
SUBTYPE = st.sampled_from(["plain", "html", "csv"])
TOKEN = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@st.composite
def leaves(draw: st.DrawFn) -> MIMEPart:
    part = MIMEPart()
    if draw(st.booleans()):
        text, encoding = draw(LINES), draw(st.sampled_from(["quoted-printable", "base64"]))
        part.set_content(text, subtype=draw(SUBTYPE), cte="7bit" if text.isascii() else encoding)
    else:
        name = draw(TOKEN) + ".bin"
        part.set_content(draw(st.binary(max_size=100)), maintype="application", subtype="x-test", filename=name)
    return part


def multiparts(children: st.SearchStrategy[MIMEPart]) -> st.SearchStrategy[MIMEPart]:
    return st.builds(
        _multipart, st.sampled_from(["mixed", "alternative", "related"]), st.lists(children, min_size=1, max_size=3)
    )


def _multipart(subtype: str, children: list[MIMEPart]) -> MIMEPart:
    part = MIMEPart()
    part["Content-Type"] = f"multipart/{subtype}"
    for child in children:
        part.attach(child)
    return part


def embedded(parts: st.SearchStrategy[MIMEPart]) -> st.SearchStrategy[MIMEPart]:
    return st.builds(_embedded, parts, TOKEN)


def _embedded(inner: MIMEPart, subject: str) -> MIMEPart:
    part = MIMEPart()
    part["Content-Type"] = "message/rfc822"
    part.set_payload([_message(inner, subject)])
    return part


def _message(part: MIMEPart, subject: str) -> EmailMessage:
    message = EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = subject
    message["From"] = StdlibAddress("Alice, of A", "alice", "a.test")
    message["To"] = [StdlibAddress("", "bob", "b.test"), StdlibAddress("C. C.", "c", "c.test")]
    message["Date"] = "Mon, 23 Nov 2026 09:00:00 +0100"
    for name, value in part.items():
        message[name] = value
    message.set_payload(part.get_payload())
    return message


PARTS = st.recursive(leaves(), lambda children: multiparts(children) | embedded(children), max_leaves=8)


def compare(raw: bytes, ours: BodyPart, theirs: email.message.Message) -> None:
    kind = f"{ours.type.decode()}/{ours.subtype.decode()}".lower()
    assert kind == theirs.get_content_type()
    payload = theirs.get_payload()
    if isinstance(payload, list):
        assert len(ours.parts) == len(payload)
        for child, their_child in zip(ours.parts, payload, strict=True):
            assert isinstance(their_child, email.message.Message)
            compare(raw, child, their_child)
        return
    assert isinstance(payload, str)
    data = raw[ours.body_offset : ours.body_offset + ours.body_length]
    assert decode_transfer(data, ours.encoding) == theirs.get_payload(decode=True)
    assert data == payload.encode("ascii", "surrogateescape")
    parameters = {parameter.name.decode(): parameter.value.decode() for parameter in ours.parameters}
    assert parameters.get("charset", "us-ascii") == theirs.get_content_charset("us-ascii")
    disposition = {parameter.name.decode(): parameter.value.decode() for parameter in ours.disposition_parameters}
    assert disposition.get("filename") == theirs.get_filename()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(PARTS, TEXT)
def test_same_structure_and_bytes(part: MIMEPart, subject: str) -> None:
    raw = _message(part, subject).as_bytes(policy=email.policy.SMTP)
    summary = summarise(raw)
    compare(raw, summary.body, email.message_from_bytes(raw, policy=email.policy.compat32))
    envelope = summary.envelope
    assert [(a.name, a.mailbox, a.host) for a in envelope.from_] == [(b"Alice, of A", b"alice", b"a.test")]
    assert [(a.name, a.mailbox, a.host) for a in envelope.to] == [
        (b"", b"bob", b"b.test"),
        (b"C. C.", b"c", b"c.test"),
    ]
    assert "".join(decode_header_text(envelope.subject).split()) == "".join(subject.split())
    moment = parse_date(envelope.date)
    assert moment is not None
    assert moment.isoformat() == "2026-11-23T09:00:00+01:00"
