"""Texts in a malformed list that some mail program may take for an address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.message import named_addresses

_ME = (b"ann", b"a.example")
_BOB = (b"bob", b"b.example")


@pytest.mark.parametrize(
    "value",
    [
        b"ann@a.example",
        b"Ann <ann@a.example>",
        b"Kock, Ann <ann@a.example>",
        b"Kock, Ann, Dr. <ann@a.example>,",
        b'"Kock", Ann (x) <ann@a.example> (y)',
        b"Ann: Office <ann@a.example>",
        b'"bob@b.example" <ann@a.example>',
        b"ann@a.example (bob@b.example)",
        b"Ann [bob] <ann@a.example>",
    ],
)
def test_one_address_and_a_name(value: bytes) -> None:
    found = named_addresses(value)
    assert (found.certain, found.possible, found.readable) == ((_ME,), (), True)


@pytest.mark.parametrize(
    "value",
    [
        b"bob@b.example <ann@a.example>",
        b"Kock, bob@b.example <ann@a.example>",
        b"bob @ b . example Kock <ann@a.example>",
        b'"bob"@b.example <ann@a.example>',
        b"<ann@a.example> bob@b.example",
        b"bob@b.example: <ann@a.example>;",
        b"[ bob@b.example, ] <ann@a.example>",
        b"bob@b.example] <ann@a.example>",
        b"bob@>b.example <ann@a.example>",
        rb'"x\" <bob@b.example>, " <ann@a.example>',
        b'"Bob <bob@b.example>" <ann@a.example>',
        b"ann@a.example (Bob <bob@b.example>)",
        b"=?utf-8?Q?Bob_=3Cbob=40b.example=3E?= <ann@a.example>",
    ],
)
def test_a_possible_address(value: bytes) -> None:
    found = named_addresses(value)
    assert _ME in found.certain
    assert _BOB in (*found.certain, *found.possible)


@pytest.mark.parametrize(
    "value",
    [
        b"Bob, ann@a.example",
        b"Ann <ann@a.example>, Bob",
        b"Bob, Ann <ann@a.example",
        b"Bob, Ann <ann@a.example> <ann@a.example>",
        b'"bob@b.example", Ann <ann@a.example>',
        b'<ann@a.example> "bob@b.example',
        b"ann@a.example (bob@b.example",
        b"=?utf-8?Q?bob=40b.example?=, Ann <ann@a.example>",
        b"x, " * 3000 + b"Ann <ann@a.example>",
        b"Bob",
    ],
)
def test_ambiguous_lists(value: bytes) -> None:
    assert not named_addresses(value).readable


@pytest.mark.parametrize(
    "value",
    [
        b"x+ bob@b.example",
        b"<x+ bob@b.example>",
        b"x+(y)bob@b.example",
        b"x+\tbob@b.example",
        b'"x+"bob@b.example',
        b"x+)bob@b.example",
    ],
)
def test_a_local_part_in_several_words(value: bytes) -> None:
    assert _BOB in named_addresses(value).possible


def test_a_route_has_no_local_part() -> None:
    assert named_addresses(b"<@b.example,@c.example:ann@a.example>").possible == (
        (b"", b"b.example"),
        (b"", b"c.example"),
    )


def test_half_a_character_is_no_fault() -> None:
    named_addresses(b"=?utf-7?Q?=3C+2AA-=40x=3E?= <ann@a.example>")
    named_addresses(b'"<\xed\xa0\x80@\xff>" <ann@a.example>')


@given(st.binary(max_size=60))
def test_any_bytes(value: bytes) -> None:
    for one in (value, b"=?utf-7?Q?" + value + b"?= <ann@a.example>", b'"<' + value + b'@x>" <ann@a.example>'):
        named_addresses(one)


_PIECES = st.sampled_from(
    [b"bob@b.example", b"ann@a.example", b"<", b">", b",", b";", b":", b'"', b"(", b")", b"\\", b" ", b"x", b"[", b"]"]
)


@given(st.lists(_PIECES, max_size=14).map(b"".join))
def test_no_list_hides_an_address(value: bytes) -> None:
    """Without quoting, comments and literals the function finds the address of every `@`."""
    found = named_addresses(value)
    if not set(value) & set(b'"(\\[') and b"@b.example" in value:
        assert any(b"b.example" in domain for _, domain in (*found.certain, *found.possible))
