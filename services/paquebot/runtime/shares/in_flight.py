"""The message bytes that a process holds in memory (invariant 7), and the shares that clients have of them."""

from dataclasses import dataclass

from paquebot.observability.metrics import gauge
from paquebot.runtime.net.client_keys import client_keys
from paquebot.runtime.settings import setting
from paquebot.runtime.shares.budget import BudgetGroup, Path, SharedBudget
from paquebot.runtime.shares.gate import ByteGate

IN_FLIGHT = gauge("paquebot_in_flight_bytes", "Bytes of messages in memory now")
LIMIT = gauge("paquebot_in_flight_limit_bytes", "Maximum bytes of messages that this process holds in memory")


STRANGERS = "strangers"
ACCOUNTS = "accounts"


def stranger(address: str) -> Path:
    """The holder for a client without a login: the client in its network."""
    return (STRANGERS, *client_keys(address))


def account(account_id: int | str) -> Path:
    """The holder for a client with a login, or at an address that the operator trusts."""
    return (ACCOUNTS, account_id)


@dataclass(frozen=True, slots=True)
class ShareSettings:
    """Parts of PAQUEBOT_IN_FLIGHT. Each is raised to one message of the maximum size, so that a client alone can always
    send one."""

    reserved: float = setting("IN_FLIGHT_RESERVED", 0.4, help="part of the bytes that is kept for clients with a login")
    network: float = setting(
        "IN_FLIGHT_NETWORK", 0.5, help="maximum part for one network without login (IPv4 /24, IPv6 /48)"
    )
    client: float = setting(
        "IN_FLIGHT_CLIENT", 0.3, help="maximum part for one client without login (IPv4 address, IPv6 /64)"
    )
    account: float = setting("IN_FLIGHT_ACCOUNT", 0.3, help="maximum part for one account")

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name in ("network", "client", "account"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"PAQUEBOT_IN_FLIGHT_{name.upper()} must be above 0 and at most 1")
        if not 0 <= self.reserved < 1:
            raise ValueError("PAQUEBOT_IN_FLIGHT_RESERVED must be at least 0 and below 1")


def byte_shares(limit: int, settings: ShareSettings, longest: int) -> SharedBudget:
    """A budget of `limit` bytes for messages of at most `longest` bytes."""

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


def byte_gate(limit: int) -> ByteGate:
    """A gate of `limit` bytes, for a process whose work has no clients."""
    LIMIT.set(limit)
    return ByteGate(limit, gauge=IN_FLIGHT)
