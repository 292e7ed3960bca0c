"""The connection to NATS: atomic batches and scheduled messages into the stream, and hints beside it.

The connection is made and kept in the background: while NATS is away every call raises QueueUnavailable
at once or at its deadline, and works again when it is back (invariant 9).
"""

import asyncio
import contextlib
import datetime
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from paquebot.blobs.ulid import new_ulid
from paquebot.observability.log import Log
from paquebot.observability.metrics import engine_call
from paquebot.runtime.engines import NatsSettings

_log = Log("paquebot.queue")

MAX_BATCH = 1000
"""Most messages in one atomic batch (the server's limit)."""

_RETRY_SECONDS = 1
_HINT_MAILBOX = "hint.mailbox."


class QueueUnavailable(Exception):
    """JetStream cannot be used now, or did not acknowledge in time: what was sent may or may not be stored."""


class QueueRefused(QueueUnavailable):
    """JetStream refused: nothing was stored."""


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
            when = datetime.datetime.fromtimestamp(self.at, datetime.UTC)
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
        self._connecting: asyncio.Task[None] | None = None
        self._hints: dict[int, set[Callable[[int], None]]] = {}
        self._hearing = False
        self._closing = False

    @classmethod
    async def open(cls, settings: NatsSettings, name: str = "paquebot") -> "Queue":
        """Connects in the background; waits for the first connection only as long as one timeout."""
        queue = cls(settings, name)
        queue._connecting = asyncio.ensure_future(queue._connect())
        await asyncio.wait((queue._connecting,), timeout=settings.timeout)
        return queue

    async def close(self) -> None:
        self._closing = True
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await self._client.flush(2)
        await self._client.close()

    async def _connect(self) -> None:
        settings = self.settings
        options: dict[str, Any] = {}
        if settings.user:
            options |= {"user": settings.user, "password": str(settings.password)}
        if settings.credentials:
            options["user_credentials"] = str(settings.credentials)
        if settings.ca:
            options["tls"] = ssl.create_default_context(cafile=str(settings.ca))
        reported = False
        while True:
            try:
                await self._client.connect(
                    list(settings.url),
                    name=self._name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RETRY_SECONDS,
                    connect_timeout=2,
                    ping_interval=15,
                    max_outstanding_pings=2,
                    pending_size=0,  # nothing is kept back while disconnected: a publish that cannot go fails
                    error_cb=_on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=_on_reconnect,
                    **options,
                )
            except (OSError, nats.errors.Error, TimeoutError) as error:
                if not reported:
                    _log.warning("nats_away", reason=type(error).__name__)
                    reported = True
                self._client = Client()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._hearing:
                await self._listen()
            return

    async def _on_disconnect(self) -> None:
        if not self._closing:
            _log.warning("nats_disconnected")

    @property
    def client(self) -> Client:
        """The connected client. Raises QueueUnavailable."""
        if not self._client.is_connected:
            raise QueueUnavailable("not connected to NATS")
        return self._client

    async def request(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """One JetStream request; the answer without its error. Raises QueueUnavailable, QueueRefused."""
        client = self.client
        try:
            answer = await client.request(subject, payload, timeout=self.settings.timeout, headers=headers)
        except nats.errors.NoRespondersError:
            raise QueueRefused("no stream takes this subject, or JetStream is away") from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"no answer: {type(error).__name__}") from error
        return _parsed(answer)

    async def api(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`$JS.API.<call>`. Raises QueueUnavailable, QueueRefused."""
        with engine_call("nats", "api"):
            return await self.request("$JS.API." + call, json.dumps(body).encode() if body is not None else b"")

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
            raise QueueRefused(f"{len(publications)} messages are more than one batch takes")
        call = "publish_batch" if len(publications) > 1 else "publish"
        with engine_call("nats", call):
            await self._publish(publications)

    async def _publish(self, publications: Sequence[Publication]) -> None:
        *before, last = publications
        if not before:
            await self.request(last.to(), last.payload, last.headers() or None)
            return
        batch = new_ulid()
        client = self.client
        try:
            for number, publication in enumerate(before, 1):
                headers = publication.headers()
                headers["Nats-Batch-Id"] = batch
                headers["Nats-Batch-Sequence"] = str(number)
                await client.publish(publication.to(), publication.payload, headers=headers)
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

    async def hint_mailbox(self, account_id: int) -> None:
        """Tell every process that mailboxes of the account changed. Never raises."""
        with contextlib.suppress(QueueUnavailable, nats.errors.Error, OSError):
            await self.client.publish(_HINT_MAILBOX + str(account_id), b"")

    async def hear_mailbox(self, account_id: int, callback: Callable[[int], None]) -> None:
        """Call `callback(account_id)` at each hint for the account, from the event loop."""
        self._hints.setdefault(account_id, set()).add(callback)
        if not self._hearing:
            self._hearing = True
            if self._client.is_connected:
                await self._listen()

    def ignore_mailbox(self, account_id: int, callback: Callable[[int], None]) -> None:
        """Undo `hear_mailbox`."""
        callbacks = self._hints.get(account_id, set())
        callbacks.discard(callback)
        if not callbacks:
            self._hints.pop(account_id, None)

    async def _listen(self) -> None:
        await self._client.subscribe(_HINT_MAILBOX + "*", cb=self._on_hint)

    async def _on_hint(self, message: Msg) -> None:
        token = message.subject.removeprefix(_HINT_MAILBOX)
        if not token.isdecimal():
            return
        account_id = int(token)
        for callback in tuple(self._hints.get(account_id, ())):
            callback(account_id)


def _parsed(answer: Msg) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(answer.data)
    except ValueError:
        raise QueueUnavailable("the answer is not JSON") from None
    if error := body.get("error"):
        raise QueueRefused(f"{error.get('code')} {error.get('err_code')}: {error.get('description')}")
    return body


async def _on_error(error: Exception) -> None:
    _log.debug("nats_error", reason=f"{type(error).__name__}: {error}")


async def _on_reconnect() -> None:
    _log.info("nats_reconnected")
