"""The commands about mailboxes, in the authenticated state.

RFC 3501 §6.3; RFC 5258 and RFC 5819 (LIST-EXTENDED, LIST-STATUS), RFC 6154 (SPECIAL-USE), RFC 7162 §3.1.8 and
§3.2.5 (CONDSTORE, QRESYNC), RFC 8438 (STATUS=SIZE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from paquebot.wire.imap.ast import (
    Create,
    Delete,
    Examine,
    List,
    ListReturn,
    ListSelect,
    Lsub,
    QResync,
    Rename,
    Select,
    Status,
    StatusItem,
    Subscribe,
    Unsubscribe,
)
from paquebot.wire.imap.grammar.tokens import (
    CommandCursor,
    atom,
    known_set,
    list_mailbox,
    mailbox,
    mod_sequence,
    reference,
    sought_mailbox,
    word,
)

_USES: Final[Mapping[bytes, str]] = {
    name.upper().encode(): "\\" + name
    for name in ("All", "Archive", "Drafts", "Flagged", "Junk", "Sent", "Trash", "Important")
}
_Option = TypeVar("_Option", ListSelect, ListReturn, StatusItem)


def select(cur: CommandCursor) -> Select:
    """select = "SELECT" SP mailbox [select-params]"""
    return Select(cur.tag, *_select_arguments(cur))


def examine(cur: CommandCursor) -> Examine:
    """examine = "EXAMINE" SP mailbox [select-params]"""
    return Examine(cur.tag, *_select_arguments(cur))


def _select_arguments(cur: CommandCursor) -> tuple[str, bool, QResync | None]:
    name = _existing_mailbox_argument(cur)
    condstore, qresync = False, None
    if not cur.more():
        return name, condstore, qresync
    cur.opens("( before select parameters")
    while True:
        start = cur.position
        parameter = word(cur, "CONDSTORE or QRESYNC")
        if parameter == b"CONDSTORE" and not condstore:
            condstore = True
        elif parameter == b"QRESYNC" and qresync is None:
            qresync = _qresync(cur)
        else:
            raise cur.failure("CONDSTORE or QRESYNC, each once", at=start)
        if not cur.more():
            break
    cur.closes("a space or ) after a select parameter")
    return name, condstore, qresync


def _qresync(cur: CommandCursor) -> QResync:
    """ "QRESYNC" SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")" """
    cur.space()
    cur.opens("( before QRESYNC's arguments")
    # Some clients send zeros for a mailbox that they have not seen yet.
    uid_validity = cur.number("a UIDVALIDITY", low=0 if cur.liberal else 1)
    cur.space()
    mod_seq = mod_sequence(cur, low=0 if cur.liberal else 1)
    uids = numbers = their_uids = None
    more = cur.more()
    if more and not cur.at(b"("):
        uids = known_set(cur)
        more = cur.more()
    if more:
        cur.opens("( before seq-match-data")
        numbers = known_set(cur)
        cur.space()
        their_uids = known_set(cur)
        cur.closes(") after seq-match-data")
    cur.closes(") after QRESYNC's arguments")
    return QResync(uid_validity, mod_seq, uids, numbers, their_uids)


def _mailbox_argument(cur: CommandCursor) -> str:
    cur.space()
    return mailbox(cur)


def _existing_mailbox_argument(cur: CommandCursor) -> str:
    cur.space()
    return sought_mailbox(cur)


def create(cur: CommandCursor) -> Create:
    """create = "CREATE" SP mailbox [SP "(" "USE" SP "(" [use-attr *(SP use-attr)] ")" ")"]"""
    name = _mailbox_argument(cur)
    if not cur.more():
        return Create(cur.tag, name)
    cur.opens("( before create parameters")
    if not cur.take_keyword(b"USE"):
        raise cur.failure("USE")
    cur.opens("( before special-use attributes")
    uses: dict[str, None] = {}
    if not cur.take(b")"):
        uses[_use(cur)] = None
        while cur.more():
            uses[_use(cur)] = None
        cur.closes("a space or ) after a special-use attribute")
    cur.closes(") after create parameters")
    return Create(cur.tag, name, tuple(uses))


def _use(cur: CommandCursor) -> str:
    """use-attr = "\\" atom; the registered ones in the registry's spelling"""
    cur.expect(b"\\", "a special-use attribute")
    name = atom(cur, "the name of a special-use attribute")
    return _USES.get(name.upper(), "\\" + name.decode("ascii"))


def delete(cur: CommandCursor) -> Delete:
    """delete = "DELETE" SP mailbox"""
    return Delete(cur.tag, _existing_mailbox_argument(cur))


def rename(cur: CommandCursor) -> Rename:
    """rename = "RENAME" SP mailbox SP mailbox"""
    name = _existing_mailbox_argument(cur)
    return Rename(cur.tag, name, _mailbox_argument(cur))


def subscribe(cur: CommandCursor) -> Subscribe:
    """subscribe = "SUBSCRIBE" SP mailbox"""
    return Subscribe(cur.tag, _mailbox_argument(cur))


def unsubscribe(cur: CommandCursor) -> Unsubscribe:
    """unsubscribe = "UNSUBSCRIBE" SP mailbox"""
    return Unsubscribe(cur.tag, _existing_mailbox_argument(cur))


def lsub(cur: CommandCursor) -> Lsub:
    """lsub = "LSUB" SP mailbox SP list-mailbox"""
    cur.space()
    prefix = reference(cur)
    cur.space()
    return Lsub(cur.tag, prefix, *_bounded(cur, prefix, [list_mailbox(cur)]))


def status(cur: CommandCursor) -> Status:
    """status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"; some clients leave out the parentheses"""
    name = _existing_mailbox_argument(cur)
    cur.space()
    return Status(cur.tag, name, _status_items(cur) if cur.at(b"(") or not cur.liberal else _listed_items(cur))


def _status_items(cur: CommandCursor) -> tuple[StatusItem, ...]:
    cur.opens("( before status items")
    found = _listed_items(cur)
    cur.closes("a space or ) after a status item")
    return found


def _listed_items(cur: CommandCursor) -> tuple[StatusItem, ...]:
    found = {_option(cur, StatusItem, "a status item"): None}
    while cur.more():
        found[_option(cur, StatusItem, "a status item")] = None
    return tuple(found)


def _option(cur: CommandCursor, options: type[_Option], expected: str) -> _Option:
    start = cur.position
    try:
        return options(word(cur, expected))
    except ValueError:
        raise cur.failure(expected, at=start) from None


def list_mailboxes(cur: CommandCursor) -> List:
    """list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts] (RFC 5258 §6)"""
    cur.space()
    extended = False
    chosen: frozenset[ListSelect] = frozenset()
    if cur.at(b"("):
        extended = True
        chosen = _select_options(cur)
        cur.space()
    prefix = reference(cur)
    cur.space()
    if cur.at(b"("):
        extended = True
        patterns = _bounded(cur, prefix, _patterns(cur))
    else:
        patterns = _bounded(cur, prefix, [list_mailbox(cur)])
    returns: frozenset[ListReturn] = frozenset()
    items: tuple[StatusItem, ...] = ()
    if cur.more():
        extended = True
        returns, items = _return_options(cur)
    return List(cur.tag, prefix, patterns, chosen, returns, items, extended)


def _select_options(cur: CommandCursor) -> frozenset[ListSelect]:
    """list-select-opts"""
    cur.opens("( before LIST selection options")
    start = cur.position
    found: set[ListSelect] = set()
    if not cur.take(b")"):
        found.add(_option(cur, ListSelect, "a LIST selection option"))
        while cur.more():
            found.add(_option(cur, ListSelect, "a LIST selection option"))
        cur.closes("a space or ) after a LIST selection option")
    # RFC 5258 §3.1: RECURSIVEMATCH needs another option, and REMOTE is not enough.
    if ListSelect.RECURSIVEMATCH in found and not found & {ListSelect.SUBSCRIBED, ListSelect.SPECIAL_USE}:
        raise cur.failure("a selection option for RECURSIVEMATCH to match", at=start)
    return frozenset(found)


def _bounded(cur: CommandCursor, prefix: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns, if they are short enough together to be matched."""
    if sum(len(prefix) + len(pattern) for pattern in patterns) > cur.limits.list_characters:
        raise cur.failure(f"patterns of at most {cur.limits.list_characters} characters together")
    return tuple(patterns)


def _patterns(cur: CommandCursor) -> list[str]:
    """patterns = "(" list-mailbox *(SP list-mailbox) ")" """
    cur.opens("( before patterns")
    found = [list_mailbox(cur)]
    while cur.more():
        if len(found) >= cur.limits.list_patterns:
            raise cur.failure(f"at most {cur.limits.list_patterns} patterns")
        found.append(list_mailbox(cur))
    cur.closes("a space or ) after a pattern")
    return found


def _return_options(cur: CommandCursor) -> tuple[frozenset[ListReturn], tuple[StatusItem, ...]]:
    """list-return-opts = "RETURN" SP "(" [return-option *(SP return-option)] ")"; STATUS by RFC 5819"""
    if not cur.take_keyword(b"RETURN"):
        raise cur.failure("RETURN")
    cur.opens("( before return options")
    found: set[ListReturn] = set()
    items: tuple[StatusItem, ...] = ()
    more = not cur.at(b")")
    while more:
        if cur.take_keyword(b"STATUS"):
            items = _status_items(cur)
        else:
            found.add(_option(cur, ListReturn, "a LIST return option"))
        more = cur.more()
    cur.closes("a space or ) after a return option")
    return frozenset(found), items
