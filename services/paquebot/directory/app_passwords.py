"""Administration of app passwords: generated here, shown once, stored as digests."""

import datetime
from dataclasses import dataclass

import asyncpg

from paquebot.directory.accounts import get_account
from paquebot.directory.errors import AlreadyExists, FailedPrecondition, InvalidValue, NotFound
from paquebot.directory.passwords import app_password_digest, new_app_password
from paquebot.runtime.postgres.pool import Connection, Postgres, sole_row

MAX_NAME = 100
MAX_PASSWORDS = 50  # of an account: every login reads all


@dataclass(frozen=True, slots=True)
class AppPassword:
    """`last_used_on` is a UTC day; None: never."""

    app_password_id: int
    name: str
    created_at: datetime.datetime
    last_used_on: datetime.date | None


_COLUMNS = "app_password_id, name, created_at, last_used_on"
_COUNT = "SELECT count(*) FROM directory.app_passwords WHERE account_id = $1"
_INSERT = f"""
INSERT INTO directory.app_passwords (account_id, name, digest) VALUES ($1, $2, $3) RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant of column names
_LIST = f"""
SELECT {_COLUMNS} FROM directory.app_passwords WHERE account_id = $1 ORDER BY app_password_id
"""  # noqa: S608
_DELETE = "DELETE FROM directory.app_passwords WHERE account_id = $1 AND app_password_id = $2 RETURNING 1"


async def create_app_password(postgres: Postgres, address: str, name: str) -> tuple[AppPassword, str]:
    """The new entry and its password. Raises InvalidValue, NotFound, AlreadyExists, FailedPrecondition."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidValue(f"the name of an app password must be printable text of 1 to {MAX_NAME} characters")
    account = await get_account(postgres, address)
    password = new_app_password()

    async def work(connection: Connection) -> AppPassword:
        if await connection.fetchval(_COUNT, account.account_id) >= MAX_PASSWORDS:
            raise FailedPrecondition(f"account {account.address} has {MAX_PASSWORDS} app passwords: remove one first")
        digest = app_password_digest(account.account_id, password)
        try:
            row = await connection.fetchrow(_INSERT, account.account_id, name, digest)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(f"account {account.address} has an app password named {name!r}") from None
        except asyncpg.ForeignKeyViolationError:
            raise NotFound(f"there is no account {account.address}") from None
        return _app_password(sole_row(row))

    return await postgres.run("create_app_password", work), password


async def list_app_passwords(postgres: Postgres, address: str) -> list[AppPassword]:
    """Oldest first. Raises InvalidValue, NotFound."""
    account = await get_account(postgres, address)
    return [_app_password(row) for row in await postgres.fetch("list_app_passwords", _LIST, account.account_id)]


async def delete_app_password(postgres: Postgres, address: str, app_password_id: int) -> int:
    """Returns the account's id. Raises InvalidValue, NotFound."""
    account = await get_account(postgres, address)
    gone = await postgres.fetchval("delete_app_password", _DELETE, account.account_id, app_password_id)
    if gone is None:
        raise NotFound(f"account {account.address} has no app password {app_password_id}")
    return account.account_id


def _app_password(row: asyncpg.Record) -> AppPassword:
    return AppPassword(row["app_password_id"], row["name"], row["created_at"], row["last_used_on"])
