"""The states of a session (RFC 3501 §3), each with its own data and nothing else."""

from dataclasses import dataclass, field, replace
from typing import TypeVar

from paquebot.imap.mailbox_view.view import View

CONDSTORE = "CONDSTORE"
QRESYNC = "QRESYNC"


@dataclass(frozen=True, slots=True)
class LoggedInAccount:
    """The account of a session; `quota_bytes` 0: no quota."""

    account_id: int
    address: str
    quota_bytes: int


@dataclass(frozen=True, slots=True)
class NotAuthenticated:
    """RFC 3501 §3.1"""


class _Enabling:
    """Has `enabled`: the extensions that ENABLE or a command enabled (RFC 5161)."""

    __slots__ = ()
    enabled: frozenset[str]

    @property
    def condstore(self) -> bool:
        """RFC 7162 §3.1"""
        return CONDSTORE in self.enabled

    @property
    def qresync(self) -> bool:
        """RFC 7162 §3.2"""
        return QRESYNC in self.enabled


@dataclass(frozen=True, slots=True)
class Authenticated(_Enabling):
    """RFC 3501 §3.2"""

    account: LoggedInAccount
    enabled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selected(_Enabling):
    """RFC 3501 §3.3; `view` belongs to this session, and only this session changes it."""

    account: LoggedInAccount
    enabled: frozenset[str]
    mailbox_id: int
    name: str
    uid_validity: int
    read_only: bool
    view: View = field(compare=False)

    def deselected(self) -> Authenticated:
        """The state after CLOSE, UNSELECT, or a SELECT that failed."""
        return Authenticated(self.account, self.enabled)


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """RFC 3501 §3.4"""


LoggedIn = Authenticated | Selected
SessionState = NotAuthenticated | Authenticated | Selected | LoggedOut

L = TypeVar("L", bound=Authenticated | Selected)


def condstore_enabled(state: L) -> L:
    """The state after a command that enables CONDSTORE (RFC 7162 §3.1)."""
    return state if state.condstore else replace(state, enabled=state.enabled | {CONDSTORE})
