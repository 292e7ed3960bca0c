"""Listening sockets, as the settings name them."""

import socket
from collections.abc import Iterable

from paquebot.runtime.settings import Listen

BACKLOG = 1024
_NOT_SENT = 64 * 1024


def bound(place: Listen, *, shared: bool = False, beside: Iterable[Listen] = ()) -> socket.socket:
    """A listening socket. `shared`: the kernel spreads connections over all processes that bind the port so
    (SO_REUSEPORT). `beside`: the whole list that has `place`. Raises OSError.

    `[::]` takes clients of both families (RFC 4291 §2.5.5.2: an IPv4 client has an IPv4-mapped address), unless an
    IPv4 address with the same port stands beside it.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.create_server(
        (place.host, place.port),
        family=family,
        backlog=BACKLOG,
        reuse_port=shared,
        dualstack_ipv6=_is_dual_stack(place, beside),
    )
    listener.setblocking(False)
    # Linux gives these to every connection accepted from the listener. TCP_NOTSENT_LOWAT (tcp(7)): the kernel keeps no
    # more than a little that is not sent yet. Megabytes of it would be in no account, and would hide for a minute that
    # a slow client has read nothing.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT)
    return listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _is_dual_stack(place: Listen, beside: Iterable[Listen]) -> bool:
    """Whether an IPv6 listener takes IPv4 clients too: the system's default may be either."""
    return place.host == "::" and not any(other.port == place.port and ":" not in other.host for other in beside)
