"""Listening sockets, as the settings name them."""

import socket
from collections.abc import Iterable

from paquebot.runtime.settings import Listen

BACKLOG = 1024


def bound(places: Iterable[Listen], *, shared: bool = False) -> list[socket.socket]:
    """A listening socket for each place. With `shared` the kernel spreads connections over all processes that ask for
    the port so (SO_REUSEPORT). Raises OSError; then none is left open.

    `[::]` takes clients of both families (RFC 4291 §2.5.5.2 tells how an IPv4 client looks there), unless an IPv4
    address with the same port stands beside it.
    """
    where = tuple(places)
    opened: list[socket.socket] = []
    try:
        for place in where:
            opened.append(_bound(place, shared=shared, both=_takes_both(place, where)))
    except OSError:
        for listener in opened:
            listener.close()
        raise
    return opened


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _takes_both(place: Listen, places: Iterable[Listen]) -> bool:
    """Of an IPv6 listener: the system's default may be either."""
    return place.host == "::" and not any(other.port == place.port and ":" not in other.host for other in places)


def _bound(place: Listen, *, shared: bool, both: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    listener = socket.create_server(
        (place.host, place.port), family=family, backlog=BACKLOG, reuse_port=shared, dualstack_ipv6=both
    )
    listener.setblocking(False)
    return listener
