"""The statements of directory and spool on tables without statistics: a plan reads only the rows that it needs."""

from __future__ import annotations

import pytest

from paquebot.directory import login_limits, sessions
from paquebot.directory.login_limits import AttemptRefused, LimitPolicy, LoginAttempt
from paquebot.directory.sessions import SessionCredential
from paquebot.mailstore import Accounts
from paquebot.runtime.postgres.pool import Postgres
from paquebot.spool import outcomes
from paquebot.spool.outcomes import RecipientOutcome
from tests.support.plan_world import alone, work_of

__all__ = ["alone"]  # a fixture

MANY = 3000
MOST = 300
"""Rows, entries or blocks of all calls together: one read of a table of MANY is more."""
POLICY = LimitPolicy(pair=1, client=10, login=10, recovery=3600.0)

_FILL = (
    "INSERT INTO directory.domains (name) VALUES ('x.test') ON CONFLICT DO NOTHING",
    "INSERT INTO directory.accounts (domain, local_part, password_hash)"
    " SELECT 'x.test', 'u' || n, '' FROM generate_series(1, $1::int) n ON CONFLICT DO NOTHING",
    "INSERT INTO directory.app_passwords (account_id, name, digest)"
    " SELECT account_id, 'a', sha256('') FROM directory.accounts WHERE account_id <= $1::int ON CONFLICT DO NOTHING",
    "INSERT INTO directory.login_failures (subject, network, level, at)"
    " SELECT n, '192.0.2.1', 1, now() FROM generate_series(1, $1::int) n ON CONFLICT DO NOTHING",
    "INSERT INTO directory.login_networks (account_id, network, last_used_on)"
    " SELECT account_id, '192.0.2.1', '2024-01-01' FROM directory.accounts WHERE account_id <= $1::int"
    " ON CONFLICT DO NOTHING",
    "INSERT INTO mailstore.accounts (account_id, last_mailbox_id, last_uid_validity)"
    " SELECT n, 1, 1 FROM generate_series(1, $1::int) n ON CONFLICT DO NOTHING",
    "INSERT INTO spool.outcomes (queue_id, forward_path, outcome)"
    " SELECT 'q' || n, 'a@x.test', 1 FROM generate_series(1, $1::int) n ON CONFLICT DO NOTHING",
)


async def fill(postgres: Postgres, count: int) -> None:
    for sql in _FILL:
        await postgres.execute("fill", sql, *([count] if "$1" in sql else []))


async def calls(postgres: Postgres) -> None:
    taken = await login_limits.count_attempt(postgres, POLICY, 1_000_000, "198.51.100.7", known=False)
    assert isinstance(taken, LoginAttempt)
    assert isinstance(
        await login_limits.count_attempt(postgres, POLICY, 1_000_000, "198.51.100.7", known=False), AttemptRefused
    )
    await login_limits.uncount_attempt(postgres, taken.keys)
    await sessions.login_states(postgres, [SessionCredential(1, 0, 1), SessionCredential(2, 1, 1)])
    assert await outcomes.finished_recipients(postgres, ["q1", "q0"]) == {("q1", "a@x.test")}
    await outcomes.record(postgres, [("q1", "b@x.test", RecipientOutcome.RELAYED)])
    assert set(await Accounts(postgres).usages([1, 2])) == {1, 2}


@pytest.mark.parametrize("planned", ["few", "many"])
async def test_a_call_reads_only_the_rows_that_it_needs(alone: Postgres, planned: str) -> None:
    if planned == "few":
        await fill(alone, 2)
        await calls(alone)
        await alone.execute("clear", "DELETE FROM spool.outcomes WHERE forward_path = 'b@x.test'")
    await fill(alone, MANY)
    work = await work_of(alone, lambda: calls(alone))
    assert max(work.rows, work.entries, work.blocks) < MOST, work
