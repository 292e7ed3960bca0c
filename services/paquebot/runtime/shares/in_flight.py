"""How many message bytes a process holds in memory (invariant 7), and how its peers share them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from paquebot.observability.metrics import gauge
from paquebot.runtime.net.client_network import client_network
from paquebot.runtime.settings import setting
from paquebot.runtime.shares.budget import BudgetGroup, OverBudget, Path, SharedBudget

__all__ = ["ByteBudget", "OverBudget", "Reservation", "ShareSettings", "account", "byte_shares", "stranger"]

IN_FLIGHT = gauge("paquebot_in_flight_bytes", "Bytes of messages in memory now")
LIMIT = gauge("paquebot_in_flight_limit_bytes", "Most bytes of messages that this process holds in memory")


STRANGERS = "strangers"
ACCOUNTS = "accounts"


def stranger(address: str) -> Path:
    """The holder that nobody vouches for: a client in its network."""
    origin = client_network(address)
    return (STRANGERS, origin.network, origin.client)


def account(account_id: int | str) -> Path:
    """The holder that logged in, or whose address the operator trusts."""
    return (ACCOUNTS, account_id)


@dataclass(frozen=True, slots=True)
class ShareSettings:
    """Parts of PAQUEBOT_IN_FLIGHT. None is smaller than one message of the longest kind: a peer alone can always send
    one."""

    reserved: float = setting("IN_FLIGHT_RESERVED", 0.4, help="part of the bytes kept for clients that logged in")
    network: float = setting("IN_FLIGHT_NETWORK", 0.5, help="most of a network without login (IPv4 /24, IPv6 /48)")
    client: float = setting("IN_FLIGHT_CLIENT", 0.3, help="most of a client without login (IPv4 address, IPv6 /64)")
    account: float = setting("IN_FLIGHT_ACCOUNT", 0.3, help="most of an account")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name in ("network", "client", "account"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"PAQUEBOT_IN_FLIGHT_{name.upper()} is a part of all: more than 0, at most 1")
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_IN_FLIGHT_RESERVED is a part of all: from 0 to less than 1")


def byte_shares(limit: int, settings: ShareSettings, longest: int) -> SharedBudget:
    """Of `limit` bytes, for messages of at most `longest`."""

    def part(share: float) -> int:
        return min(limit, max(longest, int(limit * share)))

    open_to_all = int(limit * (1 - settings.reserved))
    LIMIT.set(limit)
    return SharedBudget(
        limit,
        {
            STRANGERS: BudgetGroup(
                part(1 - settings.reserved), open_to_all, (part(settings.network), part(settings.client))
            ),
            ACCOUNTS: BudgetGroup(limit, limit - open_to_all, (part(settings.account),)),
        },
        gauge=IN_FLIGHT,
    )


class ByteBudget:
    """Bytes of messages under way in this process. Reserve before reading, as far as the size is known."""

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        LIMIT.set(limit)

    @property
    def used(self) -> int:
        return self._used

    def take(self, octets: int) -> None:
        """Reserve `bytes` more, or raise OverBudget and reserve nothing."""
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

    _budget: ByteBudget
    octets: int = 0

    def grow_to(self, octets: int) -> None:
        """Hold at least `bytes`. Raises OverBudget."""
        if octets > self.octets:
            self._budget.take(octets - self.octets)
            self.octets = octets

    def release(self) -> None:
        self._budget.give_back(self.octets)
        self.octets = 0


def counted_as(client: str) -> str:
    """The key under which a client is counted."""
    return client_network(client).client
