"""Decoding piece by piece gives the same text as decoding the whole."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paquebot.message import decode_part_text, decode_transfer, decoded_pieces, text_pieces

_pieces = st.sampled_from((1, 2, 3, 4, 5, 7, 16))
_CHARSETS = ("utf-8", "", "us-ascii", "x-unknown", "utf-16", "iso-2022-jp", "euc-jp", "latin-1", "big5", "utf-7", "hex")


@given(st.lists(st.sampled_from((b"QUJD", b"a", b"=", b"\r\n", b"\xff", b"9+/"))).map(b"".join), _pieces)
def test_base64(body: bytes, piece: int) -> None:
    assert b"".join(decoded_pieces(memoryview(body), b"Base64", piece=piece)) == decode_transfer(body, b"BASE64")


_QUOTED = (b"=3D", b"=c3", b"a", b"4", b"=", b"\r\n", b"\n", b"\r", b"=\r\n", b"\xff", b" ", b"\t", b"      ")


@example(b"==\r=3D", 3)  # an even run of "=" is no soft line break
@given(st.lists(st.sampled_from(_QUOTED)).map(b"".join), st.sampled_from((3, 4, 5, 7, 16)))
def test_quoted_printable(body: bytes, piece: int) -> None:
    found = b"".join(decoded_pieces(memoryview(body), b"quoted-printable", piece=piece))
    assert found == decode_transfer(body, b"QUOTED-PRINTABLE")


@pytest.mark.parametrize("before", [b"a", b"a=", b"=", b""])
@pytest.mark.parametrize("after", [b"\r\nb", b"\nb", b"\rb", b"b", b""])
def test_white_space_of_many_pieces(before: bytes, after: bytes) -> None:
    """Only the bytes behind white space show whether it is text."""
    body = before + b" \t" * 50 + after
    pieces = list(decoded_pieces(memoryview(body), b"quoted-printable", piece=10))
    assert b"".join(pieces) == decode_transfer(body, b"QUOTED-PRINTABLE")
    assert max(map(len, pieces)) <= 10


@pytest.mark.parametrize("piece", [4, 5, 6, 7, 8])
def test_an_escape_of_a_long_line_is_not_cut(piece: int) -> None:
    body = b"a=3Dbc=C3=A9" * 40
    assert b"".join(decoded_pieces(memoryview(body), b"quoted-printable", piece=piece)) == b"a=bc\xc3\xa9" * 40


@given(st.text("aé漢😀\n", max_size=40), st.sampled_from(_CHARSETS), st.data())
def test_charsets(text: str, charset: str, data: st.DataObject) -> None:
    try:
        chunk = text.encode(charset, "replace")
    except LookupError:
        chunk = text.encode()
    chunk = chunk[: data.draw(st.integers(0, len(chunk)))]
    pieces = text_pieces(memoryview(chunk), b"8bit", charset, piece=data.draw(_pieces))
    assert "".join(pieces) == decode_part_text(chunk, b"8bit", charset)


def test_a_piece_is_never_longer_than_requested() -> None:
    body = b"YWJj" * 10_000
    assert max(map(len, decoded_pieces(memoryview(body), b"base64", piece=1000))) <= 1000
    assert max(map(len, text_pieces(memoryview(body), b"base64", "utf-8", piece=1000))) <= 1000
