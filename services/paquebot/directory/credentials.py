"""The credentials of an account: its password hash and its app passwords, by its address."""

import datetime
from dataclasses import dataclass

from paquebot.directory.errors import InvalidValue
from paquebot.directory.names import local_address
from paquebot.runtime.postgres.pool import Postgres
from paquebot.wire.address import Address


@dataclass(frozen=True, slots=True)
class StoredCredentials:
    """`enabled`: both the account and its domain are. `app_passwords`: digest → id. `network_used_on`: the UTC day of
    the account's last login from the client's network; None: not known."""

    account_id: int
    address: Address
    enabled: bool
    quota_bytes: int
    password_hash: str
    password_version: int
    app_passwords: dict[bytes, int]
    network_used_on: datetime.date | None


def login_address(login: str, default_domain: str) -> Address | None:
    """The canonical address of a login; `default_domain` completes a bare local part. None: no account can have it."""
    try:
        if "@" in login:
            return local_address(login)
        if not login or not default_domain:
            return None
        return local_address(str(Address(login, default_domain)))
    except InvalidValue:
        return None


_CREDENTIALS = """
SELECT a.account_id, a.local_part, a.domain, a.enabled AND d.enabled AND home.enabled AS enabled, a.quota_bytes,
       a.password_hash, a.password_version,
       (SELECT last_used_on FROM directory.login_networks n
        WHERE n.account_id = a.account_id AND n.network = $3) AS network_used_on,
       array(SELECT digest FROM directory.app_passwords p WHERE p.account_id = a.account_id
             ORDER BY app_password_id) AS digests,
       array(SELECT app_password_id FROM directory.app_passwords p WHERE p.account_id = a.account_id
             ORDER BY app_password_id) AS ids
FROM directory.domains d
JOIN directory.domains home ON home.name = coalesce(d.alias_of, d.name)
JOIN directory.accounts a ON a.domain = home.name
WHERE d.name = $1 AND a.local_part = $2
"""


async def credentials(postgres: Postgres, address: Address, network: str) -> StoredCredentials | None:
    """Those of the account with `address`, also at an alias domain; None: no such account. `network`: the client's."""
    row = await postgres.fetchrow("credentials", _CREDENTIALS, address.domain, address.local, network)
    if row is None:
        return None
    return StoredCredentials(
        account_id=row["account_id"],
        address=Address(row["local_part"], row["domain"]),
        enabled=row["enabled"],
        quota_bytes=row["quota_bytes"],
        password_hash=row["password_hash"],
        password_version=row["password_version"],
        app_passwords=dict(zip(row["digests"], row["ids"], strict=True)),
        network_used_on=row["network_used_on"],
    )


_REHASH = "UPDATE directory.accounts SET password_hash = $3 WHERE account_id = $1 AND password_hash = $2"


async def replace_hash(postgres: Postgres, account_id: int, old: str, new: str) -> None:
    """Store a stronger hash of the same password, unless the password has changed meanwhile."""
    await postgres.execute("replace_hash", _REHASH, account_id, old, new)


_USED = """
UPDATE directory.app_passwords SET last_used_on = $2
WHERE app_password_id = $1 AND last_used_on IS DISTINCT FROM $2
"""


async def record_use(postgres: Postgres, app_password_id: int, day: datetime.date) -> None:
    """Record that the app password was used on `day` (UTC); writes at most once a day."""
    await postgres.execute("note_use", _USED, app_password_id, day)
