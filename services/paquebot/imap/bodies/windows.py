"""Messages with their bodies, in order, planned a window at a time: while one is written, the next is on its way.

A window is many messages, so that those of one pack share a request although the mailbox's order jumps between
packs. What it holds is reserved in the account's share before it is read, and given back when the caller has taken all
of it, or when the read under way ends. The first window is small and each is twice the one before, up to a bound: who
asks for little, reads slowly, or goes away, costs little. So a session holds one window, or one message that is longer.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial

from paquebot.blobs import BlobMissing
from paquebot.imap.bodies.body_cache import BodyCache, BodyError, Coming, body
from paquebot.mailstore.types import StoredMessage
from paquebot.runtime.shares.account_shares import AccountReservation, AccountShare

_FIRST_MESSAGES = 64
_FIRST_BYTES = 256 * 1024
_LARGEST = 8  # times the first: 512 messages, 2 MiB; one message that is longer is a window of its own
_LONG = 1024 * 1024  # bytes; a longer message is not read ahead, and counts with what its reading takes
_WORTH_BYTES = 32 * 1024

ReadRows = Callable[[list[int]], AsyncIterator[StoredMessage]]
"""The rows of these UIDs, read anew."""

ExtraBytes = Callable[[StoredMessage], int]
"""Bytes that the caller needs for a message beside the message itself, reserved with it."""

LoadedMessages = list[tuple[StoredMessage, bytes | BodyError]]


@dataclass(slots=True)
class _Window:
    messages: list[StoredMessage] = field(default_factory=list)
    octets: int = 0
    reading: int = 0
    """Bytes that are held beside these until all is read: what came from S3, whole and in parts."""
    hold: AccountReservation | None = None
    begun: list[bytes | Coming] = field(default_factory=list)

    def add(self, message: StoredMessage, octets: int) -> None:
        self.messages.append(message)
        self.octets += octets
        if message.blob.length > _LONG:
            self.reading += 2 * message.blob.length

    @property
    def peak(self) -> int:
        return self.octets + self.reading

    def begin(self, bodies: BodyCache, hold: AccountReservation) -> None:
        """Its bytes are reserved: read it."""
        self.hold = hold
        self.begun = bodies.begin([message.blob for message in self.messages])

    def end(self) -> None:
        """Give back what is held, behind the last read under way: that belongs to the process, and goes on."""
        if self.hold is None:
            return
        coming = {begun for begun in self.begun if isinstance(begun, asyncio.Future) and not begun.done()}
        self.messages, self.begun = [], []
        self.hold.shrink(self.peak if coming else 0)
        for read in coming:
            read.add_done_callback(partial(_release, self.hold, coming))


def _release(hold: AccountReservation, coming: set[Coming], read: Coming) -> None:
    coming.discard(read)
    if not coming:
        hold.release()


async def read_bodies(
    bodies: BodyCache,
    share: AccountShare,
    messages: AsyncIterator[StoredMessage],
    again: ReadRows,
    end: Callable[[], None] | None = None,
    beside: ExtraBytes | None = None,
) -> AsyncGenerator[LoadedMessages, None]:
    """Groups of `messages`, each with its bytes or why they cannot be read. Close it (`aclosing`).

    Compaction may move a message after its row was read: what is not where the row said is looked up once more.
    `end`: of a caller that writes them to a client, as of `AccountReservation.revoke_when_late`.
    """
    windows = _windows(messages, beside)
    current = await anext(windows, None)
    following: _Window | None = None
    try:
        while current is not None:
            if current.hold is None:
                current.begin(bodies, await share.reserve(current.peak))
            if end is not None and current.hold is not None:
                current.hold.revoke_when_late(end)
            following = await anext(windows, None)
            if following is not None and not following.reading:
                if (hold := share.try_reserve(following.peak)) is not None:
                    following.begin(bodies, hold)
            async for loaded in _in_order(current):
                yield await _found(bodies, loaded, again)
                loaded.clear()
            current.end()
            current, following = following, None
    finally:
        for window in (current, following):
            if window is not None:
                window.end()


async def _in_order(window: _Window) -> AsyncIterator[LoadedMessages]:
    """What is there already, when it is worth a write; the rest as it comes."""
    assert window.begun is not None
    loaded: LoadedMessages = []
    octets = 0
    for message, begun in zip(window.messages, window.begun, strict=True):
        if octets >= _WORTH_BYTES and isinstance(begun, asyncio.Future) and not begun.done():
            yield loaded
            loaded, octets = [], 0
        loaded.append((message, await body(message.blob, begun)))
        octets += message.blob.size
    if window.hold is not None:
        window.hold.shrink(window.octets)
    yield loaded


async def _found(bodies: BodyCache, loaded: LoadedMessages, again: ReadRows) -> LoadedMessages:
    missing = [message.uid for message, read in loaded if isinstance(read, BlobMissing)]
    if not missing:
        return loaded
    rows = [message async for message in again(missing)]
    moved = zip(rows, await bodies.load([message.blob for message in rows]), strict=True)
    found = {message.uid: (message, read) for message, read in moved}
    return [found.get(message.uid, (message, read)) for message, read in loaded]


async def _windows(messages: AsyncIterator[StoredMessage], beside: ExtraBytes | None) -> AsyncGenerator[_Window, None]:
    window, scale = _Window(), 1
    async for message in messages:
        octets = message.blob.size + len(message.summary or b"") + (beside(message) if beside else 0)
        more = window.octets + octets > scale * _FIRST_BYTES
        full = len(window.messages) >= scale * _FIRST_MESSAGES or more
        if full and window.messages:
            yield window
            window, scale = _Window(), min(2 * scale, _LARGEST)
        window.add(message, octets)
    if window.messages:
        yield window
