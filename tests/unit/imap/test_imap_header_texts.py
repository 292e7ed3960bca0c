"""Fields read in pieces have the text of fields read whole, and a long header is read in short steps."""

from __future__ import annotations

import pytest

from paquebot.imap.search.texts import field_values, header_text


def test_fields_in_pieces() -> None:
    header = [(b"subject", b"Subject: =?utf-8?q?a?=\r\n b\r\n"), (b"", b"no field\r\n"), (b"to", b"To: c\r\n")]
    assert "".join(header_text(header)) == "subject: a b \0: no field\r\n \0to: c \0"


def test_a_long_field_is_cut_at_white_space() -> None:
    words = [b"word%d" % number for number in range(100_000)]
    raw = b"Subject: " + b"\r\n ".join(words) + b"\r\n"
    values = list(field_values(b"subject", raw))
    assert len(values) == -(-len(raw) // (256 * 1024))
    assert b" ".join(values).split() == words
    text = "".join(header_text([(b"subject", raw)]))
    assert all(f" {word.decode()} " in text for word in words[::997])


def test_a_word_without_white_space_is_cut_anywhere() -> None:
    values = list(field_values(b"x", b"X: " + b"y" * 600_000 + b"\r\n"))
    assert b"".join(values) == b"y" * 600_000
    assert max(map(len, values)) <= 256 * 1024


@pytest.mark.parametrize("line", [b"a:\n", b"to: b@c, =?utf-8?q?d?= <e@f>\r\n", b" folded\r\n"])
def test_pieces_are_bounded(line: bytes) -> None:
    pieces = list(header_text([(b"a", line)] * 5000))
    assert max(map(len, pieces)) <= 64 * 1024
    assert len(pieces) >= 5
