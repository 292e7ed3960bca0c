"""The connection slots of a process, shared so that strangers leave room for clients that log in (invariant 7).

A connection counts for its client and network until the client logs in, and for the account from then on. A listener
belongs to a class of connections, each with a maximum of connections without a login. When no slot is free, the network
with the most gives one to a client of a network with fewer; a session with a login never gives its slot.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from paquebot.runtime.net.client_keys import client_keys
from paquebot.runtime.shares.budget import BudgetGroup, OverBudget, Reservation, SharedBudget
from paquebot.runtime.shares.in_flight import ACCOUNTS, account

LOGIN = "login"
"""The class of connections whose clients log in."""
MAIL = "mail"
"""The class of connections whose hosts bring mail and never log in."""


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """For a process. `reserved`: the part of `total` kept for clients with a login, 0 to 1. `per_client` (IPv4 address,
    IPv6 /64) and `per_network` (IPv4 /24, IPv6 /48) limit connections without a login, `per_account` the others."""

    total: int
    reserved: float
    per_client: int
    per_network: int
    per_account: int

    def open_to_all(self) -> int:
        return self.total - int(self.total * self.reserved)


class ConnectionSlot:
    """The slot of one connection. Release it when the connection has ended."""

    __slots__ = ("_reservation",)

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    def offer(self, on_revoked: Callable[[], None]) -> None:
        """Until the client logs in, another may need the slot: `on_revoked` then ends the connection. It must not
        raise."""
        self._reservation.offer(on_revoked)

    def log_in(self, account_id: int) -> bool:
        """Count the connection for the account from now on; False: the account has its maximum, nothing changed."""
        try:
            self._reservation.move(account(account_id))
        except OverBudget:
            return False
        self._reservation.keep()
        return True

    def release(self) -> None:
        """Idempotent."""
        self._reservation.release()


class ConnectionSlots:
    """One for a process."""

    def __init__(self, limits: SlotLimits, classes: Mapping[str, BudgetGroup]) -> None:
        """`classes`: by name; their caps are those of `limits`."""
        caps = (max(limits.per_network, limits.per_client), limits.per_client)
        groups: dict[Hashable, BudgetGroup] = {
            name: BudgetGroup(group.limit, group.guaranteed, caps) for name, group in classes.items()
        }
        groups[ACCOUNTS] = BudgetGroup(limits.total, limits.total, (limits.per_account,))
        self._budget = SharedBudget(limits.total, groups)

    @classmethod
    def of_logins(cls, limits: SlotLimits) -> "ConnectionSlots":
        """For a process whose clients all log in."""
        maximum = limits.open_to_all()
        return cls(limits, {LOGIN: BudgetGroup(maximum, maximum)})

    @classmethod
    def of_mail_and_logins(cls, limits: SlotLimits) -> "ConnectionSlots":
        """Half of the reserved slots is for clients about to log in while hosts that bring mail have all others."""
        maximum = limits.open_to_all()
        about_to_log_in = (limits.total - maximum + 1) // 2
        return cls(
            limits,
            {MAIL: BudgetGroup(maximum, maximum), LOGIN: BudgetGroup(maximum + about_to_log_in, about_to_log_in)},
        )

    @property
    def used(self) -> int:
        return self._budget.used

    def acquire(self, address: str, kind: str = LOGIN) -> ConnectionSlot | None:
        """A slot for a connection from `address`, of the class `kind`; None: there is none for it."""
        reservation = self._budget.reservation((kind, *client_keys(address)))
        try:
            reservation.grow_to(1)
        except OverBudget:
            return None
        return ConnectionSlot(reservation)
