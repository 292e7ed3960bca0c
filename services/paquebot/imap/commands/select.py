"""SELECT and EXAMINE (RFC 3501 §6.3.1, §6.3.2), with CONDSTORE and QRESYNC (RFC 7162 §3.1.8, §3.2.5)."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

from paquebot.imap.commands.authenticated import object_id
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.errors import reply_to
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.view import SYSTEM_FLAGS, View
from paquebot.imap.reply import Refresh, Reply, bad, ok
from paquebot.imap.states import CONDSTORE, Authenticated, LoggedIn, Selected
from paquebot.mailstore import Mailbox, RecentRange
from paquebot.wire.imap import ast, response_codes, responses


async def select(context: CommandContext, state: LoggedIn, command: ast.Select) -> Reply:
    """RFC 3501 §6.3.1"""
    return await _open(context, state, command, read_only=False)


async def examine(context: CommandContext, state: LoggedIn, command: ast.Examine) -> Reply:
    """RFC 3501 §6.3.2"""
    return await _open(context, state, command, read_only=True)


async def _open(
    context: CommandContext, state: LoggedIn, command: ast.Select | ast.Examine, *, read_only: bool
) -> Reply:
    if command.qresync is not None and not state.qresync:
        return bad("QRESYNC was not enabled")  # RFC 7162 §3.2.5
    enabled = state.enabled | {CONDSTORE} if command.condstore else state.enabled
    # Even if SELECT fails, the previous mailbox is deselected (RFC 3501 §6.3.1, RFC 7162 §3.2.11).
    closed = responses.untagged_ok("Previous mailbox closed", response_codes.CLOSED)
    before = closed if isinstance(state, Selected) else b""
    try:
        selected, mailbox = await _selected(context, state, enabled, command.mailbox, read_only=read_only)
        earlier = await _resynchronised(context, selected, mailbox, command.qresync)
    except Exception as error:  # noqa: BLE001 - answered, and the mailbox is deselected
        reply = reply_to(error)
        return Reply(reply.status, reply.text, reply.code, before, Authenticated(state.account, enabled))
    code = response_codes.READ_ONLY if read_only else response_codes.READ_WRITE
    name = type(command).__name__.upper()
    untagged = chain((before + _description(selected, mailbox),), earlier)
    return ok(f"{name} completed", code, untagged=untagged, state=selected, refresh=Refresh.NEVER)


async def _selected(
    context: CommandContext, state: LoggedIn, enabled: frozenset[str], name: str, *, read_only: bool
) -> tuple[Selected, Mailbox]:
    server, account = context.server, state.account
    assert context.watch is not None
    context.watch.select(None)
    context.watch.dirty = False  # the state read may lack changes made from here on
    found = await server.mailbox_reader.state_by_name(account.account_id, name)
    mailbox = found.mailbox
    view = View(found.rows, mailbox.highest_mod_seq, mailbox.keywords)
    if read_only:
        view.claim(RecentRange(mailbox.recent_from, mailbox.uid_next))
    elif mailbox.recent:
        view.claim(await server.messages.claim_recent(account.account_id, mailbox.mailbox_id))
    selected = Selected(account, enabled, mailbox.mailbox_id, name, mailbox.uid_validity, read_only, view)
    return selected, mailbox


def _description(state: Selected, mailbox: Mailbox) -> bytes:
    """The untagged lines of SELECT (RFC 3501 §6.3.1)."""
    view = state.view
    names = (*SYSTEM_FLAGS, *mailbox.keywords)
    lines = [
        responses.flags(names),
        responses.exists(view.exists),
        updates.recent_line(view),
    ]
    if (unseen := view.first_unseen()) is not None:
        lines.append(responses.untagged_ok("First unseen", response_codes.unseen(unseen)))
    permanent = response_codes.permanent_flags(() if state.read_only else names, new_keywords=not state.read_only)
    lines += [
        responses.untagged_ok("Flags that stay", permanent),
        responses.untagged_ok("UIDs are valid", response_codes.uid_validity(mailbox.uid_validity)),
        responses.untagged_ok("Next UID", response_codes.uid_next(mailbox.uid_next)),
        responses.untagged_ok("Highest", response_codes.highest_mod_seq(mailbox.highest_mod_seq)),
        responses.untagged_ok("Object id", response_codes.mailbox_id(object_id(mailbox.mailbox_id))),
    ]
    return b"".join(lines)


async def _resynchronised(
    context: CommandContext, state: Selected, mailbox: Mailbox, known: ast.QResync | None
) -> Iterable[bytes]:
    """RFC 7162 §3.2.5.1: the changes since the client's mod-sequence, unless UIDVALIDITY has changed."""
    if known is None or known.uid_validity != state.uid_validity:
        return ()
    view, account_id = state.view, state.account.account_id
    changes = await context.server.feed.changes(account_id, state.mailbox_id, known.mod_seq)
    past: Sequence[tuple[int, int]] = ((1, mailbox.uid_next - 1),)
    if known.known_uids is not None:
        past = known.known_uids.resolve(mailbox.uid_next - 1)
    expunged = None
    if changes.expunged is not None:  # without messages of the state read: an update will report them
        expunged = (uid for uid in changes.expunged if view.number(uid) is None)
    vanished = updates.vanished_lines(view, past, expunged)
    return chain(vanished, updates.flag_lines(state, array("I", changes.rows.uids), uid=True))
