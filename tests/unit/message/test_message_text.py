"""Encoded words, transfer encodings, charsets and dates: the RFCs' examples, and common mistakes of senders."""

import encodings
from datetime import UTC, datetime
from encodings.aliases import aliases

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import decode_charset, decode_header_text, decode_part_text, decode_transfer, parse_date


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 2047 §8
        ("=?ISO-8859-1?Q?a?=", "a"),
        ("=?ISO-8859-1?Q?a?= b", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
        ("=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=", "ab"),
        ("=?ISO-8859-1?Q?a_b?=", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
        ("=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"),
        ("=?ISO-8859-1?Q?Andr=E9?= Pirard", "André Pirard"),
        ("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=", "If you can read this yo"),
        ("=?UTF-8*de?b?w7w=?=", "ü"),
        # a character split between words
        ("=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),
        # senders' mistakes
        ("=?utf-8?b?w7w?=", "ü"),
        ("=?utf-8?q?a b?=", "a b"),
        ("x=?utf-8?q?y?=z", "xyz"),
        ("=?nope?q?caf=C3=A9?=", "café"),
        ("=?rot13?q?a?=", "a"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?never ended", "=?utf-8?q?never ended"),
        ("=?=?utf-8?q?a?=", "=?a"),
        ("a =? b", "a =? b"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_decode_header_text(value: str, text: str) -> None:
    assert decode_header_text(value.encode()) == text


@pytest.mark.parametrize(("value", "text"), [(b"caf\xc3\xa9", "café"), (b"caf\xe9", "café"), (b"\x81", "�")])
def test_raw_8_bit_headers(value: bytes, text: str) -> None:
    assert decode_header_text(value) == text


@pytest.mark.parametrize(
    ("encoded", "data"),
    [
        # RFC 2045 §6.7 rule 3: what transports added at the end of a line is deleted.
        (b"hello  \r\nbar", b"hello\r\nbar"),
        (b"hello\t \t\r\nbar", b"hello\r\nbar"),
        (b"hello \nbar", b"hello\nbar"),
        (b"hello \rbar", b"hello\rbar"),
        (b"the end \t", b"the end"),
        (b" \r\n \r\n ", b"\r\n\r\n"),
        (b" in  the middle \tof a line", b" in  the middle \tof a line"),
        # ... and encoded white space is kept.
        (b"hello=20\r\nbar=09", b"hello \r\nbar\t"),
        (b"hello =20 \r\n", b"hello  \r\n"),
        # Rule 5: a soft line break, with white space that a transport added behind it
        (b"foo=\r\nbar", b"foobar"),
        (b"foo\t= \t\r\n=62ar", b"foo\tbar"),
        (b"foo =\nbar", b"foo bar"),
        (b"foo= ", b"foo"),
        (b"foo=", b"foo"),
        # a lone CR ends only its line
        (b"foo=\rbar\rbaz\nend", b"foobar\rbaz\nend"),
        # not quoted-printable: unchanged
        (b"a = b", b"a = b"),
        (b"50=% =x4", b"50=% =x4"),
    ],
)
def test_quoted_printable(encoded: bytes, data: bytes) -> None:
    assert decode_transfer(encoded, b"Quoted-Printable") == data


@given(st.binary())
def test_decoding_never_raises(value: bytes) -> None:
    decode_header_text(value)
    for encoding in (b"BASE64", b"QUOTED-PRINTABLE", b"8BIT"):
        decode_part_text(value, encoding, "utf-8")


@given(st.binary(max_size=50), st.text(max_size=20))
def test_any_charset_label_gives_text(data: bytes, label: str) -> None:
    assert isinstance(decode_charset(data, label), str)


@given(st.binary(max_size=50), st.sampled_from(sorted({*aliases, *aliases.values()})))
def test_any_bytes_in_any_charset_give_text(data: bytes, label: str) -> None:
    assert isinstance(decode_charset(data, label), str)


def test_unknown_labels_do_not_reach_the_codec_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry would search for a module, and keep the label for ever."""
    cache: dict[str, object] = {}
    monkeypatch.setattr(encodings, "_cache", cache)
    for number in range(100):
        decode_charset(b"x", f"x-unknown-{number}")
    assert not cache


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"caf\xe9", "iso-8859-1", "café"),
        (b"\x80", "ISO-8859-1", "€"),
        (b"\xb1\xe6", "iso-8859-2", "ąć"),
        (b"\xc4\xe3\xba\xc3", "GB2312", "你好"),
        (b"\x82\xb1", "shift_jis", "こ"),
        (b"\xd4", "KOI8-U", "т"),
        (b"\xa1", "windows-874", "ก"),
        (b"\x1b$B$3\x1b(B", "iso-2022-jp", "こ"),
        (b"\xc3\xa9", "us-ascii", "é"),
        (b"\xc3\xa9", "", "é"),
        (b"\xc3\xa9", "no-such-charset", "é"),
        (b"\xc3\xa9\xff", "utf-8", "é�"),
        (b"\xc3\xa9", "unicode_escape", "é"),
        (b"eA==", "base64", "eA=="),
        (b"abc", "x\0y", "abc"),
    ],
)
def test_decode_charset(data: bytes, charset: str, text: str) -> None:
    assert decode_charset(data, charset) == text


@pytest.mark.parametrize(
    ("body", "encoding", "decoded"),
    [
        (b"aGVs\r\nbG8=\r\n", b"base64", b"hello"),
        (b"aGVsbG8", b"BASE64", b"hello"),
        (b"a G*V-s b!G 8=garbage", b"base64", b"hello"),
        (b"aGVsbG8a", b"base64", b"hello\x1a"),
        (b"a", b"base64", b""),
        (b"caf=C3=A9 =\r\nx=zz", b" quoted-printable ", b"caf\xc3\xa9 x=zz"),
        (b"as is =41", b"x-unknown", b"as is =41"),
    ],
)
def test_decode_transfer(body: bytes, encoding: bytes, decoded: bytes) -> None:
    assert decode_transfer(body, encoding) == decoded


def test_decode_part_text() -> None:
    assert decode_part_text(b"Y2Fm6Q==", b"BASE64", "ISO-8859-1") == "café"


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        # RFC 5322 §A.1.1, §A.5, §A.6.2
        ("Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T09:55:06-06:00"),
        ("Thu,\t13\tFeb\t1969\t23:32\t-0330 (Newfoundland Time)", "1969-02-13T23:32:00-03:30"),
        ("21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06+00:00"),
        ("Mon, 23 Nov 26 10:00 EST", "2026-11-23T10:00:00-05:00"),
        ("Mon, 23 Nov 126 10:00:00 Z", "2026-11-23T10:00:00+00:00"),
        ("23 nov 2026 10:00:00 +01:30", "2026-11-23T10:00:00+01:30"),
        ("Mon, 23-Nov-2026 10:00:00 GMT", "2026-11-23T10:00:00+00:00"),
        ("Mon Nov 23 10:00:00 2026", "2026-11-23T10:00:00+00:00"),
        ("Mon Nov  3 10:00:00 PST 2026", "2026-11-03T10:00:00-08:00"),
        ("November 3, 2026 10:00", "2026-11-03T10:00:00+00:00"),
        ("Monday, 23 November 2026 10:00:00 -0000", "2026-11-23T10:00:00+00:00"),
        ("Mon, 23 Nov 2026 23:59:60 +0000", "2026-11-23T23:59:59+00:00"),
        ("Mon, 23 Nov 2026 10:00:00 XYZ", "2026-11-23T10:00:00+00:00"),
        ("Mon, 23 Nov 2026 10:00:00 +9999", "2026-11-23T10:00:00+00:00"),
        ("Mon, 23 Nov 2026", "2026-11-23T00:00:00+00:00"),
        ("Mon, 23 Nov 2026 10.00.05 A", "2026-11-23T10:00:05+00:00"),
    ],
)
def test_parse_date(value: str, moment: str) -> None:
    parsed = parse_date(value.encode())
    assert parsed is not None
    assert parsed.isoformat() == moment


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "Mon", "32 Nov 2026 10:00", "1 Foo 2026 10:00", "1 Nov x 10:00", "1 Nov 2026 25:00",
     "31 Dec 9999 23:59 -1200", "1 Jan 0001 00:00 +1200", "( ( (", "1 Nov 2026 10"],
)  # fmt: skip
def test_no_date(value: str) -> None:
    assert parse_date(value.encode()) is None


@given(st.binary())
def test_parse_date_never_raises(value: bytes) -> None:
    parse_date(value)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)))
def test_dates_round_trip(moment: datetime) -> None:
    text = moment.strftime("%a, %d %b %Y %H:%M:%S +0000").encode()
    assert parse_date(text) == moment.replace(microsecond=0, tzinfo=UTC)
