"""Pull consumers: a job is claimed on request, and stays in the stream until it is acknowledged."""

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from paquebot.observability.log import Log
from paquebot.observability.metrics import counter, engine_call
from paquebot.queue.client import Queue
from paquebot.queue.errors import NO_CONSUMER, QueueRefused, QueueUnavailable, nats_fault
from paquebot.queue.observation import CONSUMERS, observe_consumer
from paquebot.queue.stream import last_sequence
from paquebot.queue.subjects import is_within

_log = Log("paquebot.queue")

CLAIMED = counter("paquebot_queue_claimed_jobs_total", "Jobs claimed by this process", {"consumer": CONSUMERS})
REDELIVERED = counter(
    "paquebot_queue_redelivered_jobs_total",
    "Jobs claimed by this process that had been claimed before",
    {"consumer": CONSUMERS},
)

_SLACK_SECONDS = 1.0
_OF_THE_STORE = (10012, 10104)  # consumer create: error creating store for consumer


@dataclass(slots=True)
class ClaimedJob:
    """A job that this process has. Acknowledge it when its effect is durable; else it is delivered again."""

    subject: str
    payload: bytes
    deliveries: int
    """How often it was claimed, this time included."""
    sequence: int
    published_at: float
    """Unix seconds."""
    _message: Msg
    _queue: Queue
    _client: Client
    """The client that received it. It is not acknowledged over a later connection: a server that lost its store numbers
    its jobs anew, so the number may be another job's by then. An unacknowledged job is delivered again, which is
    harmless: its effect is already durable."""

    @property
    def stored(self) -> tuple[int, float]:
        """Identifies the stored job, also when it is delivered again. The number alone does not: a stream that is
        created anew gives the same numbers to other jobs."""
        return self.sequence, self.published_at

    async def ack(self) -> None:
        """Acknowledge, and wait for the server's confirmation, so that the job is not done again without need.
        Raises QueueUnavailable; the job may then be delivered again."""
        with engine_call("nats", "ack", nats_fault):
            self._check_connection()
            try:
                await self._queue.client.request(self._message.reply, b"+ACK", timeout=self._queue.settings.timeout)
            except (TimeoutError, nats.errors.Error, OSError) as error:
                raise QueueUnavailable(f"ack: {type(error).__name__}") from error

    async def ack_soon(self) -> None:
        """Acknowledge without waiting for confirmation: for idempotent effects."""
        self._check_connection()
        await self._send(b"+ACK")

    async def nak(self, delay_seconds: float = 0.0) -> None:
        """Let any process claim the job again after the delay."""
        body = json.dumps({"delay": int(delay_seconds * 1e9)}) if delay_seconds > 0 else ""
        await self._send(f"-NAK {body}".strip().encode())

    @property
    def heartbeat(self) -> float:
        """Seconds between two `in_progress`, of which one may be lost."""
        return self._queue.settings.ack_wait / 3

    async def in_progress(self) -> None:
        """Restart the time after which the stream delivers the job again."""
        await self._send(b"+WPI")

    def _check_connection(self) -> None:
        """Raises QueueUnavailable."""
        if self._queue.client is not self._client:
            raise QueueUnavailable("ack: the job's connection is lost")

    async def _send(self, word: bytes) -> None:
        try:
            await self._queue.client.publish(self._message.reply, word)
        except (nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"ack: {type(error).__name__}") from error


class Consumer:
    """A durable consumer, shared by all processes that open it under the same name."""

    def __init__(self, queue: Queue, name: str, subject: str, *, max_ack_pending: int = 20_000) -> None:
        self._queue = queue
        self._name = name
        self._subject = subject
        self._max_ack_pending = max_ack_pending
        self._subscription: Subscription | None = None
        self._client = Client()
        """The client of `_subscription`."""
        self._inbox = ""
        self._numbers = itertools.count()
        self._claimed = CLAIMED.labels(name)
        self._redelivered = REDELIVERED.labels(name)
        self._spare: list[ClaimedJob] = []  # claimed after their request had ended
        # The library's own `next_msg` can lose a message when it is cancelled at its arrival; this cannot.
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        """None: the connection is lost, so no more messages arrive over it."""

    async def fetch(self, maximum: int, wait: float) -> list[ClaimedJob]:
        """Claim up to `maximum` jobs that are ready now; when none is, wait up to `wait` seconds for the first. Empty:
        none became ready. Raises QueueUnavailable, unless it has claimed some jobs before."""
        jobs, self._spare = self._spare[:maximum], self._spare[maximum:]
        try:
            if len(jobs) < maximum:
                await self._pull(jobs, maximum, None)
            if not jobs:
                await self._pull(jobs, 1, wait)
                if jobs:
                    await self._pull(jobs, maximum, None)
        except QueueUnavailable:
            if not jobs:
                raise
        except BaseException:
            self._spare = jobs + self._spare  # the next `fetch` returns them, or `close` releases them
            raise
        return jobs

    async def close(self) -> None:
        """Release spare jobs for other processes. Unsubscribe first: a pull of ours may still be open, and the server
        would answer it with the jobs just released."""
        self._queue.connection.remove_loss_callback(self._on_loss)
        await self._unsubscribe()
        for job in self._spare:
            await job.nak()
        self._spare = []

    def _on_loss(self) -> None:
        if self._subscription is not None:
            self._arrived.put_nowait(None)

    async def _subscribe(self) -> None:
        if self._subscription is not None:
            return
        self._queue.connection.add_loss_callback(self._on_loss)
        await self._create()
        client = self._client = self._queue.client
        self._inbox = client.new_inbox()
        try:
            self._subscription = await client.subscribe(self._inbox + ".*", cb=self._arrived.put)
        except (nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"subscribe: {type(error).__name__}") from error

    async def _create(self) -> None:
        """Find or create the consumer. One that is ahead of the stream has delivered jobs that the server has lost
        since (its files may outlive those of the messages): it is created anew, or it would take new jobs, which get
        the same numbers, for those."""
        if (await self._info())["delivered"]["stream_seq"] > await last_sequence(self._queue):
            _log.error("consumer_ahead_of_stream", consumer=self._name)
            await self._delete()
            await self._info()

    async def _delete(self) -> None:
        """The server then forgets which jobs are claimed, and delivers those not acknowledged again."""
        try:
            await self._queue.api(f"CONSUMER.DELETE.{self._queue.settings.stream}.{self._name}")
        except QueueRefused as error:
            if error.code != NO_CONSUMER:  # another process was faster
                raise

    async def _info(self) -> dict[str, Any]:
        """The server's description of the consumer; creates the consumer unless it exists."""
        stream = self._queue.settings.stream
        config = {
            "durable_name": self._name,
            "name": self._name,
            "filter_subject": self._subject,
            "ack_policy": "explicit",
            "ack_wait": int(self._queue.settings.ack_wait * 1e9),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_deliver": -1,  # `ClaimedJob.deliveries` shows poison, which is held, never dropped
            "max_ack_pending": self._max_ack_pending,
            "max_waiting": 512,
        }
        subject = f"CONSUMER.CREATE.{stream}.{self._name}.{self._subject}"
        try:
            return await self._queue.api(subject, {"stream_name": stream, "config": config})
        except QueueRefused as error:
            if error.code not in _OF_THE_STORE:
                raise
            # The server forgot a consumer whose files it could not read, and refuses to overwrite them. A consumer only
            # knows which jobs are claimed; without that, jobs that were not acknowledged are delivered again.
            _log.error("consumer_kept_in_memory", consumer=self._name, reason=str(error))
            return await self._queue.api(subject, {"stream_name": stream, "config": {**config, "mem_storage": True}})

    async def _pull(self, jobs: list[ClaimedJob], maximum: int, wait: float | None) -> None:
        """One pull request, which fills `jobs` up to `maximum`. `wait`: seconds for the first; None: do not wait."""
        if len(jobs) >= maximum:
            return
        await self._subscribe()
        request: dict[str, Any] = {"batch": maximum - len(jobs)}
        if wait is None:
            request["no_wait"] = True
        else:
            request["expires"] = int(wait * 1e9)
        reply = f"{self._inbox}.{next(self._numbers)}"
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._queue.settings.stream}.{self._name}"
        try:
            await self._queue.client.publish(subject, json.dumps(request).encode(), reply=reply)
            await self._collect(jobs, reply, maximum, (wait or 0.0) + self._queue.settings.timeout)
        except TimeoutError:
            # No answer at all: the server may be new, or the consumer gone. The next pull starts from the beginning.
            await self._unsubscribe()
            raise QueueUnavailable("pull: no answer") from None
        except (nats.errors.Error, OSError) as error:
            await self._unsubscribe()
            raise QueueUnavailable(f"pull: {type(error).__name__}") from error

    async def _collect(self, jobs: list[ClaimedJob], reply: str, maximum: int, deadline: float) -> None:
        async with asyncio.timeout(deadline + _SLACK_SECONDS):
            while len(jobs) < maximum:
                message = await self._arrived.get()
                if message is None:
                    raise ConnectionResetError
                status = (message.headers or {}).get("Status")
                if status is None:
                    if not self._is_ours(message):
                        await self._reject(message)
                    jobs.append(self._job(message))
                elif message.subject == reply:
                    await self._end_pull(status, message)
                    return

    def _is_ours(self, message: Msg) -> bool:
        return is_within(message.subject, self._subject)

    async def _reject(self, message: Msg) -> None:
        """The server delivered a job of another subject: it mistakes the job for a lost one with the same number. The
        job stays in the stream. Raises QueueUnavailable."""
        _log.error("job_misrouted", consumer=self._name, subject=message.subject)
        await self._delete()
        await self._unsubscribe()
        raise QueueUnavailable("pull: a job of another consumer")

    async def _end_pull(self, status: str, message: Msg) -> None:
        """404 no messages, 408 request expired: normal ends. After all others the next pull starts from the
        beginning."""
        if status not in ("404", "408"):
            _log.debug("pull_ended", status=status, description=(message.headers or {}).get("Description", ""))
            await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):  # it may have ended with its connection
                await subscription.unsubscribe()
        while not self._arrived.empty():
            message = self._arrived.get_nowait()
            if message is not None and "Status" not in (message.headers or {}) and self._is_ours(message):
                self._spare.append(self._job(message))

    def _job(self, message: Msg) -> ClaimedJob:
        data = message.metadata
        self._claimed.inc()
        if (data.num_delivered or 1) > 1:
            self._redelivered.inc()
        return ClaimedJob(
            subject=message.subject,
            payload=message.data,
            deliveries=data.num_delivered or 1,
            sequence=data.sequence.stream,
            published_at=data.timestamp.timestamp(),
            _message=message,
            _queue=self._queue,
            _client=self._client,
        )

    async def observe(self) -> int:
        """Set the gauges of this consumer's part of the queue; returns the number of waiting jobs.
        Raises QueueUnavailable."""
        return await observe_consumer(self._queue, self._name, self._subject)
