"""Dot-stuffing in pieces (RFC 5321 §4.5.2, RFC 1939 §3)."""

import pytest

from paquebot.wire.transparency import add_transparency, dot_stuffed

BLOCK = 64 * 1024


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b".\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"),
        (b"a\r\n.b\r\n..\r\nc.\r\n", b"a\r\n..b\r\n...\r\nc.\r\n.\r\n"),
    ],
)
def test_a_client_doubles_dots(content: bytes, sent: bytes) -> None:
    assert b"".join(add_transparency([content])) == sent
    assert b"".join(dot_stuffed([content])) == sent.removesuffix(b".\r\n")


def test_pieces_may_end_anywhere_but_in_a_line_end() -> None:
    content = b".a\r\n..\r\nb.\r\n\r\n.c"
    for cut in range(len(content) + 1):
        if content[cut - 1 : cut + 1] != b"\r\n":
            sent = b"".join(add_transparency([content[:cut], b"", content[cut:]]))
            assert sent == b"..a\r\n...\r\nb.\r\n\r\n..c\r\n.\r\n", cut


def test_a_piece_stays_about_as_long() -> None:
    assert max(map(len, dot_stuffed([b".\r\n" * (BLOCK // 3)] * 3))) <= 2 * BLOCK
