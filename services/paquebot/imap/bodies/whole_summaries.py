"""Summaries of all that a message has, made from its bytes where the stored one had to leave something out.

That takes long (a second for 50,000 addresses) and memory, so one is made at a time in a process, in a thread, for a
session that has reserved its bytes; what it takes of the interpreter is charged to the session. The last ones are
kept, for clients ask for one part of a message after another.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Final

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

_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Serialised: in memory they take about three times as much."""

Key = tuple[str, int]


def extra_bytes(message: StoredMessage) -> int:
    """What is reserved beside a message's own bytes: those of its whole summary, when one may be needed."""
    if not message.summary or is_surely_whole(message.summary):
        return 0
    try:
        summary = MessageSummary.FromString(message.summary)
    except DecodeError:  # made anew from the bytes
        return WHOLE_BYTES
    return 0 if has_whole_envelope(summary) and has_whole_structure(summary) else WHOLE_BYTES


class WholeSummaries:
    """One for a process."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0

    async def of(self, message: StoredMessage, body: bytes) -> MessageSummary:
        """The summary of a message within `message.limits.WHOLE`; `extra_bytes` of it are reserved."""
        key = (message.blob.pack, message.blob.offset)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return await asyncio.to_thread(MessageSummary.FromString, kept)
        async with self._turn:
            summary, octets, seconds = await asyncio.to_thread(_made, body)
        charge(seconds)
        self._keep(key, octets)
        return summary

    def _keep(self, key: Key, octets: bytes) -> None:
        if key in self._kept or len(octets) > _KEPT_BYTES // 2:
            return
        self._kept[key] = octets
        self._bytes += len(octets)
        while self._bytes > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)


def _made(body: bytes) -> tuple[MessageSummary, bytes, float]:
    """Runs in a thread: the summary, its bytes, and how long the thread ran."""
    began = time.thread_time()
    summary = summarise(body, WHOLE)
    octets = summary.SerializeToString()
    return summary, octets, time.thread_time() - began
