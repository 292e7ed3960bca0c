"""Rows that no current version writes, made with SQL: older versions and damage leave such rows."""

from __future__ import annotations

from paquebot.runtime.postgres.pool import Connection, Postgres


async def spoil(postgres: Postgres, account_id: int, uid: int, change: str, mailbox_id: int = 1) -> None:
    """Set columns of a message's row without the triggers that would repair them."""
    sql = f"UPDATE mailstore.messages SET {change} WHERE account_id = $1 AND mailbox_id = $2 AND uid = $3"

    async def work(connection: Connection) -> None:
        await connection.execute("SET LOCAL session_replication_role = replica")
        assert await connection.execute(sql, account_id, mailbox_id, uid) == "UPDATE 1"

    await postgres.run("spoil", work)


async def spoil_mailbox(postgres: Postgres, account_id: int, change: str, mailbox_id: int = 1) -> None:
    """Set columns of a mailbox's row in the same way."""
    sql = f"UPDATE mailstore.mailboxes SET {change} WHERE account_id = $1 AND mailbox_id = $2"
    await postgres.execute("spoil", sql, account_id, mailbox_id)
