"""`Directory.RecordSessions`: orders transcripts of an account's sessions and returns their lines as they arrive."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from nats.aio.msg import Msg

from paquebot.directory.errors import InvalidValue
from paquebot.observability.log import Log
from paquebot.queue import Queue
from paquebot.rpc.recordings import LINES, MAX_SECONDS, ORDER_SECONDS, ORDERS, lines_subject, new_id, order
from paquebot.runtime.process.tasks import background
from paquebot.v1.directory_pb2 import TranscriptLine

_log = Log("paquebot.recipient_validation")
_REPEAT_SECONDS = ORDER_SECONDS / 3
_MAX_WAITING_BYTES = 8 * 2**20  # of lines of one recording that its client has not received yet


class _Lines:
    """The lines of one recording that are not returned yet."""

    def __init__(self, recording_id: str) -> None:
        self._recording_id = recording_id
        self._subject = lines_subject(recording_id)
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._lost = 0
        self._not_empty = asyncio.Event()

    def on_message(self, message: Msg) -> None:
        if message.subject != self._subject:
            return
        if self._bytes + len(message.data) > _MAX_WAITING_BYTES:
            self._lost += 1
            return
        self._waiting.append(message.data)
        self._bytes += len(message.data)
        self._not_empty.set()

    async def until(self, seconds: float) -> AsyncGenerator[TranscriptLine, None]:
        """The lines that arrive within `seconds`."""
        ends = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    await self._not_empty.wait()
            except TimeoutError:
                return
            self._not_empty.clear()
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            for data in waiting:
                yield TranscriptLine.FromString(data)
            if self._lost:
                yield TranscriptLine(recording_id=self._recording_id, lost=self._lost)
                self._lost = 0


async def record(queue: Queue, account_id: int, seconds: int) -> AsyncGenerator[TranscriptLine, None]:
    """What the account's sessions receive and send, for so many seconds; the first line says that it has begun.

    Raises InvalidValue, QueueUnavailable.
    """
    if not 1 <= seconds <= MAX_SECONDS:
        raise InvalidValue(f"sessions can be recorded for 1 second to {MAX_SECONDS // 3600} hours")
    _ = queue.client  # raises QueueUnavailable
    recording_id = new_id()
    lines = _Lines(recording_id)
    await queue.subscribe(LINES, lines.on_message)
    repeating = background(_repeat(queue, recording_id, account_id), "recording_order")
    _log.info("recording_started", recording=recording_id, account_id=account_id, seconds=seconds)
    try:
        yield TranscriptLine(recording_id=recording_id)
        async with contextlib.aclosing(lines.until(seconds)) as received:
            async for line in received:
                yield line
    finally:
        queue.unsubscribe(LINES, lines.on_message)
        repeating.cancel()
        await queue.send(ORDERS, order(recording_id, account_id, 0))
        _log.info("recording_ended", recording=recording_id, account_id=account_id)


async def _repeat(queue: Queue, recording_id: str, account_id: int) -> None:
    while True:
        await queue.send(ORDERS, order(recording_id, account_id, ORDER_SECONDS))
        await asyncio.sleep(_REPEAT_SECONDS)
