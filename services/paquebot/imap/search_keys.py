"""SEARCH keys as predicates over what is known of a message so far (RFC 3501 §6.4.4).

A predicate answers True, False, or None: "not without more facts". So a search goes through the messages with the
cheapest facts first, and only what is still open costs columns, then summaries, then bodies.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from paquebot.imap.message_facts import Facts
from paquebot.mailstore.types import Flag
from paquebot.wire.imap import ast
from paquebot.wire.imap.sequence_set import SequenceSet, inside_of

Predicate = Callable[[Facts], bool | None]

_DAY = 86400
_FLAGS = {
    "\\Seen": Flag.SEEN,
    "\\Answered": Flag.ANSWERED,
    "\\Flagged": Flag.FLAGGED,
    "\\Deleted": Flag.DELETED,
    "\\Draft": Flag.DRAFT,
}
_CHARSETS = {
    "US-ASCII": "utf-8",  # a client that sends 8 bits without CHARSET most likely means UTF-8
    "UTF-8": "utf-8",
    "ISO-8859-1": "cp1252",
    "ISO-8859-2": "iso8859-2",
    "ISO-8859-5": "iso8859-5",
    "ISO-8859-7": "iso8859-7",
    "ISO-8859-9": "iso8859-9",
    "ISO-8859-15": "iso8859-15",
    "WINDOWS-1250": "cp1250",
    "WINDOWS-1251": "cp1251",
    "WINDOWS-1252": "cp1252",
    "KOI8-R": "koi8-r",
    "ISO-2022-JP": "iso2022_jp",
    "SHIFT_JIS": "cp932",
    "EUC-JP": "euc_jp",
    "EUC-KR": "cp949",
    "BIG5": "big5",
    "GB2312": "gb18030",
    "GB18030": "gb18030",
}
CHARSETS = tuple(_CHARSETS)
"""What SEARCH accepts; told in BADCHARSET (RFC 3501 §7.1)."""


class UnknownCharset(Exception):
    """The search is in a charset that is not among CHARSETS."""


class BadSearchText(Exception):
    """A search string is not text of the search's charset."""


@dataclass(frozen=True, slots=True)
class SearchContext:
    """What a key needs to know beside the message."""

    exists: int
    last_uid: int
    saved_uids: Sequence[int]
    charset: str
    now: float  # Unix time


def compile_key(key: ast.SearchKey, context: SearchContext) -> Predicate:
    """The predicate of a search key. Raises UnknownCharset, BadSearchText."""
    match key:
        case ast.SearchAnd(keys):
            return _all_of(_by_cost(keys, context))
        case ast.SearchOr(left, right):
            return _any_of(_by_cost((left, right), context))
        case ast.SearchNot(inner):
            return _negated(compile_key(inner, context))
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
        case ast.SearchSize(op, octets):
            return _size(op, octets)
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
    """Does MODSEQ occur? Then the response tells the highest one (RFC 7162 §3.1.5)."""
    match key:
        case ast.SearchModSeq():
            return True
        case ast.SearchAnd(keys):
            return any(uses_mod_seq(inner) for inner in keys)
        case ast.SearchOr(left, right):
            return uses_mod_seq(left) or uses_mod_seq(right)
        case ast.SearchNot(inner):
            return uses_mod_seq(inner)
        case _:
            return False


def texts_of(
    key: ast.SearchKey, context: SearchContext, *kinds: type[ast.SearchBody] | type[ast.SearchText]
) -> tuple[str, ...]:
    """What keys of these kinds look for, folded, each once. Raises UnknownCharset, BadSearchText."""
    texts = (_text(leaf.value, context.charset) for leaf in _leaves(key) if isinstance(leaf, kinds))
    return tuple(dict.fromkeys(texts))


def fields_of(key: ast.SearchKey, context: SearchContext) -> tuple[tuple[str, str], ...]:
    """The names of fields and the folded texts that are looked for in them. Raises as `texts_of`."""
    leaves = (leaf for leaf in _leaves(key) if isinstance(leaf, ast.SearchHeader))
    return tuple(dict.fromkeys((leaf.field, _text(leaf.value, context.charset)) for leaf in leaves))


def count_keys(key: ast.SearchKey) -> int:
    """How many keys are asked of a message, at most."""
    return sum(1 for _ in _leaves(key))


def _leaves(key: ast.SearchKey) -> Iterator[ast.SearchKey]:
    """The keys that others are made of."""
    waiting = [key]
    while waiting:
        match waiting.pop():
            case ast.SearchAnd(keys):
                waiting += reversed(keys)
            case ast.SearchOr(left, right):
                waiting += (right, left)
            case ast.SearchNot(inner):
                waiting.append(inner)
            case leaf:
                yield leaf


def _by_cost(keys: Iterable[ast.SearchKey], context: SearchContext) -> list[Predicate]:
    return [compile_key(key, context) for key in sorted(keys, key=_cost)]


def _cost(key: ast.SearchKey) -> int:
    match key:
        case ast.SearchBody() | ast.SearchText():
            return 3
        case ast.SearchHeader() | ast.SearchObjectId():
            return 2
        case ast.SearchDate(field):
            return 2 if field is ast.DateField.SENT else 1
        case ast.SearchSize() | ast.SearchAge():
            return 1
        case ast.SearchAnd(keys):
            return max((_cost(inner) for inner in keys), default=0)
        case ast.SearchOr(left, right):
            return max(_cost(left), _cost(right))
        case ast.SearchNot(inner):
            return _cost(inner)
        case _:
            return 0


def _all_of(predicates: Sequence[Predicate]) -> Predicate:
    def check(facts: Facts) -> bool | None:
        result: bool | None = True
        for predicate in predicates:
            found = predicate(facts)
            if found is False:
                return False
            if found is None:
                result = None
        return result

    return check


def _any_of(predicates: Sequence[Predicate]) -> Predicate:
    def check(facts: Facts) -> bool | None:
        result: bool | None = False
        for predicate in predicates:
            found = predicate(facts)
            if found:
                return True
            if found is None:
                result = None
        return result

    return check


def _negated(predicate: Predicate) -> Predicate:
    def check(facts: Facts) -> bool | None:
        found = predicate(facts)
        return None if found is None else not found

    return check


def _flag(flag: str, *, present: bool) -> Predicate:
    if flag == "\\Recent":
        return lambda facts: facts.recent is present
    if flag in _FLAGS:
        bit = _FLAGS[flag]
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


def _size(op: ast.SizeOp, octets: int) -> Predicate:
    def check(facts: Facts) -> bool | None:
        if facts.columns is None:
            return None
        return facts.columns.size > octets if op is ast.SizeOp.LARGER else facts.columns.size < octets

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

    def sent(facts: Facts) -> bool | None:
        if not facts.knows_sent:
            return None
        return facts.sent is not None and compare(facts.sent)

    def stored(facts: Facts) -> bool | None:
        if facts.columns is None:
            return None
        at = facts.columns.internal_date if field is ast.DateField.INTERNAL else facts.columns.save_date
        return compare(_day(at))

    return sent if field is ast.DateField.SENT else stored


def _day(at: int) -> datetime.date:
    """INTERNALDATE is shown in UTC, so its day is the one in UTC."""
    return datetime.date.fromordinal(719163 + at // _DAY)


def _age(op: ast.AgeOp, border: float) -> Predicate:
    """RFC 5032 §3: YOUNGER is within the interval, its border included; OLDER is the rest."""

    def check(facts: Facts) -> bool | None:
        if facts.columns is None:
            return None
        young = facts.columns.internal_date >= border
        return young if op is ast.AgeOp.YOUNGER else not young

    return check


def _object_id(kind: ast.ObjectKind, object_id: str) -> Predicate:
    def check(facts: Facts) -> bool | None:
        if facts.message is None:
            return None
        found = facts.message.email_id if kind is ast.ObjectKind.EMAIL else facts.message.thread_id
        return found == object_id

    return check


def _text(value: bytes, charset: str) -> str:
    codec = _CHARSETS.get(charset)
    if codec is None:
        raise UnknownCharset(charset)
    try:
        return value.decode(codec).casefold()
    except UnicodeDecodeError:
        raise BadSearchText from None
