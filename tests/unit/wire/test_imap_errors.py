"""The parser's only error, with its position; and the limits."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.imap import DEFAULT_LIMITS, AssembledCommand, BadSyntax, Literal, ast, parse_command
from tests.support.imap_feed import assembled, parsed

WRONG = [
    (b"", None, "a tag", 0),
    (b" NOOP", None, "a tag", 0),
    (b"+ NOOP", None, "a tag", 0),
    (b"a", None, "a space", 1),
    (b"a ", b"a", "a command", 2),
    (b"a LOGIN x", b"a", "a space", 9),
    (b'a LOGIN x "y', b"a", 'a closing "', 10),
    (b'a LOGIN x "y\0z"', b"a", 'a closing "', 10),
    (b"a LOGIN x (y)", b"a", "a password", 10),
    (b"a LOGIN x ~{1+}\r\ny", b"a", "the end of the command", 11),
    (b"a LOGIN {1+}\r\n\0 y", b"a", "a literal without NUL octets", 8),
    (b"a CREATE &", b"a", "modified UTF-7", 9),
    (b"a CREATE a&AGE-", b"a", "modified UTF-7", 9),
    (b"a SELECT x (CONDSTORE CONDSTORE)", b"a", "each once", 22),
    (b"a SELECT x (QRESYNC (x 1))", b"a", "a UIDVALIDITY", 21),
    (b"a SELECT x (QRESYNC (1 1 1:*))", b"a", "a set without * or $", 25),
    (b"a SELECT x (QRESYNC (1 1 1:3 x))", b"a", "seq-match-data", 29),
    (b"a LSUB x (y)", b"a", "a mailbox name or pattern", 9),
    (b"a STATUS x ()", b"a", "a status item", 12),
    (b"a STATUS x (MESSAGES FOO)", b"a", "a status item", 21),
    (b"a STORE 1 FLAGS (\\%)", b"a", "a flag's name", 18),
    (b"a STORE 1 *FLAGS (\\Seen)", b"a", "FLAGS, +FLAGS or -FLAGS", 10),
    (b"a STORE 0 FLAGS ()", b"a", "a message number or *", 8),
    (b"a STORE 1,,2 FLAGS ()", b"a", "a message number or *", 10),
    (b"a STORE 4294967296 FLAGS ()", b"a", "a message number or *", 8),
    (b"a STORE $,1 FLAGS ()", b"a", "a space", 9),
    (b"a FETCH 1 ()", b"a", "a fetch item", 11),
    (b"a FETCH 1 BODY[MIME]", b"a", "HEADER.FIELDS.NOT, TEXT", 15),
    (b"a FETCH 1 BODY[0]", b"a", "a part's number", 15),
    (b"a FETCH 1 BODY[1.]", b"a", "a section", 17),
    (b"a FETCH 1 BODY[HEADER.FIELDS ()]", b"a", "a header field name", 30),
    (b"a FETCH 1 BODY[]<0>", b"a", ". between offset and count", 18),
    (b"a FETCH 1 FLAGS[]", b"a", "a fetch item that takes a section", 10),
    (b"a FETCH 1 FLAGS (VANISHED)", b"a", "CHANGEDSINCE", 17),
    (b"a UID FETCH 1 FLAGS (VANISHED)", b"a", "CHANGEDSINCE with VANISHED", 29),
    (b"a SEARCH", b"a", "a space", 8),
    (b"a FETCH 1 FOO", b"a", "a fetch item", 10),
    (b"a STORE 1 FLAGGED x", b"a", "FLAGS, +FLAGS or -FLAGS", 10),
    (b'a SEARCH CHARSET "" ALL', b"a", "the name of a charset", 17),
    (b'a SEARCH MODSEQ "\xff" all 5', b"a", "an entry name in US-ASCII", 16),
    (b"a SEARCH EMAILID " + b"x" * 256, b"a", "at most 255 octets", 17),
    (b"a SEARCH ()", b"a", "a search key", 10),
    (b"a SEARCH FOO", b"a", "a search key", 9),
    (b"a SEARCH OR SEEN", b"a", "a space", 16),
    (b"a SEARCH (SEEN", b"a", "a space or )", 14),
    (b"a SEARCH ON 31-Feb-1994", b"a", "a day of the calendar", 12),
    (b"a SEARCH ON 1-Foo-1994", b"a", "a month such as Feb", 14),
    (b"a SEARCH ON 001-Jan-1994", b"a", "a day of two places", 12),
    (b"a SEARCH OLDER 0", b"a", "a number of seconds", 15),
    (b'a SEARCH HEADER "x:y" y', b"a", "the name of a header field", 16),
    (b"a SEARCH RETURN (FOO) ALL", b"a", "MIN, MAX, ALL, COUNT or SAVE", 17),
    (b'a SEARCH MODSEQ "x" y 5', b"a", "priv, shared or all", 20),
    (b"a SEARCH EMAILID x.", b"a", "the end of the command", 18),
    (b"a AUTHENTICATE PLAIN !", b"a", "base64", 21),
    (b"a AUTHENTICATE PLAIN ", b"a", "base64", 21),
    (b"a ID ((x) y)", b"a", "a parameter's name", 6),
    (b"a CREATE x (USE (Sent))", b"a", "a special-use attribute", 17),
    (b"a APPEND x", b"a", "a space", 10),
    (b"a APPEND x (\\Seen)", b"a", "a space", 18),
    (b"a APPEND x NIL", b"a", "a message as a literal", 11),
    (b"a UID", b"a", "a space", 5),
    (b"a UID EXPUNGE", b"a", "a space", 13),
]


WRONG_BEFORE_LOGIN = [
    (b"a  NOOP", b"a", "a command", 2),
    (b"a NOOP ", b"a", "the end of the command", 6),
    (b"a FETCH 1 (FLAGS  UID)", b"a", "a fetch item", 17),
    (b"a FETCH 1 BODY[]<0.0>", b"a", "a count of octets", 19),
    (b"a LOGIN x%y z", b"a", "a space", 9),
    (b"a LOGIN x\xe4 z", b"a", "a space", 9),
    (b"a LOGIN x  z", b"a", "a password", 10),
    (b"a STATUS x MESSAGES", b"a", "( before status items", 11),
    (b'a LOGIN x "y\\z"', b"a", '" or \\ after \\', 13),
]


@pytest.mark.parametrize(("raw", "tag", "expected", "position"), WRONG_BEFORE_LOGIN, ids=lambda value: str(value)[:40])
def test_before_login_the_grammar_is_strict(raw: bytes, tag: bytes | None, expected: str, position: int) -> None:
    with pytest.raises(BadSyntax) as caught:
        parse_command(assembled(raw), liberal=False)
    assert expected in caught.value.message
    assert (caught.value.tag, caught.value.position) == (tag, position)
    parse_command(assembled(raw))


@pytest.mark.parametrize(("raw", "tag", "expected", "position"), WRONG, ids=lambda value: str(value)[:40])
def test_error_states_what_was_expected_and_where(raw: bytes, tag: bytes | None, expected: str, position: int) -> None:
    with pytest.raises(BadSyntax) as caught:
        parsed(raw)
    assert expected in caught.value.message
    assert (caught.value.tag, caught.value.position) == (tag, position)


@pytest.mark.parametrize(
    ("moment", "expected", "position"),
    [
        (b'"31-Feb-1994 00:00:00 +0000"', "a date and time of the calendar", 11),
        (b'"01-Feb-1994 24:00:00 +0000"', "a date and time of the calendar", 11),
        (b'"01-Feb-1994 00:00:00 +2400"', "a zone below 24 hours", 34),
        (b'"01-Feb-1994 00:00:00 0000"', "a zone such as \\+0100", 33),
    ],
)
def test_append_date(moment: bytes, expected: str, position: int) -> None:
    command = AssembledCommand(b"a APPEND x " + moment + b" {1}\r\n", ())
    with pytest.raises(BadSyntax, match=expected) as caught:
        parse_command(command)
    assert caught.value.position == position


def test_an_announced_literal_that_is_missing_is_an_error() -> None:
    with pytest.raises(BadSyntax, match="a literal's octets"):
        parse_command(AssembledCommand(b"a LOGIN {3}\r\n x"))


def test_a_message_is_not_a_string() -> None:
    with pytest.raises(BadSyntax, match="a message as a literal"):
        parse_command(AssembledCommand(b"a APPEND x {3}\r\n", (Literal(b"abc"),)))
    with pytest.raises(BadSyntax, match="the end of the command"):
        parsed(b"a APPEND x {1+}\r\ny)")


TIGHT = dataclasses.replace(
    DEFAULT_LIMITS,
    sequence_ranges=3,
    search_keys=4,
    fetch_attributes=2,
    header_fields=2,
    section_depth=3,
    flags=2,
    flag_octets=5,
    list_patterns=2,
    list_characters=8,
    id_parameters=1,
)


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (b"a FETCH 1,2,3 UID", b"a FETCH 1,2,3,4 UID"),
        (b"a SEARCH SEEN SEEN SEEN SEEN", b"a SEARCH SEEN SEEN SEEN SEEN SEEN"),
        (b"a SEARCH NOT NOT NOT ALL", b"a SEARCH NOT NOT NOT NOT ALL"),
        (b"a SEARCH (((ALL)))", b"a SEARCH ((((ALL))))"),
        (b"a FETCH 1 (UID FLAGS)", b"a FETCH 1 (UID FLAGS ENVELOPE)"),
        (b"a FETCH 1 BODY[HEADER.FIELDS (a b)]", b"a FETCH 1 BODY[HEADER.FIELDS (a b c)]"),
        (b"a FETCH 1 BODY[1.2.3]", b"a FETCH 1 BODY[1.2.3.4]"),
        (b"a STORE 1 FLAGS (a b)", b"a STORE 1 FLAGS (a b c)"),
        (b"a STORE 1 FLAGS (a a)", b"a STORE 1 FLAGS (a a a)"),
        (b"a STORE 1 FLAGS (abcde)", b"a STORE 1 FLAGS (abcdef)"),
        (b'a LIST "" (a b)', b'a LIST "" (a b c)'),
        (b"a LIST abc (a b)", b"a LIST abc (ab b)"),
        (b'a LIST "" abcdefgh', b'a LIST "" abcdefghi'),
        (b"a LSUB ab abcdef", b"a LSUB abc abcdef"),
        (b'a ID ("a" "b")', b'a ID ("a" "b" "c" "d")'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_count_is_bounded(within: bytes, beyond: bytes) -> None:
    parse_command(assembled(within), limits=TIGHT)
    with pytest.raises(BadSyntax, match="at most"):
        parse_command(assembled(beyond), limits=TIGHT)


@pytest.mark.parametrize(
    "program",
    [
        b"(" * 30_000 + b"ALL" + b")" * 30_000,
        b"NOT " * 30_000 + b"ALL",
        b"OR " * 10_000 + b"ALL " * 10_000 + b"ALL",
        b"OR ALL " * 10_000 + b"ALL",
        b"OR (ALL) (" * 8_000 + b"ALL" + b")" * 8_000,
    ],
    ids=["parentheses", "NOT", "OR on the left", "OR on the right", "OR in parentheses"],
)
def test_search_keys_may_be_nested_to_any_depth(program: bytes) -> None:
    assert isinstance(parsed(b"a SEARCH " + program), ast.Search)


VOCABULARY = (
    b'a|A1| |UID|FETCH|SEARCH|STORE|LIST|APPEND|LOGIN|STATUS|SELECT|CREATE|ID|1:*|$|(|)|[|]|<|>|"|\\|\\Seen|'
    b"BODY|HEADER.FIELDS|.|,|NIL|x|&|&-|{1}\r\n|~{2}\r\n|RETURN|CHARSET|OR|NOT|1-Feb-1994|MODSEQ|QRESYNC|+|-|FLAGS"
)
WORDS = st.sampled_from(VOCABULARY.split(b"|"))


@given(st.lists(st.one_of(WORDS, st.binary(max_size=4)), max_size=40).map(b"".join), st.booleans())
def test_only_bad_syntax_is_raised(text: bytes, utf8: bool) -> None:
    literals = (Literal(b"x"), Literal(b"\0y", binary=True))
    error = syntax_error(AssembledCommand(b"a " + text, literals), utf8=utf8)
    if error is not None:
        assert 0 <= error.position <= len(text) + 2
        assert error.tag in (None, b"a")
        assert error.message.isascii()


def syntax_error(command: AssembledCommand, *, utf8: bool) -> BadSyntax | None:
    try:
        parse_command(command, utf8=utf8)
    except BadSyntax as error:
        return error
    return None
