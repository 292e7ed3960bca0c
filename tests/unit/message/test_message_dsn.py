"""Delivery status notifications: valid MIME, the RFC 3464 fields, and a text for people."""

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import (
    Action,
    DeliveryReport,
    MessageSummary,
    RecipientReport,
    build_dsn,
    decode_part_text,
    first_value,
    header_fields,
    part_at,
    split_header,
    summarise,
    xtext_decoded,
)
from paquebot.message.dsn.message import MAX_RETURNED
from paquebot.wire.smtp.parameters import Ret

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ORIGINAL = b"From: alice@a.test\r\nSubject: Hello\r\nMessage-ID: <1@a.test>\r\n\r\nHello Bob!\r\n"
FAILED = RecipientReport(
    final_recipient="bob@b.test",
    action=Action.FAILED,
    status="5.1.1",
    original_recipient="rfc822;bob+2Bnews+40a.test",
    diagnostic_code="550 5.1.1 <bob@b.test>: no mailbox here by that name",
    remote_mta="mx.b.test",
    last_attempt=NOW,
)
DELAYED = RecipientReport(
    final_recipient="carol@c.test",
    action=Action.DELAYED,
    status="4.4.1",
    diagnostic_code="connection timed out",
    will_retry_until=NOW + timedelta(days=5),
)
REPORT = DeliveryReport(
    reporting_mta="mx.a.test",
    return_path="alice@a.test",
    recipients=(FAILED,),
    original=ORIGINAL,
    message_id="<dsn1@mx.a.test>",
    now=NOW,
    arrival_date=NOW - timedelta(hours=1),
    envelope_id="QQ+2B314",
    ret=Ret.FULL,
)


def parsed(report: DeliveryReport) -> EmailMessage:
    message = email.message_from_bytes(build_dsn(report), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert all(not part.defects for part in message.walk())
    return message


def body(raw: bytes, number: int) -> bytes:
    part = part_at(summarise(raw), (number,))
    assert part is not None
    return raw[part.body_offset : part.body_offset + part.body_length]


def kinds(summary: MessageSummary) -> list[str]:
    return [(part.type + b"/" + part.subtype).decode().lower() for part in summary.body.parts]


def human(raw: bytes) -> str:
    part = part_at(summarise(raw), (1,))
    assert part is not None
    return " ".join(decode_part_text(body(raw, 1), part.encoding, "utf-8").split())


def test_header() -> None:
    message = parsed(REPORT)
    assert message["From"] == "Mail Delivery System <postmaster@mx.a.test>"
    assert message["To"] == "alice@a.test"
    assert message["Subject"] == "Your message could not be delivered"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@a.test>"
    assert message["Message-ID"] == "<dsn1@mx.a.test>"
    assert message["Date"].datetime == NOW
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"


def test_fields_for_programs() -> None:
    """RFC 3464 §2.2 and §2.3, in groups separated by an empty line."""
    assert body(build_dsn(REPORT), 2).decode() == (
        "Original-Envelope-Id: QQ+314\r\n"
        "Reporting-MTA: dns; mx.a.test\r\n"
        "Arrival-Date: Mon, 23 Nov 2026 08:00:00 +0000\r\n"
        "\r\n"
        "Original-Recipient: rfc822; bob+news@a.test\r\n"
        "Final-Recipient: rfc822; bob@b.test\r\n"
        "Action: failed\r\n"
        "Status: 5.1.1\r\n"
        "Remote-MTA: dns; mx.b.test\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1 <bob@b.test>: no mailbox here by that name\r\n"
        "Last-Attempt-Date: Mon, 23 Nov 2026 09:00:00 +0000\r\n"
    )


def test_delayed_fields() -> None:
    fields = body(build_dsn(replace(REPORT, recipients=(DELAYED,))), 2).decode()
    assert "Action: delayed\r\nStatus: 4.4.1\r\nDiagnostic-Code: x-paquebot; connection timed out\r\n" in fields
    assert "Will-Retry-Until: Sat, 28 Nov 2026 09:00:00 +0000\r\n" in fields


def test_will_retry_until_is_for_delays_alone() -> None:
    """RFC 3464 §2.3.9"""
    failed = replace(FAILED, will_retry_until=NOW)
    assert b"Will-Retry-Until" not in build_dsn(replace(REPORT, recipients=(failed,)))


def test_the_text_for_people_comes_first() -> None:
    text = human(build_dsn(replace(REPORT, recipients=(FAILED, DELAYED))))
    assert text.startswith(
        'This is the mail system at mx.a.test. This is about your message with the subject "Hello". '
        "Your message could not be delivered to: bob@b.test"
    )
    assert "There is no mailbox with this address." in text
    assert "mx.b.test said: 550 5.1.1 <bob@b.test>: no mailbox here by that name" in text
    assert "You do not need to send it again" in text
    assert "We try until Saturday, 28 November 2026, 09:00 UTC." in text
    assert "Your message is attached." in text


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (b"Subject: =?utf-8?q?Caf=C3=A9?=\r\n\r\n", 'the subject "Café".'),
        (b"Subject: " + b"x" * 500 + b"\r\n\r\n", 'the subject "' + "x" * 120 + '...".'),
        (b"Subject:\r\n\r\n", "mx.a.test. Your message could not"),
        (b"", "mx.a.test. Your message could not"),
    ],
)
def test_the_message_is_named_by_its_subject(subject: bytes, words: str) -> None:
    assert words in human(build_dsn(replace(REPORT, original=subject)))


@pytest.mark.parametrize(
    ("action", "subject"),
    [
        (Action.DELAYED, "Your message is delayed"),
        (Action.DELIVERED, "Your message was delivered"),
        (Action.RELAYED, "Your message was passed on"),
        (Action.EXPANDED, "Your message was passed on to a list"),
    ],
)
def test_other_actions(action: Action, subject: str) -> None:
    raw = build_dsn(replace(REPORT, recipients=(RecipientReport("bob@b.test", action, "2.0.0"),)))
    assert first_value(raw, b"subject") == subject.encode()
    assert f"Action: {action.value}\r\n".encode() in body(raw, 2)
    assert "bob@b.test" in human(raw)


def test_the_most_severe_action_is_in_the_subject() -> None:
    raw = build_dsn(replace(REPORT, recipients=(DELAYED, FAILED)))
    assert first_value(raw, b"subject") == b"Your message could not be delivered"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("5.1.1", "no mailbox with this address"),
        ("5.1.10", "does not receive mail"),
        ("5.1.99", "The address was not accepted"),
        ("5.2.2", "The mailbox is full"),
        ("5.7.1", "refused the message by its own rules"),
        ("4.4.7", "in the time we are allowed"),
        ("5.0.0", "gave no reason"),
        ("nonsense", "gave no reason"),
    ],
)
def test_reasons(status: str, words: str) -> None:
    assert words in human(build_dsn(replace(REPORT, recipients=(replace(FAILED, status=status),))))


@pytest.mark.parametrize("status", ["", "5", "5.1", "x.1.1", "5.1.1.1", "5.1234.1", "9.1.1"])
def test_a_status_of_another_form_becomes_the_general_one(status: str) -> None:
    assert b"Status: 5.0.0\r\n" in build_dsn(replace(REPORT, recipients=(replace(FAILED, status=status),)))


def test_full_message_is_returned_on_request() -> None:
    raw = build_dsn(REPORT)
    assert kinds(summarise(raw)) == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert body(raw, 3) == ORIGINAL


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, ret=Ret.HDRS),
        replace(REPORT, ret=None),
        replace(REPORT, recipients=(DELAYED,)),
        replace(REPORT, original=ORIGINAL + b"x" * MAX_RETURNED),
    ],
    ids=["hdrs", "default", "delayed", "long"],
)
def test_otherwise_only_the_header_is_returned(report: DeliveryReport) -> None:
    """RFC 3461 §4.3"""
    raw = build_dsn(report)
    assert kinds(summarise(raw))[2] == "text/rfc822-headers"
    assert body(raw, 3) == ORIGINAL[: split_header(ORIGINAL)]
    assert b"Hello Bob!" not in raw


def test_a_long_header_is_cut_at_a_line() -> None:
    original = b"X-Filler: " + b"y" * 80 + b"\r\n"
    returned = body(build_dsn(replace(REPORT, original=original * 5000, ret=Ret.HDRS)), 3)
    assert len(returned) <= 64 * 1024
    assert len(returned) % len(original) == 0


def test_line_ends_become_crlf() -> None:
    raw = build_dsn(replace(REPORT, original=b"Subject: x\n\na\rb\0\nc"))
    assert body(raw, 3) == b"Subject: x\r\n\r\na\r\nb\r\nc\r\n"


def test_ascii_stays_seven_bit() -> None:
    for report in (REPORT, replace(REPORT, recipients=(replace(FAILED, final_recipient="bøb@b.test"),))):
        raw = build_dsn(report)
        assert raw.isascii()
        assert first_value(raw, b"content-transfer-encoding") == b"7bit"


def test_eight_bit_body_is_declared() -> None:
    raw = build_dsn(replace(REPORT, original=b"Subject: x\r\n\r\ncaf\xe9\r\n"))
    assert kinds(summarise(raw))[2] == "message/rfc822"
    assert first_value(raw, b"content-transfer-encoding") == b"8bit"
    assert summarise(raw).body.parts[2].encoding == b"8BIT"


def test_international_recipient_in_an_ascii_report() -> None:
    """RFC 6533 §3: utf-8-addr-xtext in message/delivery-status"""
    raw = build_dsn(replace(REPORT, recipients=(replace(FAILED, final_recipient="用+b@b.test"),)))
    assert b"Final-Recipient: utf-8; \\x{7528}\\x{2B}b@b.test\r\n" in body(raw, 2)
    assert "用+b@b.test" in human(raw)


def test_international_report() -> None:
    """RFC 6533 §3 to §6: the global forms, when the return path itself needs SMTPUTF8"""
    recipient = replace(FAILED, final_recipient="用@b.test", original_recipient="utf-8;\\x{7528}@b.test")
    original = "Subject: é\r\n\r\ncafé\r\n".encode()
    raw = build_dsn(replace(REPORT, return_path="ålice@a.test", recipients=(recipient,), original=original))
    assert kinds(summarise(raw)) == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "Final-Recipient: utf-8; 用@b.test\r\n".encode() in body(raw, 2)
    assert first_value(raw, b"to") == "<ålice@a.test>".encode()


def test_utf8_header_alone_is_returned_in_seven_bits() -> None:
    original = "Subject: é\r\n\r\nx".encode()
    raw = build_dsn(replace(REPORT, original=original, ret=Ret.HDRS))
    assert raw.isascii()
    part = summarise(raw).body.parts[2]
    assert part.subtype == b"GLOBAL-HEADERS"
    assert decode_part_text(body(raw, 3), part.encoding, "utf-8") == "Subject: é\r\n\r\n"


def test_header_of_unknown_charset_is_no_global_message() -> None:
    raw = build_dsn(replace(REPORT, original=b"Subject: \xe9\r\n\r\nx"))
    assert kinds(summarise(raw))[2] == "message/rfc822"
    headers_only = build_dsn(replace(REPORT, original=b"Subject: \xe9\r\n\r\nx", ret=Ret.HDRS))
    assert kinds(summarise(headers_only))[2] == "text/rfc822-headers"
    assert headers_only.isascii()


def test_the_same_report_gives_the_same_bytes() -> None:
    assert build_dsn(REPORT) == build_dsn(REPORT)


def test_boundary_is_not_in_the_message() -> None:
    boundary = summarise(build_dsn(REPORT)).body.parameters[1].value
    raw = build_dsn(replace(REPORT, original=ORIGINAL + b"--" + boundary + b"--\r\n"))
    assert len(summarise(raw).body.parts) == 3
    assert summarise(raw).body.parameters[1].value != boundary


@pytest.mark.parametrize("report", [replace(REPORT, recipients=()), replace(REPORT, return_path="")])
def test_a_report_without_recipients_or_reverse_path(report: DeliveryReport) -> None:
    with pytest.raises(ValueError, match="notification"):
        build_dsn(report)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("bob+40b.test", "bob@b.test"),
        ("a+2Bb+3Dc", "a+b=c"),
        ("plain", "plain"),
        ("bad+4", "bad+4"),
        ("bad+ZZ", "bad+ZZ"),
        ("bad+ 4", "bad+ 4"),
        ("line+0D+0A", "line+0D+0A"),
        ("", ""),
    ],
)
def test_xtext(text: str, decoded: str) -> None:
    """RFC 3461 §4"""
    assert xtext_decoded(text) == decoded


ANY = st.text(max_size=200)


@given(ANY, ANY, ANY, ANY, st.binary(max_size=200), st.sampled_from(Ret))
def test_text_of_other_hosts_never_starts_a_line(
    name: str, diagnostic: str, orcpt: str, path: str, original: bytes, ret: Ret
) -> None:
    recipient = replace(
        FAILED, final_recipient=name, diagnostic_code=diagnostic, original_recipient=orcpt, remote_mta=name
    )
    report = replace(
        REPORT, return_path=path or "x", recipients=(recipient,), original=original, ret=ret, envelope_id=diagnostic
    )
    raw = build_dsn(report)
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    summary = summarise(raw)
    assert len(summary.body.parts) == 3
    status = body(raw, 2)
    groups = status.split(b"\r\n\r\n")
    assert len(groups) == 2
    allowed = ("original-recipient", "final-recipient", "action", "status", "remote-mta", "diagnostic-code")
    assert header_fields(groups[1], [*allowed, "last-attempt-date"], negate=True) == b"\r\n"
    assert max(map(len, status.split(b"\r\n"))) <= 998


# --- odd inputs ---

LONG_FIELD = b"References:" + b"<a@example.org>" * 200 + b"\r\n"
LONG_LINE = b"Content-Type: text/html\r\n\r\n" + b"<p>word " * 300 + b"\r\n"


def checked(report: DeliveryReport) -> EmailMessage:
    """Check the lines and labels of the report; return it as the standard library reads it."""
    raw = build_dsn(report)
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\n" not in raw.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(raw, policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    parts = list(parsed.iter_parts())
    assert len(parts) == 3
    for part in (parsed, *parts):
        assert part["Content-Transfer-Encoding"] in ("7bit", "8bit", "quoted-printable")
    assert raw.partition(b"\r\n\r\n")[2].isascii() or parsed["Content-Transfer-Encoding"] == "8bit"
    return parsed


@pytest.mark.parametrize("ret", [Ret.FULL, Ret.HDRS])
@pytest.mark.parametrize(
    "original",
    [
        LONG_FIELD + b"\r\nx\r\n",
        LONG_FIELD + LONG_LINE,
        b"Subject: " + "ü".encode() * 700 + b"\r\n" + LONG_LINE,
        b"X: " + b"x" * 100_000 + b"\r\n\r\nx",
        b"no header at all, but a line of " + b"x" * 2000,
        b"",
    ],
)
def test_an_original_with_long_lines(original: bytes, ret: Ret) -> None:
    checked(replace(REPORT, original=original, ret=ret))


def test_long_lines_of_an_original_keep_their_content() -> None:
    returned = list(checked(replace(REPORT, original=LONG_FIELD + LONG_LINE)).iter_parts())[2]
    [inside] = cast("list[EmailMessage]", returned.get_payload())
    assert inside.get_payload(decode=True) == b"<p>word " * 300 + b"\r\n"
    assert "".join(inside["References"].split()) == "<a@example.org>" * 200


def test_only_the_header_of_a_signed_original_with_long_lines_is_returned() -> None:
    signed = b"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n\r\n" + b"x" * 2000 + b"\r\n--s--\r\n"
    report = checked(replace(REPORT, original=signed))
    assert [part.get_content_type() for part in report.iter_parts()][2] == "text/rfc822-headers"


def test_a_long_header_is_cut_where_it_has_no_line() -> None:
    report = checked(replace(REPORT, original=b"Subject: " + b"x " * 100_000, ret=Ret.HDRS))
    assert len(list(report.iter_parts())[2].get_content()) > 60_000


ANY_TEXT = st.one_of(st.text(max_size=80), st.sampled_from(["x" * 3000, "550 " + "y" * 2000, "\\255" * 250, "ü" * 990]))


@given(
    st.binary(max_size=200).map(lambda data: data.replace(b"|", LONG_FIELD)),
    ANY_TEXT,
    ANY_TEXT,
    st.one_of(st.none(), ANY_TEXT),
    st.sampled_from(["alice@a.test", "ü@a.test"]),
    st.sampled_from([*Action]),
    st.sampled_from([None, *Ret]),
)
def test_the_report_is_valid_for_any_text_of_other_hosts(
    original: bytes, diagnostic: str, host: str, orcpt: str | None, to: str, action: Action, ret: Ret | None
) -> None:
    recipient = replace(
        FAILED,
        action=action,
        diagnostic_code=diagnostic,
        remote_mta=host,
        original_recipient=orcpt,
        final_recipient=f"{diagnostic}@x",
    )
    checked(replace(REPORT, original=original, recipients=(recipient,), return_path=to, envelope_id=orcpt, ret=ret))
