"""Listening sockets, as the settings name them."""

import socket
from collections.abc import Iterable

from paquebot.runtime.settings import Listen

BACKLOG = 1024


def bound(place: Listen, *, shared: bool = False, beside: Iterable[Listen] = ()) -> socket.socket:
    """A listening socket. With `shared` the kernel spreads connections over all processes that ask for the port so
    (SO_REUSEPORT). `beside`: all places of the list that `place` is of. Raises OSError.

    `[::]` takes clients of both families (RFC 4291 §2.5.5.2 tells how an IPv4 client looks there), unless an IPv4
    address with the same port stands beside it.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.create_server(
        (place.host, place.port),
        family=family,
        backlog=BACKLOG,
        reuse_port=shared,
        dualstack_ipv6=_takes_both(place, beside),
    )
    listener.setblocking(False)
    return listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _takes_both(place: Listen, beside: Iterable[Listen]) -> bool:
    """Of an IPv6 listener: the system's default may be either."""
    return place.host == "::" and not any(other.port == place.port and ":" not in other.host for other in beside)
