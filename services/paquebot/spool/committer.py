"""Group commit: messages that finish within the same few milliseconds share one object and one batch of jobs
(`scheduler`: which ones, and when).
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator

from paquebot.blobs import BlobStore, BlobsUnavailable, new_ulid
from paquebot.blobs.pack import Frame, PackWriter
from paquebot.observability import trace
from paquebot.observability.log import Log
from paquebot.observability.metrics import FAST, SIZES, counter, histogram
from paquebot.queue import Queue, QueueRefused
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.spool.errors import SpoolRefused, SpoolUnavailable
from paquebot.spool.jobs import PackedMessage, publications
from paquebot.spool.refusals import RefusalMarks
from paquebot.spool.scheduler import CommitLimits, CommitScheduler, PendingMessage
from paquebot.v1.mail_pb2 import COMPRESSION_ZSTD, BlobRef, Envelope
from paquebot.v1.summary_pb2 import MessageSummary

_log = Log("paquebot.spool")
_MAX_LINKS = 16
_DELETE_SECONDS = 1.0  # maximum that a sender waits for the deletion of a pack whose jobs were refused

PACK_MESSAGES = histogram(
    "paquebot_spool_pack_messages", "Messages in one pack", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
PACK_BYTES = histogram("paquebot_spool_pack_bytes", "Size of one pack as it is stored", buckets=SIZES)
MESSAGE_BYTES = counter("paquebot_spool_message_bytes_total", "Bytes of the messages in packs, before compression")
COMMIT_SECONDS = histogram(
    "paquebot_spool_commit_seconds", "Time of one commit: pack to S3, jobs to NATS", buckets=FAST
)
ACCEPT_SECONDS = histogram(
    "paquebot_spool_accept_seconds", "From a message's arrival at the committer to kept, waiting included", buckets=FAST
)
COMMITS = counter("paquebot_spool_commits_total", "Commits by result", {"result": ("ok", "failed")})

_JOB_OVERHEAD = 1024  # bytes of a job beside envelope and summary
_LONGEST_REF = BlobRef(
    pack="7" * 26, offset=2**63, length=2**63, size=2**63, sha256=bytes(32), compression=COMPRESSION_ZSTD
)


class Committer:
    """Keeps messages: returns to each caller when its pack and jobs are acknowledged."""

    def __init__(self, blobs: BlobStore, queue: Queue | None, limits: CommitLimits) -> None:
        """`queue` None: for messages without jobs."""
        self._blobs = blobs
        self._queue = queue
        self._timeout = limits.timeout
        self._refusals = RefusalMarks(blobs)
        self._scheduler = CommitScheduler(limits, self._commit)

    def join(self) -> None:
        """One more session may send a message soon."""
        self._scheduler.join()

    def leave(self) -> None:
        """Undo `join`."""
        self._scheduler.leave()

    async def commit(self, envelope: Envelope, frame: Frame, summary: MessageSummary) -> BlobRef:
        """Returns when the message is kept. Raises SpoolUnavailable, SpoolRefused. Cancelled before its commit
        began, the message is not kept."""
        self._check_job_size(envelope, summary)
        loop = asyncio.get_running_loop()
        message = PendingMessage(envelope, frame, summary, loop.create_future())
        start = time.perf_counter()
        self._scheduler.add(message)
        expiry = loop.call_later(self._timeout, _expire, message)
        try:
            ref = await message.kept
        except (asyncio.CancelledError, SpoolUnavailable, SpoolRefused):
            self._scheduler.remove(message)
            raise
        finally:
            expiry.cancel()
        ACCEPT_SECONDS.observe(time.perf_counter() - start)
        return ref

    def _check_job_size(self, envelope: Envelope, summary: MessageSummary) -> None:
        """Before the message shares a commit with others. Raises SpoolRefused."""
        if self._queue is None:
            return
        maximum = self._queue.max_payload
        if envelope.ByteSize() + summary.ByteSize() + _JOB_OVERHEAD <= maximum:
            return
        jobs = publications(new_ulid(), [PackedMessage(envelope, _LONGEST_REF, summary)])
        if any(len(job.payload) > maximum for job in jobs):
            raise SpoolRefused(f"a job of more than {maximum} bytes")

    async def close(self) -> None:
        """Commit the waiting messages, within the limits, and wait for all commits."""
        await self._scheduler.drain()
        await self._refusals.close()

    async def _commit(self, batch: list[PendingMessage]) -> bool:
        """Keep the messages and wake their callers; False: with an error."""
        try:
            with _spans(batch):
                refs = await self._keep(batch)
        except BaseException as error:  # the callers must wake after every error
            self._fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return False
        COMMITS.labels("ok").inc()
        for message, ref in zip(batch, refs, strict=True):
            if not message.kept.done():  # else its session is gone
                message.kept.set_result(ref)
        return True

    def _fail(self, batch: list[PendingMessage], error: BaseException) -> None:
        name = type(error).__name__
        _log.warning("commit_failed", messages=len(batch), reason=f"{name}: {error}")
        COMMITS.labels("failed").inc()
        refused = isinstance(error, EngineRefused)
        waiting = [message for message in batch if not message.kept.done()]
        if refused and len(batch) > 1:  # one of them is at fault: each gets a commit of its own
            self._scheduler.add_alone(waiting)
            return
        for message in waiting:
            message.kept.set_exception(SpoolRefused(name) if refused else SpoolUnavailable(name))
        if not isinstance(error, EngineUnavailable | asyncio.CancelledError):
            _log.exception("commit_failed_unexpectedly")

    async def _keep(self, batch: list[PendingMessage]) -> list[BlobRef]:
        """The durability order: object first, then the jobs that name it, then the callers (invariant 1)."""
        start = time.perf_counter()
        writer = PackWriter(new_ulid())
        refs = [writer.add(message.envelope, message.frame) for message in batch]
        data = writer.finish(time.time_ns() // 1_000_000)
        await self._put(writer.pack, data, batch)
        await self._publish(writer.pack, batch, refs)
        PACK_MESSAGES.observe(len(batch))
        PACK_BYTES.observe(len(data))
        MESSAGE_BYTES.inc(sum(message.frame.size for message in batch))
        COMMIT_SECONDS.observe(time.perf_counter() - start)
        return refs

    async def _put(self, pack: str, data: bytes, batch: list[PendingMessage]) -> None:
        try:
            await self._blobs.put(pack, data)
        except BaseException as error:
            if not (isinstance(error, BlobsUnavailable) and error.nothing_done):
                self._refuse(pack, batch, void=True)  # S3 may have the pack, or get it when the network recovers
            raise

    async def _publish(self, pack: str, batch: list[PendingMessage], refs: list[BlobRef]) -> None:
        """The jobs of the messages whose callers still wait: an expired message was refused already, and a client that
        disconnected will send its message again."""
        gone = [message for message in batch if message.kept.done()]
        packed: list[PackedMessage] = []
        for message, ref in zip(batch, refs, strict=True):
            if not message.kept.done():
                message.publishing = True
                packed.append(PackedMessage(message.envelope, ref, message.summary))
        jobs = publications(pack, packed)
        if gone:
            self._refuse(pack, gone, void=not packed)
        if not jobs:
            return
        if self._queue is None:
            raise QueueRefused("this process has no queue")
        try:
            await self._queue.publish(jobs)
        except QueueRefused:
            # No job was stored, and the sender will send the message again: without its pack, `recover` cannot deliver
            # it a second time.
            await self._take_back(pack, batch)
            raise
        except BaseException:
            self._refuse(pack, batch, void=False)  # the jobs may be stored, so the pack must stay
            raise

    async def _take_back(self, pack: str, batch: list[PendingMessage]) -> None:
        try:
            async with asyncio.timeout(_DELETE_SECONDS):
                await self._blobs.delete([pack])
        except (BlobsUnavailable, TimeoutError):
            self._refuse(pack, batch, void=True)

    def _refuse(self, pack: str, refused: list[PendingMessage], *, void: bool) -> None:
        self._refusals.add(pack, [message.envelope.queue_id for message in refused], void=void)


def _expire(message: PendingMessage) -> None:
    """Refuse a message that waited too long. Once its jobs may be stored, only NATS decides."""
    if not message.publishing and not message.kept.done():
        message.kept.set_exception(SpoolUnavailable("not stored in time"))


@contextlib.contextmanager
def _spans(batch: list[PendingMessage]) -> Iterator[None]:
    """One commit is a step of every message in it: a span in each message's trace, linked to the others. The
    envelopes, and so the jobs, name this span from now on."""
    traced = [message for message in batch if trace.is_sampled(message.envelope.trace)]
    parents = [message.envelope.trace for message in traced[: _MAX_LINKS + 1]]
    with contextlib.ExitStack() as stack:
        for message in traced:
            envelope = message.envelope
            span = trace.span(
                "spool.commit",
                envelope.trace,
                kind=trace.Kind.PRODUCER,
                links=[parent for parent in parents if parent != envelope.trace],
                queue_id=envelope.queue_id,
                messages=len(batch),
            )
            envelope.trace = stack.enter_context(span).traceparent
        yield
