"""Encoded words that we write: short, of whole characters, and decoded to the same text (RFC 2047)."""

from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import decode_header_text, encoded_words


def test_a_name_beyond_ascii() -> None:
    assert list(encoded_words("MÜLLER PC")) == ["=?utf-8?Q?M=C3=9CLLER_PC?="]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_any_text_is_read_back(text: str) -> None:
    words = list(encoded_words(text))
    assert all(len(word) <= 75 and word.isascii() and word.isprintable() for word in words)
    assert not any(special in word for word in words for special in '()\\" \t')
    assert decode_header_text("\r\n\t".join(words).encode()) == text
