"""One SEARCH from the first fact to the last message (RFC 3501 §6.4.4).

Cheap facts first: the view costs nothing, columns cost one query; summaries are read for the messages that are still
open, and bodies only for those open after that.
"""

import contextlib
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from math import floor

from paquebot.imap import metrics
from paquebot.imap.bodies.body_cache import BodyError
from paquebot.imap.bodies.whole_summaries import extra_bytes
from paquebot.imap.bodies.windows import Unreadable, read_bodies
from paquebot.imap.connection import ImapConnection
from paquebot.imap.context import ServerContext
from paquebot.imap.search.facts import Columns, MessageFacts
from paquebot.imap.search.keys import SearchContext, compile_key, count_keys, fields_of, texts_of
from paquebot.imap.search.texts import TextsFound, part_texts, search_texts
from paquebot.imap.search.turns import SearchWork
from paquebot.imap.states import Selected
from paquebot.mailstore import StoredMessage
from paquebot.mailstore.messages.rows import summary_of
from paquebot.message import MessageSummary, has_whole_envelope, has_whole_structure
from paquebot.runtime.net.connection import PeerGone
from paquebot.wire.imap import ast

_TURN = 1024 * 1024  # the cost of one turn: about this many characters compared with one text
_KEY = 256  # the cost to check a key for a message


class SearchRun:
    """One search: the messages found, and in rounds of ever more expensive facts those still open.

    Between the rounds only the number of a message is kept, and after its verdict nothing of its body.
    """

    def __init__(
        self,
        server: ServerContext,
        connection: ImapConnection,
        state: Selected,
        key: ast.SearchKey,
        context: SearchContext,
    ) -> None:
        """Raises UnknownCharset, BadSearchText."""
        self._server = server
        self._connection = connection
        self._state = state
        self._predicate = compile_key(key, context)
        self._fields = fields_of(key, context)
        self._header_texts = texts_of(key, context, ast.SearchText)
        self._texts = texts_of(key, context, ast.SearchText, ast.SearchBody)
        self._cost = _KEY * count_keys(key)
        self._checks_per_turn = max(1, _TURN // self._cost)
        self._checked = 0
        account_id = state.account.account_id
        self._work = SearchWork(server.turns, account_id, _TURN, server.settings.session.search_work)
        self._found = array("I")
        self.unreadable = Unreadable()
        self.warnings: list[bytes] = []
        """Untagged lines that name the messages that could not be read."""
        self.expunged = False
        """Were messages skipped because other sessions had expunged them?"""

    async def run(self) -> Sequence[int]:
        """Ascending sequence numbers of the messages that match. Raises TooMuchWork."""
        await self._work.begin()
        still = await self._from_view()
        if still:
            still = await self._from_columns(still)
        if still:
            still = await self._from_summaries(still)
        if still:
            await self._from_bodies(still)
        return array("I", sorted(self._found))

    def _decide(self, facts: MessageFacts) -> bool:
        """Check the message; False: it is still open."""
        self._checked += 1
        verdict = self._predicate(facts)
        if verdict:
            self._found.append(facts.number)
        return verdict is not None

    async def _give_turns(self) -> None:
        """Give other searches their turns, after as many checks as one turn has time for."""
        if self._checked >= self._checks_per_turn:
            checked, self._checked = self._checked, 0
            self._check_client()
            await self._work.spend(checked * self._cost)

    def _check_client(self) -> None:
        """Raises PeerGone if the client is gone: thousands of keys, or all bodies, are minutes of work."""
        if self._connection.gone:
            raise PeerGone

    async def _from_view(self) -> "array[int]":
        view = self._state.view
        still = array("I")
        for number in range(1, view.exists + 1):
            facts = MessageFacts(view, number)
            if view.is_expunged(facts.uid):
                self.expunged = self.expunged or self._predicate(facts) is not False
            elif not self._decide(facts):
                still.append(number)
            await self._give_turns()
        return still

    async def _from_columns(self, open_: "array[int]") -> "array[int]":
        view = self._state.view
        wanted = None if len(open_) == view.exists else [view.uid(number) for number in open_]
        reader, account_id = self._server.mailbox_reader, self._state.account.account_id
        rows = await reader.search_rows(account_id, self._state.mailbox_id, wanted)
        still = array("I")
        for number in open_:
            uid = view.uid(number)
            index = bisect_left(rows.uids, uid)
            if index == len(rows.uids) or rows.uids[index] != uid:  # expunged meanwhile
                self.expunged = True
                continue
            columns = Columns(rows.sizes[index], rows.internal_dates[index], rows.save_dates[index])
            if not self._decide(MessageFacts(view, number, columns)):
                still.append(number)
            await self._give_turns()
        return still

    def _messages(self, uids: Sequence[int]) -> AsyncIterator[StoredMessage]:
        state, reader = self._state, self._server.mailbox_reader
        return reader.messages(state.account.account_id, state.mailbox_id, uids, with_summary=True)

    def _summary(self, message: StoredMessage) -> MessageSummary | None:
        """None: it cannot be read."""
        return summary_of(message, self._state.account.account_id, self._state.mailbox_id)

    async def _facts_of_body(self, message: StoredMessage, body: bytes) -> MessageFacts | None:
        """`_facts` with a summary that has everything the keys need."""
        summary = self._summary(message)
        whole = (
            summary is not None
            and (summary.envelope.date or has_whole_envelope(summary))
            and has_whole_structure(summary)
        )
        if summary is None or not whole:
            summary = await self._server.whole_summaries.of(message, body)
        return self._facts(message, summary, body)

    def _facts(self, message: StoredMessage, summary: MessageSummary, body: bytes | None = None) -> MessageFacts | None:
        """All facts of the message; None: it left the view."""
        view = self._state.view
        number = view.number(message.uid)
        if number is None:
            return None
        columns = Columns(message.size, floor(message.internal_date.timestamp()), floor(message.save_date.timestamp()))
        return MessageFacts(view, number, columns, message, summary, body)

    async def _from_summaries(self, open_: "array[int]") -> "array[int]":
        still = array("I")
        rows = 0
        async for message in self._messages(array("I", map(self._state.view.uid, open_))):
            rows += 1
            summary = self._summary(message)
            if summary is None:  # the body decides
                if (number := self._state.view.number(message.uid)) is not None:
                    still.append(number)
                continue
            facts = self._facts(message, summary)
            if facts is not None and not await self._decide_with_fields(facts):
                still.append(facts.number)
            await self._give_turns()
        self.expunged = self.expunged or rows < len(open_)
        return still

    async def _decide_with_fields(self, facts: MessageFacts) -> bool:
        if self._decide(facts):
            return True
        if not self._fields:
            return False
        for cost in facts.match_fields(self._fields):
            await self._spend(cost)
        return self._decide(facts)

    async def _from_bodies(self, open_: "array[int]") -> None:
        messages = self._messages(array("I", map(self._state.view.uid, open_)))
        share = self._server.shares.of(self._state.account.account_id)
        rows = 0
        bodies = read_bodies(self._server.bodies, share, messages, self._messages, extra_bytes=extra_bytes)
        async with contextlib.aclosing(bodies) as groups:
            async for group in groups:
                for message, body in group:
                    rows += 1
                    self._check_client()
                    if not isinstance(body, bytes):
                        self._unreadable(message, body)
                    elif (facts := await self._facts_of_body(message, body)) is not None:
                        await self._search_body(facts, body)
        self.expunged = self.expunged or rows < len(open_)

    def _unreadable(self, message: StoredMessage, error: BodyError) -> None:
        number = self._state.view.number(message.uid)
        if number is not None:
            self.warnings.append(self.unreadable.add(error, number, message.uid))

    async def _search_body(self, facts: MessageFacts, body: bytes) -> None:
        """Search header and body until there is a verdict."""
        assert facts.summary is not None
        facts.header_texts, facts.texts = TextsFound(), TextsFound()
        stages = [search_texts(part_texts(body, facts.summary.body), self._texts, facts.texts)]
        if self._header_texts:
            stages.insert(0, search_texts((facts.header(),), self._header_texts, facts.header_texts))
        if self._fields:
            stages.insert(0, facts.match_fields(self._fields))
        known = 0
        for stage in stages:
            if self._decide(facts):
                return
            for cost in stage:
                await self._spend(cost)
                found = len(facts.header_texts.found) + len(facts.texts.found)
                if found > known:
                    known = found
                    if self._decide(facts):
                        return
        self._decide(facts)
        await self._give_turns()

    async def _spend(self, cost: int) -> None:
        metrics.SEARCHED.inc(cost)
        await self._work.spend(cost)
        await self._give_turns()
