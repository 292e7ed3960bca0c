"""`Spool.accept` takes a message over: when it returns, the message is kept, whatever dies (invariants 1, 2)."""

import asyncio
import time
from dataclasses import dataclass

from paquebot.blobs import BlobStore, new_ulid
from paquebot.blobs.pack import Frame, compress
from paquebot.message import crlf_bytes, summarise
from paquebot.queue import Queue
from paquebot.queue.client import MAX_BATCH
from paquebot.runtime.settings import ByteSize, Seconds, setting
from paquebot.spool.committer import CommitLimits, Committer, SpoolRefused, SpoolUnavailable
from paquebot.spool.jobs import job_count
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from paquebot.v1.summary_pb2 import MessageSummary

__all__ = ["Prepared", "Spool", "SpoolRefused", "SpoolSettings", "SpoolUnavailable", "Stored"]

_OFF_THE_LOOP = 128 * 1024
"""Bytes from which hashing, compressing and parsing go to a thread: below, the hand-over costs more."""
_THREADS = 2
"""Of these: parsing keeps the interpreter, so more of them make nothing faster, and the event loop wait for each."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    linger: Seconds = setting("COMMIT_LINGER", Seconds(0.005), help="wait for the next while several sessions send")
    slow: Seconds = setting("COMMIT_SLOW", Seconds(0.03), help="until a second commit starts beside a slow one")
    max_commits: int = setting("COMMITS", 4, help="most commits under way at once")
    max_bytes: ByteSize = setting("PACK_BYTES", ByteSize(8 * 2**20), help="a pack is cut at this size")
    timeout: Seconds = setting(
        "COMMIT_TIMEOUT", Seconds(14.0), help="a message whose pack is not written then is refused temporarily"
    )
    max_messages: int = setting("PACK_MESSAGES", 500, help="a pack is cut at this many messages")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message compressed and looked through: all that is needed of it any more. `size`: of the message;
    `crlf_bytes`: the same with each line ended by CRLF."""

    summary: MessageSummary
    frame: Frame
    crlf_bytes: int

    @property
    def size(self) -> int:
        return self.frame.size


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in the bucket that makes no job: for IMAP APPEND."""

    queue_id: str
    blob: BlobRef
    summary: MessageSummary
    size: int
    crlf_bytes: int
    """Its size with each line ended by CRLF, as POP3 sends it."""


class Spool:
    """One for a process. What is raised for a message that can never be kept is SpoolRefused."""

    def __init__(self, blobs: BlobStore, queue: Queue | None, settings: SpoolSettings) -> None:
        self._preparing = asyncio.Semaphore(_THREADS)
        self._committer = Committer(
            blobs,
            queue,
            CommitLimits(
                max_bytes=settings.max_bytes,
                max_messages=settings.max_messages,
                linger=settings.linger,
                slow=settings.slow,
                max_commits=settings.max_commits,
                timeout=settings.timeout,
            ),
        )

    def join(self) -> None:
        """One more session may bring a message soon: the first of several then waits a moment for company."""
        self._committer.join()

    def leave(self) -> None:
        """Undo `join`."""
        self._committer.leave()

    async def accept(self, envelope: Envelope, raw: bytes, summary: MessageSummary | None = None) -> str:
        """Keep a message and queue its jobs; returns the queue id once both are acknowledged.

        A queue id and an acceptance time already in `envelope` are kept. Raises SpoolUnavailable: not kept
        (or, after an engine's silence, perhaps kept: the sender's retry may then double it); SpoolRefused: never.
        """
        return await self.accept_prepared(envelope, await self.prepare(raw, summary))

    async def prepare(self, raw: bytes, summary: MessageSummary | None = None) -> Prepared:
        """The first half of `accept`, for who wants to let go of a large `raw` before the second."""
        if len(raw) >= _OFF_THE_LOOP:
            async with self._preparing:
                return await asyncio.to_thread(_prepare, raw, summary)
        return _prepare(raw, summary)

    async def accept_prepared(self, envelope: Envelope, prepared: Prepared) -> str:
        """The second half of `accept`."""
        envelope.queue_id = envelope.queue_id or new_ulid()
        envelope.accepted_at_ms = envelope.accepted_at_ms or time.time_ns() // 1_000_000
        if job_count(envelope) > MAX_BATCH:
            raise SpoolRefused("more destinations than one batch takes")
        await self._committer.commit(envelope, prepared.frame, prepared.summary)
        return envelope.queue_id

    async def store(self, raw: bytes, *, account_id: int, summary: MessageSummary | None = None) -> Stored:
        """Keep a message without a job. Raises SpoolUnavailable, SpoolRefused."""
        envelope = Envelope(queue_id=new_ulid(), accepted_at_ms=time.time_ns() // 1_000_000)
        envelope.client.listener = "local"
        envelope.client.login = f"#{account_id}"
        prepared = await self.prepare(raw, summary)
        del raw  # the caller may have let go of it, and a large one need not lie here beside its frame
        ref = await self._committer.commit(envelope, prepared.frame, prepared.summary)
        return Stored(envelope.queue_id, ref, prepared.summary, prepared.size, prepared.crlf_bytes)

    async def close(self) -> None:
        """Finish every commit under way."""
        await self._committer.close()


def _prepare(raw: bytes, summary: MessageSummary | None) -> Prepared:
    return Prepared(summary if summary is not None else summarise(raw), compress(raw), crlf_bytes(raw))
