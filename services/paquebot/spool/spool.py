"""`Spool.accept` accepts a message: when it returns, the message is kept, whatever crashes (invariants 1, 2)."""

import asyncio
import time
from dataclasses import dataclass

from paquebot.blobs import BlobStore, new_ulid
from paquebot.blobs.pack import Frame, compress
from paquebot.message import crlf_bytes, summarise
from paquebot.queue import MAX_BATCH, Queue
from paquebot.runtime.settings import ByteSize, Seconds, setting
from paquebot.spool.committer import Committer
from paquebot.spool.errors import SpoolRefused, SpoolUnavailable
from paquebot.spool.jobs import job_count
from paquebot.spool.scheduler import CommitLimits
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from paquebot.v1.summary_pb2 import MessageSummary

__all__ = ["Prepared", "Spool", "SpoolRefused", "SpoolSettings", "SpoolUnavailable", "Stored"]

_THREAD_BYTES = 128 * 1024
"""Messages of this size or more are hashed, compressed and parsed on a thread; for smaller ones that costs more."""
_THREADS = 2
"""Maximum of these threads: parsing holds the interpreter, so more threads delay the event loop and gain nothing."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    linger: Seconds = setting(
        "COMMIT_LINGER", Seconds(0.005), help="minimum wait for more messages while several sessions send"
    )
    slow: Seconds = setting(
        "COMMIT_SLOW", Seconds(0.03), help="time after which a second commit starts beside a slow one"
    )
    max_commits: int = setting("COMMITS", 4, help="maximum of commits under way at once")
    max_bytes: ByteSize = setting("PACK_BYTES", ByteSize(8 * 2**20), help="maximum size of a pack")
    timeout: Seconds = setting(
        "COMMIT_TIMEOUT", Seconds(14.0), help="timeout for a message's pack; then the message is refused temporarily"
    )
    max_messages: int = setting("PACK_MESSAGES", 500, help="maximum of messages in a pack")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message compressed and parsed; its content is no longer needed. `size`: of the content; `crlf_bytes`: its size
    with CRLF at the end of each line."""

    summary: MessageSummary
    frame: Frame
    crlf_bytes: int

    @property
    def size(self) -> int:
        return self.frame.size


@dataclass(frozen=True, slots=True)
class Stored:
    """A kept message without a job: for IMAP APPEND."""

    queue_id: str
    blob: BlobRef
    summary: MessageSummary
    size: int
    crlf_bytes: int
    """Its size with CRLF at the end of each line, as POP3 sends it."""


class Spool:
    """One for a process. Raises SpoolRefused for a message that can never be kept."""

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
        """One more session may send a message soon: the first message of several sessions waits for the others."""
        self._committer.join()

    def leave(self) -> None:
        """Undo `join`."""
        self._committer.leave()

    async def accept(self, envelope: Envelope, content: bytes, summary: MessageSummary | None = None) -> str:
        """Keep a message and queue its jobs; returns the queue id once both are acknowledged.

        A queue id and an acceptance time already in `envelope` stay. Raises SpoolUnavailable: not kept, or perhaps kept
        when an engine did not answer (the sender's retry may then double the message); SpoolRefused: never kept.
        """
        return await self.accept_prepared(envelope, await self.prepare(content, summary))

    async def prepare(self, content: bytes, summary: MessageSummary | None = None) -> Prepared:
        """The first half of `accept`: a caller can free a large `content` before the second half."""
        if len(content) >= _THREAD_BYTES:
            async with self._preparing:
                return await asyncio.to_thread(_prepare, content, summary)
        return _prepare(content, summary)

    async def accept_prepared(self, envelope: Envelope, prepared: Prepared) -> str:
        """The second half of `accept`."""
        envelope.queue_id = envelope.queue_id or new_ulid()
        envelope.accepted_at_ms = envelope.accepted_at_ms or time.time_ns() // 1_000_000
        if job_count(envelope) > MAX_BATCH:
            raise SpoolRefused("more destinations than one batch can have")
        await self._committer.commit(envelope, prepared.frame, prepared.summary)
        return envelope.queue_id

    async def store(self, content: bytes, *, account_id: int, summary: MessageSummary | None = None) -> Stored:
        """Keep a message without a job. Raises SpoolUnavailable, SpoolRefused."""
        envelope = Envelope(queue_id=new_ulid(), accepted_at_ms=time.time_ns() // 1_000_000)
        envelope.client.listener = "local"
        envelope.client.login = f"#{account_id}"
        prepared = await self.prepare(content, summary)
        del content  # frees a large one, when the caller has no reference to it any more
        ref = await self._committer.commit(envelope, prepared.frame, prepared.summary)
        return Stored(envelope.queue_id, ref, prepared.summary, prepared.size, prepared.crlf_bytes)

    async def close(self) -> None:
        """Finish every commit under way."""
        await self._committer.close()


def _prepare(content: bytes, summary: MessageSummary | None) -> Prepared:
    return Prepared(summary if summary is not None else summarise(content), compress(content), crlf_bytes(content))
