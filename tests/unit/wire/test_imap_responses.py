"""Responses: strings in a form that every client reads, status lines, untagged data; the examples of the RFCs."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paquebot.wire.imap import FetchResponse, ast, internal_date, response_codes, responses
from paquebot.wire.imap.ast import (
    FetchBinary,
    FetchBinarySize,
    FetchSection,
    Partial,
    SearchReturn,
    Section,
    SectionSpecifier,
    StatusItem,
)
from tests.support.imap_feed import parsed

# --- strings ---------------------------------------------------------------------------------------------


def string(value: bytes) -> bytes:
    out = bytearray()
    responses.write_string(out, value)
    return bytes(out)


def astring(value: bytes) -> bytes:
    out = bytearray()
    responses.write_astring(out, value)
    return bytes(out)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"", b'""'),
        (b"plain text {3}", b'"plain text {3}"'),
        (b'a"b\\c', b'"a\\"b\\\\c"'),
        (b"caf\xe9", b"{4}\r\ncaf\xe9"),
        (b"a\r\nb", b"{4}\r\na\r\nb"),
        (b"a\tb", b"{3}\r\na\tb"),
        (b"a\0b", b"{3}\r\na\x80b"),
        (b"x" * 1025, b"{1025}\r\n" + b"x" * 1025),
    ],
)
def test_string_form(value: bytes, written: bytes) -> None:
    assert string(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"INBOX", b"INBOX"),
        (b"a]b", b"a]b"),
        (b"nil", b'"nil"'),
        (b"", b'""'),
        (b"a b", b'"a b"'),
        (b"%", b'"%"'),
    ],
)
def test_astring_form(value: bytes, written: bytes) -> None:
    assert astring(value) == written


@given(st.binary().map(lambda raw: raw.replace(b"\0", b"")), st.binary().map(lambda raw: raw.replace(b"\0", b"")))
def test_a_written_string_reads_back(first: bytes, second: bytes) -> None:
    raw = b"a LOGIN " + astring(first) + b" " + string(second) + b"\r\n"
    assert parsed(raw) == ast.Login(b"a", first, second)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_a_written_mailbox_reads_back(name: str, utf8: bool) -> None:
    out = bytearray()
    responses.write_mailbox(out, "x/" + name.replace("\0", ""), utf8=utf8)
    assert parsed(b"a SELECT " + out, utf8=utf8) == ast.Select(b"a", "x/" + name.replace("\0", ""))


def test_literal8_only_when_needed() -> None:
    out = bytearray()
    responses.write_literal8(out, b"a\0")
    responses.write_literal8(out, b"ab")
    assert out == b"~{2}\r\na\0{2}\r\nab"


# --- status lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (responses.ok(b"A1", "done"), b"A1 OK done\r\n"),
        (responses.no(b"A1", "no", response_codes.TRYCREATE), b"A1 NO [TRYCREATE] no\r\n"),
        (responses.bad(None, "what"), b"* BAD what\r\n"),
        (
            responses.bye("gone\r\n* OK forged\n", response_codes.UNAVAILABLE),
            b"* BYE [UNAVAILABLE] gone * OK forged\r\n",
        ),
        (responses.untagged_ok("[x] y"), b"* OK - [x] y\r\n"),
        (responses.untagged_no("\u00e9\x00"), b"* NO ??\r\n"),
        (responses.ok(b"A1", ""), b"A1 OK -\r\n"),
        (responses.continuation(), b"+ go ahead\r\n"),
        (responses.challenge(b""), b"+ \r\n"),
    ],
)
def test_status_line(line: bytes, expected: bytes) -> None:
    assert line == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (response_codes.capability(["IMAP4rev1", "IDLE"]), b"CAPABILITY IMAP4rev1 IDLE"),
        (response_codes.bad_charset(["US-ASCII", "UTF-8"]), b"BADCHARSET (US-ASCII UTF-8)"),
        (response_codes.permanent_flags(["\\Seen"], new_keywords=True), b"PERMANENTFLAGS (\\Seen \\*)"),
        (response_codes.permanent_flags([], new_keywords=False), b"PERMANENTFLAGS ()"),
        (response_codes.uid_next(4392), b"UIDNEXT 4392"),
        (response_codes.uid_validity(3857529045), b"UIDVALIDITY 3857529045"),
        (response_codes.unseen(12), b"UNSEEN 12"),
        (response_codes.highest_mod_seq(715194045007), b"HIGHESTMODSEQ 715194045007"),
        (response_codes.mailbox_id("F2212"), b"MAILBOXID (F2212)"),
        (response_codes.append_uid(38505, [3955]), b"APPENDUID 38505 3955"),
        (response_codes.append_uid(38505, [1, 2, 3]), b"APPENDUID 38505 1:3"),
        (
            response_codes.copy_uid(38505, [(304, 3956), (319, 3957), (320, 3958)]),
            b"COPYUID 38505 304,319:320 3956,3957:3958",
        ),
        (response_codes.modified([7, 9]), b"MODIFIED 7,9"),
    ],
)
def test_response_code(code: bytes, expected: bytes) -> None:
    assert code == expected


@given(st.dictionaries(st.integers(1, 40), st.integers(1, 40), min_size=1))
def test_copyuid_sets_pair_up(pairs: dict[int, int]) -> None:
    ordered = sorted(pairs.items())
    _, _, sources, targets = response_codes.copy_uid(1, ordered).decode().split(" ")
    assert list(zip(expanded(sources), expanded(targets), strict=True)) == ordered


def expanded(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers


# --- untagged data: RFC 3501 §7.2 to §7.4 ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (responses.capability(["IMAP4rev1", "STARTTLS"]), b"* CAPABILITY IMAP4rev1 STARTTLS\r\n"),
        (responses.enabled(["CONDSTORE"]), b"* ENABLED CONDSTORE\r\n"),
        (responses.enabled([]), b"* ENABLED\r\n"),
        (responses.exists(23), b"* 23 EXISTS\r\n"),
        (responses.recent(5), b"* 5 RECENT\r\n"),
        (responses.expunge(44), b"* 44 EXPUNGE\r\n"),
        (
            b"".join(responses.vanished([(300, 301), (405, 405), (411, 411)], earlier=True)),
            b"* VANISHED (EARLIER) 300:301,405,411\r\n",
        ),
        (b"".join(responses.vanished([(405, 405)], earlier=False)), b"* VANISHED 405\r\n"),
        (responses.flags(["\\Answered", "\\Seen"]), b"* FLAGS (\\Answered \\Seen)\r\n"),
        (responses.list_line(["\\Noselect"], "~/Mail/foo"), b'* LIST (\\Noselect) "/" ~/Mail/foo\r\n'),
        (responses.list_line(["\\Noselect"], ""), b'* LIST (\\Noselect) "/" ""\r\n'),
        (responses.list_line([], "INBOX", delimiter=None), b"* LIST () NIL INBOX\r\n"),
        (
            responses.list_line([], "Foo", child_info=["SUBSCRIBED"]),
            b'* LIST () "/" Foo ("CHILDINFO" ("SUBSCRIBED"))\r\n',
        ),
        (responses.list_line([], "\u65e5\u672c\u8a9e"), b'* LIST () "/" &ZeVnLIqe-\r\n'),
        (responses.list_line([], 'caf\u00e9 "', utf8=True), b'* LIST () "/" "caf\xc3\xa9 \\""\r\n'),
        (responses.lsub_line([], "#news.comp", delimiter="."), b'* LSUB () "." #news.comp\r\n'),
        (responses.namespace([("", "/")]), b'* NAMESPACE (("" "/")) NIL NIL\r\n'),
        (responses.namespace([]), b"* NAMESPACE NIL NIL NIL\r\n"),
        (responses.identity([(b"name", b"x"), (b"os", None)]), b'* ID ("name" "x" "os" NIL)\r\n'),
        (responses.identity([]), b"* ID NIL\r\n"),
        (
            responses.status("blurdybloop", {StatusItem.MESSAGES: 231, StatusItem.UIDNEXT: 44292}),
            b"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)\r\n",
        ),
        (
            responses.status("a b", {StatusItem.MAILBOXID: "F1", StatusItem.APPENDLIMIT: None}),
            b'* STATUS "a b" (MAILBOXID (F1) APPENDLIMIT NIL)\r\n',
        ),
        (b"".join(responses.search([2, 3, 6])), b"* SEARCH 2 3 6\r\n"),
        (b"".join(responses.search([])), b"* SEARCH\r\n"),
        (b"".join(responses.search([2, 5], mod_seq=917162500)), b"* SEARCH 2 5 (MODSEQ 917162500)\r\n"),
    ],
)
def test_untagged_line(line: bytes, expected: bytes) -> None:
    assert line == expected


def test_esearch() -> None:
    """RFC 4731 §3.1's examples"""
    some = frozenset({SearchReturn.MIN, SearchReturn.COUNT})
    assert b"".join(responses.esearch(b"A282", [2, 10, 882], some, uid=False)) == (
        b'* ESEARCH (TAG "A282") MIN 2 COUNT 3\r\n'
    )
    every = frozenset({SearchReturn.ALL, SearchReturn.MAX})
    assert b"".join(responses.esearch(b"A283", [2, 10, 11], every, uid=True, mod_seq=9)) == (
        b'* ESEARCH (TAG "A283") UID MAX 11 ALL 2,10:11 MODSEQ 9\r\n'
    )
    assert b"".join(responses.esearch(b"A284", [], every | some, uid=False)) == b'* ESEARCH (TAG "A284") COUNT 0\r\n'


# --- FETCH -----------------------------------------------------------------------------------------------

PACIFIC = datetime.timezone(datetime.timedelta(hours=-7))
JULY = datetime.datetime(1996, 7, 7, 2, 44, 25, tzinfo=PACIFIC)


def test_internal_date() -> None:
    assert internal_date(JULY) == b'" 7-Jul-1996 02:44:25 -0700"'
    half = JULY.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    assert internal_date(half) == b'" 7-Jul-1996 02:44:25 +0530"'
    behind = JULY.replace(tzinfo=datetime.timezone(-datetime.timedelta(hours=3, minutes=30)))
    assert internal_date(behind) == b'" 7-Jul-1996 02:44:25 -0330"'
    with pytest.raises(ValueError, match="zone"):
        internal_date(JULY.replace(tzinfo=None))


@given(
    st.datetimes(
        min_value=datetime.datetime(1, 1, 1),
        timezones=st.integers(-1439, 1439).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m))),
    )
)
def test_internal_date_reads_back(moment: datetime.datetime) -> None:
    command = parsed(b"a APPEND x " + internal_date(moment) + b" {0+}\r\n\r\n")
    assert isinstance(command, ast.Append)
    assert command.messages[0].internal_date == moment.replace(microsecond=0)


def test_fetch_line() -> None:
    out = bytearray()
    line = FetchResponse(out, 12)
    line.flags(["\\Seen", "$Junk"])
    line.uid(7)
    line.mod_seq(624140003)
    line.internal_date(JULY)
    line.save_date(None)
    line.size(4286)
    line.email_id("M6d99")
    line.thread_id("T64b")
    line.thread_id(None)
    line.preview("caf\u00e9")
    line.preview(None)
    line.close()
    assert bytes(out) == (
        b'* 12 FETCH (FLAGS (\\Seen $Junk) UID 7 MODSEQ (624140003) INTERNALDATE " 7-Jul-1996 02:44:25 -0700" '
        b"SAVEDATE NIL RFC822.SIZE 4286 EMAILID (M6d99) THREADID (T64b) THREADID NIL "
        b"PREVIEW {5}\r\ncaf\xc3\xa9 PREVIEW NIL)\r\n"
    )


def test_fetch_sections() -> None:
    out = bytearray()
    line = FetchResponse(out, 1)
    line.section(FetchSection(Section((), SectionSpecifier.HEADER), peek=True), b"A: b\r\n\r\n")
    line.section(FetchSection(Section((9,))), None)
    line.section(FetchSection(Section(), Partial(3, 9)), b"x\0y")
    line.section(FetchSection(Section((2,))), b"")
    line.binary(FetchBinary((1,), Partial(0, 5)), b"a\0b")
    line.binary(FetchBinary((2,)), None)
    line.binary_size(FetchBinarySize((1,)), 3)
    line.close()
    assert bytes(out) == (
        b"* 1 FETCH (BODY[HEADER] {8}\r\nA: b\r\n\r\n BODY[9] NIL BODY[]<3> {3}\r\nx\x80y BODY[2] {0}\r\n"
        b" BINARY[1]<0> ~{3}\r\na\0b BINARY[2] NIL BINARY.SIZE[1] 3)\r\n"
    )


def test_a_large_section_is_streamed_by_the_caller() -> None:
    out = bytearray()
    line = FetchResponse(out, 1)
    line.uid(5)
    line.section_head(FetchSection(Section()), 70000)
    assert bytes(out) == b"* 1 FETCH (UID 5 BODY[] {70000}\r\n"
    out.clear()
    line.close()
    assert bytes(out) == b")\r\n"


def test_a_fetch_line_without_items_is_not_written() -> None:
    out = bytearray()
    FetchResponse(out, 1).close()
    assert not out


def test_long_answers_come_in_pieces() -> None:
    numbers = range(1, 200_001, 2)
    for pieces in (
        responses.search(numbers),
        responses.esearch(b"a", numbers, frozenset({SearchReturn.ALL}), uid=True),
        responses.vanished(((number, number) for number in numbers), earlier=True),
    ):
        found = list(pieces)
        assert max(map(len, found)) < 32 * 1024
        assert b"".join(found).count(b"199999") == 1 and found[-1] == b"\r\n"
