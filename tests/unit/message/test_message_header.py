"""Headers as fields: their ends, raw slices and unfolded text, and subsets of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import field_value, fields, first_value, header_fields, spans_of, split_header, unfold
from paquebot.message.header import field_spans


@pytest.mark.parametrize(
    ("raw", "end"),
    [
        (b"", 0),
        (b"\r\n", 2),
        (b"\nbody", 1),
        (b"A: b\r\n\r\nbody", 8),
        (b"A: b\n\nbody", 6),
        (b"A: b\n\r\nbody\r\n\r\n", 7),
        (b"A: b\r\n\nbody\r\n\r\n", 7),
        (b"A: b\n\n\r\n\r\n", 6),
        (b"A: b\r\n \r\nC: d\r\n\r\nx", 17),
        (b"no empty line\r\n", 15),
        (b"A: b\r\r", 6),
    ],
)
def test_split_header(raw: bytes, end: int) -> None:
    assert split_header(raw) == end


def test_fields_have_lower_case_names_and_raw_slices() -> None:
    raw = b"Subject: a\r\n b\r\nX-Empty:\r\nOld :c\r\n\r\nBody: no"
    assert list(fields(raw)) == [
        (b"subject", b"Subject: a\r\n b\r\n"),
        (b"x-empty", b"X-Empty:\r\n"),
        (b"old", b"Old :c\r\n"),
    ]


def test_lines_that_are_not_a_field_have_no_name() -> None:
    raw = b" continues nothing\nno colon\n: no name\nA: b"
    assert [name for name, _ in fields(raw)] == [b"", b"", b"", b"a"]


@given(st.binary())
def test_fields_joined_are_the_header(raw: bytes) -> None:
    joined = b"".join(field for _, field in fields(raw))
    assert raw[: split_header(raw)] in (joined, joined + b"\n", joined + b"\r\n")


@pytest.mark.parametrize(
    ("folded", "text"),
    [
        (b" a\r\n b\r\n", b"a b"),
        (b"a\n\tb\r\n", b"a\tb"),
        (b"a\r\n \r\n b\r\n", b"a  b"),
        (b"\r\n a", b"a"),
        (b"a\rb\0c", b"a bc"),
        (b"  ", b""),
    ],
)
def test_unfold(folded: bytes, text: bytes) -> None:
    assert unfold(folded) == text


@given(st.binary())
def test_unfolded_text_is_one_line(value: bytes) -> None:
    assert not set(unfold(value)) & set(b"\r\n\0")


def test_values() -> None:
    assert field_value(b"Subject: a\r\n b\r\n") == b"a b"
    assert first_value(b"A: 1\r\na: 2\r\n\r\nb: 3", b"a") == b"1"
    assert first_value(b"A: 1\r\n\r\nb: 3", b"b") is None


HEADER = b"From: a\r\nTo: b\r\n c\r\nnot a field\r\nto: d\r\nX: e\r\n\r\n"


def test_header_fields_keep_order_and_repetitions() -> None:
    assert header_fields(HEADER, ["TO", "from"]) == b"From: a\r\nTo: b\r\n c\r\nto: d\r\n\r\n"
    assert header_fields(HEADER, ["Missing"]) == b"\r\n"


def test_header_fields_not() -> None:
    assert header_fields(HEADER, ["TO", "from"], negate=True) == b"not a field\r\nX: e\r\n\r\n"
    assert header_fields(HEADER, [], negate=True) == HEADER


def test_header_fields_end_an_unended_line() -> None:
    assert header_fields(b"A: b", ["a"]) == b"A: b\r\n\r\n"


@given(st.binary(), st.lists(st.sampled_from(["a", "subject", ""]), max_size=2))
def test_header_fields_and_their_complement_are_the_whole(header: bytes, names: list[str]) -> None:
    chosen = header_fields(header, names)
    others = header_fields(header, names, negate=True)
    everything = header_fields(header, [], negate=True)
    assert len(chosen) + len(others) == len(everything) + 2


_HEADER_PIECES = st.sampled_from(
    [
        b"From",
        b"FROM",
        b"from",
        b"to",
        b":",
        b" ",
        b"\t",
        b"\r\n",
        b"\n",
        b"\r",
        b"x",
        b"\0",
        b"a: b\r\n",
        b"From: c\r\n",
    ]
)


@given(st.lists(_HEADER_PIECES, max_size=20).map(b"".join))
def test_fields_found_by_name_are_those_of_all_fields(raw: bytes) -> None:
    for name in (b"from", b"to"):
        spans = [span[1:] for span in field_spans(raw, 0, split_header(raw)) if span[0] == name]
        assert list(spans_of(raw, name)) == spans
