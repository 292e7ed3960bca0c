"""Commands of the selected state that touch several messages at once (RFC 3501 §6.4.1 to §6.4.3, §6.4.7),
UNSELECT (RFC 3691), UIDPLUS (RFC 4315), MOVE (RFC 6851)."""

import contextlib
from collections.abc import Sequence
from itertools import chain

from paquebot.imap.commands.context import CommandContext
from paquebot.imap.errors import missing_target
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.feed import MailboxChange
from paquebot.imap.reply import Refresh, Reply, no, ok
from paquebot.imap.states import Selected
from paquebot.mailstore import Copied
from paquebot.mailstore.errors import NoSuchMailbox, NotSelectable, SomeExpunged
from paquebot.runtime.postgres.pool import PostgresUnavailable
from paquebot.runtime.shares.event_loop import charge
from paquebot.wire.imap import ast, response_codes, responses

_SECONDS_A_ROW = 50e-6  # of PostgreSQL, for each message copied or moved


async def check(context: CommandContext, state: Selected, command: ast.Check) -> Reply:
    """RFC 3501 §6.4.1: changes are always durable, so this is a NOOP."""
    return ok("CHECK completed", refresh=Refresh.NOW)


async def close(context: CommandContext, state: Selected, command: ast.Close) -> Reply:
    """RFC 3501 §6.4.2: expunge without EXPUNGE responses, unless the mailbox is read-only."""
    code = None
    if not state.read_only:
        removed = await context.server.messages.expunge(state.account.account_id, state.mailbox_id)
        if removed.uids:
            context.announce(MailboxChange(state.mailbox_id, removed.mod_seq, expunged=removed.uids))
        if state.qresync:  # RFC 7162 §3.2.8
            updates.apply_own_change(state, mod_seq=removed.mod_seq if removed.uids else None)
            code = response_codes.highest_mod_seq(state.view.reported_mod_seq)
    return ok("CLOSE completed", code, state=state.deselected())


async def unselect(context: CommandContext, state: Selected, command: ast.Unselect) -> Reply:
    """RFC 3691 §2"""
    return ok("UNSELECT completed", state=state.deselected())


async def expunge(context: CommandContext, state: Selected, command: ast.Expunge) -> Reply:
    """RFC 3501 §6.4.3"""
    return await _expunged(context, state, None, "EXPUNGE")


async def uid_expunge(context: CommandContext, state: Selected, command: ast.UidExpunge) -> Reply:
    """RFC 4315 §2.1"""
    numbers = context.numbers(state, command.sequence_set, uid=True)
    return await _expunged(context, state, [state.view.uid(number) for number in numbers], "UID EXPUNGE")


async def _expunged(context: CommandContext, state: Selected, uids: Sequence[int] | None, name: str) -> Reply:
    if state.read_only:
        return no("The mailbox is open read-only", response_codes.READ_ONLY)
    if uids is not None and not uids:
        return ok(f"{name} completed")
    removed = await context.server.messages.expunge(state.account.account_id, state.mailbox_id, uids)
    updates.apply_own_change(state, expunged=removed.uids, mod_seq=removed.mod_seq if removed.uids else None)
    if not removed.uids:
        return ok(f"{name} completed")
    context.announce(MailboxChange(state.mailbox_id, removed.mod_seq, expunged=removed.uids))
    expunged = updates.expunge_lines(state)
    others = await _changes_of_others(context, state, removed.mod_seq)
    code = response_codes.highest_mod_seq(state.view.mod_seq) if state.condstore else None  # RFC 7162 §3.2.7
    return ok(f"{name} completed", code, untagged=chain(expunged, others))


async def _changes_of_others(context: CommandContext, state: Selected, mod_seq: int) -> updates.UpdateLines:
    """The changes of other sessions before this session's change of that mod-sequence, to be reported with it: a client
    never asks for changes below a mod-sequence that it knows. Raises nothing, since the change is made; the watch stays
    dirty."""
    lines = updates.UpdateLines()
    if state.condstore and state.view.mod_seq < mod_seq:
        assert context.watch is not None
        with contextlib.suppress(PostgresUnavailable, NoSuchMailbox):
            lines = await updates.refresh(context.server, context.watch, state, now=True)
    return lines


async def copy(context: CommandContext, state: Selected, command: ast.Copy) -> Reply:
    """RFC 3501 §6.4.7, RFC 4315 §3"""
    arguments = await _uids_and_target(context, state, command)
    if isinstance(arguments, Reply):
        return arguments
    uids, target_id = arguments
    if not uids:
        return ok("Nothing to copy")
    try:
        copied = await context.server.messages.copy(
            state.account.account_id,
            state.mailbox_id,
            uids,
            target_id,
            quota_bytes=state.account.quota_bytes,
            all_of_them=not command.uid,
        )
    except SomeExpunged:
        return _some_expunged(context)
    charge(len(copied.uids) * _SECONDS_A_ROW)
    if copied.uids:
        context.announce()
    refresh = Refresh.NOW if target_id == state.mailbox_id else Refresh.WHEN_HINTED
    text = "UID COPY completed" if command.uid else "COPY completed"
    return ok(text, _copy_uid(copied), refresh=refresh)


async def move(context: CommandContext, state: Selected, command: ast.Move) -> Reply:
    """RFC 6851 §3.3: COPYUID, and then the EXPUNGE responses."""
    if state.read_only:
        return no("The mailbox is open read-only", response_codes.READ_ONLY)
    arguments = await _uids_and_target(context, state, command)
    if isinstance(arguments, Reply):
        return arguments
    uids, target_id = arguments
    if not uids:
        return ok("Nothing to move")
    try:
        moved = await context.server.messages.move(
            state.account.account_id, state.mailbox_id, uids, target_id, all_of_them=not command.uid
        )
    except SomeExpunged:
        return _some_expunged(context)
    charge(len(moved.uids) * _SECONDS_A_ROW)
    if not moved.uids:
        return ok("Nothing to move")
    updates.apply_own_change(state, expunged=moved.source_uids, mod_seq=moved.source_mod_seq)
    context.announce()
    copied = (responses.untagged_ok("Moved", _copy_uid(moved)),)
    expunged = updates.expunge_lines(state)
    others = await _changes_of_others(context, state, moved.source_mod_seq)
    code = response_codes.highest_mod_seq(state.view.mod_seq) if state.qresync else None
    refresh = Refresh.NOW if target_id == state.mailbox_id else Refresh.WHEN_HINTED
    text = "UID MOVE completed" if command.uid else "MOVE completed"
    return ok(text, code, untagged=chain(copied, expunged, others), refresh=refresh)


def _some_expunged(context: CommandContext) -> Reply:
    """Other sessions expunged them, and this one has not seen it yet: refresh before the completion."""
    assert context.watch is not None
    context.watch.dirty = True
    return no("Some of the messages were expunged", response_codes.EXPUNGEISSUED)


async def _uids_and_target(
    context: CommandContext, state: Selected, command: ast.Copy | ast.Move
) -> tuple[list[int], int] | Reply:
    """The UIDs to copy, and the id of the mailbox to copy them to; or the reply if there is no such mailbox, or if
    another session expunged a message that is named by its number (RFC 2180 §4.4.1)."""
    uids = [state.view.uid(number) for number in context.numbers(state, command.sequence_set, uid=command.uid)]
    if not command.uid and any(state.view.is_expunged(uid) for uid in uids):
        return no("Some of the messages were expunged", response_codes.EXPUNGEISSUED)
    try:
        return uids, await _target(context, state, command.mailbox)
    except NoSuchMailbox as error:
        return missing_target(error)


async def _target(context: CommandContext, state: Selected, name: str) -> int:
    found = await context.server.mailboxes.find(state.account.account_id, name)
    if not found.selectable:
        raise NotSelectable(name)
    return found.mailbox_id


def _copy_uid(copied: Copied) -> bytes | None:
    pairs = list(zip(copied.source_uids, copied.uids, strict=True))
    return response_codes.copy_uid(copied.uid_validity, pairs) if pairs else None
