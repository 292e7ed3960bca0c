"""The commands that put messages into mailboxes or change them there: APPEND, STORE, COPY, MOVE, UID EXPUNGE.

RFC 3501 §6.3.11, §6.4.6, §6.4.7; RFC 3502 (MULTIAPPEND), RFC 3516 (literal8), RFC 6855 §4 (UTF8 append form),
RFC 4315 (UIDPLUS), RFC 6851 (MOVE), RFC 7162 §3.1.3 (UNCHANGEDSINCE).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from paquebot.wire.imap.ast import Append, AppendMessage, Copy, Move, Store, StoreMode, UidExpunge
from paquebot.wire.imap.grammar.dates import date_time
from paquebot.wire.imap.grammar.tokens import (
    CommandCursor,
    MessageLiteral,
    flag_list,
    flags,
    flags_to_keep,
    mailbox,
    mod_sequence,
    sequence_set,
    word,
)
from paquebot.wire.imap.sequence_set import SequenceSet

_STORE_ITEMS: Final[Mapping[bytes, tuple[StoreMode, bool]]] = {
    b"FLAGS": (StoreMode.SET, False),
    b"FLAGS.SILENT": (StoreMode.SET, True),
    b"+FLAGS": (StoreMode.ADD, False),
    b"+FLAGS.SILENT": (StoreMode.ADD, True),
    b"-FLAGS": (StoreMode.REMOVE, False),
    b"-FLAGS.SILENT": (StoreMode.REMOVE, True),
}


def append(cur: CommandCursor, *, partial: bool = False) -> Append:
    """append = "APPEND" SP mailbox 1*(SP append-message), after the command's name

    With `partial`, the text ends with the literal of a message that has not been read yet.
    """
    cur.space()
    name = mailbox(cur)
    cur.space()
    messages = [_append_message(cur, partial=partial)]
    while cur.more():
        messages.append(_append_message(cur, partial=partial))
    return Append(cur.tag, name, tuple(messages))


def _append_message(cur: CommandCursor, *, partial: bool) -> AppendMessage:
    """append-message = [SP flag-list] [SP date-time] SP append-data, after the first SP; NIL for a missing list or
    date"""
    keywords: tuple[str, ...] = ()
    moment = None
    if cur.at(b"("):
        keywords = flags_to_keep(cur)
        cur.space()
    else:
        cur.take_keyword(b"NIL")
    if cur.at(b'"'):
        moment = date_time(cur)
        cur.space()
    else:
        cur.take_keyword(b"NIL")
    utf8 = cur.take_keyword(b"UTF8")  # RFC 6855 §4: "UTF8" SP "(" literal8 ")"
    if utf8:
        cur.opens("( before the message")
    start = cur.position
    found = cur.any_literal() if cur.at(b"{") or cur.at(b"~{") else None
    if not isinstance(found, MessageLiteral) or (utf8 and not found.binary):
        raise cur.failure("a message as a literal8" if utf8 else "a message as a literal", at=start)
    if utf8 and not (partial and cur.at_end()):
        cur.closes(") after the message")
    return AppendMessage(keywords, moment, found.size, found.binary, utf8)


def store(cur: CommandCursor, *, uid: bool) -> Store:
    """store = "STORE" SP sequence-set [store-modifiers] SP store-att-flags, after the command's name"""
    cur.space()
    messages = sequence_set(cur)
    cur.space()
    unchanged_since = None
    if cur.at(b"("):
        cur.opens("( before the store modifier")
        if not cur.take_keyword(b"UNCHANGEDSINCE"):
            raise cur.failure("UNCHANGEDSINCE")
        unchanged_since = mod_sequence(cur)
        cur.closes(") after the store modifier")
        cur.space()
    mode, silent = _store_item(cur)
    cur.space()
    values = flag_list(cur) if cur.at(b"(") else flags(cur)
    return Store(cur.tag, uid, messages, mode, silent, values, unchanged_since)


def _store_item(cur: CommandCursor) -> tuple[StoreMode, bool]:
    """store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"])"""
    start = cur.position
    sign = b"+" if cur.take(b"+") else b""
    if not sign and cur.take(b"-"):
        sign = b"-"
    item = _STORE_ITEMS.get(sign + word(cur, "FLAGS, +FLAGS or -FLAGS"))
    if item is None:
        raise cur.failure("FLAGS, +FLAGS or -FLAGS", at=start)
    return item


def copy(cur: CommandCursor, *, uid: bool) -> Copy:
    """copy = "COPY" SP sequence-set SP mailbox"""
    return Copy(cur.tag, uid, *_messages_and_mailbox(cur))


def move(cur: CommandCursor, *, uid: bool) -> Move:
    """move = "MOVE" SP sequence-set SP mailbox (RFC 6851 §6)"""
    return Move(cur.tag, uid, *_messages_and_mailbox(cur))


def _messages_and_mailbox(cur: CommandCursor) -> tuple[SequenceSet, str]:
    cur.space()
    messages = sequence_set(cur)
    cur.space()
    return messages, mailbox(cur)


def uid_expunge(cur: CommandCursor) -> UidExpunge:
    """uid-expunge = "UID" SP "EXPUNGE" SP sequence-set (RFC 4315 §2.1)"""
    cur.space()
    return UidExpunge(cur.tag, sequence_set(cur))
