"""The connection to NATS, made and kept in the background."""

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client

from paquebot.observability.log import Log
from paquebot.observability.metrics import Across, counter, gauge
from paquebot.queue.errors import QueueUnavailable
from paquebot.runtime.engine_settings import NatsSettings
from paquebot.runtime.process.tasks import background

_log = Log("paquebot.queue")

CONNECTED = gauge("paquebot_nats_connected", "1 while this process is connected to NATS", across=Across.MIN)
CONNECTIONS = counter(
    "paquebot_nats_connections_total",
    "Connections to NATS: made, lost, or failed",
    {"result": ("connected", "lost", "failed")},
)

_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 2
_CHECK_SECONDS = 1.0

_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


class NatsConnection:
    """Begins to connect at once. `on_connect` is awaited for each connection."""

    def __init__(self, settings: NatsSettings, name: str, on_connect: Callable[[], Awaitable[None]]) -> None:
        self._settings = settings
        self._name = name
        self._on_connect = on_connect
        self._client = Client()
        self._opened = asyncio.Event()
        self._fault = ""
        self._closing = False
        self._loss_callbacks: set[Callable[[], None]] = set()
        self._keeper = background(self._keep(), "nats_connection")

    async def wait_opened(self, timeout: float) -> None:
        """Returns when the first connection is made, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._opened.wait()

    async def close(self) -> None:
        self._closing = True
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                await self._client.flush(2)
        self._keeper.cancel()
        await asyncio.wait((self._keeper,))

    @property
    def client(self) -> Client:
        """The connected client. Raises QueueUnavailable."""
        if not self._client.is_connected:
            raise QueueUnavailable("not connected to NATS")
        return self._client

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the server accepts, as it said at the last connection."""
        return int(self._client.max_payload)

    def add_loss_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback()` each time a connection is lost: requests sent over it get no answer."""
        self._loss_callbacks.add(callback)

    def remove_loss_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_loss_callback`."""
        self._loss_callbacks.discard(callback)

    async def _keep(self) -> None:
        """One client after another, each for as long as its connection lasts.

        The library's own reconnection is not used: it stops for good after an error that the server reports, such as a
        refused login, and it reports nothing while a first connection fails.
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
                await self._on_connect()
                if away:
                    _log.info("nats_connected")
                away = False
                self._opened.set()
                await self._until_lost(client, closed)
            except Exception as error:  # noqa: BLE001 - after any error, the next client may succeed
                if not away:
                    _log.warning("nats_unavailable", reason=self._fault or type(error).__name__)
                away = True
            finally:
                CONNECTED.set(0)
                for callback in tuple(self._loss_callbacks):
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
            list(self._settings.url),
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # 0 and less would try without end inside this call
            reconnect_time_wait=0,
            connect_timeout=_CONNECT_SECONDS,
            ping_interval=15,
            max_outstanding_pings=2,
            pending_size=0,  # nothing is buffered while disconnected: a publish that cannot be sent fails
            error_cb=self._on_error,
            closed_cb=on_close,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.user:
            options |= {"user": settings.user, "password": str(settings.password)}
            # Answers go to inboxes of this login alone, which a server's permissions can name.
            if _SUBJECT.fullmatch(settings.user):
                options["inbox_prefix"] = f"_INBOX.{settings.user}".encode()
        if settings.credentials:
            options["user_credentials"] = str(settings.credentials)
        if settings.ca:
            options["tls"] = ssl.create_default_context(cafile=str(settings.ca))
        return options

    async def _until_lost(self, client: Client, closed: asyncio.Event) -> None:
        """Returns when the connection is lost."""
        while client.is_connected and not self._closing:
            # The client does not always call `closed_cb`: an error while it closes can end it before.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_SECONDS):
                    await closed.wait()
        if not self._closing:
            _log.warning("nats_disconnected", reason=self._fault)

    async def _on_error(self, error: Exception) -> None:
        self._fault = type(error).__name__
        _log.debug("nats_error", reason=f"{self._fault}: {error}")


async def _discard(client: Client) -> None:
    # AssertionError: the client has nothing to close yet.
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, AssertionError):
        await client.close()
