"""Pull consumers: jobs come when asked for, and stay in the stream until acknowledged."""

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
from paquebot.queue.client import NO_CONSUMER, Queue, QueueRefused, QueueUnavailable, nats_fault
from paquebot.queue.observation import CONSUMERS, observe_consumer
from paquebot.queue.stream import last_sequence
from paquebot.queue.subjects import is_within

_log = Log("paquebot.queue")

TAKEN = counter("paquebot_queue_taken_jobs_total", "Jobs handed out to this process", {"consumer": CONSUMERS})
REDELIVERED = counter(
    "paquebot_queue_redelivered_jobs_total",
    "Jobs handed out to this process that had been handed out before",
    {"consumer": CONSUMERS},
)

_SLACK_SECONDS = 1.0
_OF_THE_STORE = (10012, 10104)  # consumer create: error creating store for consumer


@dataclass(slots=True)
class ClaimedJob:
    """A job handed out. Acknowledge it when its effect is durable; else it comes again."""

    subject: str
    payload: bytes
    deliveries: int
    """How often it was handed out, this time included."""
    sequence: int
    published_at: float
    """Unix seconds."""
    _message: Msg
    _queue: Queue
    _client: Client
    """Whose connection brought it. It is not acknowledged over a later one: a server that lost its store counts anew,
    and the number may be another job's by then. Not acknowledged, it comes again, and its effect is there already."""

    @property
    def stored(self) -> tuple[int, float]:
        """Which stored job this is, the same whenever it comes again. A stream made anew gives the same numbers to
        other jobs."""
        return self.sequence, self.published_at

    async def ack(self) -> None:
        """Done. Waits for the server's word, so that a job is not done again without need.
        Raises QueueUnavailable; the job may then come again."""
        with engine_call("nats", "ack", nats_fault):
            self._check_connection()
            try:
                await self._queue.client.request(self._message.reply, b"+ACK", timeout=self._queue.settings.timeout)
            except (TimeoutError, nats.errors.Error, OSError) as error:
                raise QueueUnavailable(f"ack: {type(error).__name__}") from error

    async def ack_soon(self) -> None:
        """Done; not waited for: for effects that are idempotent."""
        self._check_connection()
        await self._tell(b"+ACK")

    async def nak(self, delay_seconds: float = 0.0) -> None:
        """Not done; hand it out again, to anyone, after the delay."""
        body = json.dumps({"delay": int(delay_seconds * 1e9)}) if delay_seconds > 0 else ""
        await self._tell(f"-NAK {body}".strip().encode())

    @property
    def heartbeat(self) -> float:
        """Seconds between two `in_progress` that leave room for one to be lost."""
        return self._queue.settings.ack_wait / 3

    async def in_progress(self) -> None:
        """Still at work: the time until it is handed out again begins anew."""
        await self._tell(b"+WPI")

    def _check_connection(self) -> None:
        """Raises QueueUnavailable."""
        if self._queue.client is not self._client:
            raise QueueUnavailable("ack: the connection that brought the job is gone")

    async def _tell(self, word: bytes) -> None:
        try:
            await self._queue.client.publish(self._message.reply, word)
        except (nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"ack: {type(error).__name__}") from error


class Consumer:
    """A durable consumer shared by all processes that open it under the same name."""

    def __init__(self, queue: Queue, name: str, subject: str, *, max_ack_pending: int = 20_000) -> None:
        self._queue = queue
        self._name = name
        self._subject = subject
        self._max_ack_pending = max_ack_pending
        self._subscription: Subscription | None = None
        self._client = Client()
        """The one that `_subscription` is of."""
        self._inbox = ""
        self._numbers = itertools.count()
        self._taken = TAKEN.labels(name)
        self._redelivered = REDELIVERED.labels(name)
        self._stray: list[ClaimedJob] = []
        # The library's own `next_msg` can lose a message when it is cancelled as one arrives; this cannot.
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        """None: the connection is lost, and nothing more will come over it."""

    async def fetch(self, most: int, wait: float) -> list[ClaimedJob]:
        """Up to `most` jobs that are there now; when none is, waits up to `wait` seconds for the first.
        Empty: none came. Raises QueueUnavailable, unless some jobs came before."""
        jobs, self._stray = self._stray[:most], self._stray[most:]
        try:
            if len(jobs) < most:
                await self._pull(jobs, most, None)
            if not jobs:
                await self._pull(jobs, 1, wait)
                if jobs:
                    await self._pull(jobs, most, None)
        except QueueUnavailable:
            if not jobs:
                raise
        except BaseException:
            self._stray = jobs + self._stray  # the next fetch hands them out, or `close` gives them back
            raise
        return jobs

    async def close(self) -> None:
        """Jobs that came and were not asked for any more go back at once, to others: a pull of ours may still be
        open, and the server would answer it with what we have just given back."""
        self._queue.remove_loss_callback(self._on_loss)
        await self._forget()
        for job in self._stray:
            await job.nak()
        self._stray = []

    def _on_loss(self) -> None:
        if self._subscription is not None:
            self._arrived.put_nowait(None)

    async def _subscribe(self) -> None:
        if self._subscription is not None:
            return
        self._queue.add_loss_callback(self._on_loss)
        await self._create()
        client = self._client = self._queue.client
        self._inbox = client.new_inbox()
        try:
            self._subscription = await client.subscribe(self._inbox + ".*", cb=self._arrived.put)
        except (nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"subscribe: {type(error).__name__}") from error

    async def _create(self) -> None:
        """Find the consumer, or make it. One that is ahead of the stream knows of jobs that the server has lost since
        (its files may outlive those of the messages): it is made anew, or it would take new jobs for these, which have
        their numbers."""
        if (await self._found())["delivered"]["stream_seq"] > await last_sequence(self._queue):
            _log.error("consumer_ahead_of_stream", consumer=self._name)
            await self._delete()
            await self._found()

    async def _delete(self) -> None:
        """Let the server forget who has which job. What is not acknowledged comes again."""
        try:
            await self._queue.api(f"CONSUMER.DELETE.{self._queue.settings.stream}.{self._name}")
        except QueueRefused as error:
            if error.code != NO_CONSUMER:  # another process was faster
                raise

    async def _found(self) -> dict[str, Any]:
        """What the server says of the consumer, which it makes unless it has it."""
        stream = self._queue.settings.stream
        config = {
            "durable_name": self._name,
            "name": self._name,
            "filter_subject": self._subject,
            "ack_policy": "explicit",
            "ack_wait": int(self._queue.settings.ack_wait * 1e9),
            "deliver_policy": "all",
            "replay_policy": "instant",
            "max_deliver": -1,  # poison is told by `Job.deliveries` and put on hold, never dropped
            "max_ack_pending": self._max_ack_pending,
            "max_waiting": 512,
        }
        subject = f"CONSUMER.CREATE.{stream}.{self._name}.{self._subject}"
        try:
            return await self._queue.api(subject, {"stream_name": stream, "config": config})
        except QueueRefused as error:
            if error.code not in _OF_THE_STORE:
                raise
            # The server forgot a consumer whose files it could not read, and refuses to write over them. What a
            # consumer knows is who has which job; without it, jobs that were not acknowledged come again.
            _log.error("consumer_kept_in_memory", consumer=self._name, reason=str(error))
            return await self._queue.api(subject, {"stream_name": stream, "config": {**config, "mem_storage": True}})

    async def _pull(self, jobs: list[ClaimedJob], most: int, wait: float | None) -> None:
        """One pull request, into `jobs` until they are `most`: no wait at all, or up to `wait` seconds."""
        if len(jobs) >= most:
            return
        await self._subscribe()
        request: dict[str, Any] = {"batch": most - len(jobs)}
        if wait is None:
            request["no_wait"] = True
        else:
            request["expires"] = int(wait * 1e9)
        reply = f"{self._inbox}.{next(self._numbers)}"
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._queue.settings.stream}.{self._name}"
        try:
            await self._queue.client.publish(subject, json.dumps(request).encode(), reply=reply)
            await self._collect(jobs, reply, most, (wait or 0.0) + self._queue.settings.timeout)
        except TimeoutError:
            # No word at all: the server may be new, or the consumer gone. Ask from the start next time.
            await self._forget()
            raise QueueUnavailable("pull: no answer") from None
        except (nats.errors.Error, OSError) as error:
            await self._forget()
            raise QueueUnavailable(f"pull: {type(error).__name__}") from error

    async def _collect(self, jobs: list[ClaimedJob], reply: str, most: int, deadline: float) -> None:
        async with asyncio.timeout(deadline + _SLACK_SECONDS):
            while len(jobs) < most:
                message = await self._arrived.get()
                if message is None:
                    raise ConnectionResetError
                status = (message.headers or {}).get("Status")
                if status is None:
                    if not self._is_ours(message):
                        await self._disown(message)
                    jobs.append(self._job(message))
                elif message.subject == reply:
                    await self._judge(status, message)
                    return

    def _is_ours(self, message: Msg) -> bool:
        return is_within(message.subject, self._subject)

    async def _disown(self, message: Msg) -> None:
        """A job that is not this consumer's came as if it were: the server mistakes it for one that had its number and
        is lost. It stays where it is. Raises QueueUnavailable."""
        _log.error("job_of_another_consumer", consumer=self._name, subject=message.subject)
        await self._delete()
        await self._forget()
        raise QueueUnavailable("pull: a job of another consumer came")

    async def _judge(self, status: str, message: Msg) -> None:
        """404 no messages, 408 request expired: normal ends. All else: ask from the start."""
        if status not in ("404", "408"):
            _log.debug("pull_ended", status=status, description=(message.headers or {}).get("Description", ""))
            await self._forget()

    async def _forget(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):  # it may have gone with its connection
                await subscription.unsubscribe()
        while not self._arrived.empty():
            message = self._arrived.get_nowait()
            if message is not None and "Status" not in (message.headers or {}) and self._is_ours(message):
                self._stray.append(self._job(message))

    def _job(self, message: Msg) -> ClaimedJob:
        data = message.metadata
        self._taken.inc()
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
        """Set the gauges of this consumer's part of the queue; returns how many jobs wait.
        Raises QueueUnavailable."""
        return await observe_consumer(self._queue, self._name, self._subject)
