"""Strategies for what a client may send: every command, with arguments of every kind, complete and broken.

A command is a list of pieces: bytes of its lines, and literals. No piece leaves the server waiting for bytes that do
not come: a literal has as many as it announces, and the next line ends IDLE and AUTHENTICATE.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Literal:
    """`waits`: a synchronising literal."""

    payload: bytes
    waits: bool = False
    binary: bool = False

    @property
    def head(self) -> bytes:
        return b"%b{%d%b}\r\n" % (b"~" * self.binary, len(self.payload), b"" if self.waits else b"+")


Piece = bytes | Literal
Command = list[Piece]
Pieces = st.SearchStrategy[Sequence[Piece]]


def words(text: bytes) -> Pieces:
    """One of the words in a text that spaces separate."""
    return st.sampled_from(text.split()).map(lambda word: [word])


def joined(*parts: Pieces | bytes) -> Pieces:
    """The parts, one after another."""
    strategies = [st.just([part]) if isinstance(part, bytes) else part for part in parts]
    return st.tuples(*strategies).map(lambda found: [piece for part in found for piece in part])


def spaced(part: Pieces, most: int = 3) -> Pieces:
    """Some of them, with spaces between them."""

    def between(found: list[Sequence[Piece]]) -> Command:
        return [piece for number, part in enumerate(found) for piece in (*([b" "] if number else []), *part)]

    return st.lists(part, min_size=1, max_size=most).map(between)


def optional(*parts: Pieces | bytes) -> Pieces:
    return st.one_of(st.just([b""]), joined(*parts))


_payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from((b"", b"\0", b"INBOX\0", b"a\x01b", b"\r\n", b"\x7f", b"\xed\xa0\x80", b"\xff", b"x" * 3000)),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
_literals = st.builds(Literal, _payloads, st.booleans(), st.booleans()).map(lambda one: [one])
_quoted = st.one_of(
    st.binary(max_size=30).map(lambda data: data.translate(None, b'"\\\r\n{')),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace").translate(None, b'"\\\r\n{')),
).map(lambda data: [b'"%b"' % data])
_junk = st.one_of(
    st.binary(max_size=20).map(lambda data: [data.translate(None, b"\n{")]),
    words(b'( ) (() "" " \\ NIL nil % * $ & ~ + - [ ] < > , : ;; (NIL) \\\\ "\\x" \x00 \x80 \xc3\xa4 x]y'),
)
numbers = words(
    b"0 1 2 3 01 00000000000000000000001 2147483647 2147483648 4294967295 4294967296 9223372036854775807 "
    b"9223372036854775808 18446744073709551616 1000000000000000000000000000000 -1 1.5 1e9 \xd9\xa3"
)
sets = st.one_of(
    words(
        b"1 2 3 * 1:* *:* 3:1 1,2,3 $ 0 0:* 1,,2 1: :1 $,1 1:2:3 4294967295 4294967295:* 4294967296 9999999999:1 "
        b"1,1,1 5,*,2 9223372036854775808 1000000000000000000000000000000:*"
    ),
    st.just([b",".join(b"%d" % (2 * number) for number in range(1, 3000))]),
)
_dates = words(
    b"1-Jan-2020 01-JAN-2020 1-Jan-0001 01-Jan-0000 31-Dec-9999 1-Jan-10000 31-Feb-2024 0-Jan-2020 32-Jan-2020 "
    b'1-Foo-2020 1-January-2020 "1-Jan-2020" 1-Jan-20 2020-01-01 1-Jan-99999999999999999999'
)
_moments = st.sampled_from((
    b'"01-Jan-2020 00:00:00 +0000"', b'"1-Jan-2020 00:00:00 +0000"', b'" 1-Jan-2020 00:00:00 -1200"',
    b'"01-Jan-0001 00:00:00 +0000"', b'"01-Jan-0001 00:00:00 +2359"', b'"02-Jan-0001 00:00:00 +0100"',
    b'"31-Dec-9999 23:59:59 -2359"', b'"31-Dec-9999 23:59:60 +0000"', b'"00-Jan-0000 00:00:00 +0000"',
    b'"01-Jan-2020 24:00:00 +0000"', b'"01-Jan-2020 00:00:00 +9999"', b'"31-Feb-2020 00:00:00 +0000"',
    b'"01-Jan-10000 00:00:00 +0000"', b'""', b'"x"', b"NIL", b'"01-Jan-2020 00:00:00 GMT"', b'"01-Jan-1970"',
)).map(lambda text: [text])  # fmt: skip
names = st.one_of(
    words(
        b"INBOX inbox iNbOx/x Sent Drafts Trash x y x/y x/y/z x/ / // /x x//y %% * x* x%% &AAA- x&AAA-y &AAE- &AH8- "
        b"&2D0- &3Dw- &2D3cAQ- & x& &AGE- &- &Jjo- &// &AAo-x &2AA- &//4- &/9A- \xc3\xa4 \xe4 e\xcc\x81 NIL $ x]"
    ),
    st.sampled_from((b'""', b'" "', b'"x y"', b'"100% done"', b'"*"', b'"x\\\\y"', b'"x\\"y"')).map(lambda one: [one]),
    st.sampled_from((254, 255, 256, 999, 1001, 2401, 5000)).map(lambda size: [b"x" * size]),
    st.sampled_from((16, 17, 33, 65, 500)).map(lambda depth: [b"/".join([b"d"] * depth)]),
    st.sampled_from((600, 800, 1200)).map(lambda size: [Literal("\N{GRINNING FACE}".encode() * size)]),
    _quoted,
    _literals,
)
strings = st.one_of(words(b"x NIL alice a@b"), _quoted, _literals, _junk)
flags = st.one_of(
    words(b"\\Seen \\seen \\Deleted \\Flagged \\Recent \\* \\ \\Foo $Forwarded x X y]z ( a%b \xc3\xa4 NIL \\\\Seen"),
    st.sampled_from((255, 256)).map(lambda size: [b"k" * size]),
    st.just([b" ".join(b"k%d" % number for number in range(400))]),
    _quoted,
)
_flag_lists = st.one_of(joined(b"(", spaced(flags), b")"), spaced(flags), st.just([b"()"]))
_charsets = words(
    b'utf8 UTF-8 us-ascii "utf-8" latin1 iso-8859-1 utf-16 utf-7 hex idna punycode unicode_escape rot13 undefined '
    b"base64 mbcs x-klingon \xff NIL koi8-r utf_8_sig cp65001 raw_unicode_escape"
)
_fields = st.one_of(words(b'From Subject x-y "x:y" : \xc3\xa4 From: "" %'), strings)
_mod_seqs = st.one_of(numbers, joined(_quoted, b" ", words(b"all priv shared x"), b" ", numbers))

_key = st.one_of(
    words(b"ALL SEEN unseen RECENT NEW OLD DELETED SAVEDATESUPPORTED FOO"),
    joined(words(b"KEYWORD UNKEYWORD"), b" ", flags),
    joined(words(b"BEFORE ON SINCE SENTBEFORE SENTON SENTSINCE SAVEDBEFORE SAVEDON SAVEDSINCE"), b" ", _dates),
    joined(words(b"OLDER YOUNGER LARGER SMALLER"), b" ", numbers),
    joined(words(b"FROM TO CC BCC SUBJECT BODY TEXT"), b" ", strings),
    joined(b"HEADER ", _fields, b" ", strings),
    joined(b"MODSEQ ", _mod_seqs),
    joined(words(b"EMAILID THREADID"), b" ", st.one_of(words(b"x T1 M1 \xff"), strings)),
    joined(b"UID ", sets),
    sets,
)
keys: Pieces = st.recursive(
    _key,
    lambda inner: st.one_of(
        joined(b"NOT ", inner), joined(b"OR ", inner, b" ", inner), joined(b"(", spaced(inner), b")")
    ),
    max_leaves=4,
)
_sections = st.one_of(
    words(b"TEXT HEADER 1 1.2.3 1.MIME MIME 0 1.0 4294967296 1.TEXT x"),
    st.just([b""]),
    joined(words(b"HEADER.FIELDS HEADER.FIELDS.NOT 1.HEADER.FIELDS"), b" (", spaced(_fields), b")"),
)
_partials = optional(b"<", numbers, b".", numbers, b">")
items = st.one_of(
    words(
        b"FLAGS UID INTERNALDATE ENVELOPE BODY BODYSTRUCTURE RFC822 RFC822.SIZE RFC822.HEADER RFC822.PEEK MODSEQ ALL "
        b"FULL FAST PREVIEW SAVEDATE EMAILID THREADID FOO BODY["
    ),
    joined(words(b"BODY BODY.PEEK BINARY.PEEK BINARY.SIZE FLAGS"), b"[", _sections, b"]", _partials),
    joined(b"RFC822.HEADER.LINES (", spaced(_fields), b")"),
)
_status_items = words(b"MESSAGES UNSEEN UIDNEXT HIGHESTMODSEQ SIZE MAILBOXID APPENDLIMIT DELETED FOO")
_patterns = st.one_of(names, joined(b"(", spaced(names), b")"))
_qresync = joined(
    b" (QRESYNC (", numbers, b" ", numbers, optional(b" ", sets), optional(b" (", sets, b" ", sets, b")"), b"))"
)
_message = st.one_of(
    _payloads.map(lambda data: [Literal(data or b"x")]),
    st.just([Literal(b"From: a@b\r\nSubject: x\r\nDate: Mon, 1 Jan 0001 00:00:00 +0000\r\n\r\ntext\r\n")]),
)

_responses = st.one_of(
    words(b"= AGEAYg== AAA= !"),
    _payloads.map(lambda data: [base64.b64encode(b"\0" + data[:700] + b"\0x")]),
    _payloads.map(lambda data: [base64.b64encode(data[:700] + b"\0alice@imap.test\0" + data[:700])]),
)
ANY_STATE = (
    words(b"NOOP CAPABILITY NAMESPACE CHECK FOO x"),
    joined(words(b"NOOP CAPABILITY CHECK ENABLE STARTTLS"), b" ", strings),
    joined(b"ID ", st.one_of(words(b"NIL ()"), joined(b"(", spaced(joined(strings, b" ", strings)), b")"))),
    joined(words(b"LOGIN FOO UID"), b" ", strings, b" ", strings),
    joined(b"LOGIN ", _literals, b" ", _literals),
    joined(b"AUTHENTICATE ", words(b"PLAIN LOGIN \xff"), optional(b" ", _responses), b"\r\n*"),
)
OF_MAILBOXES = (
    joined(words(b"CREATE DELETE SUBSCRIBE UNSUBSCRIBE EXAMINE SELECT"), b" ", names),
    joined(b"CREATE ", names, b" (USE (", words(b"\\Sent \\Junk \\Foo x \\"), b"))"),
    joined(b"RENAME ", names, b" ", names),
    joined(b"SELECT INBOX", _qresync),
    joined(b"STATUS ", names, b" (", spaced(_status_items), b")"),
    joined(words(b"LIST LSUB"), b" ", names, b" ", _patterns),
    joined(
        b"LIST (",
        words(b"SUBSCRIBED REMOTE SPECIAL-USE FOO"),
        b") ",
        names,
        b" ",
        _patterns,
        b" RETURN (STATUS (SIZE))",
    ),
    joined(b"APPEND ", names, optional(b" ", _flag_lists), optional(b" ", _moments), b" ", _message),
    joined(b"ENABLE ", words(b"CONDSTORE QRESYNC UTF8=ACCEPT X \xff")),
    joined(b"IDLE", optional(b" ", strings), b"\r\nDONE"),
)
OF_MESSAGES = (
    joined(words(b"CLOSE UNSELECT EXPUNGE SEARCH FETCH STORE COPY MOVE"), optional(b" ", strings)),
    joined(b"UID EXPUNGE ", sets),
    joined(optional(b"UID "), b"SEARCH ", keys),
    joined(
        optional(b"UID "),
        b"SEARCH ",
        optional(b"RETURN (", words(b"ALL MIN SAVE COUNT FOO"), b") "),
        b"CHARSET ",
        _charsets,
        b" ",
        keys,
    ),
    joined(
        optional(b"UID "),
        b"FETCH ",
        sets,
        b" (",
        spaced(items),
        b")",
        optional(b" (CHANGEDSINCE ", numbers, optional(b" VANISHED"), b")"),
    ),
    joined(
        optional(b"UID "),
        b"STORE ",
        sets,
        optional(b" (UNCHANGEDSINCE ", numbers, b")"),
        b" ",
        words(b"FLAGS +FLAGS -FLAGS.SILENT FOO"),
        b" ",
        _flag_lists,
    ),
    joined(optional(b"UID "), words(b"COPY MOVE"), b" ", sets, b" ", names),
)


def conversations(*kinds: Pieces, most: int = 12) -> st.SearchStrategy[list[Command]]:
    """Some commands of these kinds, without their tags; a few with unexpected bytes in them."""
    whole = st.one_of(*kinds)
    broken = st.tuples(whole, _junk, st.integers(0, 8)).map(
        lambda found: [*found[0][: found[2]], *found[1], *found[0][found[2] :]]
    )
    return st.lists(st.one_of(whole, whole, broken), min_size=1, max_size=most)
