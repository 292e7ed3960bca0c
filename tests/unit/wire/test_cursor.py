"""The shared cursor: it moves only over what it reads, and its errors state where it stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.cursor import ALPHA, DIGITS, END, Cursor, GrammarError


def test_it_moves_only_over_the_bytes_that_it_takes() -> None:
    cur = Cursor(b"ab 12xyz")
    assert not cur.take(b"b")
    assert cur.take(b"a")
    assert cur.take_word(b"B")
    cur.space()
    assert cur.number("a number") == 12
    assert cur.peek() == ord("x")
    assert cur.run(DIGITS) == b""
    assert cur.fixed(ALPHA, 2, "two letters") == b"xy"
    assert cur.rest() == b"z"
    assert cur.at_end()
    assert cur.peek() == END
    cur.end()


@pytest.mark.parametrize(
    ("data", "read", "expected", "position"),
    [
        (b"ab", lambda cur: cur.expect(b"b", "b"), "b", 0),
        (b"ab", lambda cur: cur.expect_word(b"B", "B"), "B", 0),
        (b"ab", lambda cur: cur.space(), "a space", 0),
        (b"", lambda cur: cur.space(), "a space", 0),
        (b"ab", lambda cur: cur.end(), "end of line", 0),
        (b"ab", lambda cur: cur.run1(DIGITS, "digits"), "digits", 0),
        (b"12", lambda cur: cur.fixed(DIGITS, 3, "three digits"), "three digits", 0),
        (b"1a3", lambda cur: cur.fixed(DIGITS, 3, "three digits"), "three digits", 0),
        (b"0", lambda cur: cur.number("one or more", low=1), "one or more", 0),
        (b"4294967296", lambda cur: cur.number("32 bits"), "32 bits", 0),
        (b"9" * 5000, lambda cur: cur.number("32 bits"), "32 bits", 0),
        (b"x", lambda cur: cur.number("a number"), "a number", 0),
    ],
)
def test_a_failure_states_what_was_expected_and_where(data: bytes, read: object, expected: str, position: int) -> None:
    cur = Cursor(data)
    assert callable(read)
    with pytest.raises(GrammarError) as caught:
        read(cur)
    assert (caught.value.expected, caught.value.position) == (expected, position)


def test_a_failure_can_point_back() -> None:
    cur = Cursor(b"abc")
    cur.take(b"ab")
    assert cur.failure("x").position == 2
    assert cur.failure("x", at=1).position == 1
    cur.back_to(0)
    assert cur.take(b"abc")


@given(st.binary(), st.sets(st.integers(0, 255)).map(frozenset))
def test_runs_are_the_longest(data: bytes, allowed: frozenset[int]) -> None:
    cur = Cursor(data)
    found = cur.run(allowed)
    assert data.startswith(found)
    assert allowed.issuperset(found)
    assert cur.peek() not in allowed


@given(st.integers(0, 2**32 - 1))
def test_numbers_round_trip(value: int) -> None:
    cur = Cursor(b"%d," % value)
    assert cur.number("a number") == value
    assert cur.take(b",")
