"""Summaries of all that a message has, made from its bytes if the stored one had to leave something out.

That takes time (a second for 50,000 addresses) and memory. So a process makes one at a time, in a thread, for a session
that has reserved its bytes, and charges the time of the thread to that session. The last ones are cached, because
clients ask for one part of a message after another.
"""

import asyncio
import time
from typing import Final

from cachetools import LRUCache
from google.protobuf.message import DecodeError

from paquebot.mailstore import StoredMessage
from paquebot.message import (
    WHOLE,
    WHOLE_BYTES,
    MessageSummary,
    has_whole_envelope,
    has_whole_structure,
    is_surely_whole,
    summarise,
)
from paquebot.runtime.shares.event_loop import charge

_CACHE_BYTES: Final = 4 * 1024 * 1024
"""Serialised: in memory they take about three times as much."""

Key = tuple[str, int]


def extra_bytes(message: StoredMessage) -> int:
    """The bytes to reserve besides the message's own: those of its whole summary, if one may be needed."""
    if not message.summary or is_surely_whole(message.summary):
        return 0
    try:
        summary = MessageSummary.FromString(message.summary)
    except DecodeError:  # it will be made from the message
        return WHOLE_BYTES
    return 0 if has_whole_envelope(summary) and has_whole_structure(summary) else WHOLE_BYTES


class WholeSummaries:
    """One for a process."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._cached: LRUCache[Key, bytes] = LRUCache(_CACHE_BYTES, getsizeof=len)

    async def of(self, message: StoredMessage, body: bytes) -> MessageSummary:
        """The summary of a message within `message.limits.WHOLE`; its `extra_bytes` are reserved."""
        key = (message.blob.pack, message.blob.offset)
        if (cached := self._cached.get(key)) is not None:
            return await asyncio.to_thread(MessageSummary.FromString, cached)
        async with self._turn:
            summary, serialised, seconds = await asyncio.to_thread(_summarise, body)
        charge(seconds)
        if len(serialised) <= _CACHE_BYTES // 2:
            self._cached[key] = serialised
        return summary


def _summarise(body: bytes) -> tuple[MessageSummary, bytes, float]:
    """Runs in a thread: the summary, its bytes, and the CPU time of the thread in seconds."""
    began = time.thread_time()
    summary = summarise(body, WHOLE)
    serialised = summary.SerializeToString()
    return summary, serialised, time.thread_time() - began
