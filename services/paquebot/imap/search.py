"""SEARCH and UID SEARCH (RFC 3501 §6.4.4), ESEARCH (RFC 4731), SEARCHRES (RFC 5182), MODSEQ (RFC 7162 §3.1.5).

Cheap facts first: what the view decides costs nothing, columns cost one query, summaries are read for what is
still open, and bodies only for what is open after that.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from paquebot.imap import updates
from paquebot.imap.message_bodies import with_bodies
from paquebot.imap.message_facts import Columns, Facts
from paquebot.imap.reply import Reply, bad, no, ok
from paquebot.imap.search_keys import (
    CHARSETS,
    BadSearchText,
    Predicate,
    SearchContext,
    UnknownCharset,
    compile_key,
    uses_mod_seq,
)
from paquebot.imap.states import Selected, condstore_enabled
from paquebot.imap.view import View
from paquebot.mailstore.types import StoredMessage
from paquebot.message import MessageSummary
from paquebot.runtime.peer import PeerGone
from paquebot.wire.imap import ast, response_codes, responses
from paquebot.wire.imap.ast import SearchReturn

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_TURN = 2000  # messages looked at before others get a turn
_HEAVY = 128 * 1024  # octets of a body from which its text is searched in a thread


async def search(session: "Session", state: Selected, command: ast.Search) -> Reply:
    """RFC 3501 §6.4.4"""
    assert session.watch is not None
    news = await updates.look(session.process, session.watch, state, now=True)
    view = state.view
    try:
        context = SearchContext(
            view.exists, view.last_uid, session.saved_uids, command.charset or "US-ASCII", time.time()
        )
        predicate = compile_key(command.key, context)
    except UnknownCharset:
        session.saved_uids = ()  # RFC 5182 §2.1: after NO, nothing is saved
        return no("The charset is not supported", response_codes.bad_charset(CHARSETS), untagged=news)
    except BadSearchText:
        return bad("A search string is not text of its charset")
    with_mod_seq = uses_mod_seq(command.key)
    if with_mod_seq:
        state = condstore_enabled(state)
    search = _Search(session, state, predicate)
    found = await search.run()
    if search.unread:
        return no("Some messages cannot be read now", response_codes.UNAVAILABLE, untagged=news, state=state)
    mod_seq = max((view.mod_seq_of(number) for number in found), default=None) if with_mod_seq else None
    untagged = news + _answer(session, command, view, found, mod_seq)
    return ok("SEARCH completed", untagged=untagged, state=state)


def _answer(session: "Session", command: ast.Search, view: View, found: list[int], mod_seq: int | None) -> bytes:
    numbers = [view.uid(number) for number in found] if command.uid else found
    if command.returns is None:
        return responses.search(numbers, mod_seq=mod_seq)
    if SearchReturn.SAVE in command.returns:
        session.saved_uids = _saved([view.uid(number) for number in found], command.returns)
        if command.returns == {SearchReturn.SAVE}:  # RFC 5182 §2.1: nothing else was asked
            return b""
    return responses.esearch(command.tag, numbers, command.returns, uid=command.uid, mod_seq=mod_seq)


def _saved(uids: list[int], returns: frozenset[SearchReturn]) -> list[int]:
    """RFC 5182 §2.4: with MIN or MAX, and neither ALL nor COUNT, only these are saved."""
    if not uids or returns & {SearchReturn.ALL, SearchReturn.COUNT}:
        return uids
    if not returns & {SearchReturn.MIN, SearchReturn.MAX}:
        return uids
    ends = {uids[0]} if SearchReturn.MIN in returns else set()
    return sorted(ends | ({uids[-1]} if SearchReturn.MAX in returns else set()))


class _Search:
    """One search under way: the messages found, and those still open, dearer facts each time."""

    def __init__(self, session: "Session", state: Selected, predicate: Predicate) -> None:
        self._process = session.process
        self._connection = session.connection
        self._state = state
        self._predicate = predicate
        self._found: list[int] = []
        self.unread = 0

    async def run(self) -> list[int]:
        """Ascending sequence numbers of the messages that match."""
        view = self._state.view
        still = await self._from_view(range(1, view.exists + 1))
        if still:
            still = await self._from_columns(still)
        if still:
            still = await self._from_summaries(still)
        if still:
            await self._from_bodies(still)
        return sorted(self._found)

    def _decide(self, facts: Facts) -> bool:
        """Take in a verdict; False: it is still open."""
        verdict = self._predicate(facts)
        if verdict:
            self._found.append(facts.number)
        return verdict is not None

    async def _from_view(self, numbers: Iterable[int]) -> list[Facts]:
        still: list[Facts] = []
        view = self._state.view
        for number in numbers:
            if number % _TURN == 0:
                await asyncio.sleep(0)
            facts = Facts(view, number)
            if not self._decide(facts):
                still.append(facts)
        return still

    async def _from_columns(self, open_: list[Facts]) -> list[Facts]:
        state = self._state
        wanted = None if len(open_) == state.view.exists else [facts.uid for facts in open_]
        rows = await self._process.mailstore.search_rows(state.account.account_id, state.mailbox_id, wanted)
        place = {uid: index for index, uid in enumerate(rows.uids)}
        still: list[Facts] = []
        for facts in open_:
            index = place.get(facts.uid)
            if index is None:  # expunged meanwhile
                continue
            facts.columns = Columns(rows.sizes[index], rows.internal_dates[index], rows.save_dates[index])
            if not self._decide(facts):
                still.append(facts)
        return still

    def _messages(self, uids: list[int]) -> AsyncIterator[StoredMessage]:
        state = self._state
        return self._process.mailstore.messages(state.account.account_id, state.mailbox_id, uids, with_summary=True)

    async def _from_summaries(self, open_: list[Facts]) -> list[Facts]:
        by_uid = {facts.uid: facts for facts in open_}
        still: list[Facts] = []
        messages = self._messages(list(by_uid))
        async for message in messages:
            facts = by_uid[message.uid]
            facts.message = message
            facts.summary = MessageSummary.FromString(message.summary or b"")
            if not self._decide(facts):
                still.append(facts)
            facts.message = facts.summary = None  # thousands of summaries are not kept for the next round
        return still

    async def _from_bodies(self, open_: list[Facts]) -> None:
        by_uid = {facts.uid: facts for facts in open_}
        messages = self._messages(list(by_uid))
        async with contextlib.aclosing(with_bodies(self._process.bodies, messages, self._messages)) as groups:
            async for group in groups:
                if self._connection.gone:  # a search of all bodies is long: not for nobody
                    raise PeerGone
                for message, body in group:
                    if not isinstance(body, bytes):
                        self.unread += 1
                        continue
                    facts = by_uid.pop(message.uid)
                    facts.message, facts.body = message, body
                    facts.summary = MessageSummary.FromString(message.summary or b"")
                    if len(body) >= _HEAVY:
                        await asyncio.to_thread(self._decide, facts)
                    else:
                        self._decide(facts)
