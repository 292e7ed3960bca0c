"""Bounds of a process: connections in total and per client, and message octets in memory (invariant 7)."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from paquebot.observability.metrics import gauge

IN_FLIGHT = gauge("paquebot_in_flight_bytes", "Bytes of messages in memory now")
LIMIT = gauge("paquebot_in_flight_limit_bytes", "Most bytes of messages that this process holds in memory")


class OverBudget(Exception):
    """The process holds as many message octets as it may; the peer should come back later."""


class OctetBudget:
    """Octets of messages under way in this process. Reserve before reading, as far as the size is known."""

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        LIMIT.set(limit)

    @property
    def used(self) -> int:
        return self._used

    def take(self, octets: int) -> None:
        """Reserve `octets` more, or raise OverBudget and reserve nothing."""
        if self._used + octets > self._limit:
            raise OverBudget
        self._used += octets
        IN_FLIGHT.set(self._used)

    def give_back(self, octets: int) -> None:
        self._used -= octets
        IN_FLIGHT.set(self._used)

    @contextmanager
    def reservation(self) -> Iterator["Reservation"]:
        """A growing reservation, given back whole at the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.release()


@dataclass(slots=True)
class Reservation:
    """What one message holds of the budget."""

    _budget: OctetBudget
    octets: int = 0

    def grow_to(self, octets: int) -> None:
        """Hold at least `octets`. Raises OverBudget."""
        if octets > self.octets:
            self._budget.take(octets - self.octets)
            self.octets = octets

    def release(self) -> None:
        self._budget.give_back(self.octets)
        self.octets = 0


@dataclass(slots=True)
class ConnectionLimit:
    """Connections now, in total and per client: an IPv4 address, or an IPv6 network of 64 bits, within which one
    host has as many addresses as it likes (RFC 4291 §2.5.4, RFC 8981)."""

    total: int
    per_client: int
    now: int = 0
    _clients: dict[str, int] = field(default_factory=dict)

    def enter(self, client: str) -> bool:
        """Count a connection in; False: one too many, not counted."""
        client = counted_as(client)
        mine = self._clients.get(client, 0)
        if self.now >= self.total or mine >= self.per_client:
            return False
        self.now += 1
        self._clients[client] = mine + 1
        return True

    def leave(self, client: str) -> None:
        """A connection that `enter` let in has ended. Raises KeyError, and counts nothing, when none is in."""
        client = counted_as(client)
        mine = self._clients[client] - 1
        self.now -= 1
        if mine:
            self._clients[client] = mine
        else:
            del self._clients[client]


def counted_as(client: str) -> str:
    """The key under which an address is counted; what is no IPv6 address counts as itself."""
    if ":" not in client:
        return client
    try:
        address = ipaddress.IPv6Address(client)
    except ValueError:
        return client
    if address.ipv4_mapped is not None:  # RFC 4291 §2.5.5.2: an IPv4 client on a listener for both
        return str(address.ipv4_mapped)
    network = str(ipaddress.IPv6Address(int(address) >> 64 << 64))
    return f"{network}%{address.scope_id}" if address.scope_id else network
