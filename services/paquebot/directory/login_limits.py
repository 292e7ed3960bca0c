"""Failed logins and good client networks, shared by all processes and kept over their restarts.

A failure raises levels, which fall by one every `recovery` seconds: of the login from this client network, of the
client network whatever it tries, and of the login whoever tries it. Anybody can have an IPv6 /48, and with it 65,536
networks of clients: a failure counts an eighth for that, too. An attempt counts before its password is looked at,
so that guesses side by side cannot pass a limit; one without fault is taken back. No level of an account alone refuses
anybody: strangers cannot lock its owner out. From a network where the account's password was right lately only the
level of that account and network counts.
"""

import datetime
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from paquebot.runtime.net.client_keys import client_keys
from paquebot.runtime.postgres.pool import Postgres

NETWORKS_KEPT = 50  # of an account
_ANY_LOGIN = 0
_ANY_NETWORK = ""
_ABOVE = 12.0  # levels of a login over its bound: how long its delays outlive an attack

_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """`pair`: failures of one login from one client network, `client`: of one client network, above which attempts are
    refused; `login`: of one login from anywhere, above which they are slowed down. `recovery` in seconds."""

    pair: int
    client: int
    login: int
    recovery: float


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """What an attempt counted on, and the levels afterwards; 0.0 where it did not count."""

    keys: tuple[_Key, ...]
    pair: float
    client: float
    login: float


@dataclass(frozen=True, slots=True)
class AttemptRefused:
    """Nothing was counted; in so many seconds the attempt is let in."""

    seconds: float


def unknown_subject(key: bytes, login: str) -> int:
    """Stands for a login that nobody has; below 0, so no account has it."""
    digest = hmac.digest(key, login.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return -1 - (int.from_bytes(digest[:8], "big") >> 2)


def site_of(network: str) -> str:
    """What a client network is part of: an IPv6 /48 or an IPv4 /24; empty as that is."""
    return client_keys(network.partition("/")[0]).network


async def login_key(postgres: Postgres) -> bytes:
    """The key of `unknown_subject`; it never changes."""
    return bytes(await postgres.fetchval("login_key", "SELECT key FROM directory.login_key"))


# Rows are locked in one order everywhere, so that two attempts cannot wait for each other.
_LEFT = "greatest(0, f.level - greatest(0, extract(epoch FROM clock_timestamp() - f.at)) / $3::double precision)"
_FLOAT = "double precision"
_STEP = f"CASE WHEN %s.network LIKE '%%/48' THEN 0.125::{_FLOAT} ELSE 1::{_FLOAT} END"
_UP, _NEW = _STEP % "f", _STEP % "k"
_MOST = f"CASE WHEN f.network = '' THEN 'infinity'::{_FLOAT} WHEN f.subject = 0 THEN $4::{_FLOAT} ELSE $5::{_FLOAT} END"
_TAKE = f"""
INSERT INTO directory.login_failures AS f (subject, network, level, at)
SELECT subject, network, {_NEW}, clock_timestamp() FROM unnest($1::bigint[], $2::text[]) AS k (subject, network)
ORDER BY subject, network
ON CONFLICT (subject, network) DO UPDATE
SET level = least({_LEFT} + {_UP}, CASE WHEN f.network = '' THEN $6::{_FLOAT} ELSE 'infinity'::{_FLOAT} END),
    at = clock_timestamp()
WHERE {_LEFT} + {_UP} <= {_MOST}
RETURNING subject, network, level
"""  # noqa: S608 - constants
_WAIT = f"""
SELECT coalesce(max(({_LEFT} + {_UP} - {_MOST}) * $3), 0)
FROM directory.login_failures f JOIN unnest($1::bigint[], $2::text[]) AS k (subject, network) USING (subject, network)
"""  # noqa: S608
_GIVE_BACK = f"""
WITH held AS (
    SELECT subject, network FROM directory.login_failures
    JOIN unnest($1::bigint[], $2::text[]) AS k (subject, network) USING (subject, network)
    ORDER BY subject, network FOR UPDATE
)
UPDATE directory.login_failures f SET level = greatest(0, f.level - {_UP})
FROM held WHERE f.subject = held.subject AND f.network = held.network
"""  # noqa: S608


async def count_attempt(
    postgres: Postgres, policy: LimitPolicy, subject: int, network: str, *, known: bool
) -> LoginAttempt | AttemptRefused:
    """Count an attempt as a failure until `uncount_attempt`. `subject`: the account, or `unknown_subject`; `network`
    empty: not known; `known`: the account's password was right from there."""
    keys = [(subject, network or "-")]
    if not known:
        keys.append((subject, _ANY_NETWORK))
        if network:
            keys.append((_ANY_LOGIN, network))
        if (site := site_of(network)).endswith("/48"):
            keys.append((_ANY_LOGIN, site))
    rows = await postgres.fetch(
        "take_login",
        _TAKE,
        *_columns(keys),
        policy.recovery,
        float(policy.client),
        float(policy.pair),
        policy.login + _ABOVE,
    )
    levels: dict[_Key, float] = {(row["subject"], row["network"]): row["level"] for row in rows}
    missing = [key for key in keys if key not in levels]
    if missing:
        await uncount_attempt(postgres, list(levels))
        bounds = (policy.recovery, float(policy.client), float(policy.pair))
        return AttemptRefused(float(await postgres.fetchval("login_wait", _WAIT, *_columns(missing), *bounds)))
    return LoginAttempt(
        tuple(keys),
        pair=levels[keys[0]],
        client=levels.get((_ANY_LOGIN, network), 0.0),
        login=levels.get((subject, _ANY_NETWORK), 0.0),
    )


async def uncount_attempt(postgres: Postgres, keys: Sequence[_Key]) -> None:
    """The attempt was no failure."""
    if keys:
        await postgres.execute("give_back_login", _GIVE_BACK, *_columns(keys))


def _columns(keys: Sequence[_Key]) -> tuple[list[int], list[str]]:
    return [subject for subject, _ in keys], [network for _, network in keys]


_USED = """
INSERT INTO directory.login_networks AS n (account_id, network, last_used_on)
SELECT account_id, $2, $3 FROM directory.accounts WHERE account_id = $1
ON CONFLICT (account_id, network) DO UPDATE SET last_used_on = excluded.last_used_on
WHERE n.last_used_on < excluded.last_used_on
"""
_OLDEST = """
DELETE FROM directory.login_networks WHERE account_id = $1 AND network IN (
    SELECT network FROM directory.login_networks WHERE account_id = $1 ORDER BY last_used_on DESC, network OFFSET $2
)
"""


async def note_network(postgres: Postgres, account_id: int, network: str, day: datetime.date) -> None:
    """The account logged in from `network` on `day` (UTC)."""
    await postgres.execute("note_network", _USED, account_id, network, day)
    await postgres.execute("forget_networks", _OLDEST, account_id, NETWORKS_KEPT)


_FORGET_LEVELS = """
DELETE FROM directory.login_failures
WHERE at < clock_timestamp() - make_interval(secs => $1)
   OR at < (SELECT at FROM directory.login_failures ORDER BY at DESC OFFSET $2 LIMIT 1)
"""
_FORGET_NETWORKS = "DELETE FROM directory.login_networks WHERE last_used_on < $1"


async def delete_old(postgres: Postgres, policy: LimitPolicy, most: int, known_since: datetime.date) -> None:
    """Drop levels that have fallen to 0, all but the `most` youngest, and networks last used before `known_since`."""
    lasts = (max(policy.pair, policy.client, policy.login + _ABOVE) + 1) * policy.recovery
    await postgres.execute("forget_failures", _FORGET_LEVELS, lasts, most)
    await postgres.execute("forget_old_networks", _FORGET_NETWORKS, known_since)
