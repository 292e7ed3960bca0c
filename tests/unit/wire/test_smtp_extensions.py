"""The reply to EHLO as a client reads it (RFC 5321 §4.1.1.1, RFC 1870 §4)."""

import pytest

from paquebot.wire.smtp.extensions import parse_extensions, size_limit


@pytest.mark.parametrize(
    ("lines", "extensions"),
    [
        ("mx.example.net greets you", {}),
        ("mx.example.net\nPIPELINING\nSIZE 1000", {"PIPELINING": "", "SIZE": "1000"}),
        ("mx.example.net\npipelining\nsize  1000 ", {"PIPELINING": "", "SIZE": "1000"}),
        ("mx\nAUTH PLAIN LOGIN\nAUTH=PLAIN LOGIN", {"AUTH": "PLAIN LOGIN PLAIN LOGIN"}),
        ("mx\nAUTH=CRAM-MD5", {"AUTH": "CRAM-MD5"}),
        ("PIPELINING", {}),  # the first line is the greeting, whatever its text is
    ],
)
def test_keywords_and_parameters(lines: str, extensions: dict[str, str]) -> None:
    assert parse_extensions(lines) == extensions


@pytest.mark.parametrize(
    ("size", "limit"),
    [("1000", 1000), ("", 0), ("0", 0), ("-1", 0), ("x", 0), ("\u0661", 0), ("9" * 20, 0)],
)
def test_size_limit(size: str, limit: int) -> None:
    assert size_limit({"SIZE": size}) == limit


def test_without_size_there_is_no_limit() -> None:
    assert size_limit({}) == 0
