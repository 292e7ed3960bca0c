"""Every command of RFC 3501 §6, from the RFC's own examples where it has one."""

from __future__ import annotations

import datetime
from typing import get_args

import pytest

from paquebot.wire.imap import (
    COMMAND_STATES,
    BadSyntax,
    ListPatterns,
    State,
    ast,
    parse_authenticate_line,
    parse_done,
)
from paquebot.wire.imap.ast import AppendMessage, SearchReturn, StatusItem, StoreMode
from paquebot.wire.imap.mailbox_name import NO_NAME
from paquebot.wire.imap.sequence_set import SAVED_RESULT, SeqRange, SequenceSet
from tests.support.imap_feed import feed, parsed


def numbers(*ranges: tuple[int | None, int | None]) -> SequenceSet:
    return SequenceSet(tuple(SeqRange(first, last) for first, last in ranges))


ONE = numbers((1, 1))
PACIFIC = datetime.timezone(datetime.timedelta(hours=-8))

EXAMPLES = [
    # RFC 3501 §6.1
    (b"abcd CAPABILITY", ast.Capability(b"abcd")),
    (b"a002 noop", ast.Noop(b"a002")),
    (b"A023 LogOut", ast.Logout(b"A023")),
    # RFC 3501 §6.2
    (b"a002 STARTTLS", ast.StartTls(b"a002")),
    (b"A001 AUTHENTICATE gssapi", ast.Authenticate(b"A001", "GSSAPI", None)),
    (b"a001 LOGIN SMITH SESAME", ast.Login(b"a001", b"SMITH", b"SESAME")),
    (b'a LOGIN "sm\\"ith" "p\\\\w {3}"', ast.Login(b"a", b'sm"ith', b"p\\w {3}")),
    (b"A001 LOGIN {11}\r\nFRED FOOBAR {7}\r\nfat man\r\n", ast.Login(b"A001", b"FRED FOOBAR", b"fat man")),
    (b'a LOGIN "" {0+}\r\n\r\n', ast.Login(b"a", b"", b"")),
    # RFC 3501 §6.3
    (b"A142 SELECT INBOX", ast.Select(b"A142", "INBOX")),
    (b"A142 select iNbOx", ast.Select(b"A142", "INBOX")),
    (b"A932 EXAMINE blurdybloop", ast.Examine(b"A932", "blurdybloop")),
    (b"A003 CREATE owatagusiam/", ast.Create(b"A003", "owatagusiam/")),
    (b"A004 CREATE owatagusiam/blurdybloop", ast.Create(b"A004", "owatagusiam/blurdybloop")),
    (b'A684 DELETE "foo bar"', ast.Delete(b"A684", "foo bar")),
    (b"A683 RENAME blurdybloop sarasoop", ast.Rename(b"A683", "blurdybloop", "sarasoop")),
    (b"Z433 RENAME INBOX old-mail", ast.Rename(b"Z433", "INBOX", "old-mail")),
    (b"A002 SUBSCRIBE #news.comp.mail.mime", ast.Subscribe(b"A002", "#news.comp.mail.mime")),
    (b"A002 UNSUBSCRIBE &ZeVnLIqe-", ast.Unsubscribe(b"A002", "\u65e5\u672c\u8a9e")),
    (b'A101 LIST "" ""', ast.List(b"A101", "", ("",))),
    (b'A103 LIST /usr/staff/jones ""', ast.List(b"A103", "/usr/staff/jones", ("",))),
    (b"A202 LIST ~/Mail/ %", ast.List(b"A202", "~/Mail/", ("%",))),
    (b'A002 LSUB "#news." "comp.mail.*"', ast.Lsub(b"A002", "#news.", "comp.mail.*")),
    (b'A002 LSUB "#news." comp.%', ast.Lsub(b"A002", "#news.", "comp.%")),
    (
        b"A042 STATUS blurdybloop (UIDNEXT MESSAGES)",
        ast.Status(b"A042", "blurdybloop", (StatusItem.UIDNEXT, StatusItem.MESSAGES)),
    ),
    (
        b"A003 APPEND saved-messages (\\Seen) {310}\r\n" + b"x" * 310 + b"\r\n",
        ast.Append(b"A003", "saved-messages", (AppendMessage(("\\Seen",), None, 310),)),
    ),
    (
        b'a append {5}\r\ninbox (\\seen $Label) " 7-Feb-1994 21:52:25 -0800" {2+}\r\nhi\r\n',
        ast.Append(
            b"a",
            "INBOX",
            (AppendMessage(("\\Seen", "$Label"), datetime.datetime(1994, 2, 7, 21, 52, 25, tzinfo=PACIFIC), 2),),
        ),
    ),
    # RFC 3501 §6.4
    (b"FXXZ CHECK", ast.Check(b"FXXZ")),
    (b"A341 CLOSE", ast.Close(b"A341")),
    (b"A202 EXPUNGE", ast.Expunge(b"A202")),
    (
        b"A003 STORE 2:4 +FLAGS (\\Deleted)",
        ast.Store(b"A003", False, numbers((2, 4)), StoreMode.ADD, False, ("\\Deleted",)),
    ),
    (
        b"a uid store 4:2,* flags.silent \\deleted Junk \\DELETED",
        ast.Store(b"a", True, numbers((4, 2), (None, None)), StoreMode.SET, True, ("\\Deleted", "Junk")),
    ),
    (b"a STORE 1 -FLAGS ()", ast.Store(b"a", False, ONE, StoreMode.REMOVE, False, ())),
    (b"A003 COPY 2:4 MEETING", ast.Copy(b"A003", False, numbers((2, 4)), "MEETING")),
    (b"A003 UID COPY 2:* MEETING", ast.Copy(b"A003", True, numbers((2, None)), "MEETING")),
    # RFC 3501 §6.5.1
    (b"A441 BLURDYBLOOP of any form (", ast.UnknownCommand(b"A441", "BLURDYBLOOP")),
    (b"A441 UID BLURDYBLOOP", ast.UnknownCommand(b"A441", "UID BLURDYBLOOP")),
    # RFC 2177, 2342, 3691, 4315, 6851, 4978, 5161, 2971, 4959
    (b"A002 IDLE", ast.Idle(b"A002")),
    (b"A001 NAMESPACE", ast.Namespace(b"A001")),
    (b"A202 UNSELECT", ast.Unselect(b"A202")),
    (
        b"A003 UID EXPUNGE 3000:3002",
        ast.UidExpunge(b"A003", numbers((3000, 3002))),
    ),
    (b"a UID MOVE 42:69 foo", ast.Move(b"a", True, numbers((42, 69)), "foo")),
    (b"a MOVE $ foo", ast.Move(b"a", False, SAVED_RESULT, "foo")),
    (b"t1 ENABLE condstore X-GOOD-IDEA CONDSTORE", ast.Enable(b"t1", ("CONDSTORE", "X-GOOD-IDEA"))),
    (
        b'a023 ID ("name" "sodr" "version" "19.34" "vendor" NIL)',
        ast.Id(b"a023", ((b"name", b"sodr"), (b"version", b"19.34"), (b"vendor", None))),
    ),
    (b"a042 ID NIL", ast.Id(b"a042", None)),
    (b"a042 ID ()", ast.Id(b"a042", ())),
    (
        b"A01 AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=",
        ast.Authenticate(b"A01", "PLAIN", b"test\0test\0test"),
    ),
    (b"A01 AUTHENTICATE EXTERNAL =", ast.Authenticate(b"A01", "EXTERNAL", b"")),
]


@pytest.mark.parametrize(("raw", "expected"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_command_is_read_as_its_type(raw: bytes, expected: ast.Command) -> None:
    assert parsed(raw) == expected


def test_every_command_has_its_states() -> None:
    assert set(COMMAND_STATES) == set(get_args(ast.Command))


@pytest.mark.parametrize(
    ("command", "states"),
    [
        (ast.Noop, {State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED}),
        (ast.Login, {State.NOT_AUTHENTICATED}),
        (ast.Select, {State.AUTHENTICATED, State.SELECTED}),
        (ast.Fetch, {State.SELECTED}),
        (ast.Enable, {State.AUTHENTICATED}),
    ],
)
def test_states_follow_the_chapters(command: type[ast.Command], states: set[State]) -> None:
    assert COMMAND_STATES[command] == states


def test_password_stays_out_of_the_representation() -> None:
    assert "SESAME" not in repr(parsed(b"a001 LOGIN SMITH SESAME"))
    assert "secret" not in repr(parsed(b"a001 AUTHENTICATE PLAIN AHgAc2VjcmV0"))


def test_done_ends_idle() -> None:
    parse_done(b"done")
    parse_done(b"DONE ")
    with pytest.raises(BadSyntax, match="DONE"):
        parse_done(b"DONE x")


def test_authenticate_line() -> None:
    assert parse_authenticate_line(b"*") is None
    assert parse_authenticate_line(b"") == b""
    assert parse_authenticate_line(b"AGEAYg==") == b"\0a\0b"
    for wrong in (b"AGEAYg=", b"AGE AYg==", b"* ", b"\xff", b"AGEAYg==\r"):
        with pytest.raises(BadSyntax):
            parse_authenticate_line(wrong)


def test_multiappend_keeps_each_message_apart() -> None:
    """RFC 3502 §6.3.11's example, shortened."""
    fed = feed(
        b"A003 APPEND saved-messages (\\Seen) {4}\r\none\n"
        b' (\\Flagged) " 7-Feb-1994 22:43:04 -0800" {3+}\r\ntwo ~{5}\r\nth\0ee\r\n'
    )
    assert fed.messages == [b"one\n", b"two", b"th\0ee"]
    assert fed.continuations == 2
    command = parsed(
        b"A003 APPEND saved-messages (\\Seen) {4}\r\none\n"
        b' (\\Flagged) " 7-Feb-1994 22:43:04 -0800" {3+}\r\ntwo ~{5}\r\nth\0ee\r\n'
    )
    moment = datetime.datetime(1994, 2, 7, 22, 43, 4, tzinfo=PACIFIC)
    assert command == ast.Append(
        b"A003",
        "saved-messages",
        (
            AppendMessage(("\\Seen",), None, 4),
            AppendMessage(("\\Flagged",), moment, 3),
            AppendMessage((), None, 5, binary=True),
        ),
    )


def test_utf8_append_form() -> None:
    """RFC 6855 §4"""
    command = parsed(b"a APPEND x UTF8 (~{3+}\r\nabc)\r\n", utf8=True)
    assert command == ast.Append(b"a", "x", (AppendMessage((), None, 3, binary=True, utf8=True),))


def test_names_are_utf8_when_enabled() -> None:
    assert parsed(b'a SELECT "\xc3\xa9&"', utf8=True) == ast.Select(b"a", "\u00e9&")
    with pytest.raises(BadSyntax, match="in UTF-8"):
        parsed(b'a CREATE "\xc3"', utf8=True)


def test_8_bit_names_are_utf8_when_it_is_not_enabled() -> None:
    assert parsed(b'a SELECT "\xc3\xa9&"') == ast.Select(b"a", "\u00e9&")
    assert parsed(b"a SELECT \xc3\xa9") == ast.Select(b"a", "\u00e9")
    with pytest.raises(BadSyntax, match="in modified UTF-7"):
        parsed(b'a CREATE "\xe9"')


def test_octets_that_are_not_a_name_match_no_mailbox() -> None:
    for raw in (b"&", b"a&AGE-", b"\xe9", b"&2D0-"):
        assert parsed(b"a SELECT " + raw) == ast.Select(b"a", NO_NAME)
        assert parsed(b"a LSUB " + raw + b" x") == ast.Lsub(b"a", NO_NAME, "x")
        assert parsed(b'a LIST "" ' + raw) == ast.List(b"a", "", (NO_NAME,))
    assert not ListPatterns([NO_NAME, f"{NO_NAME}x"]).matches("x")


def test_search_return_options() -> None:
    command = parsed(b"A282 SEARCH RETURN (MIN COUNT) FLAGGED SINCE 1-Feb-1994 NOT FROM Smith")
    assert isinstance(command, ast.Search)
    assert command.returns == frozenset({SearchReturn.MIN, SearchReturn.COUNT})
