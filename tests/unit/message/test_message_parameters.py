"""Content-Type and Content-Disposition values: RFC 2045 syntax, RFC 2231 continuations, and repairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message.limits import MAX_PARAMETERS
from paquebot.message.mime.parameters import disposition, media_type, parameters


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/plain; charset=us-ascii (Plain text)", ("TEXT", "PLAIN", [("charset", "us-ascii")])),
        ('text/plain; Charset="us-ascii"', ("TEXT", "PLAIN", [("charset", "us-ascii")])),
        (
            "(a) text (b) / (c(d)) html (e\\)) ; (f) charset (g) = (h) utf-8 (i)",
            ("TEXT", "HTML", [("charset", "utf-8")]),
        ),
        ("text/html charset=utf-8", ("TEXT", "HTML", [("charset", "utf-8")])),
        ("multipart/mixed;boundary==_x;", ("MULTIPART", "MIXED", [("boundary", "=_x")])),
        ("text/plain", ("TEXT", "PLAIN", [])),
    ],
)
def test_media_type(value: str, expected: tuple[str, str, list[tuple[str, str]]]) -> None:
    major, minor, found = expected
    wanted = (major.encode(), minor.encode(), [(name.encode(), text.encode()) for name, text in found])
    assert media_type(value.encode()) == wanted


@pytest.mark.parametrize("value", ["", "text", "text/", "/x", "a/b/c", "te:xt/x", "x" * 200 + "/y"])
def test_no_media_type(value: str) -> None:
    assert media_type(value.encode()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name="a;b\\"c"; x=y', [("name", 'a;b"c'), ("x", "y")]),
        ('name="C:\\dir\\file.txt"', [("name", "C:\\dir\\file.txt")]),
        ("name=my file (1).txt; x=y", [("name", "my file (1).txt"), ("x", "y")]),
        ('name="lost; x=y', [("name", "lost; x=y")]),
        ('name="a" junk; x=y', [("name", "a"), ("x", "y")]),
        (";;; ; =v; flag; x=y;", [("x", "y")]),
        ("a = b ; c= d", [("a", "b"), ("c", "d")]),
        ("a=", [("a", "")]),
        # RFC 2231 §3
        ('URL*0="ftp://"; URL*1="cs.utk.edu/pub"', [("url", "ftp://cs.utk.edu/pub")]),
        # §4
        ("title*=us-ascii'en-us'This%20is", [("title*", "us-ascii'en-us'This%20is")]),
        # §4.1
        (
            "title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"",
            [("title*", "us-ascii'en'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn%27t%20it!")],
        ),
        ('filename*1="b"; size=3; filename*0="a"', [("filename", "ab"), ("size", "3")]),
        ("a*x=b; *=c; **=d; a*1234=e", [("a*x", "b"), ("*", "c"), ("**", "d"), ("a*1234", "e")]),
    ],
)
def test_parameters(text: str, expected: list[tuple[str, str]]) -> None:
    assert parameters(text.encode()) == [(name.encode(), value.encode()) for name, value in expected]


def test_disposition() -> None:
    assert disposition(b'ATTACHMENT; filename="x"') == (b"attachment", [(b"filename", b"x")])
    assert disposition(b";;;") is None


def test_number_of_parameters_is_bounded() -> None:
    assert len(parameters(b"a=b;" * 3000)) == MAX_PARAMETERS


@given(st.binary())
def test_never_raises(value: bytes) -> None:
    media_type(value)
    disposition(value)
    for name, _ in parameters(value):
        assert name
        assert name == name.lower()


TOKEN = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(st.tuples(TOKEN, TEXT), max_size=6))
def test_quoted_values_round_trip(pairs: list[tuple[str, str]]) -> None:
    quoted = [(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in pairs]
    text = "; ".join(f'{name}="{value}"' for name, value in quoted)
    assert parameters(text.encode()) == [(name.encode(), value.encode()) for name, value in pairs]
