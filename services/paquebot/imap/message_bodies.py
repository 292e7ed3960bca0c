"""Messages with their bodies, in order, planned a window at a time: while one is written, the next is on its way.

A window is many messages, so that those of one pack share a request although the mailbox's order jumps between
packs. What it holds is reserved at the gate before it is read, and given back when the caller has taken all of it.
The first window is small and each is twice the one before, up to a bound: who asks for little, reads slowly, or
goes away, costs little.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field

from paquebot.blobs import BlobMissing
from paquebot.imap.bodies import Bodies, BodyError, Coming, body
from paquebot.mailstore.types import StoredMessage

_FIRST_MESSAGES = 64
_FIRST_OCTETS = 256 * 1024
_LARGEST = 8  # times the first: 512 messages, 2 MiB; one message that is longer is a window of its own
_WORTH_OCTETS = 32 * 1024

Again = Callable[[list[int]], AsyncIterator[StoredMessage]]
"""The rows of these UIDs, read anew."""

Loaded = list[tuple[StoredMessage, bytes | BodyError]]


@dataclass(slots=True)
class _Window:
    messages: list[StoredMessage] = field(default_factory=list)
    octets: int = 0
    begun: list[bytes | Coming] | None = None
    """None: nothing is reserved and nothing asked for yet."""

    def begin(self, bodies: Bodies) -> None:
        """Its octets are reserved: read it."""
        self.begun = bodies.begin([message.blob for message in self.messages])


async def with_bodies(
    bodies: Bodies, messages: AsyncIterator[StoredMessage], again: Again
) -> AsyncGenerator[Loaded, None]:
    """Groups of `messages`, each with its octets or why they cannot be read. Close it (`aclosing`).

    Compaction may move a message after its row was read: what is not where the row said is looked up once more.
    """
    windows = _windows(messages)
    current = await anext(windows, None)
    following: _Window | None = None
    try:
        while current is not None:
            if current.begun is None:
                await bodies.gate.take(current.octets)
                current.begin(bodies)
            following = await anext(windows, None)
            if following is not None and bodies.gate.try_take(following.octets):
                following.begin(bodies)
            async for loaded in _in_order(current):
                yield await _found(bodies, loaded, again)
            bodies.gate.give_back(current.octets)
            current, following = following, None
    finally:
        for window in (current, following):
            if window is not None and window.begun is not None:
                bodies.gate.give_back(window.octets)


async def _in_order(window: _Window) -> AsyncIterator[Loaded]:
    """What is there already, when it is worth a write; the rest as it comes."""
    assert window.begun is not None
    loaded: Loaded = []
    octets = 0
    for message, begun in zip(window.messages, window.begun, strict=True):
        if octets >= _WORTH_OCTETS and isinstance(begun, asyncio.Future) and not begun.done():
            yield loaded
            loaded, octets = [], 0
        loaded.append((message, await body(message.blob, begun)))
        octets += message.blob.size
    yield loaded


async def _found(bodies: Bodies, loaded: Loaded, again: Again) -> Loaded:
    missing = [message.uid for message, read in loaded if isinstance(read, BlobMissing)]
    if not missing:
        return loaded
    rows = [message async for message in again(missing)]
    moved = zip(rows, await bodies.load([message.blob for message in rows]), strict=True)
    found = {message.uid: (message, read) for message, read in moved}
    return [found.get(message.uid, (message, read)) for message, read in loaded]


async def _windows(messages: AsyncIterator[StoredMessage]) -> AsyncGenerator[_Window, None]:
    window, scale = _Window(), 1
    async for message in messages:
        octets = message.blob.size + len(message.summary or b"")
        full = len(window.messages) >= scale * _FIRST_MESSAGES or window.octets + octets > scale * _FIRST_OCTETS
        if full and window.messages:
            yield window
            window, scale = _Window(), min(2 * scale, _LARGEST)
        window.messages.append(message)
        window.octets += octets
    if window.messages:
        yield window
