"""Search programs, fetch items, sections, and the extensions' parameters."""

from __future__ import annotations

import datetime

import pytest

from paquebot.wire.imap import BadSyntax, ast, item_name, section_text
from paquebot.wire.imap.ast import (
    AgeOp,
    DateField,
    DateOp,
    EntryType,
    FetchAttribute,
    FetchBinary,
    FetchBinarySize,
    FetchItem,
    FetchPreview,
    FetchSection,
    ListReturn,
    ListSelect,
    ObjectKind,
    Partial,
    SearchAll,
    SearchAnd,
    SearchFlag,
    SearchHeader,
    SearchKey,
    SearchNot,
    SearchOr,
    SearchReturn,
    Section,
    SectionForm,
    SectionSpecifier,
    SizeOp,
    StatusItem,
    StoreMode,
)
from paquebot.wire.imap.sequence_set import SAVED_RESULT, SeqRange, SequenceSet
from tests.support.imap_feed import parsed

FIRST_OF_FEBRUARY = datetime.date(1994, 2, 1)
SEEN = SearchFlag("\\Seen", True)
FIVE = SequenceSet((SeqRange(5, 5),))


def date_key(field: DateField, op: DateOp) -> SearchKey:
    return ast.SearchDate(field, op, FIRST_OF_FEBRUARY)


KEYS: list[tuple[bytes, SearchKey]] = [
    (b"ALL", SearchAll()),
    (b"5", ast.SearchSequence(FIVE)),
    (b"$", ast.SearchSequence(SAVED_RESULT)),
    (b"*:2,7", ast.SearchSequence(SequenceSet((SeqRange(None, 2), SeqRange(7, 7))))),
    (b"UID 5", ast.SearchUid(FIVE)),
    (b"answered", SearchFlag("\\Answered", True)),
    (b"UNDELETED", SearchFlag("\\Deleted", False)),
    (b"NEW", SearchAnd((SearchFlag("\\Recent", True), SearchFlag("\\Seen", False)))),
    (b"OLD", SearchFlag("\\Recent", False)),
    (b"KEYWORD $Forwarded", SearchFlag("$Forwarded", True)),
    (b"UNKEYWORD x", SearchFlag("x", False)),
    (b"BEFORE 1-Feb-1994", date_key(DateField.INTERNAL, DateOp.BEFORE)),
    (b'ON "01-feb-1994"', date_key(DateField.INTERNAL, DateOp.ON)),
    (b"SINCE 1-FEB-1994", date_key(DateField.INTERNAL, DateOp.SINCE)),
    (b"SENTBEFORE 1-Feb-1994", date_key(DateField.SENT, DateOp.BEFORE)),
    (b"SENTON 1-Feb-1994", date_key(DateField.SENT, DateOp.ON)),
    (b"SENTSINCE 1-Feb-1994", date_key(DateField.SENT, DateOp.SINCE)),
    (b"SAVEDBEFORE 1-Feb-1994", date_key(DateField.SAVED, DateOp.BEFORE)),
    (b"SAVEDON 1-Feb-1994", date_key(DateField.SAVED, DateOp.ON)),
    (b"SAVEDSINCE 1-Feb-1994", date_key(DateField.SAVED, DateOp.SINCE)),
    (b"SAVEDATESUPPORTED", ast.SearchSaveDateSupported()),
    (b"OLDER 3600", ast.SearchAge(AgeOp.OLDER, 3600)),
    (b"YOUNGER 1", ast.SearchAge(AgeOp.YOUNGER, 1)),
    (b"LARGER 0", ast.SearchSize(SizeOp.LARGER, 0)),
    (b"SMALLER 4294967296", ast.SearchSize(SizeOp.SMALLER, 4294967296)),
    (b'FROM "Smith"', SearchHeader("from", b"Smith")),
    (b"TO x", SearchHeader("to", b"x")),
    (b"CC x", SearchHeader("cc", b"x")),
    (b"BCC x", SearchHeader("bcc", b"x")),
    (b"SUBJECT {3}\r\n\xff x", SearchHeader("subject", b"\xff x")),
    (b'HEADER Message-ID ""', SearchHeader("message-id", b"")),
    (b"BODY x", ast.SearchBody(b"x")),
    (b'TEXT "string not in mailbox"', ast.SearchText(b"string not in mailbox")),
    (b"MODSEQ 620162338", ast.SearchModSeq(620162338)),
    (b'MODSEQ "/flags/\\\\draft" all 5', ast.SearchModSeq(5, "/flags/\\draft", EntryType.ALL)),
    (b"EMAILID M6d99ac3275bb4e", ast.SearchObjectId(ObjectKind.EMAIL, "M6d99ac3275bb4e")),
    (b"THREADID T_-1", ast.SearchObjectId(ObjectKind.THREAD, "T_-1")),
    (b"NOT SEEN", SearchNot(SEEN)),
    (b"OR SEEN NOT (SEEN ALL)", SearchOr(SEEN, SearchNot(SearchAnd((SEEN, SearchAll()))))),
    (b"((SEEN))", SEEN),
    (b"SEEN ALL", SearchAnd((SEEN, SearchAll()))),
]


@pytest.mark.parametrize(("text", "expected"), KEYS, ids=lambda value: str(value)[:40])
def test_search_key(text: bytes, expected: SearchKey) -> None:
    assert parsed(b"a SEARCH " + text) == ast.Search(b"a", False, None, expected)


def test_search_with_charset_and_return_options() -> None:
    """RFC 3501 §6.4.4's third example (6 octets of UTF-8), with RFC 4731's options."""
    command = parsed(b"A284 UID SEARCH RETURN () CHARSET utf-8 TEXT {6}\r\n\xd0\xb4\xd0\xb5\xd0\xbd\r\n")
    text = ast.SearchText(b"\xd0\xb4\xd0\xb5\xd0\xbd")
    assert command == ast.Search(b"A284", True, "UTF-8", text, frozenset({SearchReturn.ALL}))


FLAGS, SIZE = FetchItem.FLAGS, FetchItem.RFC822_SIZE
FETCHES: list[tuple[bytes, tuple[FetchAttribute, ...]]] = [
    (b"FAST", (FLAGS, FetchItem.INTERNALDATE, SIZE)),
    (b"all", (FLAGS, FetchItem.INTERNALDATE, SIZE, FetchItem.ENVELOPE)),
    (b"FULL", (FLAGS, FetchItem.INTERNALDATE, SIZE, FetchItem.ENVELOPE, FetchItem.BODY)),
    (b"(FLAGS UID flags)", (FLAGS, FetchItem.UID)),
    (b"BODYSTRUCTURE", (FetchItem.BODYSTRUCTURE,)),
    (
        b"(MODSEQ EMAILID THREADID SAVEDATE)",
        tuple(FetchItem[n] for n in ["MODSEQ", "EMAILID", "THREADID", "SAVEDATE"]),
    ),
    (b"PREVIEW", (FetchPreview(False),)),
    (b"(PREVIEW (LAZY) UID)", (FetchPreview(True), FetchItem.UID)),
    (b"(PREVIEW UID)", (FetchPreview(False), FetchItem.UID)),
    (b"RFC822", (FetchSection(Section(), form=SectionForm.RFC822),)),
    (
        b"RFC822.HEADER",
        (FetchSection(Section((), SectionSpecifier.HEADER), peek=True, form=SectionForm.RFC822_HEADER),),
    ),
    (b"RFC822.TEXT", (FetchSection(Section((), SectionSpecifier.TEXT), form=SectionForm.RFC822_TEXT),)),
    (b"BODY[]", (FetchSection(Section()),)),
    (b"body.peek[text]<0.2048>", (FetchSection(Section((), SectionSpecifier.TEXT), Partial(0, 2048), peek=True),)),
    (b"BODY[4.2.HEADER]", (FetchSection(Section((4, 2), SectionSpecifier.HEADER)),)),
    (b"BODY[4.1.MIME]", (FetchSection(Section((4, 1), SectionSpecifier.MIME)),)),
    (b"BODY[4.2.2.1]", (FetchSection(Section((4, 2, 2, 1))),)),
    (
        b"(FLAGS BODY[HEADER.FIELDS (DATE FROM)])",
        (FLAGS, FetchSection(Section((), SectionSpecifier.HEADER_FIELDS, (b"DATE", b"FROM")))),
    ),
    (
        b"BODY.PEEK[1.HEADER.FIELDS.NOT ({4}\r\nDate)]",
        (FetchSection(Section((1,), SectionSpecifier.HEADER_FIELDS_NOT, (b"Date",)), peek=True),),
    ),
    (b"BINARY[1.2]<5.6>", (FetchBinary((1, 2), Partial(5, 6)),)),
    (b"BINARY.PEEK[]", (FetchBinary((), peek=True),)),
    (b"BINARY.SIZE[3]", (FetchBinarySize((3,)),)),
]


@pytest.mark.parametrize(("text", "expected"), FETCHES, ids=lambda value: str(value)[:40])
def test_fetch_items(text: bytes, expected: tuple[FetchAttribute, ...]) -> None:
    assert parsed(b"a FETCH 5 " + text) == ast.Fetch(b"a", False, FIVE, expected)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (b"BODY.PEEK[]", b"BODY[]"),
        (b"BODY[1.2.MIME]", b"BODY[1.2.MIME]"),
        (b"body[1.text]<10.20>", b"BODY[1.TEXT]<10>"),
        (b"BODY[HEADER.FIELDS (date {4}\r\nFrom)]", b"BODY[HEADER.FIELDS (date From)]"),
        (b'BODY[HEADER.FIELDS.NOT ("a b" X)]', b'BODY[HEADER.FIELDS.NOT ("a b" X)]'),
        (b"RFC822", b"RFC822"),
        (b"RFC822.HEADER", b"RFC822.HEADER"),
        (b"RFC822.TEXT", b"RFC822.TEXT"),
        (b"BINARY.PEEK[1.2]<3.4>", b"BINARY[1.2]<3>"),
        (b"BINARY.SIZE[1]", b"BINARY.SIZE[1]"),
    ],
)
def test_section_is_answered_under_the_name_of_the_command(asked: bytes, answered: bytes) -> None:
    command = parsed(b"a FETCH 5 " + asked)
    assert isinstance(command, ast.Fetch)
    (attribute,) = command.attributes
    assert isinstance(attribute, FetchSection | FetchBinary | FetchBinarySize)
    assert item_name(attribute) == answered


def test_section_text_of_a_bare_path() -> None:
    assert section_text(Section((1, 20))) == b"1.20"


def test_uid_fetch_always_answers_uid() -> None:
    """RFC 3501 §6.4.8"""
    command = parsed(b"a UID FETCH 5 FLAGS")
    assert command == ast.Fetch(b"a", True, FIVE, (FetchItem.UID, FLAGS))


def test_condstore_and_qresync() -> None:
    """RFC 7162 §3.1.3, §3.1.4, §3.1.8, §3.2.5, §3.2.6"""
    fetch = parsed(b"s100 UID FETCH 5 (FLAGS) (CHANGEDSINCE 12345 VANISHED)")
    items = (FetchItem.UID, FLAGS, FetchItem.MODSEQ)
    assert fetch == ast.Fetch(b"s100", True, FIVE, items, 12345, vanished=True)
    store = parsed(b"a103 STORE 5 (UNCHANGEDSINCE 0) +FLAGS.SILENT (\\Deleted)")
    assert store == ast.Store(b"a103", False, FIVE, StoreMode.ADD, True, ("\\Deleted",), 0)
    assert parsed(b"A SELECT INBOX (CONDSTORE)") == ast.Select(b"A", "INBOX", condstore=True)
    select = parsed(b"A03 SELECT INBOX (QRESYNC (67890007 20050715194045000 41:211 (1,3 7,9)))")
    known = SequenceSet((SeqRange(41, 211),))
    numbers = SequenceSet((SeqRange(1, 1), SeqRange(3, 3)))
    uids = SequenceSet((SeqRange(7, 7), SeqRange(9, 9)))
    resync = ast.QResync(67890007, 20050715194045000, known, numbers, uids)
    assert select == ast.Select(b"A03", "INBOX", qresync=resync)
    assert parsed(b"A EXAMINE x (QRESYNC (1 2))") == ast.Examine(b"A", "x", qresync=ast.QResync(1, 2))
    only_match = ast.QResync(1, 2, None, numbers, uids)
    assert parsed(b"A EXAMINE x (QRESYNC (1 2 (1,3 7,9)))") == ast.Examine(b"A", "x", qresync=only_match)


def test_list_extended() -> None:
    """RFC 5258 §5, RFC 5819 §4, RFC 6154 §5"""
    first = parsed(b'A04 LIST (SUBSCRIBED RECURSIVEMATCH) "" ("INBOX" Sent/% *) RETURN (CHILDREN SPECIAL-USE)')
    assert first == ast.List(
        b"A04",
        "",
        ("INBOX", "Sent/%", "*"),
        frozenset({ListSelect.SUBSCRIBED, ListSelect.RECURSIVEMATCH}),
        frozenset({ListReturn.CHILDREN, ListReturn.SPECIAL_USE}),
        extended=True,
    )
    second = parsed(b'A01 LIST "" % RETURN (CHILDREN STATUS (MESSAGES UNSEEN))')
    assert second == ast.List(
        b"A01",
        "",
        ("%",),
        returns=frozenset({ListReturn.CHILDREN}),
        return_status=(StatusItem.MESSAGES, StatusItem.UNSEEN),
        extended=True,
    )
    assert parsed(b'a LIST () "" ""') == ast.List(b"a", "", ("",), extended=True)
    with pytest.raises(BadSyntax, match="RECURSIVEMATCH"):
        parsed(b'a LIST (RECURSIVEMATCH REMOTE) "" *')


def test_special_use_on_create() -> None:
    """RFC 6154 §5.4"""
    command = parsed(b"t1 CREATE MySpecial (USE (\\drafts \\Sent \\X-Own))")
    assert command == ast.Create(b"t1", "MySpecial", ("\\Drafts", "\\Sent", "\\X-Own"))
    assert parsed(b"t1 CREATE x (USE ())") == ast.Create(b"t1", "x")


def test_status_items_of_extensions() -> None:
    command = parsed(b"a STATUS x (HIGHESTMODSEQ SIZE APPENDLIMIT MAILBOXID DELETED SIZE)")
    items = tuple(StatusItem[name] for name in ["HIGHESTMODSEQ", "SIZE", "APPENDLIMIT", "MAILBOXID", "DELETED"])
    assert command == ast.Status(b"a", "x", items)
