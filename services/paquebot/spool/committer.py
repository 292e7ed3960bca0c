"""Group commit: messages that finish within the same few milliseconds share one object and one batch.

While one commit is under way the next gathers by itself (`gathering`: for how long). A commit that lasts longer than
usual (S3 is sick) does not hold the next one back: another starts beside it, up to a bound. A large message is a pack
of its own, and has a bound of its own: many large ones on a slow way never hold up the small ones.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from paquebot.blobs import BlobStore, BlobsUnavailable, new_ulid
from paquebot.blobs.pack import Frame, PackWriter
from paquebot.observability import trace
from paquebot.observability.log import Log
from paquebot.observability.metrics import FAST, SIZES, counter, gauge, histogram
from paquebot.queue import Queue, QueueRefused
from paquebot.queue.client import MAX_BATCH
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.runtime.process.tasks import background
from paquebot.spool.commit_timing import CommitTiming
from paquebot.spool.jobs import PackedMessage, job_count, publications
from paquebot.spool.refusals import RefusalMarks
from paquebot.v1.mail_pb2 import COMPRESSION_ZSTD, BlobRef, Envelope
from paquebot.v1.summary_pb2 import MessageSummary

_log = Log("paquebot.spool")
_MAX_LINKS = 16
_DELETE_SECONDS = 1.0  # for which a sender waits until a pack is gone again whose jobs were refused

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
WAITING = gauge("paquebot_spool_waiting_messages", "Messages that wait for a commit")


_MORE_OF_A_JOB = 1024  # bytes that a job has beside envelope and summary
_LONGEST_REF = BlobRef(
    pack="7" * 26, offset=2**63, length=2**63, size=2**63, sha256=bytes(32), compression=COMPRESSION_ZSTD
)


class SpoolUnavailable(EngineUnavailable):
    """The message is not kept: refuse it temporarily."""


class SpoolRefused(EngineRefused):
    """The message can never be kept, whoever brings it: it, or a job of it, is larger than an engine takes."""


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """How commits are cut."""

    max_bytes: int = 8 * 2**20
    max_messages: int = 500
    large_message_size: int = 4 * 2**20
    """A message this large is a pack of its own."""
    linger: float = 0.005
    """Least seconds that a message waits for the next one while several writers are active."""
    slow: float = 0.03
    """Seconds after which a second commit starts beside one under way, unless commits usually take long."""
    max_commits: int = 4
    max_large_commits: int = 4
    """Most large messages under way at once, beside the other commits."""
    timeout: float = 14.0
    """Seconds after which a message whose pack is not written is given up, whatever holds it up: the sender hears it
    while it still listens, and what its own retry brings is then the only copy."""


@dataclass(slots=True, eq=False)
class _Waiting:
    envelope: Envelope
    frame: Frame
    summary: MessageSummary
    kept: asyncio.Future[BlobRef]
    publishing: bool = False
    """Its jobs may be in the stream."""


class Committer:
    """Takes messages and wakes each waiter when its pack and jobs are acknowledged."""

    def __init__(self, blobs: BlobStore, queue: Queue | None, limits: CommitLimits) -> None:
        self._blobs = blobs
        self._queue = queue
        self._limits = limits
        self._refusals = RefusalMarks(blobs)
        self._waiting: deque[_Waiting] = deque()
        self._large: deque[_Waiting] = deque()
        self._commits: set[asyncio.Task[None]] = set()
        self._alone: set[asyncio.Task[bool]] = set()
        self._last_start = 0.0
        self._gathering = CommitTiming(limits.linger, limits.slow, limits.max_messages)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.writers = 0
        """Sessions that may bring a message soon."""

    def join(self) -> None:
        """One more session may bring a message soon."""
        self.writers += 1
        self._gathering.stirred(time.monotonic())

    def leave(self) -> None:
        """Undo `join`."""
        self.writers -= 1

    async def commit(self, envelope: Envelope, frame: Frame, summary: MessageSummary) -> BlobRef:
        """Returns when the message is kept. Raises SpoolUnavailable, SpoolRefused. Cancelled before its commit
        began, the message is not kept."""
        self._need_fitting_jobs(envelope, summary)
        waiting = _Waiting(envelope, frame, summary, asyncio.get_running_loop().create_future())
        start = time.perf_counter()
        large = len(frame.content) >= self._limits.large_message_size
        line = self._large if large else self._waiting
        line.append(waiting)
        self._count()
        if large:
            self._start_large()
        else:
            self._gathering.arrived(time.monotonic(), len(line))
            self._consider()
        expiry = asyncio.get_running_loop().call_later(self._limits.timeout, _expire, waiting)
        try:
            ref = await waiting.kept
        except (asyncio.CancelledError, SpoolUnavailable, SpoolRefused):
            if waiting in line:
                line.remove(waiting)
                self._count()
            raise
        finally:
            expiry.cancel()
        ACCEPT_SECONDS.observe(time.perf_counter() - start)
        return ref

    def _need_fitting_jobs(self, envelope: Envelope, summary: MessageSummary) -> None:
        """Before others share a commit with it. Raises SpoolRefused."""
        if self._queue is None:
            return
        most = self._queue.max_payload
        if envelope.ByteSize() + summary.ByteSize() + _MORE_OF_A_JOB <= most:
            return
        jobs = publications(new_ulid(), [PackedMessage(envelope, _LONGEST_REF, summary)])
        if any(len(job.payload) > most for job in jobs):
            raise SpoolRefused(f"a job of more than {most} bytes")

    async def close(self) -> None:
        """Commit what waits, within the bounds, and wait for all commits."""
        while self._waiting or self._large or self._commits or self._alone:
            if self._waiting and len(self._commits) < self._limits.max_commits:
                self._start_small()
            self._start_large()
            if under_way := self._commits | self._alone:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        await self._refusals.close()

    def _consider(self) -> None:
        """Start a commit now, or set the clock for one."""
        if not self._waiting or len(self._commits) >= self._limits.max_commits:
            return
        now = time.monotonic()
        if self._commits:
            pause = self._last_start + self._gathering.slow - now
        else:
            pause = self._gathering.pause(now, len(self._waiting), self.writers)
        if pause <= 0:
            self._start_small()
        else:
            self._consider_at(now + pause)

    def _consider_at(self, at: float) -> None:
        """A clock that is set too early is kept: what it finds then sets it again."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(at - time.monotonic(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._consider()

    def _take(self) -> list[_Waiting]:
        """The next batch; empty when all who waited went away."""
        taken: list[_Waiting] = []
        octets = jobs = 0
        while self._waiting and len(taken) < self._limits.max_messages:
            first = self._waiting[0]
            if first.kept.done():  # cancelled, and not yet woken to leave the line
                self._waiting.popleft()
                continue
            octets += len(first.frame.content)
            jobs += job_count(first.envelope)
            if taken and (octets > self._limits.max_bytes or jobs > MAX_BATCH):
                break
            taken.append(self._waiting.popleft())
        self._count()
        return taken

    def _start_small(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if batch := self._take():
            self._last_start = time.monotonic()
            task = background(self._commit_small(batch), "commit")
            self._commits.add(task)
            task.add_done_callback(self._on_done)
        self._consider()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        self._consider()

    def _start_large(self) -> None:
        while self._large and len(self._alone) < self._limits.max_large_commits:
            waiting = self._large.popleft()
            if not waiting.kept.done():
                task = background(self._commit([waiting]), "commit")
                self._alone.add(task)
                task.add_done_callback(self._on_large_done)
        self._count()

    def _on_large_done(self, task: asyncio.Task[bool]) -> None:
        self._alone.discard(task)
        self._start_large()

    def _count(self) -> None:
        WAITING.set(len(self._waiting) + len(self._large))

    async def _commit_small(self, batch: list[_Waiting]) -> None:
        start = time.monotonic()
        if await self._commit(batch):
            now = time.monotonic()
            self._gathering.committed(now, len(batch), len(self._waiting), now - start)

    async def _commit(self, batch: list[_Waiting]) -> bool:
        """Wake each of the batch; False: with an error."""
        try:
            with _spans(batch):
                refs = await self._keep(batch)
        except BaseException as error:  # the waiters must wake whatever went wrong
            self._fail(batch, error)
            if not isinstance(error, Exception):
                raise
            return False
        COMMITS.labels("ok").inc()
        for waiting, ref in zip(batch, refs, strict=True):
            if not waiting.kept.done():  # a session that went away does not wait any more
                waiting.kept.set_result(ref)
        return True

    def _fail(self, batch: list[_Waiting], error: BaseException) -> None:
        _log.warning("commit_failed", messages=len(batch), reason=f"{type(error).__name__}: {error}")
        COMMITS.labels("failed").inc()
        never = isinstance(error, EngineRefused)
        if never and len(batch) > 1:  # one of them is at fault: each has a commit of its own
            for waiting in batch:
                if not waiting.kept.done():
                    self._large.append(waiting)
            self._start_large()
            return
        for waiting in batch:
            if not waiting.kept.done():
                name = type(error).__name__
                waiting.kept.set_exception(SpoolRefused(name) if never else SpoolUnavailable(name))
        if not isinstance(error, EngineUnavailable | asyncio.CancelledError):
            _log.exception("commit_broken")

    async def _keep(self, batch: list[_Waiting]) -> list[BlobRef]:
        """The durability order: object first, then the jobs that name it, then the waiters (invariant 1)."""
        start = time.perf_counter()
        writer = PackWriter(new_ulid())
        refs = [writer.add(waiting.envelope, waiting.frame) for waiting in batch]
        data = writer.finish(time.time_ns() // 1_000_000)
        await self._put(writer.pack, data, batch)
        await self._publish(writer.pack, batch, refs)
        PACK_MESSAGES.observe(len(batch))
        PACK_BYTES.observe(len(data))
        MESSAGE_BYTES.inc(sum(waiting.frame.size for waiting in batch))
        COMMIT_SECONDS.observe(time.perf_counter() - start)
        return refs

    async def _put(self, pack: str, data: bytes, batch: list[_Waiting]) -> None:
        try:
            await self._blobs.put(pack, data)
        except BaseException as error:
            if not (isinstance(error, BlobsUnavailable) and error.nothing_done):
                self._refuse(pack, batch, void=True)  # S3 may have it, or get it when the network gives it back
            raise

    async def _publish(self, pack: str, batch: list[_Waiting], refs: list[BlobRef]) -> None:
        """The jobs of those who still wait: who was given up was told so, and whoever went away will come again."""
        gone = [waiting for waiting in batch if waiting.kept.done()]
        packed: list[PackedMessage] = []
        for waiting, ref in zip(batch, refs, strict=True):
            if not waiting.kept.done():
                waiting.publishing = True
                packed.append(PackedMessage(waiting.envelope, ref, waiting.summary))
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
            # Nothing was stored, and the sender will come back: without its pack, `recover` cannot bring the
            # message in a second time.
            await self._take_back(pack, batch)
            raise
        except BaseException:
            self._refuse(pack, batch, void=False)  # the jobs may be there, and so the pack must stay
            raise

    async def _take_back(self, pack: str, batch: list[_Waiting]) -> None:
        try:
            async with asyncio.timeout(_DELETE_SECONDS):
                await self._blobs.delete([pack])
        except (BlobsUnavailable, TimeoutError):
            self._refuse(pack, batch, void=True)

    def _refuse(self, pack: str, refused: list[_Waiting], *, void: bool) -> None:
        self._refusals.add(pack, [waiting.envelope.queue_id for waiting in refused], void=void)


def _expire(waiting: _Waiting) -> None:
    """It waited for too long; from the moment in which its jobs may be stored only NATS can tell."""
    if not waiting.publishing and not waiting.kept.done():
        waiting.kept.set_exception(SpoolUnavailable("not stored in time"))


@contextlib.contextmanager
def _spans(batch: list[_Waiting]) -> Iterator[None]:
    """One commit is a step of every message in it: a span in each one's trace, linked to the others. The envelopes,
    and so the jobs, carry it from now on."""
    traced = [waiting for waiting in batch if trace.is_sampled(waiting.envelope.trace)]
    parents = [waiting.envelope.trace for waiting in traced[: _MAX_LINKS + 1]]
    with contextlib.ExitStack() as stack:
        for waiting in traced:
            envelope = waiting.envelope
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
