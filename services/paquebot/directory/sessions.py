"""Whether sessions that logged in earlier may go on: one statement for many of them."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.runtime.postgres.pool import Postgres


@dataclass(frozen=True, slots=True)
class SessionCredential:
    """The login of a session. `app_password_id` 0: the account's own password, of `password_version` (0: unknown)."""

    account_id: int
    app_password_id: int
    password_version: int


class LoginState(enum.Enum):
    VALID = enum.auto()
    ACCOUNT_DISABLED = enum.auto()
    """The account or its domain is disabled."""
    ACCOUNT_REMOVED = enum.auto()
    CREDENTIAL_REVOKED = enum.auto()


@dataclass(frozen=True, slots=True)
class _Account:
    enabled: bool
    password_version: int
    app_passwords: frozenset[int]


_ACCOUNTS = """
SELECT a.account_id, a.enabled AND d.enabled AS enabled, a.password_version,
       array(SELECT app_password_id FROM directory.app_passwords p WHERE p.account_id = a.account_id) AS app_passwords
FROM directory.accounts a JOIN directory.domains d ON d.name = a.domain
WHERE a.account_id = ANY($1::bigint[])
"""


async def login_states(postgres: Postgres, sessions: Sequence[SessionCredential]) -> list[LoginState]:
    """The state of each login, in order."""
    asked = list({session.account_id for session in sessions})
    found = {
        int(row["account_id"]): _Account(row["enabled"], row["password_version"], frozenset(row["app_passwords"]))
        for row in await postgres.fetch("check_sessions", _ACCOUNTS, asked)
    }
    return [_state(session, found.get(session.account_id)) for session in sessions]


def _state(session: SessionCredential, account: _Account | None) -> LoginState:
    if account is None:
        return LoginState.ACCOUNT_REMOVED
    if not account.enabled:
        return LoginState.ACCOUNT_DISABLED
    if session.app_password_id:
        valid = session.app_password_id in account.app_passwords
    else:
        valid = session.password_version in (0, account.password_version)
    return LoginState.VALID if valid else LoginState.CREDENTIAL_REVOKED
