"""FETCH and UID FETCH (RFC 3501 §6.4.5, §6.4.8), streamed: rows, summaries and bodies come in bounded groups.

Flags, UIDs and mod-sequences come from the view, which is refreshed first; envelope, structure, size and common header
fields from the row; only the rest needs S3. One statement sets \\Seen for all messages of the set, once the first
bodies are read.
"""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from paquebot.blobs import BlobMissing
from paquebot.imap import metrics
from paquebot.imap.bodies.whole_summaries import extra_bytes
from paquebot.imap.bodies.windows import LoadedMessages, Unreadable, read_bodies
from paquebot.imap.commands.context import CommandContext
from paquebot.imap.errors import reply_to
from paquebot.imap.fetch.plan import FetchPlan, Source, plan_fetch
from paquebot.imap.fetch.sections import UnknownEncoding
from paquebot.imap.mailbox_view import updates
from paquebot.imap.reply import Chunk, Reply, Stream, bad, in_chunks, no, ok
from paquebot.imap.states import Selected, condstore_enabled
from paquebot.mailstore import Flag, FlagOp, StoredMessage
from paquebot.mailstore.messages.rows import summary_of
from paquebot.message import MessageSummary
from paquebot.observability.log import Log
from paquebot.runtime.net.connection import PeerGone
from paquebot.runtime.shares.account_shares import AccountReservation, AccountShare
from paquebot.runtime.shares.event_loop import give_way
from paquebot.wire.imap import ast, response_codes, responses
from paquebot.wire.imap.ast import FetchItem
from paquebot.wire.imap.fetch_response import FetchResponse

_CHUNK = 64 * 1024  # bytes collected before they are sent
_ROWS, _ROW = 512 * 1024, 8 * 1024  # bytes reserved for rows with summaries: of two batches, of one message
_log = Log("paquebot.imap.commands.fetch")
_NO_SUMMARY = MessageSummary()


async def fetch(context: CommandContext, state: Selected, command: ast.Fetch) -> Reply | Stream:
    """RFC 3501 §6.4.5"""
    if command.vanished and not (state.qresync and command.uid and command.changed_since is not None):
        return bad("VANISHED needs QRESYNC, UID FETCH and CHANGEDSINCE")  # RFC 7162 §3.2.6
    if command.changed_since is not None or FetchItem.MODSEQ in command.attributes:
        state = condstore_enabled(state)
    return _stream(context, state, command)


async def _stream(context: CommandContext, state: Selected, command: ast.Fetch) -> Stream:
    plan = plan_fetch(command.attributes)
    for lines in in_chunks(await _refresh(context, state, command, plan)):
        yield lines
    numbers: Sequence[int] = array("I", context.numbers(state, command.sequence_set, uid=command.uid))
    if command.changed_since is not None:
        since = command.changed_since
        numbers = array("I", (number for number in numbers if state.view.mod_seq_of(number) > since))
    if command.vanished:
        for lines in in_chunks(await _vanished(context, state, command)):
            yield lines
    answer = _Answer(context, state, command, plan)
    last: Chunk = b""
    async with contextlib.aclosing(answer.chunks(numbers)) as chunks:
        async for chunk in chunks:
            metrics.FETCHED.inc(len(chunk))
            if answer.answered < len(numbers) or len(chunk) >= _CHUNK:
                yield chunk
            else:
                last += chunk  # goes out with the completion: most answers are one write
    yield answer.completion(len(numbers), bytes(last))


async def _refresh(
    context: CommandContext, state: Selected, command: ast.Fetch, plan: FetchPlan
) -> updates.UpdateLines:
    assert context.watch is not None
    # A client may ask for what it saw in another session before a hint of that came here.
    asks_state = plan.returns_flags or plan.returns_mod_seq or plan.sets_seen or command.changed_since is not None
    if asks_state or (command.uid and not state.view.knows_all(command.sequence_set)):
        return await updates.refresh(context.server, context.watch, state, now=True)
    if updates.has_changes(context.watch, state):
        return await updates.refresh(context.server, context.watch, state)
    return updates.UpdateLines()


async def _vanished(context: CommandContext, state: Selected, command: ast.Fetch) -> Iterator[bytes]:
    """RFC 7162 §3.2.6: the UIDs of the set that were expunged since."""
    since = command.changed_since or 0
    changes = await context.server.feed.changes(state.account.account_id, state.mailbox_id, since)
    wanted, last = command.sequence_set, state.view.last_uid
    if changes.expunged is not None:
        last = max(last, wanted.highest(), max(changes.expunged, default=0))
    return updates.vanished_lines(state.view, wanted.resolve(last), changes.expunged)


@dataclass(slots=True)
class _Answer:
    """The FETCH responses of one command, and its completion."""

    context: CommandContext
    state: Selected
    command: ast.Fetch
    plan: FetchPlan
    answered: int = 0
    """Messages with a response."""
    unreadable: Unreadable = field(default_factory=Unreadable)
    bad_rows: list[int] = field(default_factory=list)
    """UIDs of messages whose rows cannot be read."""
    undecoded: int = 0
    """Messages with a part that is asked for and cannot be decoded."""
    _sets_seen: bool = field(init=False)
    _made_seen: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self._sets_seen = self.plan.sets_seen

    def completion(self, asked: int, last: bytes) -> Reply:
        """The Reply, when all chunks but `last` are sent; `asked`: the messages that the command names."""
        unreadable = self.unreadable
        for uid in self.bad_rows:
            if (number := self.state.view.number(uid)) is not None:
                last += unreadable.add(BlobMissing("its row"), number, uid)
        if code := unreadable.code(answered=self.answered):
            return no("Some messages cannot be read", code, untagged=last, state=self.state)
        if self.undecoded:
            return replace(reply_to(UnknownEncoding()), untagged=last, state=self.state)
        if self.answered + unreadable.damaged + unreadable.lost < asked and not self.command.uid:
            # RFC 5530 §3, as other servers do: after a NO (RFC 2180 §4.1.2) clients discard the responses.
            text = "Some of the messages were expunged"
            return ok(text, response_codes.EXPUNGEISSUED, untagged=last, state=self.state)
        name = "UID FETCH" if self.command.uid else "FETCH"
        return ok(f"{name} completed", untagged=last, state=self.state)

    async def chunks(self, numbers: Sequence[int]) -> AsyncGenerator[Chunk, None]:
        """The FETCH responses of the messages, in chunks worth a write."""
        if self.plan.source is Source.VIEW:
            for chunk in self._from_view(numbers):
                yield chunk
                await asyncio.sleep(0)  # flags of 100,000 messages take a while: other sessions get a turn
            return
        messages = self._rows(array("I", map(self.state.view.uid, numbers)))
        if self.plan.source is Source.BODY:
            async with contextlib.aclosing(self._read_bodies(messages)) as groups:
                async for group in groups:
                    if self._sets_seen and any(isinstance(body, bytes) for _, body in group):
                        await self._set_seen(numbers)
                    out = bytearray()
                    async for chunk in self._from_bodies(out, group):
                        yield chunk
                    yield out
            return
        if self._sets_seen:
            await self._set_seen(numbers)
        async with contextlib.aclosing(self._from_rows(messages, len(numbers))) as rows:
            async for chunk in rows:
                yield chunk

    def _rows(self, uids: Sequence[int]) -> AsyncIterator[StoredMessage]:
        return self.context.server.mailbox_reader.messages(
            self.state.account.account_id,
            self.state.mailbox_id,
            uids,
            with_summary=self.plan.with_summary,
            left_out=self.bad_rows,
        )

    def _from_view(self, numbers: Sequence[int]) -> Iterator[Chunk]:
        out = bytearray()
        view = self.state.view
        for number in numbers:
            if view.is_expunged(view.uid(number)):
                continue
            response = FetchResponse(out, number)
            for write in self.plan.view_writers:
                write(response, view, number)
            response.close()
            self.answered += 1
            if len(out) >= _CHUNK:
                yield _take(out)
        yield out

    async def _from_rows(self, messages: AsyncIterator[StoredMessage], count: int) -> AsyncGenerator[Chunk, None]:
        """Responses without bodies, except for a message whose summary lacks something."""
        out = bytearray()
        written = 0
        size = min(_ROWS, count * _ROW)
        reservation = await self._reserve_for_rows(size)
        try:
            async for message in messages:
                summary = self._summary(message)
                if summary is None or self.plan.needs_body(summary):
                    reservation.release()  # a reader that waits for a reservation must hold none
                    async for chunk in self._with_body(out, message):
                        yield chunk
                    reservation = await self._reserve_for_rows(size)
                    continue
                async for chunk in self._answer(out, message, summary, None):
                    yield chunk
                await give_way()
                if len(out) >= _CHUNK:
                    written += len(out)
                    yield _take(out)
                if written >= _ROWS:  # those rows are sent: the reservation is for others now
                    written = 0
                    reservation.revoke_when_late(self.context.connection.abort)
            yield out
        finally:
            reservation.release()

    async def _reserve_for_rows(self, size: int) -> AccountReservation:
        reservation = await self._share().reserve(size)
        reservation.revoke_when_late(self.context.connection.abort)
        return reservation

    async def _with_body(self, out: bytearray, message: StoredMessage) -> AsyncIterator[Chunk]:
        """The response to a message whose summary lacks something."""

        async def alone() -> AsyncIterator[StoredMessage]:
            yield message

        async with contextlib.aclosing(self._read_bodies(alone())) as groups:
            async for group in groups:
                async for chunk in self._from_bodies(out, group):
                    yield chunk

    def _read_bodies(self, messages: AsyncIterator[StoredMessage]) -> AsyncGenerator[LoadedMessages, None]:
        return read_bodies(
            self.context.server.bodies,
            self._share(),
            messages,
            self._rows,
            self.context.connection.abort,
            extra_bytes if self.plan.uses_envelope or self.plan.uses_structure else None,
        )

    def _share(self) -> AccountShare:
        return self.context.server.shares.of(self.state.account.account_id)

    async def _from_bodies(self, out: bytearray, group: LoadedMessages) -> AsyncIterator[Chunk]:
        for message, body in group:
            if isinstance(body, bytes):
                summary = await self._whole_summary(out, message, body)
                try:
                    async for chunk in self._answer(out, message, summary, body):
                        yield chunk
                except UnknownEncoding:
                    self.undecoded += 1
            elif (number := self.state.view.number(message.uid)) is not None:
                out += self.unreadable.add(body, number, message.uid)
            if len(out) >= _CHUNK:
                yield _take(out)

    def _summary(self, message: StoredMessage) -> MessageSummary | None:
        """None: the stored one cannot be read."""
        if not message.summary:
            return _NO_SUMMARY
        return summary_of(message, self.state.account.account_id, self.state.mailbox_id)

    async def _whole_summary(self, out: bytearray, message: StoredMessage, body: bytes) -> MessageSummary:
        """The stored summary; or one made from the body, if the stored one cannot be read or lacks something."""
        stored = self._summary(message)
        if stored is not None and not self.plan.needs_whole_summary(stored):
            return stored
        summary = await self.context.server.whole_summaries.of(message, body)
        number = self.state.view.number(message.uid)
        if number is not None and self.plan.needs_whole_summary(summary):
            text = f"Message {number} (UID {message.uid}) is described in part"
            out += responses.untagged_no(text, response_codes.LIMIT)
        return summary

    async def _answer(
        self, out: bytearray, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> AsyncIterator[Chunk]:
        """`_write`, in chunks. A failure after the first of them aborts the connection: the client would take a NO for
        bytes of a literal."""
        begun = False
        try:
            for steps in self._write(out, message, summary, body):
                if steps is not None or len(out) >= _CHUNK:
                    async for chunk in _chunks(out, steps):
                        begun = True
                        yield chunk
                await give_way()
        except Exception:
            if not begun:
                raise
            metrics.UNEXPECTED.inc()
            _log.exception("response_truncated", uid=message.uid)
            self.context.connection.abort()
            raise PeerGone from None

    def _write(
        self, out: bytearray, message: StoredMessage, summary: MessageSummary, body: bytes | None
    ) -> Iterator[Iterator[bytes] | None]:
        """One FETCH response, unless the message left the view.

        Yields where the caller may send `out`, with the steps of a long item that follows: a response is never whole
        in memory. Yields after each item from the body too, because a command may ask for hundreds of them.

        Raises UnknownEncoding before it has written anything.
        """
        number = self.state.view.number(message.uid)
        if number is None:
            return
        self.plan.check_encodings(summary)
        response = FetchResponse(out, number)
        for write_view in self.plan.view_writers:
            write_view(response, self.state.view, number)
        for write in self.plan.row_writers:
            steps = write(response, message, summary, body)
            if steps is not None or body is not None or len(out) >= _CHUNK:
                yield steps
        response.close()
        self.answered += 1
        if self._made_seen and message.uid in self._made_seen and not self.plan.returns_flags:
            # RFC 3501 §6.4.5: if this caused the flags to change, they SHOULD be in the responses.
            updates.write_flags(out, self.state, (message.uid,), uid=self.command.uid)

    async def _set_seen(self, numbers: Sequence[int]) -> None:
        """Set \\Seen for every message of the set that lacks it, in one statement, once."""
        self._sets_seen = False
        view, state = self.state.view, self.state
        unseen = [view.uid(number) for number in numbers if not view.flags(number) & Flag.SEEN]
        if state.read_only or not unseen:
            return
        result = await self.context.server.messages.store_flags(
            state.account.account_id, state.mailbox_id, unseen, FlagOp.ADD, flags=Flag.SEEN
        )
        self.context.apply_stored(state, result)
        self._made_seen = frozenset(result.changed)


def _take(out: bytearray) -> bytes:
    chunk = bytes(out)
    out.clear()
    return chunk


async def _chunks(out: bytearray, steps: Iterator[bytes] | None) -> AsyncIterator[Chunk]:
    """`out`, and the bytes of each step; other sessions get a turn after each, also if the client reads at once."""
    if out:
        yield _take(out)
    for chunk in steps or ():
        if out:
            yield _take(out)
        if chunk:
            yield chunk
        await asyncio.sleep(0)
