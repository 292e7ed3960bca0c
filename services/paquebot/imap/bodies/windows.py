"""Messages with their bodies, in order, read a window at a time: while one is written, the next is read.

A window is many messages, so that those of one pack share a request although the mailbox's order jumps between packs.
Its bytes are reserved in the account's share before it is read, and released when the caller has taken all of it, or
when the read under way ends. The first window is small and each is twice the one before, up to a bound: a client that
asks for little, reads slowly, or disconnects costs little. So a session has one window, or one longer message.

A message that cannot be read does not fail the others (decision 34): an untagged NO names it (a warning, RFC 3501
§7.1.2), and the command continues without it. If S3 is unavailable, the whole command fails temporarily.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from paquebot.blobs import BlobMissing, BlobsUnavailable
from paquebot.imap.bodies.body_cache import BodyCache, BodyError, PendingRead, finish_read
from paquebot.mailstore import StoredMessage
from paquebot.runtime.shares.account_shares import AccountReservation, AccountShare
from paquebot.wire.imap import response_codes, responses

_FIRST_MESSAGES = 64
_FIRST_BYTES = 256 * 1024
_LARGEST = 8  # times the first: 512 messages, 2 MiB; one message that is longer is its own window
_LONG = 1024 * 1024  # bytes; a longer message is not read ahead, and is reserved with what its reading takes
_WORTH_BYTES = 32 * 1024  # bytes that are worth a write
_NAMED: Final = 100  # unreadable messages that one command names

ReadRows = Callable[[list[int]], AsyncIterator[StoredMessage]]
"""Reads the rows of these UIDs again."""

ExtraBytes = Callable[[StoredMessage], int]
"""Bytes that the caller needs for a message besides the message itself, reserved with it."""

LoadedMessages = list[tuple[StoredMessage, bytes | BodyError]]


@dataclass(slots=True)
class _Window:
    messages: list[StoredMessage] = field(default_factory=list)
    size: int = 0
    reading: int = 0
    """Bytes that are reserved besides `size` until all is read: what came from S3, whole and in parts."""
    reservation: AccountReservation | None = None
    begun: list[bytes | PendingRead] = field(default_factory=list)

    def add(self, message: StoredMessage, size: int) -> None:
        self.messages.append(message)
        self.size += size
        if message.blob.length > _LONG:
            self.reading += 2 * message.blob.length

    @property
    def peak(self) -> int:
        return self.size + self.reading

    def begin(self, bodies: BodyCache, reservation: AccountReservation) -> None:
        """Start to read it; its bytes are reserved."""
        self.reservation = reservation
        self.begun = bodies.begin([message.blob for message in self.messages])

    def end(self) -> None:
        """Release the reservation after the last read under way, which continues without this session."""
        if self.reservation is None:
            return
        pending = {begun for begun in self.begun if isinstance(begun, asyncio.Future) and not begun.done()}
        self.messages, self.begun = [], []
        self.reservation.shrink(self.peak if pending else 0)
        for read in pending:
            read.add_done_callback(partial(_release, self.reservation, pending))


def _release(reservation: AccountReservation, pending: set[PendingRead], read: PendingRead) -> None:
    pending.discard(read)
    if not pending:
        reservation.release()


async def read_bodies(
    bodies: BodyCache,
    share: AccountShare,
    messages: AsyncIterator[StoredMessage],
    read_rows: ReadRows,
    end: Callable[[], None] | None = None,
    extra_bytes: ExtraBytes | None = None,
) -> AsyncGenerator[LoadedMessages, None]:
    """Groups of `messages`, each with its bytes or the error of reading them. Close it (`aclosing`).

    Compaction may move a message after its row was read: if it is not at that place, the row is read once more.
    `end`: of a caller that writes the bodies to a client, as for `AccountReservation.revoke_when_late`.
    """
    windows = _windows(messages, extra_bytes)
    current = await anext(windows, None)
    following: _Window | None = None
    try:
        while current is not None:
            if current.reservation is None:
                current.begin(bodies, await share.reserve(current.peak))
            if end is not None and current.reservation is not None:
                current.reservation.revoke_when_late(end)
            following = await anext(windows, None)
            if following is not None and not following.reading:
                if (reservation := share.try_reserve(following.peak)) is not None:
                    following.begin(bodies, reservation)
            async for loaded in _in_order(current):
                yield await _retry_missing(bodies, loaded, read_rows)
                loaded.clear()
            current.end()
            current, following = following, None
    finally:
        for window in (current, following):
            if window is not None:
                window.end()


async def _in_order(window: _Window) -> AsyncIterator[LoadedMessages]:
    """The bodies that are read already, if they are worth a write; the rest as they are read."""
    assert window.begun is not None
    loaded: LoadedMessages = []
    size = 0
    for message, begun in zip(window.messages, window.begun, strict=True):
        if size >= _WORTH_BYTES and isinstance(begun, asyncio.Future) and not begun.done():
            yield loaded
            loaded, size = [], 0
        loaded.append((message, await finish_read(message.blob, begun)))
        size += message.blob.size
    if window.reservation is not None:
        window.reservation.shrink(window.size)
    yield loaded


async def _retry_missing(bodies: BodyCache, loaded: LoadedMessages, read_rows: ReadRows) -> LoadedMessages:
    missing = [message.uid for message, body in loaded if isinstance(body, BlobMissing)]
    if not missing:
        return loaded
    rows = [message async for message in read_rows(missing)]
    moved = zip(rows, await bodies.load([message.blob for message in rows]), strict=True)
    found = {message.uid: (message, body) for message, body in moved}
    return [found.get(message.uid, (message, body)) for message, body in loaded]


async def _windows(
    messages: AsyncIterator[StoredMessage], extra_bytes: ExtraBytes | None
) -> AsyncGenerator[_Window, None]:
    window, scale = _Window(), 1
    async for message in messages:
        size = message.blob.size + len(message.summary or b"") + (extra_bytes(message) if extra_bytes else 0)
        too_large = window.size + size > scale * _FIRST_BYTES
        if window.messages and (too_large or len(window.messages) >= scale * _FIRST_MESSAGES):
            yield window
            window, scale = _Window(), min(2 * scale, _LARGEST)
        window.add(message, size)
    if window.messages:
        yield window


@dataclass(slots=True)
class Unreadable:
    """Counts the messages of one command that could not be read."""

    away: int = 0
    """S3 did not answer: a retry helps."""
    damaged: int = 0
    """S3 twice returned wrong bytes: a retry may help."""
    lost: int = 0
    """S3 has no such object: a retry does not help."""

    def __bool__(self) -> bool:
        return bool(self.away or self.damaged or self.lost)

    def add(self, error: BodyError, number: int, uid: int) -> bytes:
        """Count a message; returns the untagged line that names it, b"" if the completion is enough."""
        if isinstance(error, BlobsUnavailable):
            self.away += 1
            return b""
        if isinstance(error, BlobMissing):
            self.lost += 1
            what, code = "lost", response_codes.CORRUPTION
        else:
            self.damaged += 1
            what, code = "damaged", response_codes.UNAVAILABLE
        count = self.lost + self.damaged
        if count > _NAMED:
            return responses.untagged_no("More messages cannot be read") if count == _NAMED + 1 else b""
        return responses.untagged_no(f"Message {number} (UID {uid}) is {what}, please report it", code)

    def code(self, *, answered: int) -> bytes | None:
        """The code with which the command fails (RFC 5530 §3) after `answered` messages; None: it succeeds."""
        if self.away:
            return response_codes.UNAVAILABLE
        if answered or not self:
            return None
        return response_codes.UNAVAILABLE if self.damaged else response_codes.CORRUPTION
