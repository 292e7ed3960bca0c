"""SEARCH: a program of keys, bounded in number before it becomes a tree, and nested as deep as its number allows.

Strings stay the client's octets, with the program's charset; the service decides whether the charset is supported
([BADCHARSET]).

RFC 3501 §6.4.4 and §9; RFC 4731 (RETURN), RFC 5032 (WITHIN), RFC 5182 ($), RFC 7162 §3.1.5 (MODSEQ),
RFC 8474 §5 (EMAILID, THREADID), RFC 8514 (SAVEDATE).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from paquebot.wire.cursor import DIGITS
from paquebot.wire.imap.ast import (
    AgeOp,
    DateField,
    DateOp,
    EntryType,
    ObjectKind,
    Search,
    SearchAge,
    SearchAll,
    SearchAnd,
    SearchBody,
    SearchDate,
    SearchFlag,
    SearchHeader,
    SearchKey,
    SearchModSeq,
    SearchNot,
    SearchObjectId,
    SearchOr,
    SearchReturn,
    SearchSaveDateSupported,
    SearchSequence,
    SearchSize,
    SearchText,
    SearchUid,
    SizeOp,
)
from paquebot.wire.imap.grammar.dates import date
from paquebot.wire.imap.grammar.tokens import (
    MAX_NUMBER64,
    CommandCursor,
    astring,
    mod_sequence,
    object_id,
    quoted,
    sequence_set,
    spelled_flag,
    word,
)

_SET_START = DIGITS | frozenset(b"*$")
_FIELD_NAME = frozenset(range(0x21, 0x7F)) - frozenset(b":")  # RFC 5322 §3.6.8

_PLAIN_KEYS: Final[Mapping[bytes, SearchKey]] = {
    b"ALL": SearchAll(),
    b"ANSWERED": SearchFlag("\\Answered", True),
    b"DELETED": SearchFlag("\\Deleted", True),
    b"DRAFT": SearchFlag("\\Draft", True),
    b"FLAGGED": SearchFlag("\\Flagged", True),
    b"RECENT": SearchFlag("\\Recent", True),
    b"SEEN": SearchFlag("\\Seen", True),
    b"UNANSWERED": SearchFlag("\\Answered", False),
    b"UNDELETED": SearchFlag("\\Deleted", False),
    b"UNDRAFT": SearchFlag("\\Draft", False),
    b"UNFLAGGED": SearchFlag("\\Flagged", False),
    b"UNSEEN": SearchFlag("\\Seen", False),
    b"OLD": SearchFlag("\\Recent", False),
    b"NEW": SearchAnd((SearchFlag("\\Recent", True), SearchFlag("\\Seen", False))),
    b"SAVEDATESUPPORTED": SearchSaveDateSupported(),
}


class _Not:
    """A NOT that waits for its key."""


class _Or:
    """An OR that waits for its keys."""

    def __init__(self) -> None:
        self.left: SearchKey | None = None


_Group = list[SearchKey]
"""The keys so far of a parenthesis, or of the whole program."""


class _Program:
    """Reads the keys of one command and counts them.

    A list, not Python's call stack, has the keys that wait for others: "any of these" in IMAP is a chain of nested ORs,
    and clients ask for thousands of addresses.
    """

    __slots__ = ("_count", "_cur", "_waiting")

    def __init__(self, cur: CommandCursor) -> None:
        self._cur = cur
        self._count = 0
        self._waiting: list[_Not | _Or | _Group] = [[]]

    def read(self) -> SearchKey:
        """search-key *(SP search-key)"""
        while True:
            key = self._begin()
            found = self._end(key) if key is not None else None
            if found is not None:
                return found

    def _begin(self) -> SearchKey | None:
        """A key without keys inside it; None: a key with others inside has begun."""
        cur = self._cur
        self._count += 1
        if self._count > cur.limits.search_keys:
            raise cur.failure(f"at most {cur.limits.search_keys} search keys")
        if cur.at(b"("):
            cur.opens("( before search keys")
            self._waiting.append([])
            return None
        if cur.peek() in _SET_START:
            return SearchSequence(sequence_set(cur))
        start = cur.position
        name = word(cur, "a search key")
        plain = _PLAIN_KEYS.get(name)
        if plain is not None:
            return plain
        if name in (b"NOT", b"OR"):
            cur.space()
            self._waiting.append(_Not() if name == b"NOT" else _Or())
            return None
        read = _ARGUMENT_KEYS.get(name)
        if read is None:
            raise cur.failure("a search key", at=start)
        cur.space()
        return read(cur)

    def _end(self, key: SearchKey) -> SearchKey | None:
        """Give a complete key to the one that waits for it. Returns the program, or None: another key follows."""
        while True:
            match self._waiting[-1]:
                case _Not():
                    key = SearchNot(key)
                case _Or() as waiting:
                    if waiting.left is None:
                        waiting.left = key
                        self._cur.space()
                        return None
                    key = SearchOr(waiting.left, key)
                case group:
                    group.append(key)
                    if self._cur.more():
                        return None
                    key = group[0] if len(group) == 1 else SearchAnd(tuple(group))
                    if len(self._waiting) == 1:
                        return key
                    self._cur.closes("a space or ) after a search key")
            self._waiting.pop()


def search(cur: CommandCursor, *, uid: bool) -> Search:
    """search = "SEARCH" [search-return-opts] SP search-program, after the command's name"""
    cur.space()
    returns = None
    if cur.take_keyword(b"RETURN"):
        returns = _return_options(cur)
        cur.space()
    charset = None
    if cur.take_keyword(b"CHARSET"):
        charset = _charset(cur)
        cur.space()
    return Search(cur.tag, uid, charset, _Program(cur).read(), returns)


def _return_options(cur: CommandCursor) -> frozenset[SearchReturn]:
    """search-return-opts = SP "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")" """
    cur.opens("( before the return options")
    if cur.take(b")"):
        return frozenset({SearchReturn.ALL})  # RFC 4731 §3.1
    found = {_return_option(cur)}
    while cur.more():
        found.add(_return_option(cur))
    cur.closes("a space or ) after a return option")
    return frozenset(found)


def _return_option(cur: CommandCursor) -> SearchReturn:
    start = cur.position
    try:
        return SearchReturn(word(cur, "a return option"))
    except ValueError:
        raise cur.failure("MIN, MAX, ALL, COUNT or SAVE", at=start) from None


def _charset(cur: CommandCursor) -> str:
    start = cur.position
    name = astring(cur, "a charset")
    if not name or len(name) > 64 or not name.isascii() or not name.decode("ascii").isprintable():
        raise cur.failure("the name of a charset", at=start)
    return name.upper().decode("ascii")


def _keyword(present: bool) -> Callable[[CommandCursor], SearchKey]:
    def read(cur: CommandCursor) -> SearchKey:
        """flag-keyword = atom; a string and a system flag too"""
        return SearchFlag(spelled_flag(astring(cur, "a keyword")), present)

    return read


def _dated(field: DateField, op: DateOp) -> Callable[[CommandCursor], SearchKey]:
    return lambda cur: SearchDate(field, op, date(cur))


def _aged(op: AgeOp) -> Callable[[CommandCursor], SearchKey]:
    return lambda cur: SearchAge(op, cur.number("a number of seconds", low=1, high=MAX_NUMBER64))


def _sized(op: SizeOp) -> Callable[[CommandCursor], SearchKey]:
    return lambda cur: SearchSize(op, cur.number("a size in octets", high=MAX_NUMBER64))


def _address_or_subject(field: str) -> Callable[[CommandCursor], SearchKey]:
    return lambda cur: SearchHeader(field, astring(cur))


def _identified(kind: ObjectKind) -> Callable[[CommandCursor], SearchKey]:
    return lambda cur: SearchObjectId(kind, object_id(cur))


def _header(cur: CommandCursor) -> SearchKey:
    """ "HEADER" SP header-fld-name SP astring"""
    start = cur.position
    name = astring(cur, "the name of a header field").removesuffix(b":")
    if not name or not _FIELD_NAME.issuperset(name):
        raise cur.failure("the name of a header field", at=start)
    cur.space()
    return SearchHeader(name.lower().decode("ascii"), astring(cur))


def _mod_seq(cur: CommandCursor) -> SearchKey:
    """ "MODSEQ" [search-modseq-ext] SP mod-sequence-valzer"""
    if cur.peek() in DIGITS:
        return SearchModSeq(mod_sequence(cur))
    start = cur.position
    name = quoted(cur)
    if not name.isascii():
        raise cur.failure("an entry name in US-ASCII", at=start)
    cur.space()
    start = cur.position
    try:
        entry_type = EntryType(word(cur, "priv, shared or all").lower().decode("ascii"))
    except ValueError:
        raise cur.failure("priv, shared or all", at=start) from None
    cur.space()
    return SearchModSeq(mod_sequence(cur), name.decode("ascii"), entry_type)


_ARGUMENT_KEYS: Final[Mapping[bytes, Callable[[CommandCursor], SearchKey]]] = {
    b"KEYWORD": _keyword(True),
    b"UNKEYWORD": _keyword(False),
    b"BEFORE": _dated(DateField.INTERNAL, DateOp.BEFORE),
    b"ON": _dated(DateField.INTERNAL, DateOp.ON),
    b"SINCE": _dated(DateField.INTERNAL, DateOp.SINCE),
    b"SENTBEFORE": _dated(DateField.SENT, DateOp.BEFORE),
    b"SENTON": _dated(DateField.SENT, DateOp.ON),
    b"SENTSINCE": _dated(DateField.SENT, DateOp.SINCE),
    b"SAVEDBEFORE": _dated(DateField.SAVED, DateOp.BEFORE),
    b"SAVEDON": _dated(DateField.SAVED, DateOp.ON),
    b"SAVEDSINCE": _dated(DateField.SAVED, DateOp.SINCE),
    b"OLDER": _aged(AgeOp.OLDER),
    b"YOUNGER": _aged(AgeOp.YOUNGER),
    b"LARGER": _sized(SizeOp.LARGER),
    b"SMALLER": _sized(SizeOp.SMALLER),
    b"FROM": _address_or_subject("from"),
    b"TO": _address_or_subject("to"),
    b"CC": _address_or_subject("cc"),
    b"BCC": _address_or_subject("bcc"),
    b"SUBJECT": _address_or_subject("subject"),
    b"HEADER": _header,
    b"BODY": lambda cur: SearchBody(astring(cur)),
    b"TEXT": lambda cur: SearchText(astring(cur)),
    b"UID": lambda cur: SearchUid(sequence_set(cur)),
    b"MODSEQ": _mod_seq,
    b"EMAILID": _identified(ObjectKind.EMAIL),
    b"THREADID": _identified(ObjectKind.THREAD),
}
