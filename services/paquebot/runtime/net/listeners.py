"""The listening sockets of a server, and the two ways in which connections come from them.

The event loop itself accepts connections in the clear: that takes 30 to 50 us less CPU for each than to accept a socket
and give it to the loop. Where the limits must hold before a handshake (RFC 8314), or wait for the client's address in a
PROXY header, this module accepts the sockets.
"""

import asyncio
import functools
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass

from paquebot.observability.log import Log
from paquebot.runtime.net.proxy import ClientAddress, one_spelling
from paquebot.runtime.net.slots import LOGIN
from paquebot.runtime.net.sockets import BACKLOG, bound, port_of
from paquebot.runtime.process.tasks import background
from paquebot.runtime.settings import Listen

_log = Log("paquebot.listeners")
_ACCEPT_PAUSE = 0.1  # when the process has no file descriptors left


@dataclass(frozen=True, slots=True)
class Listener:
    """`tls`: a handshake comes first. `kind`: the class of its connections among the slots."""

    name: str
    socket: socket.socket
    tls: bool
    kind: str


class Listeners:
    """Of one server. `listen`, then `start`; `stop` at the end."""

    def __init__(
        self,
        new_connection: Callable[[Listener], asyncio.Protocol],
        on_accepted: Callable[[Listener, socket.socket, ClientAddress], None],
        *,
        shared: bool,
        proxied: bool,
    ) -> None:
        """`new_connection`: called for each connection that the event loop accepts; `on_accepted`: for each other.
        `shared`: other workers listen on the same ports. `proxied`: connections may begin with a PROXY header."""
        self._new_connection = new_connection
        self._on_accepted = on_accepted
        self._shared = shared
        self._proxied = proxied
        self._open: list[Listener] = []
        self._servers: list[asyncio.Server] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._started = False

    def listen(self, name: str, places: Collection[Listen], *, tls: bool = False, kind: str = LOGIN) -> None:
        """Bind a listener at each of `places`. Raises OSError."""
        for place in places:
            sock = bound(place, shared=self._shared, beside=places)
            self._open.append(Listener(name, sock, tls, kind))
            _log.info("listener_opened", listener=name, address=sock.getsockname()[0], port=port_of(sock))

    def ports(self, name: str) -> list[int]:
        """The ports of the listeners of that name."""
        return [port_of(listener.socket) for listener in self._open if listener.name == name]

    async def start(self) -> None:
        """Accept connections; idempotent."""
        if self._started:
            return
        self._started = True
        loop = asyncio.get_running_loop()
        for listener in self._open:
            if listener.tls or self._proxied:
                self._accepting.append(background(self._accept(listener), "accept"))
            else:
                self._servers.append(
                    await loop.create_server(
                        functools.partial(self._new_connection, listener), sock=listener.socket, backlog=BACKLOG
                    )
                )

    async def stop(self) -> None:
        """Accept no more, and close the sockets; idempotent."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for server in self._servers:
            server.close()
        for listener in self._open:
            listener.socket.close()

    async def _accept(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener.socket)
            except OSError as error:
                _log.warning("accept_failed", listener=listener.name, reason=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            self._on_accepted(listener, sock, ClientAddress(one_spelling(address[0]), address[1]))
