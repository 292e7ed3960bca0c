"""Marks for refused messages: their senders got 451, so they still have these messages and will send them again.

A pack that was written without its jobs looks like one whose jobs were lost. `recover` would deliver it, and the sender
sends it again: the message arrives twice. So a mark `refused/<pack>`, with a queue id on each line, is written as soon
as S3 accepts it; until then the write is retried for as long as the process lives. That is best effort: the process may
die before. A mark loses no message, whatever happened to the jobs: no sender got 250.
"""

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field

from paquebot.blobs import BlobStore, BlobsUnavailable
from paquebot.blobs.marks import REFUSED, Marks
from paquebot.observability.log import Log
from paquebot.runtime.process.tasks import background

_log = Log("paquebot.spool")

_PAUSES_SECONDS = (0.0, 1.0, 5.0, 15.0)  # before each try; the last one repeats
_CLOSE_SECONDS = 3.0
_MAX_WAITING = 10_000  # packs that wait for their mark: S3 may be away for hours


@dataclass(slots=True)
class _Refused:
    queue_ids: list[str]
    void: bool


@dataclass(slots=True)
class RefusalMarks:
    """One for a process."""

    blobs: BlobStore
    _waiting: dict[str, _Refused] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    def add(self, pack: str, queue_ids: Collection[str], *, void: bool) -> None:
        """Mark these messages of the pack soon. `void`: no job names the pack, so it is deleted after that."""
        if len(self._waiting) >= _MAX_WAITING:
            _log.warning("pack_orphaned", pack=pack)
            return
        known = self._waiting.setdefault(pack, _Refused([], void))
        known.queue_ids += queue_ids
        known.void &= void
        if self._task is None or self._task.done():
            self._task = background(self._write_all(), "refused_packs")

    async def close(self) -> None:
        """Try once more to write the waiting marks, for a short time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        with contextlib.suppress(TimeoutError, BlobsUnavailable):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._waiting:
                    await self._write_one()
        for pack in self._waiting:
            _log.warning("pack_orphaned", pack=pack)

    async def _write_all(self) -> None:
        tries = 0
        while self._waiting:
            await asyncio.sleep(_PAUSES_SECONDS[min(tries, len(_PAUSES_SECONDS) - 1)])
            try:
                await self._write_one()
                tries = 0
            except BlobsUnavailable:
                tries += 1

    async def _write_one(self) -> None:
        """Raises BlobsUnavailable."""
        pack, refused = next(iter(self._waiting.items()))
        written = len(refused.queue_ids)
        await Marks(self.blobs, REFUSED).put(pack, refused.queue_ids)
        if refused.void:
            await self.blobs.delete([pack])
        if len(refused.queue_ids) == written:  # else more were added meanwhile, which the mark does not name yet
            del self._waiting[pack]
        _log.info("pack_refused", pack=pack, messages=written)
