"""SEARCH keys as predicates over the facts of a message (RFC 3501 §6.4.4).

A predicate returns True, False, or None: "not without more facts". So a search checks all messages with the cheapest
facts first, and loads columns, then summaries, then bodies, only for those that are still open.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.imap.mailbox_view.view import SYSTEM_FLAG_BITS
from paquebot.imap.search.facts import MessageFacts
from paquebot.imap.search.program import Predicate, leaves, program_of
from paquebot.message import codec_of, decode_charset
from paquebot.wire.imap import ast
from paquebot.wire.imap.sequence_set import SequenceSet, inside_of

_DAY = 86400
CHARSETS = (
    *("US-ASCII", "UTF-8", "ISO-8859-1", "ISO-8859-2", "ISO-8859-5", "ISO-8859-7", "ISO-8859-9", "ISO-8859-15"),
    *("WINDOWS-1250", "WINDOWS-1251", "WINDOWS-1252", "KOI8-R", "ISO-2022-JP", "SHIFT_JIS", "EUC-JP", "EUC-KR"),
    *("BIG5", "GB2312", "GB18030"),
)
"""The usual ones, listed in BADCHARSET (RFC 3501 §7.1). SEARCH accepts every charset of a message, by all its names."""
_UNDECLARED = ("US-ASCII", "ASCII", "ANSI_X3.4-1968")  # with 8-bit octets, a client most likely means UTF-8


class UnknownCharset(Exception):
    """The charset of the search is unknown."""


class BadSearchText(Exception):
    """A search string is not valid in the charset of the search."""


@dataclass(frozen=True, slots=True)
class SearchContext:
    """The facts that a key needs besides the message."""

    exists: int
    last_uid: int
    saved_uids: Sequence[int]
    charset: str
    now: float  # Unix time


def compile_key(key: ast.SearchKey, context: SearchContext) -> Predicate:
    """The predicate of a search key. Raises UnknownCharset, BadSearchText."""
    return program_of(key, lambda leaf: _leaf(leaf, context))


def _leaf(key: ast.SearchKey, context: SearchContext) -> Predicate:
    match key:
        case ast.SearchSequence(sequence_set):
            return _numbers(sequence_set, context)
        case ast.SearchUid(sequence_set):
            return _uids(sequence_set, context)
        case ast.SearchHeader() | ast.SearchBody() | ast.SearchText():
            return _containing(key, context.charset)
        case _:
            return _column(key, context.now)


def _column(key: ast.SearchKey, now: float) -> Predicate:
    """Keys that flags, columns or ids answer."""
    match key:
        case ast.SearchFlag(flag, present):
            return _flag(flag, present=present)
        case ast.SearchModSeq(mod_seq):
            return lambda facts: facts.mod_seq >= mod_seq
        case ast.SearchSize(op, size):
            return _size(op, size)
        case ast.SearchDate(field, op, date):
            return _date(field, op, date)
        case ast.SearchAge(op, seconds):
            return _age(op, now - seconds)
        case ast.SearchObjectId(kind, object_id):
            return _object_id(kind, object_id)
        case _:  # ALL, and SAVEDATESUPPORTED (RFC 8514 §4.3): here every message has a save date
            return lambda facts: True


def _containing(key: ast.SearchHeader | ast.SearchBody | ast.SearchText, charset: str) -> Predicate:
    wanted = _text(key.value, charset)
    match key:
        case ast.SearchHeader(field):
            return lambda facts: facts.header_contains(field, wanted)
        case ast.SearchBody():
            return lambda facts: facts.body_contains(wanted)
        case ast.SearchText():
            return lambda facts: facts.text_contains(wanted)


def uses_mod_seq(key: ast.SearchKey) -> bool:
    """Does MODSEQ occur? Then the response has the highest one (RFC 7162 §3.1.5)."""
    return any(isinstance(leaf, ast.SearchModSeq) for leaf in leaves(key))


def texts_of(
    key: ast.SearchKey, context: SearchContext, *kinds: type[ast.SearchBody] | type[ast.SearchText]
) -> tuple[str, ...]:
    """The texts that keys of these kinds search for, folded, each once. Raises UnknownCharset, BadSearchText."""
    texts = (_text(leaf.value, context.charset) for leaf in leaves(key) if isinstance(leaf, kinds))
    return tuple(dict.fromkeys(texts))


def fields_of(key: ast.SearchKey, context: SearchContext) -> tuple[tuple[str, str], ...]:
    """The names of fields and the folded texts to search for in them. Raises as `texts_of`."""
    named = (leaf for leaf in leaves(key) if isinstance(leaf, ast.SearchHeader))
    return tuple(dict.fromkeys((leaf.field, _text(leaf.value, context.charset)) for leaf in named))


def count_keys(key: ast.SearchKey) -> int:
    """How many keys at most are checked for a message."""
    return sum(1 for _ in leaves(key))


def _flag(flag: str, *, present: bool) -> Predicate:
    if flag == "\\Recent":
        return lambda facts: facts.recent is present
    if flag in SYSTEM_FLAG_BITS:
        bit = SYSTEM_FLAG_BITS[flag]
        return lambda facts: bool(facts.flags & bit) is present
    keyword = flag.lower()
    return lambda facts: any(name.lower() == keyword for name in facts.keywords) is present


def _numbers(sequence_set: SequenceSet, context: SearchContext) -> Predicate:
    if sequence_set.saved:
        return _saved(context)
    inside = inside_of(sequence_set.resolve(context.exists))
    return lambda facts: inside(facts.number)


def _uids(sequence_set: SequenceSet, context: SearchContext) -> Predicate:
    if sequence_set.saved:
        return _saved(context)
    inside = inside_of(sequence_set.resolve(context.last_uid))
    return lambda facts: inside(facts.uid)


def _saved(context: SearchContext) -> Predicate:
    saved = frozenset(context.saved_uids)
    return lambda facts: facts.uid in saved


def _size(op: ast.SizeOp, size: int) -> Predicate:
    def check(facts: MessageFacts) -> bool | None:
        if facts.columns is None:
            return None
        return facts.columns.size > size if op is ast.SizeOp.LARGER else facts.columns.size < size

    return check


def _date(field: ast.DateField, op: ast.DateOp, date: datetime.date) -> Predicate:
    def compare(found: datetime.date) -> bool:
        match op:
            case ast.DateOp.BEFORE:
                return found < date
            case ast.DateOp.ON:
                return found == date
            case ast.DateOp.SINCE:
                return found >= date

    def sent(facts: MessageFacts) -> bool | None:
        if not facts.knows_sent:
            return None
        return facts.sent is not None and compare(facts.sent)

    def stored(facts: MessageFacts) -> bool | None:
        if facts.columns is None:
            return None
        at = facts.columns.internal_date if field is ast.DateField.INTERNAL else facts.columns.save_date
        return compare(_day(at))

    return sent if field is ast.DateField.SENT else stored


def _day(at: int) -> datetime.date:
    """FETCH returns INTERNALDATE in UTC, so its day is the one in UTC."""
    return datetime.date.fromordinal(719163 + at // _DAY)


def _age(op: ast.AgeOp, border: float) -> Predicate:
    """RFC 5032 §3: YOUNGER is within the interval, its border included; OLDER is the rest."""

    def check(facts: MessageFacts) -> bool | None:
        if facts.columns is None:
            return None
        young = facts.columns.internal_date >= border
        return young if op is ast.AgeOp.YOUNGER else not young

    return check


def _object_id(kind: ast.ObjectKind, object_id: str) -> Predicate:
    def check(facts: MessageFacts) -> bool | None:
        if facts.message is None:
            return None
        found = facts.message.email_id if kind is ast.ObjectKind.EMAIL else facts.message.thread_id
        return found == object_id

    return check


def _text(value: bytes, charset: str) -> str:
    if charset in _UNDECLARED:
        return decode_charset(value, "").casefold()
    codec = codec_of(charset)
    if codec is None:
        raise UnknownCharset(charset)
    try:
        return value.decode(codec).casefold()
    except UnicodeError:
        raise BadSearchText from None
