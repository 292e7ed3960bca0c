"""Every reader of messages does at most twice the work for twice the input, and no recursion grows with the input. Each
case is an input that some reader could read repeatedly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from paquebot.message import (
    WHOLE,
    Action,
    ConversionRules,
    DeliveryReport,
    RecipientReport,
    add_trace,
    address_texts,
    addresses,
    base_subject,
    build_dsn,
    cached_header_fields,
    conversion,
    count_received,
    decode_header_text,
    decode_part_text,
    ensure_date_and_message_id,
    first_value,
    header_fields,
    is_looping,
    named_addresses,
    parse_date,
    pieces,
    remove_authentication_results,
    signatures,
    split_header,
    summarise,
    thread_key,
    unfold,
    xtext_decoded,
)
from paquebot.message.mime.parameters import disposition, media_type, token
from tests.support.counted_work import assert_linear

pytestmark = pytest.mark.slow

Make = Callable[[int], Callable[[], object]]
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def repeated(read: Callable[[bytes], object], piece: bytes, *, before: bytes = b"", after: bytes = b"") -> Make:
    """A reader of bytes on bytes that repeat a piece."""

    def make(count: int) -> Callable[[], object]:
        data = before + piece * count + after
        return lambda: read(data)

    return make


def content_type(piece: bytes, *, before: bytes = b"", after: bytes = b"") -> Make:
    """A message with a Content-Type that repeats a piece."""
    return repeated(summarise, piece, before=b"Content-Type: " + before, after=after + b"\r\n\r\nx\r\n")


PARAMETERS: dict[str, Make] = {
    "words and slashes": content_type(b"a / ", after=b"b; c=d"),
    "slashes alone": content_type(b" / ", before=b"a"),
    "slashes in comments": content_type(b"a(/) / ", after=b"b"),
    "an equals sign in a comment without an end": content_type(b"x;(a=;", before=b"text/plain;"),
    "comments in comments": content_type(b"(", before=b"text/plain; "),
    "comments one after another": content_type(b"(a)", before=b"text/plain; ", after=b"a=b"),
    "quoted pairs in comments": content_type(b"\\(", before=b"text/plain; ("),
    "semicolons": content_type(b";", before=b"text/plain", after=b"a=b"),
    "parameters without a name": content_type(b"=a;", before=b"text/plain;"),
    "parameters": content_type(b"a=b;", before=b"text/plain;"),
    "values in quotes without an end": content_type(b'a="b\\', before=b"text/plain;"),
    "quoted pairs": content_type(b"\\\\", before=b'text/plain; a="', after=b'"'),
    "segments": content_type(b"a*1=b;", before=b"text/plain;"),
    "a long type": content_type(b"a", after=b"/b"),
    "media type": repeated(media_type, b"a / ", before=b" "),
    "disposition": repeated(disposition, b"a / ", before=b" "),
    "token": repeated(token, b"( ", before=b"a"),
    "encoding": repeated(summarise, b" /", before=b"Content-Transfer-Encoding: a", after=b"\r\n\r\nx"),
    "languages": repeated(summarise, b"a(,", before=b"Content-Language: ", after=b"\r\n\r\nx"),
}

ADDRESSES: dict[str, Make] = {
    "plain": repeated(addresses, b"a@b,"),
    "angle brackets without an end": repeated(addresses, b"<@a,"),
    "routes": repeated(addresses, b"<@a:b@c>,"),
    "at signs": repeated(addresses, b"@"),
    "quotes without an end": repeated(addresses, b'"\\"'),
    "quotes": repeated(addresses, b'"a" '),
    "comments": repeated(addresses, b"("),
    "comments and words": repeated(addresses, b"(a)b "),
    "domain literals without an end": repeated(addresses, b"[\\"),
    "groups": repeated(addresses, b"a:b@c;"),
    "groups without an end": repeated(addresses, b"a:"),
    "words": repeated(addresses, b"a ", after=b"<b@c>"),
    "words behind": repeated(addresses, b" a:", before=b"<b@c>"),
    "fields": repeated(summarise, b"To: a@b\r\n", after=b"\r\n"),
    "possible addresses": repeated(named_addresses, b"a@b ", after=b"<c@d>"),
    "dots behind an at sign": repeated(named_addresses, b". .", before=b"a@b"),
    "at signs and dots": repeated(named_addresses, b"@. "),
    "words between commas": repeated(named_addresses, b"=?a?q?=40?= ,", after=b"<b@c>"),
    "quoted pairs": repeated(named_addresses, b'"\\"@b"'),
    "comments without an end": repeated(named_addresses, b"(a"),
    "brackets in quotes": repeated(named_addresses, b'"<@"'),
    "as text, in quotes": repeated(lambda value: list(address_texts(value)), b'"a"@b,'),
    "as text, without an end": repeated(lambda value: list(address_texts(value)), b' "'),
    "as text, comments": repeated(lambda value: list(address_texts(value)), b"("),
}

HEADERS: dict[str, Make] = {
    "fields": repeated(summarise, b"Subject: x\r\n", after=b"\r\n"),
    "all fields": repeated(lambda raw: summarise(raw, WHOLE), b"To: a@b, c;\r\n", after=b"\r\n"),
    "folded lines": repeated(summarise, b"\r\n\tx", before=b"Subject: ", after=b"\r\n\r\n"),
    "lines that are no fields": repeated(summarise, b"x\r\n", after=b"\r\n"),
    "colons": repeated(summarise, b":\r\n", after=b"\r\n"),
    "an empty line": repeated(split_header, b"\r\n", before=b"a: b\r\n"),
    "one value": repeated(lambda raw: first_value(raw, b"x"), b"a: b\r\n"),
    "of names": repeated(lambda raw: header_fields(raw, ["a"]), b"a: b\r\n"),
    "unfold": repeated(unfold, b"\r\n "),
    "kept fields": repeated(lambda raw: cached_header_fields(summarise(raw), ["to"]), b"To: a\r\n", after=b"\r\n"),
    "hops": repeated(count_received, b"Received: x\r\n", after=b"\r\n"),
    "a loop": repeated(lambda raw: is_looping(raw, 10), b"Received: x\r\n", after=b"\r\n"),
    "trace": repeated(lambda raw: add_trace(raw, b"Received: x\r\n"), b"a: b\r\n"),
    "results": repeated(
        lambda raw: remove_authentication_results(raw, "mx.test"), b"Authentication-Results: mx.test\r\n"
    ),
    "results in comments": repeated(
        lambda raw: remove_authentication_results(raw, "mx.test"), b"(", before=b"Authentication-Results: "
    ),
    "date and id": repeated(lambda raw: ensure_date_and_message_id(raw, NOW, "<a@b>"), b"a: b\r\n", after=b"\r\n"),
    "references": repeated(lambda value: thread_key(value, None, None), b"<a@b> "),
    "references without an end": repeated(lambda value: thread_key(value, value, value), b"<"),
    "encoded words": repeated(decode_header_text, b"=?utf-8?q?a?= "),
    "encoded words without an end": repeated(decode_header_text, b"=?a?q?"),
    "beginnings of encoded words": repeated(decode_header_text, b"=?"),
    "charsets": repeated(decode_header_text, b"=?x?b?YQ==?= =?utf-8?b?YQ==?="),
    "reply marks": repeated(base_subject, b"re: "),
    "reply marks with blobs": repeated(base_subject, b"re[a]: "),
    "blobs": repeated(base_subject, b"[a]"),
    "blobs without an end": repeated(base_subject, b"["),
    "forward marks": repeated(base_subject, b"[fwd: ", after=b"]"),
    "forward trailers": repeated(base_subject, b"(fwd) "),
    "a date of comments": repeated(parse_date, b"("),
    "a date of hyphens": repeated(parse_date, b"1-"),
}


def nested(count: int) -> Callable[[], object]:
    levels = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(count)
    )
    return lambda: summarise(levels)


def with_boundary(piece: bytes) -> Make:
    return repeated(summarise, piece, before=b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", after=b"--b--\r\n")


BODIES: dict[str, Make] = {
    "parts": with_boundary(b"--b\r\n\r\nx\r\n"),
    "parts without a body": with_boundary(b"--b\r\n"),
    "parts with a header": with_boundary(b"--b\r\nContent-Type: a / b\r\n\r\n"),
    "lines like boundaries": with_boundary(b"--bb\r\n"),
    "one boundary at all levels": repeated(
        summarise, b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", after=b"--b--\r\n"
    ),
    "levels": nested,
    "messages in messages": repeated(summarise, b"Content-Type: message/rfc822\r\n\r\n"),
    "a digest": repeated(
        summarise, b"--b\r\n\r\nSubject: x\r\n\r\n", before=b"Content-Type: multipart/digest; boundary=b\r\n\r\n"
    ),
    "empty lines": repeated(summarise, b"\r\n", before=b"a: b\r\n\r\n"),
    "base64": repeated(lambda body: decode_part_text(body, b"base64", "utf-8"), b"YQ==\r\n"),
    "quoted-printable": repeated(lambda body: decode_part_text(body, b"quoted-printable", "x"), b"=\r\n=41"),
    "white space in quoted-printable": repeated(
        lambda body: decode_part_text(body, b"quoted-printable", "x"), b" \r\n  \t = \n"
    ),
    "UTF-7": repeated(lambda body: decode_part_text(body, b"7bit", "utf-7"), b"+-"),
    "ISO-2022": repeated(lambda body: decode_part_text(body, b"7bit", "iso-2022-jp"), b"\x1b$B"),
}


def report(count: int) -> Callable[[], object]:
    recipients = tuple(
        RecipientReport(f"a{number}@b.test", Action.FAILED, "5.1.1", diagnostic_code="550 no " * 20)
        for number in range(count)
    )
    whole = DeliveryReport("mx.test", "a@b.test", recipients, b"Subject: x\r\n\r\n", "<1@mx.test>", NOW)
    return lambda: build_dsn(whole)


def report_on(piece: bytes) -> Make:
    def make(count: int) -> Callable[[], object]:
        failed = (RecipientReport("a@b.test", Action.FAILED, "5.1.1", diagnostic_code="x " * count),)
        whole = DeliveryReport("mx.test", "a@b.test", failed, piece * count, "<1@mx.test>", NOW)
        return lambda: build_dsn(whole)

    return make


REPORTS: dict[str, Make] = {
    "recipients": report,
    "a long subject": report_on(b"Subject: =?utf-8?q?x?=\r\n"),
    "an original of short lines": report_on(b"\r"),
    "xtext": repeated(lambda text: xtext_decoded(text.decode()), b"+41"),
}


SEVEN_BIT = ConversionRules(seven_bit=True)


def sent(raw: bytes, rules: ConversionRules = SEVEN_BIT) -> list[bytes]:
    """Convert the message for a host with fewer extensions."""
    return list(pieces(raw, conversion(raw, rules)))


def rewritten(piece: bytes, *, before: bytes = b"", after: bytes = b"\xff\r\n\r\n") -> Make:
    return repeated(sent, piece, before=before, after=after)


PARTS = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
REWRITING: dict[str, Make] = {
    "text": rewritten(b"x" * 60_000, before=b"\r\n"),
    "8-bit text": rewritten(b"\xff" * 60_000, before=b"\r\n"),
    "base64": rewritten(b"QUJD" * 100, before=b"Content-Transfer-Encoding: base64\r\n\r\n"),
    "quoted-printable": rewritten(b"=41\xff" * 100, before=b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"),
    "parts": rewritten(b"--b\r\n\r\n\xff\r\n", before=PARTS),
    "lines like boundaries": rewritten(b"--bb\r\n", before=PARTS),
    "soft line breaks before boundaries": rewritten(b"--b" * 2000, before=PARTS + b"--b\r\n\r\n"),
    "fields": rewritten(b"X: \xff\r\n"),
    "labels": rewritten(b"Content-Transfer-Encoding: 8bit\r\n", after=b"\r\n\xff"),
    "words": rewritten(b"\xff a ", before=b"Subject: "),
    "a word": rewritten(b"\xc3\xbc", before=b"Subject: "),
    "encoded words": rewritten(b"=?utf-8?q?a?= \xff ", before=b"Subject: "),
    "addresses": rewritten(b'"\xff" <a@\xc3\xbc>, ', before=b"To: "),
    "quotes without an end": rewritten(b'"\\"', before=b"To: "),
    "comments": rewritten(b"(\xff)(", before=b"To: "),
    "angle brackets without an end": rewritten(b"<\xff", before=b"To: "),
    "parameters": rewritten(b'; a="\xff"', before=b"Content-Type: a/b"),
    "parameters without an end": rewritten(b'; a="\\"', before=b"Content-Type: a/b"),
    "folded at words": rewritten(b"a" * 50 + b" ", before=b"X: "),
    "folded at commas": rewritten(b"a" * 50 + b",", before=b"X: "),
    "folded anywhere": rewritten(b"a" * 50, before=b"X: "),
    "folded at nothing": rewritten(b" " * 50, before=b"X: "),
    "signatures": repeated(signatures, b"DKIM-Signature: a=b; c=relaxed\r\n"),
}


@pytest.mark.parametrize("make", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_parameters(make: Make) -> None:
    assert_linear(make, 2000)


@pytest.mark.parametrize("make", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_addresses(make: Make) -> None:
    assert_linear(make, 400)


@pytest.mark.parametrize("make", HEADERS.values(), ids=HEADERS.keys())
def test_headers(make: Make) -> None:
    assert_linear(make, 400)


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES.keys())
def test_bodies(make: Make) -> None:
    assert_linear(make, 400)


@pytest.mark.parametrize("make", REWRITING.values(), ids=REWRITING.keys())
def test_rewriting(make: Make) -> None:
    assert_linear(make, 100)


@pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS.keys())
def test_reports(make: Make) -> None:
    assert_linear(make, 100)
