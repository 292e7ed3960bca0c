"""Decides which messages share a commit, and when it starts.

While one commit is under way, messages for the next wait (`commit_timing`: for how long). A commit that takes longer
than usual (S3 is slow) does not block the next one: another starts beside it, up to a limit. A large message is a pack
of its own and has a limit of its own: many large messages on a slow network never delay the small ones.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from paquebot.blobs.pack import Frame
from paquebot.observability.metrics import gauge
from paquebot.queue import MAX_BATCH
from paquebot.runtime.process.tasks import background
from paquebot.spool.commit_timing import CommitTiming
from paquebot.spool.jobs import job_count
from paquebot.v1.mail_pb2 import BlobRef, Envelope
from paquebot.v1.summary_pb2 import MessageSummary

WAITING = gauge("paquebot_spool_waiting_messages", "Messages that wait for a commit")


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """Limits of commits."""

    max_bytes: int = 8 * 2**20
    max_messages: int = 500
    large_message_size: int = 4 * 2**20
    """A message of this size or more is a pack of its own."""
    linger: float = 0.005
    """Minimum seconds that a message waits for more messages while several clients send."""
    slow: float = 0.03
    """Seconds after which a second commit starts beside one under way, unless commits usually take long."""
    max_commits: int = 4
    max_large_commits: int = 4
    """Maximum of large messages under way at once, beside the other commits."""
    timeout: float = 14.0
    """Seconds after which a message whose pack is not written is refused: its sender gets the reply while it still
    waits, and what the sender sends again is then the only copy."""


@dataclass(slots=True, eq=False)
class PendingMessage:
    """A message that waits to be kept. `kept`: its reference, or why it is not kept."""

    envelope: Envelope
    frame: Frame
    summary: MessageSummary
    kept: asyncio.Future[BlobRef]
    publishing: bool = False
    """Its jobs may be in the stream."""


class CommitScheduler:
    """Calls `commit` for each batch; it returns False when the batch was not kept, and raises nothing."""

    def __init__(self, limits: CommitLimits, commit: Callable[[list[PendingMessage]], Awaitable[bool]]) -> None:
        self._limits = limits
        self._commit = commit
        self._waiting: deque[PendingMessage] = deque()
        self._large: deque[PendingMessage] = deque()
        self._commits: set[asyncio.Task[None]] = set()
        self._large_commits: set[asyncio.Task[None]] = set()
        self._last_start = 0.0
        self._timing = CommitTiming(limits.linger, limits.slow, limits.max_messages)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._writers = 0

    def join(self) -> None:
        """One more session may send a message soon."""
        self._writers += 1
        self._timing.transaction_began(time.monotonic())

    def leave(self) -> None:
        """Undo `join`."""
        self._writers -= 1

    def add(self, message: PendingMessage) -> None:
        """Commit the message soon, with others or alone."""
        if len(message.frame.content) >= self._limits.large_message_size:
            self.add_alone([message])
            return
        self._waiting.append(message)
        self._count()
        self._timing.message_arrived(time.monotonic(), len(self._waiting))
        self._schedule()

    def add_alone(self, messages: list[PendingMessage]) -> None:
        """Commit each of these messages in a pack of its own."""
        self._large.extend(messages)
        self._start_large()

    def remove(self, message: PendingMessage) -> None:
        """Do not commit the message, if its commit has not started."""
        for queue in (self._waiting, self._large):
            if message in queue:
                queue.remove(message)
                self._count()

    async def drain(self) -> None:
        """Commit the waiting messages, within the limits, and wait for all commits."""
        while self._waiting or self._large or self._commits or self._large_commits:
            if self._waiting and len(self._commits) < self._limits.max_commits:
                self._start_small()
            self._start_large()
            if under_way := self._commits | self._large_commits:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)

    def _schedule(self) -> None:
        """Start a commit now, or set the timer for one."""
        if not self._waiting or len(self._commits) >= self._limits.max_commits:
            return
        now = time.monotonic()
        if self._commits:
            pause = self._last_start + self._timing.slow - now
        else:
            pause = self._timing.pause(now, len(self._waiting), self._writers)
        if pause <= 0:
            self._start_small()
        else:
            self._set_timer(now + pause)

    def _set_timer(self, at: float) -> None:
        """A timer that is set too early is kept: it is set again when it fires."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(at - time.monotonic(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._schedule()

    def _next_batch(self) -> list[PendingMessage]:
        """Empty when all waiting messages were cancelled."""
        batch: list[PendingMessage] = []
        size = jobs = 0
        while self._waiting and len(batch) < self._limits.max_messages:
            first = self._waiting[0]
            if first.kept.done():  # cancelled or refused; its caller has not run yet to remove it
                self._waiting.popleft()
                continue
            size += len(first.frame.content)
            jobs += job_count(first.envelope)
            if batch and (size > self._limits.max_bytes or jobs > MAX_BATCH):
                break
            batch.append(self._waiting.popleft())
        self._count()
        return batch

    def _start_small(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if batch := self._next_batch():
            self._last_start = time.monotonic()
            task = background(self._commit_small(batch), "commit")
            self._commits.add(task)
            task.add_done_callback(self._small_ended)
        self._schedule()

    async def _commit_small(self, batch: list[PendingMessage]) -> None:
        start = time.monotonic()
        if await self._commit(batch):
            now = time.monotonic()
            self._timing.commit_ended(now, len(batch), len(self._waiting), now - start)

    def _small_ended(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        self._schedule()

    def _start_large(self) -> None:
        while self._large and len(self._large_commits) < self._limits.max_large_commits:
            message = self._large.popleft()
            if not message.kept.done():
                task = background(self._commit_large(message), "commit")
                self._large_commits.add(task)
                task.add_done_callback(self._large_ended)
        self._count()

    async def _commit_large(self, message: PendingMessage) -> None:
        await self._commit([message])

    def _large_ended(self, task: asyncio.Task[None]) -> None:
        self._large_commits.discard(task)
        self._start_large()

    def _count(self) -> None:
        WAITING.set(len(self._waiting) + len(self._large))
