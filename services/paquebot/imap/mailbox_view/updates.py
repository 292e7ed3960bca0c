"""Refreshes a session's view of its mailbox, and writes the lines that report changes (RFC 3501 §5.2, §7.3, §7.4.1).

EXPUNGE is sent only where the caller allows it: never in the reply to FETCH, STORE or SEARCH, which name messages by
numbers that must not change. All other changes may go with every reply.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from paquebot.imap.context import ServerContext
from paquebot.imap.mailbox_view.feed import MailboxChange, Watch
from paquebot.imap.mailbox_view.view import SYSTEM_FLAGS, Updates, View
from paquebot.imap.states import Selected, SessionState
from paquebot.mailstore import FlagRows, Mailbox, RecentRange
from paquebot.wire.imap import response_codes, responses
from paquebot.wire.imap.fetch_response import FetchResponse
from paquebot.wire.imap.sequence_set import inside_of, ranges_of

_CHUNK = 16 * 1024  # bytes of lines that are made in one step


def has_changes(watch: Watch, state: Selected) -> bool:
    """Is there a change that the session has not seen?"""
    return watch.dirty or watch.awaited > state.view.mod_seq


@dataclass(slots=True)
class UpdateLines:
    """Lines for the client, made once, while they are written: there may be as many as the mailbox has messages.

    Take them before `expunge_lines`, which changes the numbers. `arrived`: there are new messages.
    """

    arrived: bool = False
    lines: Iterable[bytes] = ()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.lines)


async def refresh(
    server: ServerContext, watch: Watch, state: Selected, *, now: bool = False, shared: bool = False
) -> UpdateLines:
    """Bring the view up to date; returns the lines that report it, except EXPUNGE (that is `expunge_lines`).

    `now`: ask PostgreSQL, also for changes without a hint. `shared`: the caller refreshes for a hint or a poll, so a
    query that other sessions share will do. Raises NoSuchMailbox.
    """
    if not now and (known := server.feed.recent_changes(watch, state.mailbox_id, state.view.mod_seq)) is not None:
        return _apply_recent(state, known)
    watch.dirty, watch.awaited = False, 0
    query = server.feed.shared_changes if shared else server.feed.changes
    try:
        changes = await query(state.account.account_id, state.mailbox_id, state.view.mod_seq)
        rows, expunged = changes.rows, changes.expunged
        mailbox = changes.mailbox
        if expunged is None:  # too long ago: compare with all messages of now
            found = await server.mailbox_reader.state(state.account.account_id, state.mailbox_id)
            rows, mailbox = found.rows, found.mailbox
            existing = frozenset(rows.uids)
            expunged = array("I", (uid for uid in state.view.uids if uid not in existing))
        updates = state.view.apply(rows, expunged, mailbox.highest_mod_seq)
        if updates.arrived:
            await _claim_recent(server, state, mailbox)
    except BaseException:
        watch.dirty = True
        raise
    return _lines(state, updates, mailbox.keywords)


def _apply_recent(state: Selected, changes: Iterable[MailboxChange]) -> UpdateLines:
    """`refresh` with changes that sessions of this process made."""
    view = state.view
    arrived, changed, words = 0, list[int](), dict.fromkeys(view.keywords_reported)
    for change in changes:
        updates = view.apply(change.rows, change.expunged, change.mod_seq)
        arrived += updates.arrived
        changed += updates.changed
        words |= dict.fromkeys(word for used in change.rows.keywords.values() for word in used)
    return _lines(state, Updates(arrived, tuple(dict.fromkeys(changed))), words)


async def _claim_recent(server: ServerContext, state: Selected, mailbox: Mailbox) -> None:
    if not mailbox.recent:
        return
    if state.read_only:  # RFC 3501 §6.3.2: EXAMINE leaves \Recent to other sessions
        state.view.claim(RecentRange(mailbox.recent_from, mailbox.uid_next))
    else:
        state.view.claim(await server.messages.claim_recent(state.account.account_id, state.mailbox_id))


def _lines(state: Selected, updates: Updates, keywords: Iterable[str]) -> UpdateLines:
    out = bytearray()
    view = state.view
    if updates.arrived:
        out += responses.exists(view.exists)
        out += recent_line(view)
    write_keywords(out, view, keywords)
    return UpdateLines(bool(updates.arrived), chain((bytes(out),), flag_lines(state, array("I", updates.changed))))


def write_keywords(out: bytearray, view: View, keywords: Iterable[str]) -> None:
    """A FLAGS response, if the keywords differ from the last reported ones (RFC 3501 §7.2.6)."""
    found = tuple(dict.fromkeys(keywords))
    if set(found) != set(view.keywords_reported):
        view.keywords_reported = found
        out += responses.flags((*SYSTEM_FLAGS, *found))


def flag_lines(state: Selected, uids: Iterable[int], *, uid: bool = False) -> Iterator[bytes]:
    """`write_flags` in chunks."""
    out = bytearray()
    for found in uids:
        write_flags(out, state, (found,), uid=uid)
        if len(out) >= _CHUNK:
            yield bytes(out)
            out.clear()
    yield bytes(out)


def write_flags(out: bytearray, state: Selected, uids: Iterable[int], *, uid: bool = False) -> None:
    """An untagged FETCH with the flags of each message; `uid`: for a UID command (RFC 3501 §6.4.8)."""
    mod_seq = state.condstore  # RFC 7162 §3.1: every FETCH that a flag change caused
    uid = uid or state.qresync  # RFC 7162 §3.2.4
    for found in uids:
        number = state.view.number(found)
        if number is not None:
            write_message_flags(out, state.view, number, uid=uid, mod_seq=mod_seq)


def write_message_flags(out: bytearray, view: View, number: int, *, uid: bool, mod_seq: bool) -> None:
    """One untagged FETCH with the flags of a message."""
    response = FetchResponse(out, number)
    if uid:
        response.uid(view.uid(number))
    response.flags(view.flag_names(number))
    if mod_seq:
        response.mod_seq(view.mod_seq_of(number))
    response.close()


def write_mod_seq(out: bytearray, view: View, number: int, *, uid: bool) -> None:
    """One untagged FETCH with the new mod-sequence alone."""
    response = FetchResponse(out, number)
    if uid:
        response.uid(view.uid(number))
    response.mod_seq(view.mod_seq_of(number))
    response.close()


def expunge_lines(state: Selected) -> Iterable[bytes]:
    """The EXPUNGE responses that wait, or VANISHED after ENABLE QRESYNC (RFC 7162 §3.2.10), and RECENT if they change
    it.

    The numbers change at once; the lines are made while they are written.
    """
    view = state.view
    released = view.release()
    if not released.uids:
        return ()
    if state.qresync:
        lines: Iterable[bytes] = responses.vanished(ranges_of(array("I", released.uids)), earlier=False)
    else:
        lines = map(responses.expunge, array("I", released.numbers))
    return lines if view.recent == view.recent_reported else chain(lines, (recent_line(view),))


def vanished_lines(view: View, spans: Sequence[tuple[int, int]], expunged: Iterable[int] | None) -> Iterator[bytes]:
    """VANISHED (EARLIER) for UIDs in the sorted spans (RFC 7162 §3.2.10); `expunged` None: for those without a message.

    Spans and expunged UIDs may both be many thousands: each is gone through once.
    """
    ranges = view.gaps(spans) if expunged is None else ranges_of(filter(inside_of(spans), expunged))
    return responses.vanished(ranges, earlier=True)


def recent_line(view: View) -> bytes:
    """RECENT, to be sent whenever its count changes (RFC 3501 §7.3.2)."""
    view.recent_reported = view.recent
    return responses.recent(view.recent_reported)


def highest_mod_seq_line(before: SessionState, state: SessionState) -> Iterator[bytes]:
    """HIGHESTMODSEQ at the end of a reply, if it must be there; `before`: the state in which the command came.

    The first command that enables CONDSTORE reports it (RFC 7162 §3.1). To a client with QRESYNC, a FETCH may have
    shown mod-sequences above those of changes not reported yet: then it must learn from where to resynchronise (§3.2).
    """
    if not isinstance(state, Selected):
        return
    enabled = isinstance(before, Selected) and before.view is state.view and state.condstore and not before.condstore
    if enabled or (state.qresync and state.view.client_may_be_ahead):
        yield responses.untagged_ok("Highest", response_codes.highest_mod_seq(state.view.reported_mod_seq))


def with_expunge_lines(lines: Iterable[bytes], state: Selected) -> Iterator[bytes]:
    """The lines, and then those of `expunge_lines`."""
    yield from lines
    yield from expunge_lines(state)


def apply_own_change(
    state: Selected, rows: FlagRows | None = None, expunged: Iterable[int] = (), *, mod_seq: int | None = None
) -> None:
    """Apply what this session itself changed. `mod_seq`: of the change, if it was one."""
    state.view.apply(rows or FlagRows(), expunged)
    if mod_seq is not None and mod_seq == state.view.mod_seq + 1:  # no change of another session in between
        state.view.mod_seq = mod_seq
