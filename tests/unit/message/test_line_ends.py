"""The counted bytes are the bytes that POP3 sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import crlf_bytes
from paquebot.wire.pop3 import stuffed


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (b"", 0),
        (b"\r\n", 2),
        (b"\n", 2),
        (b"x", 3),
        (b"a: b\n\none\ntwo\n", 18),
        (b"a: b\r\n\r\nno end", 16),
        (b"cr at the end\r", 16),
        (b"cr\rinside\r\n", 11),
        (b"\0\r\r\n\n", 6),
    ],
)
def test_bytes_with_crlf(raw: bytes, size: int) -> None:
    assert crlf_bytes(raw) == size == len(b"".join(stuffed(raw)))


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\0", b"\xff", b"abc"])).map(b"".join), st.integers(2, 9)
)
def test_the_count_equals_the_bytes_sent(raw: bytes, piece: int) -> None:
    assert crlf_bytes(raw) == len(b"".join(stuffed(raw, piece=piece)))
