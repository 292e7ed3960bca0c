"""Common mistakes of clients after login that can mean one thing only are accepted.

Each case has the octets of a client and the same command by the grammar of RFC 3501.
"""

from __future__ import annotations

import pytest

from paquebot.wire.imap import Complete, ast, parse_command
from tests.support.imap_feed import feed, parsed

MEANT = [
    # more spaces than one, and at the ends of lists and lines
    (b"a  NOOP ", b"a NOOP"),
    (b"a SELECT  INBOX  (CONDSTORE )  ", b"a SELECT INBOX (CONDSTORE)"),
    (b"a SELECT x ( QRESYNC ( 1  2 1:3 ( 1  2 ) ) )", b"a SELECT x (QRESYNC (1 2 1:3 (1 2)))"),
    (b"a UID  FETCH  1:*  ( FLAGS  UID ) ( CHANGEDSINCE  5 ) ", b"a UID FETCH 1:* (FLAGS UID) (CHANGEDSINCE 5)"),
    (b"a FETCH 1 BODY[HEADER.FIELDS  ( From  To )]", b"a FETCH 1 BODY[HEADER.FIELDS (From To)]"),
    (b"a FETCH 1 BODY[HEADER.FIELDS(From)]", b"a FETCH 1 BODY[HEADER.FIELDS (From)]"),
    (b"a FETCH 1 (PREVIEW  ( LAZY ) UID)", b"a FETCH 1 (PREVIEW (LAZY) UID)"),
    (b"a STORE 1  +FLAGS  ( \\Seen  x ) ", b"a STORE 1 +FLAGS (\\Seen x)"),
    (b"a STORE 1 ( UNCHANGEDSINCE  5 ) FLAGS ()", b"a STORE 1 (UNCHANGEDSINCE 5) FLAGS ()"),
    (b"a SEARCH  RETURN  ( MIN  MAX )  CHARSET  UTF-8  OR  SEEN  ( NOT  DELETED ) ",
     b"a SEARCH RETURN (MIN MAX) CHARSET UTF-8 OR SEEN (NOT DELETED)"),
    (b'a LIST  ( SUBSCRIBED )  ""  ( a  b )  RETURN  ( CHILDREN  STATUS  ( UNSEEN ) ) ',
     b'a LIST (SUBSCRIBED) "" (a b) RETURN (CHILDREN STATUS (UNSEEN))'),
    (b"a STATUS x  ( MESSAGES  UNSEEN ) ", b"a STATUS x (MESSAGES UNSEEN)"),
    (b"a CREATE x  ( USE  ( \\Sent ) ) ", b"a CREATE x (USE (\\Sent))"),
    (b"a RENAME  x  y ", b"a RENAME x y"),
    (b"a COPY  1  x ", b"a COPY 1 x"),
    (b"a ENABLE  CONDSTORE  QRESYNC ", b"a ENABLE CONDSTORE QRESYNC"),
    # parentheses that are missing, or too many
    (b"a FETCH 1 UID FLAGS BODY.PEEK[]", b"a FETCH 1 (UID FLAGS BODY.PEEK[])"),
    (b"a FETCH 1 FLAGS UID (CHANGEDSINCE 5)", b"a FETCH 1 (FLAGS UID) (CHANGEDSINCE 5)"),
    (b"a FETCH 1 PREVIEW (CHANGEDSINCE 5)", b"a FETCH 1 (PREVIEW) (CHANGEDSINCE 5)"),
    (b"a FETCH 1 (ALL)", b"a FETCH 1 ALL"),
    (b"a FETCH 1 (FAST BODY)", b"a FETCH 1 (FLAGS INTERNALDATE RFC822.SIZE BODY)"),
    (b"a STATUS x MESSAGES UNSEEN", b"a STATUS x (MESSAGES UNSEEN)"),
    # missing quotes
    (b"a SELECT 100%*\\", b'a SELECT "100%*\\\\"'),
    (b"a SEARCH SUBJECT \xc3\xa4", b'a SEARCH SUBJECT "\xc3\xa4"'),
    (b"a SEARCH KEYWORD \"x\" UNKEYWORD \\Seen", b"a SEARCH KEYWORD x UNSEEN"),
    (b"a SEARCH HEADER Message-ID: <x>", b"a SEARCH HEADER Message-ID <x>"),
    (b"a ID (name x version 1 NIL NIL)", b'a ID ("name" "x" "version" "1" "NIL" NIL)'),
    (b"a ID", b"a ID NIL"),
    (b'a ID "NIL"', b"a ID NIL"),
    (b"a LIST NIL *", b'a LIST "" *'),
    (b'a SELECT "a\\b\\\\c\\"d"', b'a SELECT "a\\\\b\\\\c\\"d"'),
    # items of IMAP2bis and RFC 1730
    (b"a FETCH 1 RFC822.peek", b"a FETCH 1 (RFC822.PEEK)"),
    # dates
    (b"a SEARCH SINCE 01-FEB-1994", b"a SEARCH SINCE 1-Feb-1994"),
    (b'a SEARCH SINCE " 1-feb-1994"', b'a SEARCH SINCE "1-Feb-1994"'),
    (b"a SEARCH ON 1-February-1994", b"a SEARCH ON 1-Feb-1994"),
    (b"a SEARCH SINCE 1994-02-01", b"a SEARCH SINCE 1-Feb-1994"),
    (b'a SEARCH SINCE "1994-02-01"', b"a SEARCH SINCE 1-Feb-1994"),
    (b'a SEARCH SENTON "01-Feb-1994 10:00:00 +0100" SEEN', b"a SEARCH SENTON 1-Feb-1994 SEEN"),
    # names from FLAGS and PERMANENTFLAGS, sent back
    (b"a STORE 1 FLAGS (\\Seen \\Recent \\*)", b"a STORE 1 FLAGS (\\Seen)"),
    (b"a STORE 1 -FLAGS \\RECENT", b"a STORE 1 -FLAGS ()"),
    # in any case
    (b"a uid fetch 1 (body.peek[header.fields (from)]<0.5>)", b"a UID FETCH 1 (BODY.PEEK[HEADER.FIELDS (from)]<0.5>)"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "meant"), MEANT, ids=lambda value: str(value)[:50])
def test_common_mistakes_are_accepted(sent: bytes, meant: bytes) -> None:
    assert parsed(sent) == parsed(meant)


def appended(raw: bytes) -> ast.Append:
    (outcome,) = feed(raw).outcomes
    assert isinstance(outcome, Complete), outcome
    command = parse_command(outcome.assembled)
    assert isinstance(command, ast.Append)
    return command


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b'"3-Feb-2025 18:28:47 +0000"', b'"03-Feb-2025 18:28:47 +0000"'),
        (b'" 3-feb-2025 9:28:47 +0000"', b'"03-Feb-2025 09:28:47 +0000"'),
        (b'"13-February-2025  18:28:47  +01:00 "', b'"13-Feb-2025 18:28:47 +0100"'),
        (b'"03-Feb-2025 18:28:47 GMT"', b'"03-Feb-2025 18:28:47 +0000"'),
        (b'"03-Feb-2025 18:28:47 z"', b'"03-Feb-2025 18:28:47 +0000"'),
        (b'"Mon, 3 Feb 2025 18:28:47 +0100 (CET)"', b'"03-Feb-2025 18:28:47 +0100"'),
        (b'"3 Feb 2025 18:28 EST"', b'"03-Feb-2025 18:28:00 -0500"'),
        (b'"2025-02-03T18:28:47.123Z"', b'"03-Feb-2025 18:28:47 +0000"'),
        (b'"2025-02-03 18:28:47+01:00"', b'"03-Feb-2025 18:28:47 +0100"'),
        (b'"03-Feb-2025 18:28:47"', b'"03-Feb-2025 18:28:47 +0000"'),
        (b"NIL NIL", b"()"),
        (b'(\\Seen) ""', b"(\\Seen)"),
        (b'NIL "03-Feb-2025 18:28:47 +0000"', b'"03-Feb-2025 18:28:47 +0000"'),
    ],
)
def test_dates_and_flags_of_append(sent: bytes, meant: bytes) -> None:
    there = appended(b"a APPEND x " + meant + b" {1+}\r\nx\r\n")
    assert appended(b"a APPEND x " + sent + b" {1+}\r\nx\r\n") == there
    assert appended(b"a  append  x  " + sent + b"  {1+}\r\nx \r\n") == there


def test_flags_that_cannot_be_stored_do_not_refuse_the_message() -> None:
    flags = b'( \\Seen \\Recent \\* OIB-Seen-[Gmail]/All "x" caf\xc3\xa9 {5 \\ %s a%%b $Forwarded )' % (b"x" * 256)
    (message,) = appended(b"a APPEND x " + flags + b" {1+}\r\nx\r\n").messages
    assert message.flags == ("\\Seen", "$Forwarded")


def test_header_lines_of_rfc_1730() -> None:
    (command, other) = map(
        parsed, (b"a FETCH 1 (RFC822.HEADER.LINES (From To))", b"a FETCH 1 RFC822.HEADER.LINES.NOT (x)")
    )
    assert isinstance(command, ast.Fetch)
    assert isinstance(other, ast.Fetch)
    section = ast.Section((), ast.SectionSpecifier.HEADER_FIELDS, (b"From", b"To"))
    assert command.attributes == (ast.FetchSection(section, peek=True, form=ast.SectionForm.RFC822_HEADER),)
    section = ast.Section((), ast.SectionSpecifier.HEADER_FIELDS_NOT, (b"x",))
    assert other.attributes == (ast.FetchSection(section, peek=True, form=ast.SectionForm.RFC822_HEADER),)


@pytest.mark.parametrize("tag", [b"a(1)", b'"x"', b"1%", b"\\", b"{3}", b"a+b", b"x*", b"]", b"x" * 256])
def test_any_printable_tag_is_accepted(tag: bytes) -> None:
    assert parsed(tag + b" NOOP") == ast.Noop(tag)


def test_a_message_of_append_is_recognised_in_any_context() -> None:
    fed = feed(b"{3} append  x  (\\Seen )  {3+}\r\nabc  {2+}\r\nde \r\n")
    assert fed.messages == [b"abc", b"de"]
