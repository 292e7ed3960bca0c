"""STORE (RFC 3501 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3): one statement whatever the set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paquebot.imap import updates
from paquebot.imap.changes import Change
from paquebot.imap.flags import split
from paquebot.imap.messages_named import named
from paquebot.imap.reply import Reply, no, ok
from paquebot.imap.states import Selected, condstore_enabled
from paquebot.imap.view import View
from paquebot.mailstore.types import Flag, FlagOp, StoreResult
from paquebot.wire.imap import ast, response_codes
from paquebot.wire.imap.ast import StoreMode

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_OPS = {StoreMode.SET: FlagOp.REPLACE, StoreMode.ADD: FlagOp.ADD, StoreMode.REMOVE: FlagOp.REMOVE}
_Known = tuple[Flag, frozenset[str]]


async def store(session: "Session", state: Selected, command: ast.Store) -> Reply:
    """RFC 3501 §6.4.6"""
    if state.read_only:
        return no("The mailbox is open read-only", response_codes.READ_ONLY)
    if command.unchanged_since is not None:  # RFC 7162 §3.1: this enables CONDSTORE
        state = condstore_enabled(state)
    view = state.view
    uids = [view.uid(number) for number in named(session, state, command.sequence_set, uid=command.uid)]
    if not uids:
        return ok("Nothing to change", state=state)
    flags, keywords = split(command.flags)
    op = _OPS[command.mode]
    expected = _expected(view, uids, op, (flags, frozenset(keywords))) if command.silent else {}
    result = await session.process.mailstore.store_flags(
        state.account.account_id,
        state.mailbox_id,
        uids,
        op,
        flags=flags,
        keywords=keywords,
        unchanged_since=command.unchanged_since,
    )
    take_in(session, state, result)
    untagged = _told(state, command, result, expected)
    return _completion(state, command, uids, result, untagged)


def take_in(session: "Session", state: Selected, result: StoreResult) -> None:
    """What this session stored goes into its picture, and is told to the others."""
    updates.own(state, result.rows, mod_seq=result.mod_seq if result.changed else None)
    if result.changed:
        session.changed(Change(state.mailbox_id, result.mod_seq, result.rows))


def _expected(view: View, uids: Sequence[int], op: FlagOp, change: _Known) -> dict[int, _Known]:
    """What a client that asks for silence believes the flags to be afterwards."""
    flags, keywords = change
    expected: dict[int, _Known] = {}
    for uid in uids:
        number = view.number(uid)
        if number is None:
            continue
        now, words = view.flags(number), frozenset(view.keywords(number))
        match op:
            case FlagOp.REPLACE:
                expected[uid] = change
            case FlagOp.ADD:
                expected[uid] = (now | flags, words | keywords)
            case FlagOp.REMOVE:
                expected[uid] = (now & ~flags, words - keywords)
    return expected


def _told(state: Selected, command: ast.Store, result: StoreResult, expected: dict[int, _Known]) -> bytes:
    """The FETCH responses: all, or with .SILENT those where another session had its part (RFC 3501 §6.4.6), and
    with CONDSTORE the new mod-sequences (RFC 7162 §3.1.3)."""
    out = bytearray()
    view = state.view
    used = (word for words in result.rows.keywords.values() for word in words)
    updates.write_keywords(out, view, (*view.keywords_known, *used))
    if not command.silent:
        updates.write_flags(out, state, result.rows.uids, uid=command.uid)
        return bytes(out)
    changed = frozenset(result.changed)
    for uid in result.rows.uids:
        number = view.number(uid)
        if number is None:
            continue
        known = (view.flags(number), frozenset(view.keywords(number)))
        if known != expected.get(uid):
            updates.write_flags(out, state, (uid,), uid=command.uid)
        elif uid in changed and state.condstore:
            updates.write_mod_seq(out, view, number, uid=command.uid or state.qresync)
    return bytes(out)


def _completion(
    state: Selected,
    command: ast.Store,
    uids: Sequence[int],
    result: StoreResult,
    untagged: bytes,
) -> Reply:
    if result.modified:
        view = state.view
        found = result.modified if command.uid else [view.number(uid) or 0 for uid in result.modified]
        return ok("Some messages had changed", response_codes.modified(sorted(found)), untagged=untagged, state=state)
    missing = len(uids) - len(result.rows)
    if missing and not command.uid and not command.silent:  # RFC 2180 §4.2
        return no("Some of the messages were expunged", response_codes.EXPUNGEISSUED, untagged=untagged, state=state)
    return ok("UID STORE completed" if command.uid else "STORE completed", untagged=untagged, state=state)
