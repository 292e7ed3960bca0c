"""Mailbox names, LIST patterns, and sequence sets."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paquebot.wire.imap import (
    ListPatterns,
    MailboxNameError,
    SequenceSet,
    ast,
    check_new_name,
    compress,
    decode_mailbox_name,
    encode_mailbox_name,
    list_matches,
    set_of,
)
from paquebot.wire.imap.mailbox_name import MAX_LEVELS, MAX_NAME_OCTETS, decode_mutf7
from paquebot.wire.imap.sequence_set import SeqRange
from tests.support.imap_feed import parsed

# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e"),  # RFC 3501 §5.1.3
        (b"&Jjo-!", "\u263a!"),
        (b"Tom &- Jerry", "Tom & Jerry"),
        (b"&2D3eAA-", "\U0001f600"),
        (b"&AAA-", "\0"),
        (b"", ""),
    ],
)
def test_modified_utf7(raw: bytes, name: str) -> None:
    assert decode_mailbox_name(raw) == name
    assert encode_mailbox_name(name) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"&Jjo!",  # RFC 3501 §5.1.3: no end of the shift
        b"&U,BTFw-&ZeVnLIqe-",  # RFC 3501 §5.1.3: superfluous shift
        b"&AGE-",  # "a" in base64
        b"&",
        b"&A-",
        b"&2D0-",  # half a surrogate pair
        b"&AGEAYg==-",
        b"&Jj/-",
        b"&=-",
        b"\xe9",
        b"a\x01",
    ],
)
def test_names_that_are_not_canonical(raw: bytes) -> None:
    with pytest.raises(MailboxNameError):
        decode_mailbox_name(raw)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_names_round_trip(name: str) -> None:
    assert decode_mutf7(encode_mailbox_name(name)) == name
    assert encode_mailbox_name(name, utf8=True).decode() == name
    assert encode_mailbox_name(name).isascii()


@given(st.binary())
@example(b"&-&-")
def test_every_name_that_decodes_is_canonical(raw: bytes) -> None:
    try:
        name = decode_mutf7(raw)
    except MailboxNameError:
        return
    assert encode_mailbox_name(name) == raw


def test_surrogates_have_no_encoding() -> None:
    for utf8 in (False, True):
        with pytest.raises(MailboxNameError):
            encode_mailbox_name("\ud800", utf8=utf8)


def test_inbox_in_any_case() -> None:
    assert decode_mailbox_name(b"inbox") == "INBOX"
    assert decode_mailbox_name(b"InBox/Old") == "INBOX/Old"
    assert decode_mailbox_name(b"inboxes") == "inboxes"
    assert decode_mailbox_name("\u0131nbox".encode(), utf8=True) == "\u0131nbox"


def test_new_names() -> None:
    assert check_new_name("a/b/") == "a/b"
    assert check_new_name("inbox/x") == "INBOX/x"
    assert check_new_name("x" * MAX_NAME_OCTETS)
    assert check_new_name("100% *done*") == "100% *done*"
    wrong = ["", "/", "/a", "a//b", "a\tb", "a\x85", "a\u2028", "x" * (MAX_NAME_OCTETS + 1), "a\ud800"]
    for name in [*wrong, "/".join("a" * (MAX_LEVELS + 1))]:
        with pytest.raises(MailboxNameError):
            check_new_name(name)


# --- patterns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "a/b/c", True),
        ("%", "a", True),
        ("%", "a/b", False),
        ("a/%", "a/b", True),
        ("a/%", "a", False),
        ("a/*", "a", False),
        ("a*", "a", True),
        ("%/b", "a/b", True),
        ("*b", "a/b", True),
        ("*%", "a/b", True),
        ("%*", "a/b", True),
        ("%%", "a/b", False),
        ("%/%", "a/b", True),
        ("a%c", "abc", True),
        ("a%c", "a/c", False),
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("a", "A", False),
        ("inbox", "INBOX", True),
        ("inb%", "INBOX", True),
        ("InBoX/%", "INBOX/a", True),
        ("InBoX/A", "INBOX/a", False),
        ("inbox", "INBOXES", False),
        ("INBOX", "inboxes", False),
        ("*/x*y%z", "a/xx/yy/z", False),
        ("*/x*y%z", "a/xx/yyaz", True),
    ],
)
def test_list_pattern(pattern: str, name: str, matches: bool) -> None:
    assert list_matches(pattern, name) is matches


def matches_by_definition(pattern: str, name: str) -> bool:
    """The definition of RFC 3501 §6.3.8."""
    if not pattern:
        return not name
    if pattern[0] in "%*":
        reach = name.split("/")[0] if pattern[0] == "%" else name
        return any(matches_by_definition(pattern[1:], name[end:]) for end in range(len(reach) + 1))
    return name[:1] == pattern[0] and matches_by_definition(pattern[1:], name[1:])


@given(st.text("ab/%*", max_size=7), st.text("ab/", max_size=8))
def test_patterns_match_as_defined(pattern: str, name: str) -> None:
    assert list_matches(pattern, name) is matches_by_definition(pattern, name)


def test_a_hostile_pattern_is_matched_quickly() -> None:
    pattern = ListPatterns(["*a" * 400 + "b"])
    started = time.process_time()
    assert not pattern.matches("a" * 1000)
    assert time.process_time() - started < 1


@given(st.lists(st.text("ab/%*", max_size=5), max_size=4), st.text("ab/", max_size=8))
def test_patterns_together_match_like_each_one_separately(patterns: list[str], name: str) -> None:
    together = ListPatterns(patterns).matches(name)
    assert together is any(matches_by_definition(pattern, name) for pattern in patterns)


def test_a_pattern_longer_than_any_name_matches_none() -> None:
    longest = "a" * MAX_NAME_OCTETS
    assert list_matches("*a" * MAX_NAME_OCTETS, longest)
    assert not list_matches("*a" * (MAX_NAME_OCTETS + 1), longest)
    assert not list_matches("*a" * (MAX_NAME_OCTETS + 1), "")


# --- sequence sets ---------------------------------------------------------------------------------------


def read(text: str) -> SequenceSet:
    command = parsed(f"a UID EXPUNGE {text}".encode())
    assert isinstance(command, ast.UidExpunge)
    return command.sequence_set


@pytest.mark.parametrize("text", ["1", "1,3,5", "4:2", "*", "*:4", "2,4:7,9,12:*", "$", "1,1,1"])
def test_sets_are_written_as_they_were_read(text: str) -> None:
    assert str(read(text)) == text


@pytest.mark.parametrize(
    ("text", "maximum", "numbers"),
    [
        ("2,4:7,9,12:*", 15, [2, 4, 5, 6, 7, 9, 12, 13, 14, 15]),  # RFC 3501 §9
        ("*:4,5:7", 10, [4, 5, 6, 7, 8, 9, 10]),  # RFC 3501 §9
        ("559:*", 500, [500]),  # RFC 3501 §6.4.8
        ("3:1,2", 5, [1, 2, 3]),
        ("*", 7, [7]),
        ("1:*", 0, []),
        ("1:4294967295", 3, [1, 2, 3]),
        ("9", 3, []),
        ("$", 3, []),
    ],
)
def test_sets_against_a_mailbox(text: str, maximum: int, numbers: list[int]) -> None:
    found = read(text)
    assert list(found.iterate(maximum)) == numbers
    assert [number for number in range(maximum + 2) if found.contains(number, maximum)] == numbers


def test_highest_and_star() -> None:
    assert read("3:7,2").highest() == 7
    assert read("*").highest() == 0
    assert read("3:*").has_star()
    assert not read("3:7").has_star()


def test_compress() -> None:
    assert compress([1, 2, 3, 7]) == "1:3,7"
    assert compress([]) == ""
    assert compress(iter([5])) == "5"


NUMBER = st.one_of(st.none(), st.integers(1, 30))
SETS = st.lists(st.builds(SeqRange, NUMBER, NUMBER), min_size=1, max_size=8).map(
    lambda ranges: SequenceSet(tuple(ranges))
)


@given(SETS, st.integers(0, 40))
def test_set_operations_agree(found: SequenceSet, maximum: int) -> None:
    assert read(str(found)) == found
    numbers = list(found.iterate(maximum))
    assert numbers == [number for number in range(1, maximum + 1) if found.contains(number, maximum)]
    spans = found.resolve(maximum)
    assert all(high + 1 < low for (_, high), (low, _) in itertools.pairwise(spans))


@given(st.sets(st.integers(1, 60)).map(sorted))
def test_compression_loses_nothing(numbers: list[int]) -> None:
    assert list(set_of(numbers).iterate(60)) == numbers
    assert str(set_of(numbers)) == compress(numbers)
