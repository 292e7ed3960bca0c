"""Subscriptions to subjects that the stream does not store, made anew on each connection: hints, and others."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from paquebot.queue import hints
from paquebot.queue.errors import QueueUnavailable

MailboxCallback = Callable[[int], None]
DirectoryCallback = Callable[[hints.DirectoryHint], None]
MessageCallback = Callable[[Msg], None]


class Subscriptions:
    """`connected` returns the connected client, or raises QueueUnavailable. Callbacks are called on the event loop."""

    def __init__(self, connected: Callable[[], Client], timeout: float) -> None:
        self._connected = connected
        self._timeout = timeout
        self._mailboxes: dict[int, set[MailboxCallback]] = {}
        self._wants_mailboxes = False
        self._directory: set[DirectoryCallback] = set()
        self._others: dict[str, set[MessageCallback]] = {}
        self._lock = asyncio.Lock()
        self._client: Client | None = None
        self._subscribed: set[str] = set()
        self.hint_trace = ""
        """While the callbacks of a hint run: its traceparent, or empty."""
        self.hint_source = b""
        """While the callbacks of a hint run: who published it, or empty."""

    async def add_mailbox(self, account_id: int, callback: MailboxCallback) -> None:
        self._mailboxes.setdefault(account_id, set()).add(callback)
        self._wants_mailboxes = True
        await self._renew()

    def remove_mailbox(self, account_id: int, callback: MailboxCallback) -> None:
        callbacks = self._mailboxes.get(account_id, set())
        callbacks.discard(callback)
        if not callbacks:
            self._mailboxes.pop(account_id, None)

    async def add_directory(self, callback: DirectoryCallback) -> None:
        self._directory.add(callback)
        await self._renew()

    async def add(self, subject: str, callback: MessageCallback) -> None:
        self._others.setdefault(subject, set()).add(callback)
        await self._renew()

    def remove(self, subject: str, callback: MessageCallback) -> None:
        self._others.get(subject, set()).discard(callback)

    async def _renew(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):  # the next connection subscribes again
            await self.renew()

    async def renew(self) -> None:
        """Subscribe to each wanted subject once for each connection, and wait until the server has read it. Does
        nothing while there is no connection."""
        async with self._lock:
            try:
                client = self._connected()
            except QueueUnavailable:
                return
            if self._client is not client:
                self._client, self._subscribed = client, set()
            wanted = self._wanted()
            new = wanted.keys() - self._subscribed
            for subject in new:
                await client.subscribe(subject, cb=wanted[subject])
                self._subscribed.add(subject)
            if new:
                await client.flush(math.ceil(self._timeout))

    def _wanted(self) -> dict[str, Callable[[Msg], Awaitable[None]]]:
        wanted: dict[str, Callable[[Msg], Awaitable[None]]] = {}
        if self._wants_mailboxes:
            wanted[hints.SUBJECTS] = self._on_mailbox_hint
        if self._directory:
            wanted[hints.DIRECTORY] = self._on_directory_hint
        wanted.update((subject, partial(self._on_message, subject)) for subject in self._others)
        return wanted

    async def _on_mailbox_hint(self, message: Msg) -> None:
        self.hint_trace, self.hint_source = hints.trace(message), hints.source(message)
        for account_id in hints.accounts(message):
            for callback in tuple(self._mailboxes.get(account_id, ())):
                callback(account_id)
        self.hint_trace, self.hint_source = "", b""

    async def _on_directory_hint(self, message: Msg) -> None:
        hint = hints.DirectoryHint.read(message)
        for callback in tuple(self._directory):
            callback(hint)

    async def _on_message(self, subject: str, message: Msg) -> None:
        for callback in tuple(self._others[subject]):
            callback(message)
