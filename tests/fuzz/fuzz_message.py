"""Fuzz the message package: on any bytes nothing raises, and the summary's invariants hold."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from paquebot import message
from paquebot.message import limits
from paquebot.wire.smtp.parameters import Ret
from tests.fuzz.target import Target

_NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
_MAX_SUMMARY = limits.HEADERS_KEPT + limits.ENVELOPE_KEPT + limits.STRUCTURE_KEPT + 64 * limits.MAX_PARTS
# What mutations put in: the words that decide how a message is read.
_WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"--", b"\n--x", b"\n--x--", b"\0", b"\xff", b'"', b"(", b")",
    b"<", b">", b"@", b":", b";", b",", b"\\", b"=", b"*0*=", b"=?utf-8?q?", b"?=", b"\r\n ",
    b"Content-Type: multipart/mixed; boundary=x", b"Content-Type: message/rfc822",
    b"Content-Type: multipart/digest; boundary=o", b"Content-Transfer-Encoding: base64",
)  # fmt: skip


def check(raw: bytes) -> None:
    """Read the bytes in every way the package offers, and assert what it promises."""
    summary = message.summarise(raw)
    assert summary.body.header_offset == 0
    assert summary.body.body_offset + summary.body.body_length == len(raw)
    assert summary.body.body_offset == message.split_header(raw)
    assert summary.ByteSize() <= _MAX_SUMMARY
    check_part(raw, summary.body, 0, len(raw))
    check_whole(raw, summary)
    check_headers(raw, summary)
    check_sections(raw, summary)
    read_texts(summary)
    check_header_changes(raw)
    check_report(raw)
    check_rewriting(re.sub(rb"\r\n|\r|\n", b"\r\n", raw))


_RULES = (
    message.ConversionRules(seven_bit=True),
    message.ConversionRules(line=78),
    message.ConversionRules(seven_bit=True, line=78, strict=True),
)


def check_rewriting(raw: bytes) -> None:
    """For a host that takes less, the message fits and has the same parts; or it cannot be rewritten."""
    before = message.summarise(raw)
    for rules in _RULES:
        try:
            edits = message.conversion(raw, rules)
        except message.Unconvertible:
            continue
        found = b"".join(message.pieces(raw, edits))
        assert found.isascii() or not rules.seven_bit
        assert not message.has_long_line(found, 0, len(found), rules.line)
        if any(part.subtype == b"GLOBAL" for _, part in paths(before.body)):
            continue  # it may be encoded as a whole (RFC 6532 §3.7)
        for one, other in zip(texts(raw, before), texts(found, message.summarise(found)), strict=True):
            # A multipart without a part may show what stands behind its last line, too.
            assert one[:2] == other[:2]
            assert other[2].startswith(one[2])


def texts(raw: bytes, summary: message.MessageSummary) -> list[tuple[bytes, bytes, bytes]]:
    """What can be read of a message: type and decoded content of each leaf, white space at the ends of lines aside."""
    found = []
    for _, part in paths(summary.body):
        if not message.is_multipart(part) and message.embedded_message(part) is None:
            decoded = message.decode_transfer(raw[part.body_offset :][: part.body_length], part.encoding)
            found.append((part.type, part.subtype, re.sub(rb"[ \t]+(?=\r\n)", b"", decoded).rstrip()))
    return found


def check_whole(raw: bytes, summary: message.MessageSummary) -> None:
    """A summary within wider bounds has the same where the stored one says that it is whole."""
    whole = message.summarise(raw, message.WHOLE)
    check_part(raw, whole.body, 0, len(raw))
    if message.has_whole_envelope(summary):
        assert whole.envelope == summary.envelope
    if message.has_whole_structure(summary):
        assert whole.body == summary.body


def check_part(raw: bytes, part: message.BodyPart, low: int, high: int) -> None:
    """Offsets nest, siblings follow each other, and only containers have children."""
    end = part.body_offset + part.body_length
    assert low <= part.header_offset <= part.body_offset <= end <= high
    assert part.type == part.type.upper()
    assert part.subtype
    assert part.encoding
    position = part.body_offset
    for child in part.parts:
        check_part(raw, child, position, end)
        position = child.body_offset + child.body_length
    if part.type == b"MULTIPART":
        assert part.parts
        assert any(parameter.name.startswith(b"boundary") for parameter in part.parameters) or len(raw) > 65536
    elif part.type == b"MESSAGE" and part.subtype in (b"RFC822", b"GLOBAL"):
        assert len(part.parts) == 1
        assert part.parts[0].header_offset == part.body_offset
        assert position == end
        assert part.HasField("envelope")
        assert part.lines == raw.count(b"\n", part.body_offset, end)
    else:
        assert not part.parts
        message.decode_part_text(raw[part.body_offset : end], part.encoding, message.charset(part))
    if part.type == b"TEXT":
        assert part.lines == raw.count(b"\n", part.body_offset, end)


def check_headers(raw: bytes, summary: message.MessageSummary) -> None:
    """Fields joined are the header; what the cache answers is what the header says."""
    end = message.split_header(raw)
    joined = b"".join(field for _, field in message.fields(raw))
    assert raw[:end] in (joined, joined + b"\r\n", joined + b"\n")
    if not summary.headers_left_out:
        names = message.CACHED_HEADERS
        assert message.cached_header_fields(summary, names) == message.header_fields(raw[:end], names)
    for name in ("Subject", "DATE", "references", "content-type"):
        answer = message.cached_header_fields(summary, [name])
        assert answer == (
            None if name.lower() in summary.headers_left_out else message.header_fields(raw[:end], [name])
        )
    assert message.cached_header_fields(summary, ["x-not-cached"]) is None


def check_sections(raw: bytes, summary: message.MessageSummary) -> None:
    """RFC 3501 §6.4.5: header and text make the whole, and every listed part has an address."""
    whole = message.section_bytes(summary, message.StoredSection())
    header = message.section_bytes(summary, message.StoredSection(text=message.SectionText.HEADER))
    text = message.section_bytes(summary, message.StoredSection(text=message.SectionText.TEXT))
    assert whole is not None
    assert header is not None
    assert text is not None
    assert whole.of(raw) == raw == header.of(raw) + text.of(raw)
    for path, part in paths(summary.body):
        assert message.part_at(summary, path) == part
        mime = message.section_bytes(summary, message.StoredSection(path, message.SectionText.MIME))
        body = message.section_bytes(summary, message.StoredSection(path))
        assert mime is not None
        assert body is not None
        assert mime.of(raw) + body.of(raw) == raw[mime.offset : body.offset + body.length]
        embedded = message.section_bytes(summary, message.StoredSection(path, message.SectionText.HEADER))
        assert (embedded is not None) is (message.embedded_message(part) is not None)


def paths(
    container: message.BodyPart, path: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], message.BodyPart]]:
    """The part numbers of a message (or of a multipart part), and the parts they name."""
    children = container.parts if message.is_multipart(container) else [container]
    for number, part in enumerate(children, 1):
        here = (*path, number)
        yield here, part
        if message.is_multipart(part):
            yield from paths(part, here)
        elif (embedded := message.embedded_message(part)) is not None:
            yield from paths(embedded, here)


def read_texts(summary: message.MessageSummary) -> None:
    """Texts of the envelope, read as searching and sorting read them."""
    envelope = summary.envelope
    for value in (envelope.subject, envelope.date, envelope.message_id):
        assert b"\n" not in value
        assert b"\r" not in value
        assert b"\0" not in value
        message.decode_header_text(value)
        message.base_subject(value)
        message.addresses(value)
        parsed = message.parse_date(value)
        assert parsed is None or parsed.tzinfo is not None
    assert len(summary.thread_key) in (0, 16)
    for address in (*envelope.from_, *envelope.to, *envelope.cc, *envelope.bcc):
        assert address.HasField("mailbox") or not address.HasField("host")


def check_header_changes(raw: bytes) -> None:
    """What acceptance changes, and nothing else."""
    hops = message.count_received(raw)
    traced = message.add_trace(raw, b"Received: from x\r\n")
    assert message.count_received(traced) in (1, hops + 1)
    assert traced.endswith(raw)
    cleaned = message.remove_authentication_results(raw, "mx.test")
    assert message.remove_authentication_results(cleaned, "mx.test") == cleaned
    complete = message.ensure_date_and_message_id(raw, _NOW, "<x@mx.test>")
    assert complete.endswith(raw)
    assert message.ensure_date_and_message_id(complete, _NOW, "<y@mx.test>") == complete


def check_report(raw: bytes) -> None:
    """A notification about any message is itself a well-formed report of three parts."""
    recipient = message.RecipientReport("bob@b.test", message.Action.FAILED, "5.1.1", diagnostic_code="550 no")
    report = message.DeliveryReport("mx.test", "alice@a.test", (recipient,), raw, "<dsn@mx.test>", _NOW, ret=Ret.FULL)
    dsn = message.build_dsn(report)
    assert b"\n" not in dsn.replace(b"\r\n", b"")
    body = message.summarise(dsn).body
    assert (body.type, body.subtype, len(body.parts)) == (b"MULTIPART", b"REPORT", 3)
    assert dsn.isascii() or not raw.isascii()


TARGET = Target("message", check, _WORDS)
