"""FETCH and UID FETCH (RFC 3501 §6.4.5, §6.4.8), streamed: rows, summaries and bodies come in bounded groups.

Flags, UIDs and mod-sequences come from the view, which is brought up to date first; envelope, structure, size and
common header fields from the row; only what is left needs S3. The set's unseen messages become seen in one
statement, once the first bodies are at hand.
"""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from paquebot.blobs import BlobMissing
from paquebot.imap import metrics
from paquebot.imap.bodies.unreadable import Unreadable
from paquebot.imap.bodies.whole_summaries import extra_bytes
from paquebot.imap.bodies.windows import LoadedMessages, read_bodies
from paquebot.imap.commands.messages_named import named
from paquebot.imap.commands.store import apply_result
from paquebot.imap.errors import reply_to
from paquebot.imap.fetch.plan import FetchPlan, Source, plan_fetch
from paquebot.imap.fetch.sections import UnknownEncoding
from paquebot.imap.mailbox_view import updates
from paquebot.imap.reply import Chunk, Reply, Stream, bad, in_chunks, no, ok
from paquebot.imap.states import Selected, condstore_enabled
from paquebot.mailstore.rows import summary_of
from paquebot.mailstore.types import Flag, FlagOp, StoredMessage
from paquebot.message import MessageSummary
from paquebot.observability.log import Log
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.shares.account_shares import AccountReservation, AccountShare
from paquebot.runtime.shares.event_loop import give_way
from paquebot.wire.imap import ast, response_codes, responses
from paquebot.wire.imap.ast import FetchItem
from paquebot.wire.imap.fetch_response import FetchResponse
from paquebot.wire.imap.sequence_set import inside_of, ranges_of

if TYPE_CHECKING:
    from paquebot.imap.session import Session

_PIECE = 64 * 1024  # bytes gathered before they are sent
_ROWS, _ROW = 512 * 1024, 8 * 1024  # bytes that count for rows with summaries: of two batches, of one message
_log = Log("paquebot.imap.commands.fetch")
_NO_SUMMARY = MessageSummary()


async def fetch(session: "Session", state: Selected, command: ast.Fetch) -> Reply | Stream:
    """RFC 3501 §6.4.5"""
    if command.vanished and not (state.qresync and command.uid and command.changed_since is not None):
        return bad("VANISHED needs QRESYNC, UID FETCH and CHANGEDSINCE")  # RFC 7162 §3.2.6
    if command.changed_since is not None or FetchItem.MODSEQ in command.attributes:
        state = condstore_enabled(state)
    return _fetching(session, state, command)


async def _fetching(session: "Session", state: Selected, command: ast.Fetch) -> Stream:
    assert session.watch is not None
    what = plan_fetch(command.attributes)
    # What the client has seen elsewhere may be asked for before a hint of it came here.
    asks_state = what.with_flags or what.sets_seen or command.changed_since is not None
    if asks_state or (command.uid and not state.view.knows_all(command.sequence_set)):
        for lines in in_chunks(await updates.refresh(session.process, session.watch, state, now=True)):
            yield lines
    elif updates.has_changes(session.watch, state):
        for lines in in_chunks(await updates.refresh(session.process, session.watch, state)):
            yield lines
    numbers: Sequence[int] = array("I", named(session, state, command.sequence_set, uid=command.uid))
    if command.changed_since is not None:
        since = command.changed_since
        numbers = array("I", (number for number in numbers if state.view.mod_seq_of(number) > since))
    if command.vanished:
        for lines in in_chunks(await _vanished(session, state, command)):
            yield lines
    work = _Work(session, state, command, what)
    last: Chunk = b""
    async with contextlib.aclosing(work.pieces(numbers)) as pieces:
        async for piece in pieces:
            metrics.FETCHED.inc(len(piece))
            if work.found < len(numbers) or len(piece) >= _PIECE:
                yield piece
            else:
                last += piece  # goes out with the completion: most answers are one write
    yield work.completion(len(numbers), bytes(last))


async def _vanished(session: "Session", state: Selected, command: ast.Fetch) -> Iterator[bytes]:
    """RFC 7162 §3.2.6: which of the UIDs went away since."""
    since = command.changed_since or 0
    changes = await session.process.feed.changes(state.account.account_id, state.mailbox_id, since)
    wanted = command.sequence_set
    top = max(state.view.last_uid, wanted.highest())
    if changes.expunged is not None:
        # Ranges and expunged UIDs may both be many thousands: each is gone through once, not each for each.
        inside = inside_of(wanted.resolve(max(top, max(changes.expunged, default=0))))
        return responses.vanished(ranges_of(filter(inside, changes.expunged)), earlier=True)
    return responses.vanished(state.view.gaps(wanted.resolve(state.view.last_uid)), earlier=True)


@dataclass(slots=True)
class _Work:
    """One FETCH under way."""

    session: "Session"
    state: Selected
    command: ast.Fetch
    plan: FetchPlan
    found: int = 0
    """Messages that were answered."""
    unreadable: Unreadable = field(default_factory=Unreadable)
    left_out: list[int] = field(default_factory=list)
    """UIDs of messages whose rows cannot be read."""
    undecoded: int = 0
    """Messages with a part that is asked for and cannot be decoded."""
    _sets_seen: bool = field(init=False)
    _made_seen: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._sets_seen = self.plan.sets_seen

    def completion(self, asked: int, last: bytes) -> Reply:
        """The Reply, when all but `last` is sent."""
        name = "UID FETCH" if self.command.uid else "FETCH"
        unreadable = self.unreadable
        for uid in self.left_out:
            if (number := self.state.view.number(uid)) is not None:
                last += unreadable.add(BlobMissing("its row"), number, uid)
        if code := unreadable.code(given=self.found):
            return no("Some messages cannot be read", code, untagged=last, state=self.state)
        if self.undecoded:
            return replace(reply_to(UnknownEncoding()), untagged=last, state=self.state)
        if self.found + unreadable.damaged + unreadable.lost < asked and not self.command.uid:
            # RFC 5530 §3, as other servers: after a NO (RFC 2180 §4.1.2) clients throw away what they were given.
            text = "Some of the messages were expunged"
            return ok(text, response_codes.EXPUNGEISSUED, untagged=last, state=self.state)
        return ok(f"{name} completed", untagged=last, state=self.state)

    async def pieces(self, numbers: Sequence[int]) -> AsyncGenerator[Chunk, None]:
        """The FETCH responses of the messages, in pieces worth a write."""
        if self.plan.source is Source.VIEW:
            for piece in self._from_view(numbers):
                yield piece
                await asyncio.sleep(0)  # flags of 100,000 messages take a while: others get a turn
            return
        messages = self._messages(array("I", map(self.state.view.uid, numbers)))
        if self.plan.source is Source.BODY:
            async with contextlib.aclosing(self._bodies(messages)) as groups:
                async for group in groups:
                    if self._sets_seen and any(isinstance(body, bytes) for _, body in group):
                        await self._set_seen(numbers)
                    out = bytearray()
                    async for piece in self._of_group(out, group):
                        yield piece
                    yield out
            return
        if self._sets_seen:
            await self._set_seen(numbers)
        async with contextlib.aclosing(self._from_rows(messages, len(numbers))) as rows:
            async for piece in rows:
                yield piece

    def _summary(self, message: StoredMessage) -> MessageSummary | None:
        """None: the stored one cannot be read."""
        if not message.summary:
            return _NO_SUMMARY
        return summary_of(message, self.state.account.account_id, self.state.mailbox_id)

    def _messages(self, uids: Sequence[int]) -> AsyncIterator[StoredMessage]:
        return self.session.process.mailstore.messages(
            self.state.account.account_id,
            self.state.mailbox_id,
            uids,
            with_summary=self.plan.with_summary,
            left_out=self.left_out,
        )

    def _from_view(self, numbers: Sequence[int]) -> Iterator[Chunk]:
        out = bytearray()
        view = self.state.view
        for number in numbers:
            if view.is_expunged(view.uid(number)):
                continue
            response = FetchResponse(out, number)
            for write in self.plan.of_view:
                write(response, view, number)
            response.close()
            self.found += 1
            if len(out) >= _PIECE:
                yield _taken(out)
        yield out

    async def _from_rows(self, messages: AsyncIterator[StoredMessage], count: int) -> AsyncGenerator[Chunk, None]:
        """Without bodies, but for a message whose summary cannot tell what is asked."""
        out = bytearray()
        written = 0
        octets = min(_ROWS, count * _ROW)
        hold = await self._taken_for_rows(octets)
        try:
            async for message in messages:
                summary = self._summary(message)
                if summary is None or self.plan.needs_body(summary):
                    hold.release()  # whoever waits holds nothing
                    async for piece in self._with_body(out, message):
                        yield piece
                    hold = await self._taken_for_rows(octets)
                    continue
                async for piece in self._answer(out, message, summary, None):
                    yield piece
                await give_way()
                if len(out) >= _PIECE:
                    written += len(out)
                    yield _taken(out)
                if written >= _ROWS:  # rows come and go: what is held is held for others by now
                    written = 0
                    hold.revoke_when_late(self.session.connection.abort)
            yield out
        finally:
            hold.release()

    async def _taken_for_rows(self, octets: int) -> AccountReservation:
        hold = await self._share().reserve(octets)
        hold.revoke_when_late(self.session.connection.abort)
        return hold

    async def _with_body(self, out: bytearray, message: StoredMessage) -> AsyncIterator[Chunk]:
        """What the summary could not tell."""

        async def alone() -> AsyncIterator[StoredMessage]:
            yield message

        async with contextlib.aclosing(self._bodies(alone())) as groups:
            async for group in groups:
                async for piece in self._of_group(out, group):
                    yield piece

    def _bodies(self, messages: AsyncIterator[StoredMessage]) -> AsyncGenerator[LoadedMessages, None]:
        session = self.session
        return read_bodies(
            session.process.bodies,
            self._share(),
            messages,
            self._messages,
            session.connection.abort,
            extra_bytes if self.plan.tells_envelope or self.plan.tells_structure else None,
        )

    def _share(self) -> AccountShare:
        return self.session.process.shares.of(self.state.account.account_id)

    async def _of_group(self, out: bytearray, group: LoadedMessages) -> AsyncIterator[Chunk]:
        for message, body in group:
            if isinstance(body, bytes):
                summary = await self._whole_summary(out, message, body)
                try:
                    async for piece in self._answer(out, message, summary, body):
                        yield piece
                except UnknownEncoding:
                    self.undecoded += 1
            elif (number := self.state.view.number(message.uid)) is not None:
                out += self.unreadable.add(body, number, message.uid)
            if len(out) >= _PIECE:
                yield _taken(out)

    async def _whole_summary(self, out: bytearray, message: StoredMessage, body: bytes) -> MessageSummary:
        """The stored summary, or one made from the body when that left out what is asked for, or cannot be read."""
        stored = self._summary(message)
        if stored is not None and not self.plan.needs_whole(stored):
            return stored
        summary = await self.session.process.whole_summaries.of(message, body)
        number = self.state.view.number(message.uid)
        if number is not None and self.plan.needs_whole(summary):
            text = f"Message {number} (UID {message.uid}) has more than is told of it"
            out += responses.untagged_no(text, response_codes.LIMIT)
        return summary

    async def _answer(
        self, out: bytearray, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> AsyncIterator[Chunk]:
        """As `_write`, in pieces. What fails behind the first of them ends the connection: a NO would be taken for
        bytes of a literal."""
        begun = False
        try:
            for later in self._write(out, message, summary, body):
                if later is not None or len(out) >= _PIECE:
                    async for piece in _pieces(out, later):
                        begun = True
                        yield piece
                await give_way()
        except Exception:
            if not begun:
                raise
            metrics.UNEXPECTED.inc()
            _log.exception("response_cut", uid=message.uid)
            self.session.connection.abort()
            raise PeerGone from None

    def _write(
        self, out: bytearray, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[Iterator[bytes] | None]:
        """One FETCH response, unless the message left the view. Yields where `out` may be to be sent, with what comes
        behind it: so a response is never in memory whole, whatever is asked for. Also behind each item that was looked
        for in the body, for a command may ask for hundreds.

        Raises UnknownEncoding before it has begun.
        """
        number = self.state.view.number(message.uid)
        if number is None:
            return
        self.plan.check_encodings(summary)
        response = FetchResponse(out, number)
        for write_of_view in self.plan.of_view:
            write_of_view(response, self.state.view, number)
        for write in self.plan.of_row:
            later = write(response, message, summary, body)
            if later is not None or body is not None or len(out) >= _PIECE:
                yield later
        response.close()
        self.found += 1
        if self._made_seen and message.uid in self._made_seen and not self.plan.tells_flags:
            # RFC 3501 §6.4.5: if this caused the flags to change, they SHOULD be in the responses.
            updates.write_flags(out, self.state, (message.uid,), uid=self.command.uid)

    async def _set_seen(self, numbers: Sequence[int]) -> None:
        """\\Seen for every message of the set that has it not, in one statement, once."""
        self._sets_seen = False
        view, state = self.state.view, self.state
        unseen = [view.uid(number) for number in numbers if not view.flags(number) & Flag.SEEN]
        if state.read_only or not unseen:
            return
        result = await self.session.process.mailstore.store_flags(
            state.account.account_id, state.mailbox_id, unseen, FlagOp.ADD, flags=Flag.SEEN
        )
        apply_result(self.session, state, result)
        self._made_seen = frozenset(result.changed)


def _taken(out: bytearray) -> bytes:
    octets = bytes(out)
    out.clear()
    return octets


async def _pieces(out: bytearray, steps: Iterator[bytes] | None) -> AsyncIterator[Chunk]:
    """What is gathered, and the bytes of each step; a step is a turn, also of a client that reads at once."""
    if out:
        yield _taken(out)
    for octets in steps or ():
        if out:
            yield _taken(out)
        if octets:
            yield octets
        await asyncio.sleep(0)
