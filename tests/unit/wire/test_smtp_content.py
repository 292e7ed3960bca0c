"""The end of a message, wherever the segments are cut, and the rules for its content (RFC 5321 §2.3.8, §4.5.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.smtp.content import (
    BareLineEnd,
    ChunkCollector,
    ContentLineTooLong,
    DataDecoder,
    check_line_lengths,
)
from paquebot.wire.transparency import add_transparency

_ALPHABET = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\x00", b"\xff"]), max_size=30).map(b"".join)
_LINES = st.lists(st.lists(st.sampled_from([b".", b"a", b"\xc3\xa9"]), max_size=6).map(b"".join), max_size=8)
_CUTS = st.lists(st.integers(min_value=1, max_value=7), max_size=40)


def decoded(data: bytes, cuts: list[int]) -> tuple[bytes, bytes] | None:
    """Return the content and the bytes behind it when `data` arrives in segments of these lengths; None: no end."""
    decoder = DataDecoder()
    at = 0
    for length in [*cuts, len(data)]:
        rest = decoder.feed(data[at : at + length])
        at += length
        if rest is not None:
            return decoder.content(), rest + data[at:]
    return None


@given(_LINES, _CUTS)
def test_any_lines_round_trip_wherever_segments_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    assert decoded(b"".join(add_transparency([content])) + b"QUIT\r\n", cuts) == (content, b"QUIT\r\n")


@given(_ALPHABET, _CUTS)
def test_only_crlf_dot_crlf_ends(data: bytes, cuts: list[int]) -> None:
    end = (b"\r\n" + data).find(b"\r\n.\r\n")
    try:
        found = decoded(data, cuts)
    except BareLineEnd:
        assert end >= 0
        assert (data[:end] if end else b"").replace(b"\r\n", b"").strip(b".a\x00\xff") != b""
        return
    if end < 0:
        assert found is None
    else:
        assert found is not None
        assert found[1] == data[end + 3 :]
        assert b"\r" not in found[0].replace(b"\r\n", b"")
        assert b"\n" not in found[0].replace(b"\r\n", b"")


@given(_ALPHABET, _CUTS)
def test_discarding_finds_the_same_end(data: bytes, cuts: list[int]) -> None:
    keeping, discarding = DataDecoder(), DataDecoder()
    at = 0
    for length in [*cuts, len(data)]:
        segment = data[at : at + length]
        at += length
        kept, discarded = keeping.feed(segment), discarding.feed(segment)
        assert kept == discarded
        if kept is not None:
            return
        assert keeping.size == discarding.size
        discarding.discard()


@pytest.mark.parametrize("mark", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\0.\r\n"])
def test_other_marks_do_not_end(mark: bytes) -> None:
    assert decoded(b"hello" + mark + b"x", []) is None


@pytest.mark.parametrize("cut", range(1, 5))
def test_end_mark_cut_anywhere(cut: int) -> None:
    data = b"hello\r\n.\r\nQUIT\r\n"
    assert decoded(data, [4 + cut]) == (b"hello\r\n", b"QUIT\r\n")


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a.\r\n..b\r\n....\r\n.\r\n", b"a.\r\n.b\r\n...\r\n"),
    ],
)
def test_transparency(data: bytes, content: bytes) -> None:
    assert decoded(data, []) == (content, b"")


def test_line_length_counts_crlf_and_not_the_transparency_dot() -> None:
    check_line_lengths(b"x" * 998 + b"\r\n", 1000)
    with pytest.raises(ContentLineTooLong):
        check_line_lengths(b"ok\r\n" + b"x" * 999 + b"\r\n" + b"ok\r\n", 1000)
    check_line_lengths(b"x" * 5000, 0)
    content = b"." + b"x" * 5000 + b"\r\n"
    assert decoded(b"".join(add_transparency([content])), []) == (content, b"")


@given(st.lists(st.integers(min_value=0, max_value=30), max_size=20), st.integers(min_value=3, max_value=25))
def test_line_lengths_are_exact(lengths: list[int], limit: int) -> None:
    content = b"".join(b"x" * length + b"\r\n" for length in lengths)
    too_long = any(length + 2 > limit for length in lengths)
    if too_long:
        with pytest.raises(ContentLineTooLong):
            check_line_lengths(content, limit)
    else:
        check_line_lengths(content, limit)


@given(_ALPHABET, _CUTS)
def test_chunks_join_and_end_with_a_line_end(data: bytes, cuts: list[int]) -> None:
    collector = ChunkCollector()
    at = 0
    for length in [*cuts, len(data)]:
        collector.feed(data[at : at + length])
        at += length
    assert collector.size == len(data)
    bare = data.count(b"\r\n") != data.count(b"\r") or data.count(b"\r\n") != data.count(b"\n")
    if bare:
        with pytest.raises(BareLineEnd):
            collector.content()
    else:
        assert collector.content() == data + (b"" if data.endswith(b"\r\n") or not data else b"\r\n")
