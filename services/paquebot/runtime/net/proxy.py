"""The client behind a proxy: headers of the PROXY protocol on the ports of ordinary clients, from trusted networks
only.

A proxy sends its header at once, while a client of SMTP, IMAP and POP3 waits to be greeted. So a connection from a
trusted network has `PAQUEBOT_PROXY_WAIT` to begin a header; the first bytes decide, and silence makes it an ordinary
client. Over implicit TLS the client speaks first too, and its first byte decides without a wait.

Invariants: nothing after the header is taken from the socket, so that TLS can begin there; a connection from any other
network is not looked at; time, bytes and the number of connections in this phase are bounded.
"""

import asyncio
import enum
import functools
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.observability.log import Log
from paquebot.observability.metrics import by_member, counter
from paquebot.runtime.settings import Network, Seconds, setting
from paquebot.wire.cursor import GrammarError
from paquebot.wire.proxy import MAX_HEADER, NeedMore, NoHeader, ProxyHeader, read_header

_log = Log("paquebot.proxy")
_HEADER_SECONDS = 5.0  # from first byte to last; spec §2: at least 3 s, for a lost segment
_MOST_WAITING = 1000


class ProxyResult(enum.Enum):
    """What a connection from a trusted network began with."""

    HEADER = "header"
    """A header with the client's address."""
    LOCAL = "local"
    """A header without a client's address: a health check of the proxy, or an unknown address family."""
    DIRECT = "direct"
    """No header: an ordinary client."""
    MALFORMED = "malformed"
    TIMEOUT = "timeout"
    """The end of the header did not come in time."""
    DISCONNECTED = "disconnected"
    """It closed first, as health checks do that only connect."""
    TOO_MANY = "too_many"
    """Too many connections were waiting in this phase."""
    UNTRUSTED = "untrusted"
    """A header where none is allowed: from another network, or after the greeting."""


CONNECTIONS = counter(
    "paquebot_proxy_connections_total",
    "Connections from trusted proxies, by what they began with; untrusted: a header from another network, or too late",
    {"result": ProxyResult},
)
_COUNT = by_member(CONNECTIONS, ProxyResult)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The proxies whose headers are believed."""

    trusted: tuple[Network, ...] = setting(
        "TRUSTED_PROXIES", (), help="networks whose hosts may send a PROXY header; empty: none"
    )
    wait: Seconds = setting(
        "PROXY_WAIT", Seconds(0.25), help="timeout for the first byte of a trusted proxy's header, before the greeting"
    )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 < self.wait <= _HEADER_SECONDS:
            raise ValueError(f"PAQUEBOT_PROXY_WAIT must be above 0 and at most {_HEADER_SECONDS:g}s")


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """The client's end of a connection. `early`: the client's first bytes, where they were read in search of a
    header."""

    address: str
    port: int
    early: bytes = b""


class _Refused(Exception):
    """Close the connection."""

    def __init__(self, result: ProxyResult) -> None:
        super().__init__(result.value)
        self.result = result


class Proxies:
    """The trusted networks, and the connections from them whose client is not known yet."""

    def __init__(self, settings: ProxySettings) -> None:
        self._trusted: Sequence[Network] = settings.trusted
        self._wait = settings.wait
        self.waiting = 0
        """Connections whose client is not known yet."""

    def __bool__(self) -> bool:
        """Whether any network is trusted."""
        return bool(self._trusted)

    def trusts(self, address: str) -> bool:
        """Whether the host at `address` may send a header."""
        if not self._trusted:
            return False
        peer = ipaddress.ip_address(one_spelling(address))
        return any(peer in network for network in self._trusted)

    async def origin(self, sock: socket.socket, address: str, port: int, *, tls: bool) -> ClientAddress | None:
        """The client, from the header of the host at `address` if it sends one. None: close the connection; the reason
        is counted and logged."""
        self.waiting += 1
        try:
            if self.waiting > _MOST_WAITING:
                raise _Refused(ProxyResult.TOO_MANY)
            result, origin = await self._read(sock, address, port, tls=tls)
        except _Refused as refused:
            _refuse(refused.result, address)
        except GrammarError as error:
            _refuse(ProxyResult.MALFORMED, address, str(error))
        except OSError:
            _COUNT[ProxyResult.DISCONNECTED].inc()
        else:
            _COUNT[result].inc()
            return origin
        finally:
            self.waiting -= 1
        return None

    async def _read(
        self, sock: socket.socket, address: str, port: int, *, tls: bool
    ) -> tuple[ProxyResult, ClientAddress]:
        """Raises GrammarError, OSError, _Refused."""
        sock.setblocking(False)
        now = asyncio.get_running_loop().time()
        deadline, taken = now + _HEADER_SECONDS, b""
        while True:
            until = deadline if taken or tls else now + self._wait
            if not await _readable(sock, until):
                if taken:
                    raise _Refused(ProxyResult.TIMEOUT)
                return ProxyResult.DIRECT, ClientAddress(address, port)
            try:
                # Peek first: the bytes after the header must stay in the socket, as they may be a ClientHello.
                seen = sock.recv(MAX_HEADER - len(taken), socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if not seen:
                raise ConnectionResetError
            match read_header(taken + seen):
                case NeedMore():
                    taken += sock.recv(len(seen))
                case NoHeader() if tls and taken:
                    raise GrammarError("a header or TLS", len(taken))
                case NoHeader():
                    return ProxyResult.DIRECT, ClientAddress(address, port, taken)
                case ProxyHeader(length, source):
                    sock.recv(length - len(taken))
                    if source is None:
                        return ProxyResult.LOCAL, ClientAddress(address, port)
                    return ProxyResult.HEADER, ClientAddress(one_spelling(source.address), source.port)


def refuse_header(address: str) -> None:
    """Count and log a header where none is allowed; the caller ends the connection."""
    _refuse(ProxyResult.UNTRUSTED, address)


def close_if_cancelled(sock: socket.socket, task: asyncio.Future[None]) -> None:
    """A done callback for a task that owns `sock`: cancelled before its first step, it has not closed it."""
    if task.cancelled():
        sock.close()


@functools.lru_cache(maxsize=1024)
def one_spelling(host: str) -> str:
    """An IP address without its zone, an IPv4-mapped one as IPv4 (RFC 4291 §2.5.5.2)."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _refuse(result: ProxyResult, address: str, reason: str = "") -> None:
    _COUNT[result].inc()
    _log.warning("proxy_header_refused", peer=address, result=result.value, reason=reason)


async def _readable(sock: socket.socket, deadline: float) -> bool:
    """Whether bytes or the end came before `deadline`."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _done, came)
    try:
        async with asyncio.timeout_at(deadline):
            await came
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)
    return True


def _done(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)
