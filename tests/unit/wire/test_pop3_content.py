"""Dot-stuffing, line ends and TOP's cut, against a plain line-by-line reading of RFC 1939 §3 and §7."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.pop3 import stuffed, top_of

PARTS = st.lists(st.sampled_from([b".", b"\r\n", b"\n", b"\r", b"x", b"..", b"a: b", b"long line of octets"]))


def canonical(message: bytes) -> bytes:
    """Return the content with CRLF at the end of every line."""
    return re.sub(rb"(?<!\r)\n", b"\r\n", message)


def by_lines(message: bytes) -> bytes:
    if not message:
        return b""
    lines = message.removesuffix(b"\r\n").split(b"\r\n")
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)


@given(PARTS, st.integers(2, 40))
def test_stuffed_in_any_pieces(parts: list[bytes], piece: int) -> None:
    message = b"".join(parts)
    assert b"".join(stuffed(message, piece=piece)) == by_lines(canonical(message))


def test_a_message_of_line_ends_only() -> None:
    """The stuffed form of a large message is never in memory as a whole."""
    pieces = list(stuffed(b"\n" * 1_000_000))
    assert max(map(len, pieces)) <= 2 * 64 * 1024
    assert b"".join(pieces) == b"\r\n" * 1_000_000


@given(PARTS, st.integers(0, 12))
def test_top_counts_lines_of_the_body(parts: list[bytes], lines: int) -> None:
    body = canonical(b"".join(parts))
    message = b"a: b\r\n\r\n" + body
    wanted = b""
    for line in body.split(b"\n")[:lines]:
        wanted += line + b"\n"
    end = top_of(message, lines)
    assert message[:end] == b"a: b\r\n\r\n" + (wanted if len(wanted) <= len(body) else body)


@pytest.mark.parametrize(
    ("message", "lines", "expected"),
    [
        (b"", 0, b""),
        (b"a: b\n\nx\ny\n", 1, b"a: b\n\nx\n"),
        (b"a: b\n\r\nx\n\ny", 1, b"a: b\n\r\nx\n"),
        (b"\nx\ny", 1, b"\nx\n"),
        (b"a: b\r\n", 5, b"a: b\r\n"),
        (b"\r\nx\r\ny\r\n", 1, b"\r\nx\r\n"),
        (b"a: b\r\n\r\nx\r\ny", 2**32, b"a: b\r\n\r\nx\r\ny"),
    ],
)
def test_top_of_odd_messages(message: bytes, lines: int, expected: bytes) -> None:
    assert message[: top_of(message, lines)] == expected
