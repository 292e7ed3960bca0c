"""SEARCH and UID SEARCH (RFC 3501 §6.4.4), ESEARCH (RFC 4731), SEARCHRES (RFC 5182), MODSEQ (RFC 7162 §3.1.5)."""

import time
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

from paquebot.imap.commands.context import CommandContext
from paquebot.imap.long_commands import run_in_thread
from paquebot.imap.mailbox_view import updates
from paquebot.imap.mailbox_view.view import View
from paquebot.imap.reply import Reply, Stream, bad, in_chunks, no, ok
from paquebot.imap.search.keys import CHARSETS, BadSearchText, SearchContext, UnknownCharset, uses_mod_seq
from paquebot.imap.search.run import SearchRun
from paquebot.imap.search.turns import TooMuchWork
from paquebot.imap.states import Selected, condstore_enabled
from paquebot.wire.imap import ast, response_codes, responses
from paquebot.wire.imap.ast import SearchReturn


async def search(context: CommandContext, state: Selected, command: ast.Search) -> Stream:
    """RFC 3501 §6.4.4"""
    return _stream(context, state, command)


async def _stream(context: CommandContext, state: Selected, command: ast.Search) -> Stream:
    """Report changes first, even if the search fails: the view has them, and they would not be reported again."""
    assert context.watch is not None
    for lines in in_chunks(await updates.refresh(context.server, context.watch, state, now=True)):
        yield lines
    yield await _reply(context, state, command)


async def _reply(context: CommandContext, state: Selected, command: ast.Search) -> Reply:
    view = state.view
    try:
        key_context = SearchContext(
            view.exists, view.last_uid, context.saved_uids, command.charset or "US-ASCII", time.time()
        )
        search = await _prepare(context, state, command.key, key_context)
    except UnknownCharset:
        context.saved_uids = ()  # RFC 5182 §2.1: after NO, nothing is saved
        return no("The charset is not supported", response_codes.bad_charset(CHARSETS))
    except BadSearchText:
        return bad("A search string is not valid in its charset")
    with_mod_seq = uses_mod_seq(command.key)
    if with_mod_seq:
        state = condstore_enabled(state)
    try:
        found = await search.run()
    except TooMuchWork:
        return no("The search takes too much work", response_codes.LIMIT, state=state)
    if search.unreadable.away:
        return no("Some messages cannot be read now", response_codes.UNAVAILABLE, state=state)
    mod_seq = _mod_seq(view, found, command.returns) if with_mod_seq else None
    untagged = chain(search.warnings, _answer(context, command, view, found, mod_seq))
    if search.expunged and not command.uid:
        return ok("Some of the messages were expunged", response_codes.EXPUNGEISSUED, untagged=untagged, state=state)
    return ok("SEARCH completed", untagged=untagged, state=state)


async def _prepare(
    context: CommandContext, state: Selected, key: ast.SearchKey, key_context: SearchContext
) -> SearchRun:
    def prepare() -> SearchRun:
        return SearchRun(context.server, context.connection, state, key, key_context)

    return await run_in_thread(prepare) if context.reader.long else prepare()


def _answer(
    context: CommandContext, command: ast.Search, view: View, found: Sequence[int], mod_seq: int | None
) -> Iterable[bytes]:
    numbers = array("I", map(view.uid, found)) if command.uid else found
    if command.returns is None:
        return responses.search(numbers, mod_seq=mod_seq)
    if SearchReturn.SAVE in command.returns:
        context.saved_uids = _of_result(array("I", map(view.uid, found)), command.returns)
        if command.returns == {SearchReturn.SAVE}:  # RFC 5182 §2.1: no ESEARCH response
            return ()
    return responses.esearch(command.tag, numbers, command.returns, uid=command.uid, mod_seq=mod_seq)


def _mod_seq(view: View, found: Sequence[int], returns: frozenset[SearchReturn] | None) -> int | None:
    """RFC 4731 §3.2: the highest mod-sequence of the messages in the answer."""
    answered = found if returns is None else _of_result(found, returns)
    return max(map(view.mod_seq_of, answered), default=None)


def _of_result(found: Sequence[int], returns: frozenset[SearchReturn]) -> Sequence[int]:
    """The numbers or UIDs of a result (RFC 4731 §3.2), which SAVE keeps (RFC 5182 §2.4): with MIN or MAX, and neither
    ALL nor COUNT, only these."""
    if not found or returns & {SearchReturn.ALL, SearchReturn.COUNT}:
        return found
    if not returns & {SearchReturn.MIN, SearchReturn.MAX}:
        return found
    ends = {found[0]} if SearchReturn.MIN in returns else set()
    return sorted(ends | ({found[-1]} if SearchReturn.MAX in returns else set()))
