"""Failed logins and good client networks, shared by all processes and kept over their restarts.

A failure raises three levels, which fall by one every `recovery` seconds: of the login from this client network, of the
client network for all logins, and of the login for all networks. An attacker can easily have an IPv6 /48, and with it
65,536 client networks: a failure also counts an eighth for the /48. An attempt counts before its password is checked,
so that parallel guesses cannot pass a limit; a good login is subtracted again. The level of an account alone never
refuses an attempt: other people cannot lock its owner out. From a network with a recent good login to the account only
the level of that account and network counts.
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
_MAX_ABOVE = 12.0  # maximum level of a login over its limit: how long its delays outlive an attack

_Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """`pair`: failures of one login from one client network, `client`: of one client network, above which attempts are
    refused; `login`: of one login from all networks, above which attempts are delayed. `recovery` in seconds."""

    pair: int
    client: int
    login: int
    recovery: float


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """The keys that an attempt was counted for, and their levels afterwards; 0.0 where it did not count."""

    keys: tuple[_Key, ...]
    pair: float
    client: float
    login: float


@dataclass(frozen=True, slots=True)
class AttemptRefused:
    """Nothing was counted; after so many seconds the attempt is accepted."""

    seconds: float


def unknown_subject(key: bytes, login: str) -> int:
    """An id for a login that no account has; below 0, so no account has it."""
    digest = hmac.digest(key, login.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return -1 - (int.from_bytes(digest[:8], "big") >> 2)


def site_of(network: str) -> str:
    """The IPv6 /48 or IPv4 /24 of a client network; empty for an empty one."""
    return client_keys(network.partition("/")[0]).network


async def login_key(postgres: Postgres) -> bytes:
    """The key of `unknown_subject`; it never changes."""
    return bytes(await postgres.fetchval("login_key", "SELECT key FROM directory.login_key"))


# All statements lock rows in the same order, so that two attempts cannot wait for each other.
_LEFT = "greatest(0, f.level - greatest(0, extract(epoch FROM clock_timestamp() - f.at)) / $3::double precision)"
_FLOAT = "double precision"
_STEP = f"CASE WHEN %s.network LIKE '%%/48' THEN 0.125::{_FLOAT} ELSE 1::{_FLOAT} END"
_UP, _NEW = _STEP % "f", _STEP % "k"
_MAXIMUM = (
    f"CASE WHEN f.network = '' THEN 'infinity'::{_FLOAT} WHEN f.subject = 0 THEN $4::{_FLOAT} ELSE $5::{_FLOAT} END"
)
_COUNT = f"""
INSERT INTO directory.login_failures AS f (subject, network, level, at)
SELECT subject, network, {_NEW}, clock_timestamp() FROM unnest($1::bigint[], $2::text[]) AS k (subject, network)
ORDER BY subject, network
ON CONFLICT (subject, network) DO UPDATE
SET level = least({_LEFT} + {_UP}, CASE WHEN f.network = '' THEN $6::{_FLOAT} ELSE 'infinity'::{_FLOAT} END),
    at = clock_timestamp()
WHERE {_LEFT} + {_UP} <= {_MAXIMUM}
RETURNING subject, network, level
"""  # noqa: S608 - constants
_WAIT = f"""
SELECT coalesce(max(({_LEFT} + {_UP} - {_MAXIMUM}) * $3), 0)
FROM directory.login_failures f JOIN unnest($1::bigint[], $2::text[]) AS k (subject, network) USING (subject, network)
"""  # noqa: S608
_UNCOUNT = f"""
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
        _COUNT,
        *_columns(keys),
        policy.recovery,
        float(policy.client),
        float(policy.pair),
        policy.login + _MAX_ABOVE,
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
    """The attempt was not a failure."""
    if keys:
        await postgres.execute("give_back_login", _UNCOUNT, *_columns(keys))


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


async def record_network(postgres: Postgres, account_id: int, network: str, day: datetime.date) -> None:
    """The account logged in from `network` on `day` (UTC)."""
    await postgres.execute("note_network", _USED, account_id, network, day)
    await postgres.execute("forget_networks", _OLDEST, account_id, NETWORKS_KEPT)


_FORGET_LEVELS = """
DELETE FROM directory.login_failures
WHERE at < clock_timestamp() - make_interval(secs => $1)
   OR at < (SELECT at FROM directory.login_failures ORDER BY at DESC OFFSET $2 LIMIT 1)
"""
_FORGET_NETWORKS = "DELETE FROM directory.login_networks WHERE last_used_on < $1"


async def delete_old(postgres: Postgres, policy: LimitPolicy, maximum: int, known_since: datetime.date) -> None:
    """Delete levels that fell to 0, all but the newest `maximum`, and networks last used before `known_since`."""
    lasts = (max(policy.pair, policy.client, policy.login + _MAX_ABOVE) + 1) * policy.recovery
    await postgres.execute("forget_failures", _FORGET_LEVELS, lasts, maximum)
    await postgres.execute("forget_old_networks", _FORGET_NETWORKS, known_since)
