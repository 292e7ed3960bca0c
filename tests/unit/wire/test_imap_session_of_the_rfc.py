"""The sample connection of RFC 3501 §8: its commands are parsed, and its responses are written as in the RFC."""

from __future__ import annotations

import datetime

from paquebot.v1.summary_pb2 import Address, BodyPart, ImapEnvelope, Parameter
from paquebot.wire.imap import Command, Complete, FetchResponse, ast, parse_command, response_codes, responses
from paquebot.wire.imap.ast import FetchItem, FetchSection, Section, SectionSpecifier, StoreMode
from paquebot.wire.imap.sequence_set import SeqRange, SequenceSet
from tests.support.imap_feed import feed

CLIENT = (
    b"a001 login mrc secret\r\n"
    b"a002 select inbox\r\n"
    b"a003 fetch 12 full\r\n"
    b"a004 fetch 12 body[header]\r\n"
    b"a005 store 12 +flags \\deleted\r\n"
    b"a006 logout\r\n"
)
TWELVE = SequenceSet((SeqRange(12, 12),))
FULL = (
    FetchItem.FLAGS,
    FetchItem.INTERNALDATE,
    FetchItem.RFC822_SIZE,
    FetchItem.ENVELOPE,
    FetchItem.BODY,
)
HEADER = FetchSection(Section((), SectionSpecifier.HEADER))


def test_commands() -> None:
    fed = feed(CLIENT)
    commands: list[Command] = [
        parse_command(outcome.assembled) for outcome in fed.outcomes if isinstance(outcome, Complete)
    ]
    assert commands == [
        ast.Login(b"a001", b"mrc", b"secret"),
        ast.Select(b"a002", "INBOX"),
        ast.Fetch(b"a003", False, TWELVE, FULL),
        ast.Fetch(b"a004", False, TWELVE, (HEADER,)),
        ast.Store(b"a005", False, TWELVE, StoreMode.ADD, False, ("\\Deleted",)),
        ast.Logout(b"a006"),
    ]
    assert (fed.continuations, fed.left) == (0, b"")


def test_select() -> None:
    written = (
        responses.exists(18)
        + responses.flags(["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"])
        + responses.recent(2)
        + responses.untagged_ok("Message 17 is the first unseen message", response_codes.unseen(17))
        + responses.untagged_ok("UIDs valid", response_codes.uid_validity(3857529045))
        + responses.ok(b"a002", "SELECT completed", response_codes.READ_WRITE)
    )
    assert written == (
        b"* 18 EXISTS\r\n"
        b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n"
        b"* 2 RECENT\r\n"
        b"* OK [UNSEEN 17] Message 17 is the first unseen message\r\n"
        b"* OK [UIDVALIDITY 3857529045] UIDs valid\r\n"
        b"a002 OK [READ-WRITE] SELECT completed\r\n"
    )


GRAY = Address(name=b"Terry Gray", mailbox=b"gray", host=b"cac.washington.edu")
ENVELOPE = ImapEnvelope(
    date=b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
    subject=b"IMAP4rev1 WG mtg summary and minutes",
    from_=[GRAY],
    sender=[GRAY],
    reply_to=[GRAY],
    to=[Address(mailbox=b"imap", host=b"cac.washington.edu")],
    cc=[
        Address(mailbox=b"minutes", host=b"CNRI.Reston.VA.US"),
        Address(name=b"John Klensin", mailbox=b"KLENSIN", host=b"MIT.EDU"),
    ],
    message_id=b"<B27397-0100000@cac.washington.edu>",
)
TEXT = BodyPart(
    type=b"TEXT",
    subtype=b"PLAIN",
    parameters=[Parameter(name=b"CHARSET", value=b"US-ASCII")],
    encoding=b"7BIT",
    body_length=3028,
    lines=92,
)


def test_fetch_full() -> None:
    out = bytearray()
    line = FetchResponse(out, 12)
    line.flags(["\\Seen"])
    zone = datetime.timezone(datetime.timedelta(hours=-7))
    line.internal_date(datetime.datetime(1996, 7, 17, 2, 44, 25, tzinfo=zone))
    line.size(4286)
    line.envelope(ENVELOPE)
    line.body(TEXT)
    line.close()
    assert bytes(out) == (
        b'* 12 FETCH (FLAGS (\\Seen) INTERNALDATE "17-Jul-1996 02:44:25 -0700" RFC822.SIZE 4286 ENVELOPE ('
        b'"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) '
        b'(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) '
        b'((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL '
        b'"<B27397-0100000@cac.washington.edu>") '
        b'BODY ("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 3028 92))\r\n'
    )


def test_fetch_header_and_the_end() -> None:
    header = b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\nMIME-Version: 1.0\r\n\r\n"
    out = bytearray()
    line = FetchResponse(out, 12)
    line.section(HEADER, header)
    line.close()
    assert bytes(out) == b"* 12 FETCH (BODY[HEADER] {%d}\r\n%b)\r\n" % (len(header), header)
    assert responses.ok(b"a005", "+FLAGS completed") == b"a005 OK +FLAGS completed\r\n"
    assert responses.bye("IMAP4rev1 server terminating connection") == (
        b"* BYE IMAP4rev1 server terminating connection\r\n"
    )
