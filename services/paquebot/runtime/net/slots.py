"""Connections of a process, shared so that strangers leave room for clients that log in (invariant 7, fair shares).

A connection is counted for its client and network until its client logs in, and for its account from then on. Doors are
ways in: each has a most of connections without a login. When no seat is left, the largest network gives one to a client
whose network has fewer; sessions that logged in are never ended for another.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from paquebot.runtime.net.client_network import client_network
from paquebot.runtime.shares.budget import BudgetGroup, OverBudget, Reservation, SharedBudget
from paquebot.runtime.shares.in_flight import ACCOUNTS, account

LOGIN = "login"
"""The door of clients that are to log in."""
MAIL = "mail"
"""The door of hosts that bring mail and never log in."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """Of a process. `reserved`: the part of `total` kept for clients that logged in, 0 to 1. `per_client` (IPv4
    address, IPv6 /64) and `per_network` (IPv4 /24, IPv6 /48) bound connections without a login, `per_account` others.
    """

    total: int
    reserved: float
    per_client: int
    per_network: int
    per_account: int

    def open_to_all(self) -> int:
        return self.total - int(self.total * self.reserved)


class ConnectionSlot:
    """Of one connection, to be left once it has ended."""

    __slots__ = ("_holding",)

    def __init__(self, holding: Reservation) -> None:
        self._holding = holding

    def offer(self, on_taken: Callable[[], None]) -> None:
        """Until the client logs in, another may need the seat: `on_taken` then ends the connection. It never raises."""
        self._holding.offer(on_taken)

    def log_in(self, account_id: int) -> bool:
        """Count the connection for the account from now on; False: that has its most already, nothing changed."""
        try:
            self._holding.move(account(account_id))
        except OverBudget:
            return False
        self._holding.keep()
        return True

    def leave(self) -> None:
        """Idempotent."""
        self._holding.release()


class ConnectionSlots:
    """One for a process."""

    def __init__(self, limits: SlotLimits, doors: Mapping[str, BudgetGroup]) -> None:
        caps = (max(limits.per_network, limits.per_client), limits.per_client)
        groups: dict[Hashable, BudgetGroup] = {
            name: BudgetGroup(door.limit, door.guaranteed, caps) for name, door in doors.items()
        }
        groups[ACCOUNTS] = BudgetGroup(limits.total, limits.total, (limits.per_account,))
        self._budget = SharedBudget(limits.total, groups)

    @classmethod
    def of_logins(cls, limits: SlotLimits) -> "ConnectionSlots":
        """Where all clients are to log in."""
        most = limits.open_to_all()
        return cls(limits, {LOGIN: BudgetGroup(most, most)})

    @classmethod
    def of_mail_and_logins(cls, limits: SlotLimits) -> "ConnectionSlots":
        """Half of what is reserved is for clients about to log in, while hosts that bring mail take all others."""
        most = limits.open_to_all()
        about_to_log_in = (limits.total - most + 1) // 2
        return cls(limits, {MAIL: BudgetGroup(most, most), LOGIN: BudgetGroup(most + about_to_log_in, about_to_log_in)})

    @property
    def now(self) -> int:
        return self._budget.used

    def enter(self, address: str, door: str = LOGIN) -> ConnectionSlot | None:
        """A seat for a connection from `address`; None: there is none for it."""
        origin = client_network(address)
        holding = self._budget.holding((door, origin.network, origin.client))
        try:
            holding.grow_to(1)
        except OverBudget:
            return None
        return ConnectionSlot(holding)
