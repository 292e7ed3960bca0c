"""Messages with their bodies, in order, a few at a time: while one group is written, the next is on its way.

What a group holds is reserved at the gate before it is read, and given back when the caller asks for the next.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from paquebot.blobs import BlobMissing
from paquebot.imap.bodies import Bodies, BodyError
from paquebot.mailstore.types import StoredMessage

_GROUP_MESSAGES = 32
_GROUP_OCTETS = 1024 * 1024

Again = Callable[[list[int]], AsyncIterator[StoredMessage]]
"""The rows of these UIDs, read anew."""

Loaded = list[tuple[StoredMessage, bytes | BodyError]]


@dataclass(slots=True)
class _Group:
    messages: list[StoredMessage]
    octets: int
    reading: asyncio.Task[list[bytes | BodyError]] | None = None


async def with_bodies(
    bodies: Bodies, messages: AsyncIterator[StoredMessage], again: Again
) -> AsyncGenerator[Loaded, None]:
    """Groups of `messages`, each with its octets or why they cannot be read. Close it (`aclosing`).

    Compaction may move a message after its row was read: what is not where the row said is looked up once more.
    """
    groups = _grouped(messages)
    current = await anext(groups, None)
    if current is not None:
        await _begin(bodies, current)
    following: _Group | None = None
    try:
        while current is not None:
            assert current.reading is not None
            following = await anext(groups, None)
            if following is not None and bodies.gate.try_take(following.octets):
                following.reading = _reading(bodies, following)
            yield await _found(bodies, list(zip(current.messages, await current.reading, strict=True)), again)
            bodies.gate.give_back(current.octets)
            current, following = following, None
            if current is not None and current.reading is None:
                await _begin(bodies, current)
    finally:
        for group in (current, following):
            if group is not None and group.reading is not None:
                group.reading.cancel()
                bodies.gate.give_back(group.octets)


async def _found(bodies: Bodies, loaded: Loaded, again: Again) -> Loaded:
    missing = [message.uid for message, body in loaded if isinstance(body, BlobMissing)]
    if not missing:
        return loaded
    rows = [message async for message in again(missing)]
    moved = zip(rows, await bodies.load([message.blob for message in rows]), strict=True)
    found = {message.uid: (message, body) for message, body in moved}
    return [found.get(message.uid, (message, body)) for message, body in loaded]


async def _begin(bodies: Bodies, group: _Group) -> None:
    await bodies.gate.take(group.octets)
    group.reading = _reading(bodies, group)


def _reading(bodies: Bodies, group: _Group) -> asyncio.Task[list[bytes | BodyError]]:
    return asyncio.create_task(bodies.load([message.blob for message in group.messages]))


async def _grouped(messages: AsyncIterator[StoredMessage]) -> AsyncGenerator[_Group, None]:
    group = _Group([], 0)
    async for message in messages:
        size = message.blob.size
        if group.messages and (len(group.messages) >= _GROUP_MESSAGES or group.octets + size > _GROUP_OCTETS):
            yield group
            group = _Group([], 0)
        group.messages.append(message)
        group.octets += size
    if group.messages:
        yield group
