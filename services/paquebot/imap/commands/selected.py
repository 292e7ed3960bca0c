"""Commands of the selected state that touch several messages at once (RFC 3501 §6.4.1 to §6.4.3, §6.4.7),
UNSELECT (RFC 3691), UIDPLUS (RFC 4315), MOVE (RFC 6851)."""

import contextlib
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from paquebot.imap.commands.messages_named import named
from paquebot.imap.errors import missing_target
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.changes import MailboxChange
from paquebot.imap.reply import Refresh, Reply, no, ok
from paquebot.imap.states import Selected
from paquebot.mailstore import Copied
from paquebot.mailstore.errors import NoSuchMailbox, NotSelectable, SomeExpunged
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.shares.event_loop import charge
from paquebot.wire.imap import ast, response_codes, responses

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_SECONDS_A_ROW = 50e-6  # of PostgreSQL, for a message that is copied or moved


async def check(session: "Session", state: Selected, command: ast.Check) -> Reply:
    """RFC 3501 §6.4.1: everything is always on disk, so this is a NOOP."""
    return ok("CHECK completed", refresh=Refresh.NOW)


async def close(session: "Session", state: Selected, command: ast.Close) -> Reply:
    """RFC 3501 §6.4.2: expunge without telling, unless the mailbox is read-only."""
    code = None
    if not state.read_only:
        removed = await session.process.messages.expunge(state.account.account_id, state.mailbox_id)
        if removed.uids:
            session.changed(MailboxChange(state.mailbox_id, removed.mod_seq, expunged=removed.uids))
        if state.qresync:  # RFC 7162 §3.2.8
            updates.apply_own_change(state, mod_seq=removed.mod_seq if removed.uids else None)
            code = response_codes.highest_mod_seq(state.view.reported_mod_seq)
    return ok("CLOSE completed", code, state=state.closed())


async def unselect(session: "Session", state: Selected, command: ast.Unselect) -> Reply:
    """RFC 3691 §2"""
    return ok("UNSELECT completed", state=state.closed())


async def expunge(session: "Session", state: Selected, command: ast.Expunge) -> Reply:
    """RFC 3501 §6.4.3"""
    return await _expunged(session, state, None, "EXPUNGE")


async def uid_expunge(session: "Session", state: Selected, command: ast.UidExpunge) -> Reply:
    """RFC 4315 §2.1"""
    numbers = named(session, state, command.sequence_set, uid=True)
    return await _expunged(session, state, [state.view.uid(number) for number in numbers], "UID EXPUNGE")


async def _expunged(session: "Session", state: Selected, uids: Sequence[int] | None, name: str) -> Reply:
    if state.read_only:
        return no("The mailbox is open read-only", response_codes.READ_ONLY)
    if uids is not None and not uids:
        return ok(f"{name} completed")
    removed = await session.process.messages.expunge(state.account.account_id, state.mailbox_id, uids)
    updates.apply_own_change(state, expunged=removed.uids, mod_seq=removed.mod_seq if removed.uids else None)
    if not removed.uids:
        return ok(f"{name} completed")
    session.changed(MailboxChange(state.mailbox_id, removed.mod_seq, expunged=removed.uids))
    released = updates.expunge_lines(state)
    news = await _others(session, state, removed.mod_seq)
    code = response_codes.highest_mod_seq(state.view.mod_seq) if state.condstore else None  # RFC 7162 §3.2.7
    return ok(f"{name} completed", code, untagged=chain(released, news))


async def _others(session: "Session", state: Selected, mod_seq: int) -> updates.UpdateLines:
    """What others did before this session's change of that mod-sequence. It must be told with it: a client asks for
    nothing below what it was told. Raises nothing, for the change is made; the session looks again."""
    news = updates.UpdateLines()
    if state.condstore and state.view.mod_seq < mod_seq:
        assert session.watch is not None
        with contextlib.suppress(PostgresUnavailable, NoSuchMailbox):
            news = await updates.refresh(session.process, session.watch, state, now=True)
    return news


async def copy(session: "Session", state: Selected, command: ast.Copy) -> Reply:
    """RFC 3501 §6.4.7, RFC 4315 §3"""
    uids = _to_copy(session, state, command)
    if isinstance(uids, Reply):
        return uids
    try:
        target_id = await _target(session, state, command.mailbox)
    except NoSuchMailbox as error:
        return missing_target(error)
    if not uids:
        return ok("Nothing to copy")
    try:
        copied = await session.process.messages.copy(
            state.account.account_id,
            state.mailbox_id,
            uids,
            target_id,
            quota_bytes=state.account.quota_bytes,
            all_of_them=not command.uid,
        )
    except SomeExpunged:
        return _some_expunged(session)
    charge(len(copied.uids) * _SECONDS_A_ROW)
    if copied.uids:
        session.changed()
    here = target_id == state.mailbox_id
    text = "UID COPY completed" if command.uid else "COPY completed"
    return ok(text, _copy_uid(copied), refresh=Refresh.NOW if here else Refresh.WHEN_HINTED)


async def move(session: "Session", state: Selected, command: ast.Move) -> Reply:
    """RFC 6851 §3.3: COPYUID goes before the EXPUNGE responses, which follow at once."""
    if state.read_only:
        return no("The mailbox is open read-only", response_codes.READ_ONLY)
    uids = _to_copy(session, state, command)
    if isinstance(uids, Reply):
        return uids
    try:
        target_id = await _target(session, state, command.mailbox)
    except NoSuchMailbox as error:
        return missing_target(error)
    if not uids:
        return ok("Nothing to move")
    try:
        moved = await session.process.messages.move(
            state.account.account_id, state.mailbox_id, uids, target_id, all_of_them=not command.uid
        )
    except SomeExpunged:
        return _some_expunged(session)
    charge(len(moved.uids) * _SECONDS_A_ROW)
    if not moved.uids:
        return ok("Nothing to move")
    updates.apply_own_change(state, expunged=moved.source_uids, mod_seq=moved.source_mod_seq)
    session.changed()
    copied = (responses.untagged_ok("Moved", _copy_uid(moved)),)
    released = updates.expunge_lines(state)
    news = await _others(session, state, moved.source_mod_seq)
    code = response_codes.highest_mod_seq(state.view.mod_seq) if state.qresync else None
    here = target_id == state.mailbox_id
    text = "UID MOVE completed" if command.uid else "MOVE completed"
    return ok(text, code, untagged=chain(copied, released, news), refresh=Refresh.NOW if here else Refresh.WHEN_HINTED)


def _some_expunged(session: "Session") -> Reply:
    """By others, and this session has not heard of it yet: it looks before it completes."""
    assert session.watch is not None
    session.watch.dirty = True
    return no("Some of the messages were expunged", response_codes.EXPUNGEISSUED)


def _to_copy(session: "Session", state: Selected, command: ast.Copy | ast.Move) -> list[int] | Reply:
    """The UIDs to copy; a number whose message was expunged by others makes the copy fail (RFC 2180 §4.4.1)."""
    uids = [state.view.uid(number) for number in named(session, state, command.sequence_set, uid=command.uid)]
    if not command.uid and any(state.view.is_expunged(uid) for uid in uids):
        return no("Some of the messages were expunged", response_codes.EXPUNGEISSUED)
    return uids


async def _target(session: "Session", state: Selected, name: str) -> int:
    found = await session.process.mailboxes.find(state.account.account_id, name)
    if not found.selectable:
        raise NotSelectable(name)
    return found.mailbox_id


def _copy_uid(copied: Copied) -> bytes | None:
    pairs = list(zip(copied.source_uids, copied.uids, strict=True))
    return response_codes.copy_uid(copied.uid_validity, pairs) if pairs else None
