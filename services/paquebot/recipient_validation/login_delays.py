"""Delays after failed logins: how long an answer is delayed, and how many answers at once.

The levels are those of `directory.login_limits`. A delayed answer occupies a call; the number of delayed answers is
limited, in total and for each client, so that delays cannot be used as an attack.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator

from cachetools import TLRUCache

from paquebot.directory.login_limits import LimitPolicy, LoginAttempt, site_of

FREE = 2
"""Failures of one login from one network without a delay."""
_FIRST_SECONDS = 0.25
_SITE = 4
"""A site may have so many times the delayed answers of one client network."""


def delay_seconds(attempt: LoginAttempt, policy: LimitPolicy, maximum: float) -> float:
    """Seconds until the password is checked: doubled by each failure, at most `maximum`."""
    over = max(attempt.pair - 1 - FREE, attempt.login - policy.login, attempt.client - policy.client / 2)
    if over <= 0 or maximum <= 0:
        return 0.0
    return min(maximum, _FIRST_SECONDS * math.exp2(min(over - 1.0, 30.0)))


class DelaySlots:
    """The delayed answers: at most `limit` of them, `per_client` for one client network, and four times that for its
    site, so that a client with many neighbouring addresses does not take all slots.
    """

    def __init__(self, limit: int, per_client: int) -> None:
        self._limit = limit
        self._per_client = per_client
        self._clients: Counter[str] = Counter()
        self._sites: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._clients.total()

    async def wait(self, network: str, seconds: float) -> bool:
        """Waits for `seconds`; False, at once: no slot is free."""
        site = site_of(network)
        if (
            len(self) >= self._limit
            or self._clients[network] >= self._per_client
            or self._sites[site] >= _SITE * self._per_client
        ):
            return False
        with _counted(self._clients, network), _counted(self._sites, site):
            await asyncio.sleep(seconds)
        return True


@contextlib.contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


class RecentRefusals:
    """Refused attempts, and until when: a client that goes on guessing causes no query. At most `entries`; `clock` is
    monotonic seconds."""

    def __init__(self, entries: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        # At least one: a cache of size 0 accepts no entry.
        self._until: TLRUCache[tuple[int, str], float] = TLRUCache(max(1, entries), _expiry, clock)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, key: tuple[int, str], seconds: float) -> None:
        self._until[key] = self._clock() + seconds

    def wait(self, key: tuple[int, str]) -> float:
        """Seconds that are left; 0.0: not refused."""
        return max(0.0, self._until.get(key, 0.0) - self._clock())


def _expiry(_key: tuple[int, str], until: float, _now: float) -> float:
    return until
