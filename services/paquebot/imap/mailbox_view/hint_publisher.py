"""Hints to other processes that mailboxes changed: at once when little happens, gathered while much does.

A busy mailbox changes hundreds of times a second, and whoever hears of it looks once for many hints anyway.
"""

import asyncio

from paquebot.queue import Queue
from paquebot.runtime.process.tasks import background

_GATHER_SECONDS = 0.01


class HintPublisher:
    """One for a process; `source` is its name, by which it knows its own hints."""

    def __init__(self, queue: Queue, source: bytes) -> None:
        self._queue = queue
        self._source = source
        self._waiting: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None

    def changed(self, account_id: int) -> None:
        """Mailboxes of the account changed: the others hear of it within `_GATHER_SECONDS`."""
        self._waiting[account_id] = ""
        if self._task is None:
            self._task = background(self._tell(), "hints")

    async def close(self) -> None:
        """When this returns, everything is told."""
        if self._task is not None:
            await self._task

    async def _tell(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            await self._queue.hint_mailboxes(waiting, source=self._source)
            await asyncio.sleep(_GATHER_SECONDS)
        self._task = None
