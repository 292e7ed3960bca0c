"""STORE (RFC 3501 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3): one statement for any set."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from paquebot.imap.commands.context import CommandContext
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.view import View, parse_flags
from paquebot.imap.reply import Reply, no, ok
from paquebot.imap.states import Selected, condstore_enabled
from paquebot.mailstore import Flag, FlagOp, StoreResult
from paquebot.runtime.shares.event_loop import in_slices
from paquebot.wire.imap import ast, response_codes
from paquebot.wire.imap.ast import StoreMode

_OPS = {StoreMode.SET: FlagOp.REPLACE, StoreMode.ADD: FlagOp.ADD, StoreMode.REMOVE: FlagOp.REMOVE}
_Flags = tuple[Flag, tuple[str, ...]]
_Known = tuple[Flag, frozenset[str]]


async def store(context: CommandContext, state: Selected, command: ast.Store) -> Reply:
    """RFC 3501 §6.4.6"""
    if state.read_only:
        return no("The mailbox is open read-only", response_codes.READ_ONLY)
    if command.unchanged_since is not None:  # RFC 7162 §3.1: this enables CONDSTORE
        state = condstore_enabled(state)
    view = state.view
    numbers = context.numbers(state, command.sequence_set, uid=command.uid)
    uids = list(map(view.uid, numbers))
    if not uids:
        return ok("Nothing to change", state=state)
    flags, keywords = parse_flags(command.flags)
    op = _OPS[command.mode]
    expected = await _expected(view, numbers, op, (flags, frozenset(keywords))) if command.silent else None
    result = await context.server.messages.store_flags(
        state.account.account_id,
        state.mailbox_id,
        uids,
        op,
        flags=flags,
        keywords=keywords,
        unchanged_since=command.unchanged_since,
    )
    context.apply_stored(state, result)
    untagged = _fetch_lines(state, command, result, expected)
    return _completion(state, command, uids, result, untagged)


@dataclass(frozen=True, slots=True)
class _Expected:
    """The flags that a client which asked for .SILENT expects afterwards, by ascending UID."""

    uids: Sequence[int]
    known: Sequence[_Known]

    def of(self, uid: int) -> _Known | None:
        place = bisect_left(self.uids, uid)
        return self.known[place] if place < len(self.uids) and self.uids[place] == uid else None


async def _expected(view: View, numbers: Sequence[int], op: FlagOp, change: _Known) -> _Expected:
    known: dict[_Flags, _Known] = {}  # most messages of a mailbox have the same flags
    found: list[_Known] = []
    async for number in in_slices(numbers, stride=100):
        now = (view.flags(number), view.keywords(number))
        if now not in known:
            known[now] = _changed(now, op, change)
        found.append(known[now])
    return _Expected(array("I", map(view.uid, numbers)), found)


def _changed(now: _Flags, op: FlagOp, change: _Known) -> _Known:
    flags, keywords = change
    match op:
        case FlagOp.REPLACE:
            return change
        case FlagOp.ADD:
            return now[0] | flags, keywords.union(now[1])
        case FlagOp.REMOVE:
            return now[0] & ~flags, frozenset(now[1]) - keywords


def _fetch_lines(
    state: Selected, command: ast.Store, result: StoreResult, expected: _Expected | None
) -> Iterator[bytes]:
    """The FETCH responses, made while they are written: all, or with .SILENT those of messages that another session
    changed too (RFC 3501 §6.4.6), and with CONDSTORE the new mod-sequences (RFC 7162 §3.1.3)."""
    out = bytearray()
    used = (word for words in result.rows.keywords.values() for word in words)
    updates.write_keywords(out, state.view, (*state.view.keywords_reported, *used))
    if expected is None:
        return chain((bytes(out),), updates.flag_lines(state, result.rows.uids, uid=command.uid))
    return chain((bytes(out),), _unexpected(state, result, expected, uid=command.uid))


def _unexpected(state: Selected, result: StoreResult, expected: _Expected, *, uid: bool) -> Iterator[bytes]:
    view, changed = state.view, frozenset(result.changed)
    for found in result.rows.uids:
        number = view.number(found)
        if number is None:
            continue
        out = bytearray()
        if (view.flags(number), frozenset(view.keywords(number))) != expected.of(found):
            updates.write_flags(out, state, (found,), uid=uid)
        elif found in changed and state.condstore:
            updates.write_mod_seq(out, view, number, uid=uid or state.qresync)
        yield bytes(out)


def _completion(
    state: Selected,
    command: ast.Store,
    uids: Sequence[int],
    result: StoreResult,
    untagged: Iterable[bytes],
) -> Reply:
    if result.modified:
        view = state.view
        found = result.modified if command.uid else [view.number(uid) or 0 for uid in result.modified]
        return ok("Some messages had changed", response_codes.modified(sorted(found)), untagged=untagged, state=state)
    missing = len(uids) - len(result.rows)
    if missing and not command.uid:  # a NO (RFC 2180 §4.2.2) would say that nothing changed
        return ok("Some of the messages were expunged", response_codes.EXPUNGEISSUED, untagged=untagged, state=state)
    return ok("UID STORE completed" if command.uid else "STORE completed", untagged=untagged, state=state)
