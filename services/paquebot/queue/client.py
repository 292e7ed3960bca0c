"""The queue's client: atomic batches and scheduled messages into the stream, and hints beside it.

The connection is made and kept in the background: while NATS is away every call raises QueueUnavailable, at once or at
its timeout, and works again when NATS is back (invariant 9).
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client

from paquebot.observability.metrics import EngineLabel, engine_call, know_calls
from paquebot.queue import hints
from paquebot.queue.connection import NatsConnection
from paquebot.queue.errors import NO_MESSAGE, QueueRefused, QueueTooLarge, QueueUnavailable, nats_fault, parse_answer
from paquebot.queue.publishing import MAX_BATCH, Publication, count_published, publish
from paquebot.queue.subscriptions import DirectoryCallback, MailboxCallback, MessageCallback, Subscriptions
from paquebot.runtime.engine_settings import NatsSettings

_CALLS = ("publish", "publish_batch", "api", "ack")


class Queue:
    """Open with `await Queue.open(settings)`; close with `await queue.close()`."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self.settings = settings
        self._subscriptions = Subscriptions(lambda: self.client, settings.timeout)
        self.connection = NatsConnection(settings, name, self._subscriptions.renew)
        know_calls(EngineLabel.NATS, _CALLS)

    @classmethod
    def begin(cls, settings: NatsSettings, name: str = "paquebot") -> "Queue":
        """Connects in the background; does not wait."""
        return cls(settings, name)

    @classmethod
    async def open(cls, settings: NatsSettings, name: str = "paquebot") -> "Queue":
        """Connects in the background; waits for the first connection, but only for one timeout."""
        queue = cls.begin(settings, name)
        await queue.connection.wait_opened(settings.timeout)
        return queue

    async def close(self) -> None:
        await self.connection.close()

    @property
    def client(self) -> Client:
        """The connected client. Raises QueueUnavailable."""
        return self.connection.client

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server accepts."""
        return self.connection.max_payload

    async def request(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """One JetStream request; the answer, which is not an error. Raises QueueUnavailable, QueueRefused."""
        client = self.client
        try:
            answer = await client.request(subject, payload, timeout=self.settings.timeout, headers=headers)
        except nats.errors.NoRespondersError:
            raise QueueRefused("no stream has this subject, or JetStream is away") from None
        except nats.errors.MaxPayloadError:
            raise QueueTooLarge(f"a message of {len(payload)} bytes is larger than the server accepts") from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise QueueUnavailable(f"no answer: {type(error).__name__}") from error
        return parse_answer(answer)

    async def api(self, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`$JS.API.<call>`. Raises QueueUnavailable, QueueRefused."""
        payload = json.dumps(body).encode() if body is not None else b""
        with engine_call("nats", "api", nats_fault):
            try:
                return await self.request("$JS.API." + call, payload)
            except QueueRefused as refused:
                if refused.code != NO_MESSAGE:
                    raise
                absent = refused  # an answer, not an error of the engine: raised outside of `engine_call`
        raise absent

    async def probe(self) -> None:
        """Raises QueueUnavailable unless JetStream answers and the stream exists."""
        await self.api(f"STREAM.INFO.{self.settings.stream}")

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Store all or none; returns when they are acknowledged.

        Raises QueueRefused when nothing was stored, QueueUnavailable when that is uncertain.
        """
        if not publications:
            return
        if len(publications) > MAX_BATCH:
            raise QueueTooLarge(f"a batch of {len(publications)} messages: at most {MAX_BATCH} are stored at once")
        call = "publish_batch" if len(publications) > 1 else "publish"
        with engine_call("nats", call, nats_fault):
            await publish(self._connected(), self.request, publications)
        count_published(publications)

    def _connected(self) -> Client:
        """Raises QueueRefused: without a connection nothing is sent, so certainly nothing is stored. A caller that
        wrote a pack may then delete it, or `recover` would deliver the message once for each try of its sender."""
        try:
            return self.client
        except QueueUnavailable as away:
            raise QueueRefused(str(away)) from away

    # --- hints: not stored, never the only copy of a fact (invariant 4) ---

    async def hint_mailbox(self, account_id: int, trace: str = "") -> None:
        """Publish to every process, this one too, that mailboxes of the account changed. `trace`: the W3C traceparent
        of the change. Never raises."""
        await self._send(hints.written({account_id: trace}))

    async def hint_mailboxes(self, traces: Mapping[int, str], *, source: bytes = b"") -> None:
        """The same for many accounts at once, each with its trace or none. `source`: the publisher, which subscribers
        find in `hint_source`. Never raises."""
        await self._send(hints.written(traces, source))

    async def hint_directory(self, account_ids: Iterable[int] | None, changed: str) -> None:
        """Publish to every process that accounts (None: all) may not log in as before. `changed`: a word. Never
        raises."""
        accounts = frozenset(account_ids) if account_ids is not None else None
        await self._send([hints.DirectoryHint(accounts, changed).written()])

    async def send(self, subject: str, payload: bytes) -> None:
        """Publish to the current subscribers; the stream does not store it. Never raises."""
        await self._send([hints.Hint(subject, payload)])

    async def _send(self, messages: Iterable[hints.Hint]) -> None:
        with contextlib.suppress(QueueUnavailable, nats.errors.Error, OSError):
            for message in messages:
                await self.client.publish(message.subject, message.payload, headers=message.headers)

    async def subscribe_mailbox(self, account_id: int, callback: MailboxCallback) -> None:
        """Call `callback(account_id)` at each hint for the account, from the event loop. When this returns, the server
        knows the subscription; while NATS is away, the next connection subscribes. Never raises."""
        await self._subscriptions.add_mailbox(account_id, callback)

    def unsubscribe_mailbox(self, account_id: int, callback: MailboxCallback) -> None:
        """Undo `subscribe_mailbox`."""
        self._subscriptions.remove_mailbox(account_id, callback)

    async def subscribe_directory(self, callback: DirectoryCallback) -> None:
        """Call `callback(hint)` at each hint about accounts; otherwise as `subscribe_mailbox`."""
        await self._subscriptions.add_directory(callback)

    async def subscribe(self, subject: str, callback: MessageCallback) -> None:
        """Call `callback(message)` for each message on the subject; otherwise as `subscribe_mailbox`."""
        await self._subscriptions.add(subject, callback)

    def unsubscribe(self, subject: str, callback: MessageCallback) -> None:
        """Undo `subscribe`."""
        self._subscriptions.remove(subject, callback)

    @property
    def hint_trace(self) -> str:
        """While the callbacks of a hint run: its traceparent, or empty."""
        return self._subscriptions.hint_trace

    @property
    def hint_source(self) -> bytes:
        """While the callbacks of a hint run: its publisher, or empty."""
        return self._subscriptions.hint_source
