"""The connection to NATS: atomic batches and scheduled messages into the stream, and hints beside it.

The connection is made and kept in the background: while NATS is away every call raises QueueUnavailable
at once or at its deadline, and works again when it is back (invariant 9).
"""

import asyncio
import contextlib
import datetime
import json
import math
import re
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from paquebot.observability.log import Log
from paquebot.observability.metrics import Across, EngineLabel, Fault, counter, engine_call, fault_of, gauge, know_calls
from paquebot.queue import hints
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.runtime.process.tasks import background

_log = Log("paquebot.queue")

CONNECTED = gauge("paquebot_nats_connected", "1 while this process is connected to NATS", across=Across.MIN)
CONNECTIONS = counter(
    "paquebot_nats_connections_total",
    "Connections to NATS: made, lost, or not come about",
    {"result": ("connected", "lost", "failed")},
)
PUBLISHED = counter(
    "paquebot_queue_published_jobs_total",
    "Jobs stored in the stream, by the first two tokens of their subject; later: scheduled, hold: put aside",
    {"part": ("deliver.ready", "deliver.later", "relay.ready", "relay.ahead", "relay.later", "hold")},
)
_CALLS = ("publish", "publish_batch", "api", "ack")

MAX_BATCH = 1000
"""Most messages in one atomic batch (the server's limit)."""

_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 2
_CHECK_SECONDS = 1.0
_TOO_LARGE = 10054  # the stream's max_msg_size
NO_CONSUMER = 10014
NO_MESSAGE = 10037
"""`QueueRefused.code`: no message found."""

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


class QueueUnavailable(EngineUnavailable):
    """JetStream cannot be used now, or did not acknowledge in time: what was sent may or may not be stored."""


class QueueRefused(QueueUnavailable):
    """JetStream refused: nothing was stored. `code` is its `err_code`, 0 when the refusal is not its own."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class QueueTooLarge(QueueRefused, EngineRefused):
    """A message or a batch is larger than the server takes: it can never be stored."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One message for the stream. With `at` (Unix seconds) it is published on `subject` only then."""

    subject: str
    payload: bytes
    message_id: str = ""
    later_subject: str = ""
    at: float = 0.0

    def headers(self) -> dict[str, str]:
        headers = {"Nats-Msg-Id": self.message_id} if self.message_id else {}
        if self.later_subject:
            when = datetime.datetime.fromtimestamp(math.ceil(self.at), datetime.UTC)  # never before `at`
            headers["Nats-Schedule"] = "@at " + when.strftime("%Y-%m-%dT%H:%M:%SZ")
            headers["Nats-Schedule-Target"] = self.subject
        return headers

    def to(self) -> str:
        return self.later_subject or self.subject


class Queue:
    """Open with `await Queue.open(settings)`; close with `await queue.close()`."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self.settings = settings
        self._name = name
        self._client = Client()
        self._keeper: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._fault = ""
        self._hints: dict[int, set[Callable[[int], None]]] = {}
        self.hint_trace = ""
        """While the callbacks of a hint are called: the traceparent that came with it, or empty."""
        self.hint_source = b""
        """While the callbacks of a hint are called: who told it, or empty."""
        self._hearing = False
        self._others: dict[str, set[Callable[[Msg], None]]] = {}
        self._directory_hints: set[Callable[[hints.DirectoryHint], None]] = set()
        self._listening = asyncio.Lock()
        self._listener: Client | None = None
        self._heard: set[str] = set()
        self._closing = False
        self._losses: set[Callable[[], None]] = set()
        know_calls(EngineLabel.NATS, _CALLS)

    @classmethod
    def begin(cls, settings: NatsSettings, name: str = "paquebot") -> "Queue":
        """Connects in the background, and waits for nothing."""
        queue = cls(settings, name)
        queue._keeper = background(queue._keep(), "nats_connection")
        return queue

    @classmethod
    async def open(cls, settings: NatsSettings, name: str = "paquebot") -> "Queue":
        """Connects in the background; waits for the first connection only as long as one timeout."""
        queue = cls.begin(settings, name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.timeout):
                await queue._opened.wait()
        return queue

    async def close(self) -> None:
        self._closing = True
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await self._client.flush(2)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))

    async def _keep(self) -> None:
        """One client after another, each for as long as its connection lasts.

        The library's own way to reconnect is not used: it gives up for good after an error that the server
        reports, such as a refused login, and it says nothing while a first connection does not come about.
        """
        away = False
        while not self._closing:
            client, closed = Client(), asyncio.Event()
            start = time.monotonic()
            result = "failed"
            try:
                await self._connect(client, closed)
                result = "lost"
                self._client = client
                CONNECTED.set(1)
                CONNECTIONS.labels("connected").inc()
                await self._listen()
                if away:
                    _log.info("nats_connected")
                away = False
                self._opened.set()
                await self._last(client, closed)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next client may do better
                if not away:
                    _log.warning("nats_away", reason=self._fault or type(error).__name__)
                away = True
            finally:
                CONNECTED.set(0)
                for callback in tuple(self._losses):
                    callback()
                if not self._closing:
                    CONNECTIONS.labels(result).inc()
                await _discard(client)
            if not self._closing and time.monotonic() - start < _RETRY_SECONDS:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _connect(self, client: Client, closed: asyncio.Event) -> None:
        """Returns when connected; raises when no server of the list can be used now."""

        async def on_close() -> None:
            closed.set()

        self._fault = ""
        await client.connect(
            list(self.settings.url),
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # 0 and less would try without end inside this call
            reconnect_time_wait=0,
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=15,
            max_outstanding_pings=2,
            pending_size=0,  # nothing is kept back while disconnected: a publish that cannot go fails
            error_cb=self._on_error,
            closed_cb=on_close,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        options: dict[str, Any] = {}
        if settings.user:
            options |= {"user": settings.user, "password": str(settings.password)}
            # Answers come to inboxes of this login alone, which a server's permissions can name.
            if _SUBJECT.fullmatch(settings.user):
                options["inbox_prefix"] = f"_INBOX.{settings.user}".encode()
        if settings.credentials:
            options["user_credentials"] = str(settings.credentials)
        if settings.ca:
            options["tls"] = ssl.create_default_context(cafile=str(settings.ca))
        return options

    async def _last(self, client: Client, closed: asyncio.Event) -> None:
        """Returns when the connection is lost."""
        while client.is_connected and not self._closing:
            # The client does not always call back: an error while it closes ends it before that.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await closed.wait()
        if not self._closing:
            _log.warning("nats_disconnected", reason=self._fault)

    async def _on_error(self, error: Exception) -> None:
        self._fault = type(error).__name__
        _log.debug("nats_error", reason=f"{self._fault}: {error}")

    def add_loss_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback()` each time a connection is lost: what was asked over it will not be answered."""
        self._losses.add(callback)

    def remove_loss_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_loss_callback`."""
        self._losses.discard(callback)

    @property
    def client(self) -> Client:
        """The connected client. Raises QueueUnavailable."""
        if not self._client.is_connected:
            raise QueueUnavailable("not connected to NATS")
        return self._client

    @property
    def max_payload(self) -> int:
        """Bytes of the longest message that the server takes, as far as is known: it says so when we connect."""
        return int(self._client.max_payload)

    async def request(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """One JetStream request; the answer without its error. Raises QueueUnavailable, QueueRefused."""
        client = self.client
        try:
            answer = await client.request(subject, payload, timeout=self.settings.timeout, headers=headers)
        except nats.errors.NoRespondersError:
            raise QueueRefused("no stream takes this subject, or JetStream is away") from None
        except nats.errors.MaxPayloadError:
            raise QueueTooLarge(f"{len(payload)} bytes are more than the server takes") from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"no answer: {type(error).__name__}") from error
        return _parsed(answer)

    async def api(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`$JS.API.<call>`. Raises QueueUnavailable, QueueRefused."""
        payload = json.dumps(body).encode() if body is not None else b""
        with engine_call("nats", "api", nats_fault):
            try:
                return await self.request("$JS.API." + call, payload)
            except QueueRefused as refused:
                if refused.code != NO_MESSAGE:
                    raise
                absent = refused  # an answer, not an engine's error: it is raised where it is not counted
        raise absent

    async def probe(self) -> None:
        """Raises QueueUnavailable unless JetStream answers and the stream is there."""
        await self.api(f"STREAM.INFO.{self.settings.stream}")

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Store all or none, acknowledged (ADR-50 of the NATS architecture: atomic batch publish).

        Raises QueueRefused when nothing was stored, QueueUnavailable when that cannot be known.
        """
        if not publications:
            return
        if len(publications) > MAX_BATCH:
            raise QueueTooLarge(f"{len(publications)} messages are more than one batch takes")
        call = "publish_batch" if len(publications) > 1 else "publish"
        with engine_call("nats", call, nats_fault):
            self._check_connected()
            await self._publish(publications)
        for publication in publications:
            PUBLISHED.labels(_part(publication.to())).inc()

    def _check_connected(self) -> None:
        """Raises QueueRefused. Without a connection nothing is sent, so it is known that nothing is stored: who wrote
        a pack for it may take the pack back, or `recover` would deliver every attempt of a patient sender."""
        try:
            _ = self.client
        except QueueUnavailable as away:
            raise QueueRefused(str(away)) from away

    async def _publish(self, publications: Sequence[Publication]) -> None:
        *before, last = publications
        if not before:
            await self.request(last.to(), last.payload, last.headers() or None)
            return
        batch = secrets.token_hex(16)
        client = self.client
        try:
            for number, publication in enumerate(before, 1):
                headers = publication.headers()
                headers["Nats-Batch-Id"] = batch
                headers["Nats-Batch-Sequence"] = str(number)
                await client.publish(publication.to(), publication.payload, headers=headers)
        except nats.errors.MaxPayloadError:
            raise QueueTooLarge("a message of a batch has more bytes than the server takes") from None
        except (nats.errors.Error, OSError) as error:
            raise QueueRefused(f"batch not sent: {type(error).__name__}") from error  # without commit: dropped
        headers = last.headers()
        headers["Nats-Batch-Id"] = batch
        headers["Nats-Batch-Sequence"] = str(len(publications))
        headers["Nats-Batch-Commit"] = "1"
        answer = await self.request(last.to(), last.payload, headers)
        if answer.get("count") != len(publications):
            raise QueueUnavailable(f"batch acknowledged with {answer.get('count')} of {len(publications)} messages")

    # --- hints: not stored, never the only copy of a fact (invariant 4) ---

    async def hint_mailbox(self, account_id: int, trace: str = "") -> None:
        """Tell every process that mailboxes of the account changed, this one too. `trace`: the W3C traceparent of what
        changed them. Never raises."""
        await self._tell(hints.written({account_id: trace}))

    async def hint_mailboxes(self, traces: Mapping[int, str], *, source: bytes = b"") -> None:
        """The same for many accounts at once, each with its trace or none. `source`: who tells, to be known again as
        `hint_source`. Never raises."""
        await self._tell(hints.written(traces, source))

    async def _tell(self, written: Iterable[hints.Hint]) -> None:
        with contextlib.suppress(QueueUnavailable, nats.errors.Error, OSError):
            for hint in written:
                await self.client.publish(hint.subject, hint.payload, headers=hint.headers)

    async def hint_directory(self, account_ids: Iterable[int] | None, changed: str) -> None:
        """Tell every process that accounts (None: all) may not log in as before. `changed`: a word. Never raises."""
        told = frozenset(account_ids) if account_ids is not None else None
        await self._tell([hints.DirectoryHint(told, changed).written()])

    async def subscribe_directory(self, callback: Callable[[hints.DirectoryHint], None]) -> None:
        """Call `callback(hint)` at each hint about accounts, from the event loop; otherwise as `subscribe_mailbox`."""
        self._directory_hints.add(callback)
        await self._listen_soon()

    def unsubscribe_directory(self, callback: Callable[[hints.DirectoryHint], None]) -> None:
        """Undo `subscribe_directory`."""
        self._directory_hints.discard(callback)

    async def subscribe_mailbox(self, account_id: int, callback: Callable[[int], None]) -> None:
        """Call `callback(account_id)` at each hint for the account, from the event loop. When this returns, the
        server knows that we listen; while it is away, we will listen as soon as it is back. Never raises."""
        self._hints.setdefault(account_id, set()).add(callback)
        self._hearing = True
        await self._listen_soon()

    def unsubscribe_mailbox(self, account_id: int, callback: Callable[[int], None]) -> None:
        """Undo `subscribe_mailbox`."""
        callbacks = self._hints.get(account_id, set())
        callbacks.discard(callback)
        if not callbacks:
            self._hints.pop(account_id, None)

    async def send(self, subject: str, payload: bytes) -> None:
        """Publish to whoever hears it now. Never raises."""
        await self._tell([hints.Hint(subject, payload)])

    async def subscribe(self, subject: str, callback: Callable[[Msg], None]) -> None:
        """Call `callback(message)` for each message on the subject, from the event loop; otherwise as
        `subscribe_mailbox`."""
        self._others.setdefault(subject, set()).add(callback)
        await self._listen_soon()

    def unsubscribe(self, subject: str, callback: Callable[[Msg], None]) -> None:
        """Undo `subscribe`."""
        self._others.get(subject, set()).discard(callback)

    async def _listen_soon(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):  # the next connection listens again
            await self._listen()

    async def _listen(self) -> None:
        """Subscribe once for each connection, and wait until the server has read it."""
        async with self._listening:
            client = self._client
            if not client.is_connected:
                return
            if self._listener is not client:
                self._listener, self._heard = client, set()
            wanted: dict[str, Callable[[Msg], Awaitable[None]]] = {}
            if self._hearing:
                wanted[hints.SUBJECTS] = self._on_hint
            if self._directory_hints:
                wanted[hints.DIRECTORY] = self._on_directory_hint
            wanted.update((subject, partial(self._on_other, subject)) for subject in self._others)
            new = wanted.keys() - self._heard
            for subject in new:
                await client.subscribe(subject, cb=wanted[subject])
                self._heard.add(subject)
            if new:
                await client.flush(math.ceil(self.settings.timeout))

    async def _on_hint(self, message: Msg) -> None:
        self.hint_trace, self.hint_source = hints.trace(message), hints.source(message)
        for account_id in hints.accounts(message):
            for callback in tuple(self._hints.get(account_id, ())):
                callback(account_id)
        self.hint_trace, self.hint_source = "", b""

    async def _on_other(self, subject: str, message: Msg) -> None:
        for callback in tuple(self._others[subject]):
            callback(message)

    async def _on_directory_hint(self, message: Msg) -> None:
        hint = hints.DirectoryHint.read(message)
        for callback in tuple(self._directory_hints):
            callback(hint)


def nats_fault(error: BaseException) -> Fault:
    if isinstance(error, QueueRefused) and error.__cause__ is None:
        return Fault.REFUSED
    found = fault_of(error)
    return Fault.CONNECTION if found is Fault.OTHER and isinstance(error, QueueUnavailable) else found


def _part(subject: str) -> str:
    first, _, rest = subject.partition(".")
    return first if first == "hold" else f"{first}.{rest.partition('.')[0]}"


def _parsed(answer: Msg) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(answer.data)
    except ValueError:
        raise QueueUnavailable("the answer is not JSON") from None
    if error := body.get("error"):
        code = int(error.get("err_code", 0))
        refused = QueueTooLarge if code == _TOO_LARGE else QueueRefused
        raise refused(f"{error.get('code')} {code}: {error.get('description')}", code)
    return body


async def _discard(client: Client) -> None:
    # AssertionError: the client never came so far as to have something to close.
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, AssertionError):
        await client.close()
