"""Every parser of SMTP, IMAP, POP3, SASL, PROXY and addresses does at most twice the work for twice the input.

Each case is hostile in another way: an input that a different parser could read repeatedly. Sizes stay below the
limits, so that the test measures the parser's work and not the refusal.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from paquebot.imap.mailbox_view.view import View, parse_flags
from paquebot.mailstore import FlagRows, RecentRange
from paquebot.queue.subjects import domain_token
from paquebot.wire import address, pop3, proxy, sasl
from paquebot.wire.imap import (
    AssembledCommand,
    CommandAssembler,
    Complete,
    ImapLimits,
    ListPatterns,
    Literal,
    SequenceSet,
    check_new_name,
    compress,
    decode_mailbox_name,
    encode_mailbox_name,
    parse_command,
    set_of,
)
from paquebot.wire.imap.sequence_set import SeqRange
from paquebot.wire.smtp.commands import (
    parse_auth,
    parse_bdat,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from paquebot.wire.smtp.commands import parse_command as parse_smtp_command
from paquebot.wire.smtp.content import ChunkCollector, DataDecoder, check_line_lengths
from paquebot.wire.smtp.parameters import parse_mail_parameters, parse_rcpt_parameters
from paquebot.wire.smtp.replies import join_reply, parse_reply_line
from paquebot.wire.smtp.xtext import decode_utf8_xtext, decode_xtext
from paquebot.wire.transparency import add_transparency
from tests.support.counted_work import assert_linear

pytestmark = pytest.mark.slow

Make = Callable[[int], Callable[[], object]]

_EXTENSIONS = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"})
_WIDE = ImapLimits(
    line=2**24, line_before_login=2**24, literals=2**20, command=2**26, sequence_ranges=2**20, search_keys=2**20,
    fetch_attributes=2**20, header_fields=2**20, flags=2**20, flag_octets=2**20, list_patterns=2**20,
    list_characters=2**20, id_parameters=2**20, section_depth=2**20,
)  # fmt: skip


def repeated(parse: Callable[[str], object], piece: str, *, before: str = "", after: str = "") -> Make:
    """A parser of text on a text that repeats a piece."""

    def make(count: int) -> Callable[[], object]:
        text = before + piece * count + after
        return lambda: parse(text)

    return make


def repeated_bytes(parse: Callable[[bytes], object], piece: bytes, *, before: bytes = b"", after: bytes = b"") -> Make:
    """A parser of bytes on bytes that repeat a piece."""

    def make(count: int) -> Callable[[], object]:
        data = before + piece * count + after
        return lambda: parse(data)

    return make


def mail_of(text: str) -> object:
    return parse_mail(text, _EXTENSIONS)


def rcpt_of(text: str) -> object:
    return parse_rcpt(text, _EXTENSIONS, smtputf8=True)


def different_parameters(count: int) -> Callable[[], object]:
    text = " ".join(f"X{number}" for number in range(count))
    return lambda: parse_mail_parameters(text, _EXTENSIONS)


def data_in_single_octets(count: int) -> Callable[[], object]:
    def feed() -> None:
        decoder = DataDecoder()
        for _ in range(count):
            decoder.feed(b".")
            decoder.discard()
        decoder.feed(b"\r\n.\r\n")

    return feed


def one_line_in_single_octets(count: int) -> Callable[[], object]:
    def feed() -> None:
        decoder = DataDecoder()
        for _ in range(count):
            decoder.feed(b"x")
        decoder.feed(b"\r\n.\r\n")
        decoder.content()

    return feed


def chunks_of_one_octet(count: int) -> Callable[[], object]:
    def feed() -> None:
        collector = ChunkCollector()
        for _ in range(count):
            collector.feed(b"x")
        collector.content()

    return feed


def reply_of_lines(count: int) -> Callable[[], object]:
    lines = [b"250-5.1.1 x"] * count + [b"250 2.1.1 x"]
    return lambda: join_reply([parse_reply_line(line) for line in lines])


SMTP: dict[str, Make] = {
    "a long line": repeated_bytes(parse_smtp_command, b"\xc3\xa9 ", before=b"MAIL "),
    "different parameters": different_parameters,
    "the same parameter": repeated(mail_of, " SIZE=1", before="FROM:<a@b>"),
    "unknown parameters": repeated(mail_of, " A", before="FROM:<a@b>"),
    "spaces between parameters": repeated(mail_of, " ", before="FROM:<a@b>", after="SIZE=1"),
    "spaces before the path": repeated(mail_of, " ", before="FROM:", after="<a@b>"),
    "one long parameter": repeated(mail_of, "=", before="FROM:<a@b> SIZE="),
    "NOTIFY of many": repeated(rcpt_of, "SUCCESS,", before="TO:<a@b> NOTIFY="),
    "ORCPT of escapes": repeated(rcpt_of, "+2B", before="TO:<a@b> ORCPT=rfc822;"),
    "a quoted path": repeated(rcpt_of, '\\"', before='TO:<"', after='"@b>'),
    "a path without an end": repeated(rcpt_of, '"', before="TO:<"),
    "a source route": repeated(rcpt_of, "@a,", before="TO:<", after="@a:b@c>"),
    "RCPT parameters": repeated(lambda text: parse_rcpt_parameters(text, _EXTENSIONS), "NOTIFY=NEVER "),
    "xtext": repeated(decode_xtext, "+41"),
    "UTF-8 xtext": repeated(decode_utf8_xtext, "\\x{E9}"),
    "UTF-8 xtext without an end": repeated(decode_utf8_xtext, "\\x{"),
    "HELO": repeated(parse_hello, "a."),
    "BDAT": repeated(parse_bdat, "1"),
    "AUTH": repeated(parse_auth, "a "),
    "a reply of lines": reply_of_lines,
    "DATA in single octets": data_in_single_octets,
    "one line of DATA in single octets": one_line_in_single_octets,
    "BDAT in single octets": chunks_of_one_octet,
    "short lines": repeated_bytes(lambda content: check_line_lengths(content, 1000), b"\r\n"),
    "dots": repeated_bytes(lambda content: b"".join(add_transparency([content])), b".\r\n"),
}

ADDRESSES: dict[str, Make] = {
    "dots": repeated(address.parse_address, "a."),
    "quoted pairs": repeated(address.parse_address, "\\\\", before='"', after='"@b'),
    "labels": repeated(lambda text: address.normal_domain.__wrapped__(text), "a."),
    "U-labels": repeated(lambda text: address.normal_domain.__wrapped__(text), "é."),
    "one U-label": repeated(lambda text: address.normal_domain.__wrapped__(text), "é"),
    "one A-label": repeated(lambda text: address.normal_domain.__wrapped__(text), "a", before="xn--"),
    "literal": repeated(lambda text: address.normal_domain.__wrapped__(text), ":", before="[IPv6:", after="]"),
    "local part": repeated(address.quoted_local, 'a"'),
    "detail": repeated(address.split_detail, "+a"),
    "subject of a domain": repeated(domain_token, "é."),
}


def command_of(text: bytes) -> object:
    return parse_command(AssembledCommand(text), limits=_WIDE)


def literals(count: int) -> Callable[[], object]:
    text = b"a FETCH 1 (BODY[HEADER.FIELDS (" + b" ".join([b"{1}\r\n"] * count) + b")])"
    command = AssembledCommand(text, (Literal(b"x"),) * count)
    return lambda: parse_command(command, limits=_WIDE)


def assembled_literals(count: int) -> Callable[[], object]:
    def assemble() -> None:
        assembler = CommandAssembler(_WIDE)
        assembler.authenticated = True
        assembler.start()
        want: object = None
        for number in range(count):
            assembler.line(b"a LOGIN {1+}" if number == 0 else b" {1+}")
            want = assembler.literal(b"x")
        want = assembler.line(b"")
        assert isinstance(want, Complete)

    return assemble


def overlapping(count: int) -> SequenceSet:
    """`1:*` many times, and ranges that each contain the next one."""
    return SequenceSet((SeqRange(1, None),) * count + tuple(SeqRange(at + 1, 10**9 - at) for at in range(count)))


def resolve_overlapping(count: int) -> Callable[[], object]:
    ranges = overlapping(count)
    return lambda: (ranges.resolve(10**9), ranges.highest(), ranges.has_star(), str(ranges))


def view_of(count: int) -> View:
    every = range(1, count + 1)
    return View(FlagRows(uids=list(every), flags=bytes(count), mod_seqs=[1] * count), 1)  # type: ignore[arg-type]


def recent_in_pieces(count: int) -> Callable[[], object]:
    view = view_of(2 * count)
    for uid in range(1, 2 * count, 2):
        view.claim(RecentRange(uid, uid + 1))
    return lambda: [view.is_recent(number) for number in range(1, 2 * count + 1)]


def select_overlapping(count: int) -> Callable[[], object]:
    view, ranges = view_of(count), SequenceSet((SeqRange(1, None),) * count)
    return lambda: view.select(ranges, uid=False)


def select_uids(count: int) -> Callable[[], object]:
    view, ranges = view_of(count), SequenceSet(tuple(SeqRange(uid, 10**9) for uid in range(1, count)))
    return lambda: (view.select(ranges, uid=True), view.knows_all(ranges))


def one_pattern(pattern: str) -> Make:
    patterns = ListPatterns([pattern])
    return repeated(patterns.matches, "a", after="b")


def many_patterns(count: int) -> Callable[[], object]:
    """Match `count` names against half of the maximum of patterns: together they cost as much as one."""
    patterns = ListPatterns(f"*a*{number}" for number in range(64))
    return lambda: [patterns.matches("a" * 50) for _ in range(count)]


def make_patterns(count: int) -> Callable[[], object]:
    texts = ["*%" * 10 + str(number) for number in range(count)]
    return lambda: ListPatterns(texts)


IMAP: dict[str, Make] = {
    "a long tag": repeated_bytes(command_of, b"a", after=b" NOOP"),
    "ranges": repeated_bytes(command_of, b"1:*,", before=b"a FETCH ", after=b"1 FLAGS"),
    "flags": repeated_bytes(command_of, b"\\Seen ", before=b"a STORE 1 FLAGS (", after=b"x)"),
    "one long flag": repeated_bytes(command_of, b"x", before=b"a STORE 1 FLAGS "),
    "search keys": repeated_bytes(command_of, b"NOT ALL ", before=b"a SEARCH ", after=b"ALL"),
    "keys in parentheses": repeated_bytes(command_of, b"(", before=b"a SEARCH ", after=b"ALL"),
    "NOT of NOT": repeated_bytes(command_of, b"NOT ", before=b"a SEARCH ", after=b"ALL"),
    "OR of OR": repeated_bytes(command_of, b"OR SEEN ", before=b"a SEARCH ", after=b"ALL"),
    "spaces": repeated_bytes(command_of, b" ", before=b"a SEARCH", after=b"ALL"),
    "spaces at the end": repeated_bytes(command_of, b" ", before=b"a SEARCH ALL"),
    "items without parentheses": repeated_bytes(command_of, b" UID", before=b"a FETCH 1"),
    "flags to keep": repeated_bytes(command_of, b'"x] ', before=b"a APPEND x (", after=b"x)"),
    "numbers": repeated_bytes(command_of, b"123,", before=b"a FETCH ", after=b"1 FLAGS"),
    "fetch items": repeated_bytes(command_of, b"BODY[1.2.3.HEADER] ", before=b"a FETCH 1 (", after=b"UID)"),
    "section path": repeated_bytes(command_of, b"1.", before=b"a FETCH 1 BODY[", after=b"1]"),
    "header fields": repeated_bytes(command_of, b"X ", before=b"a FETCH 1 BODY[HEADER.FIELDS (", after=b"X)]"),
    "status items": repeated_bytes(command_of, b"MESSAGES ", before=b"a STATUS x (", after=b"UIDNEXT)"),
    "special uses": repeated_bytes(command_of, b"\\x ", before=b"a CREATE x (USE (", after=b"\\x))"),
    "selection options": repeated_bytes(command_of, b"REMOTE ", before=b"a LIST (", after=b'REMOTE) "" *'),
    "return options": repeated_bytes(command_of, b"CHILDREN ", before=b'a LIST "" * RETURN (', after=b"CHILDREN)"),
    "patterns": repeated_bytes(command_of, b"*a% ", before=b'a LIST "" (', after=b"*)"),
    "one pattern": repeated_bytes(command_of, b"%*", before=b'a LIST "" '),
    "quoted pairs": repeated_bytes(command_of, b"\\\\", before=b'a LOGIN "', after=b'" x'),
    "quotes without an end": repeated_bytes(command_of, b'"\\', before=b"a LOGIN "),
    "ID": repeated_bytes(command_of, b'"a" "b" ', before=b"a ID (", after=b'"a" NIL)'),
    "ENABLE": repeated_bytes(command_of, b" X", before=b"a ENABLE"),
    "an unknown command": repeated_bytes(command_of, b"x", before=b"a "),
    "literals": literals,
    "assembled literals": assembled_literals,
    "a digit line": repeated_bytes(lambda line: CommandAssembler(_WIDE).start() and _line(line), b"9", before=b"a {"),
    "overlapping ranges": resolve_overlapping,
    "sequence numbers": select_overlapping,
    "UIDs": select_uids,
    "recent in pieces": recent_in_pieces,
    "compress": lambda count: lambda: (compress(range(1, 2 * count, 2)), set_of(range(1, 2 * count, 2))),
    "shifts in a name": repeated_bytes(decode_mailbox_name, b"&-"),
    "shifts without an end": repeated_bytes(decode_mailbox_name, b"&"),
    "one shift": repeated_bytes(decode_mailbox_name, b"AGEA", before=b"&", after=b"-"),
    "print a name": repeated(encode_mailbox_name, "é&a"),
    "levels": repeated(check_new_name, "a/"),
    "a name for *a*a*b": one_pattern("*a" * 200 + "*c"),
    "a name for %a%a%b": one_pattern("%a" * 200 + "%c"),
    "names for 64 patterns": many_patterns,
    "make patterns": make_patterns,
    "split flags": lambda count: lambda: parse_flags(["\\Seen", "x"] * count),
}


def _line(line: bytes) -> object:
    assembler = CommandAssembler(_WIDE)
    assembler.start()
    return assembler.line(line)


POP3_AND_OTHERS: dict[str, Make] = {
    "spaces": repeated_bytes(pop3.parse_command, b" ", before=b"LIST", after=b"x"),
    "digits": repeated_bytes(pop3.parse_command, b"9", before=b"TOP "),
    "a long keyword": repeated_bytes(pop3.parse_command, b"x"),
    "PASS": repeated_bytes(pop3.parse_command, b" x", before=b"PASS"),
    "AUTH": repeated_bytes(pop3.parse_command, b"x", before=b"AUTH "),
    "stuffed": repeated_bytes(lambda message: list(pop3.stuffed(message, piece=2)), b".\r\n"),
    "lone LF": repeated_bytes(lambda text: b"".join(pop3.stuffed(text)), b"\n"),
    "top": repeated_bytes(lambda message: pop3.top_of(message, 7), b"\r\n"),
    "PROXY 1": repeated_bytes(proxy.read_header, b" ", before=b"PROXY TCP4 "),
    "PROXY 2": repeated_bytes(proxy.read_header, b"\x04\0\0", before=proxy.SIGNATURE + b"\x21\x11\xff\xff" + bytes(12)),
    "PLAIN": repeated_bytes(sasl.parse_plain, b"\0"),
    "base64": repeated_bytes(sasl.decode_response, base64.b64encode(b"abc")),
}


@pytest.mark.parametrize("make", SMTP.values(), ids=SMTP.keys())
def test_smtp(make: Make) -> None:
    assert_linear(make, 400)


@pytest.mark.parametrize("make", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_addresses(make: Make) -> None:
    assert_linear(make, 400)


@pytest.mark.parametrize("make", IMAP.values(), ids=IMAP.keys())
def test_imap(make: Make) -> None:
    assert_linear(make, 400)


@pytest.mark.parametrize("make", POP3_AND_OTHERS.values(), ids=POP3_AND_OTHERS.keys())
def test_pop3_sasl_and_proxy(make: Make) -> None:
    assert_linear(make, 400)


def test_mail_stops_at_the_first_impossible_parameter() -> None:
    """RFC 5321 §4.1.1.11; a parser that reads on compares each of 660 parameters with all before it."""
    few, many = "FROM:<a@b> X SIZE=1", "FROM:<a@b> X" + " Y" * 900
    for text in (few, many):
        with pytest.raises(ValueError, match="not recognised"):
            parse_mail(text, _EXTENSIONS)
