"""Patience with failed logins: how long an answer waits, how many wait, and what counts as one client.

The levels are the directory's (`directory.login_limits`). An answer that waits holds a call; their number is bounded,
for all and for each client, so that waiting is no attack of its own.
"""

import asyncio
import contextlib
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

from paquebot.directory.login_limits import LimitPolicy, LoginAttempt, site_of

FREE = 2
"""Failures of a person, from one network, that cost no time."""
_FIRST_SECONDS = 0.25
_SITE = 4
"""Times what a client network may have waiting, for its site."""


def delay_seconds(attempt: LoginAttempt, policy: LimitPolicy, longest: float) -> float:
    """Seconds until the password is looked at: twice as many with each failure, `longest` at most."""
    over = max(attempt.pair - 1 - FREE, attempt.login - policy.login, attempt.client - policy.client / 2)
    if over <= 0 or longest <= 0:
        return 0.0
    return min(longest, _FIRST_SECONDS * math.exp2(min(over - 1.0, 30.0)))


class DelaySlots:
    """Answers that wait, `most` of them, `per_client` for one client network, and four times that for all of its site:
    a stranger who has many addresses in a row does not take all places.
    """

    def __init__(self, most: int, per_client: int) -> None:
        self._most = most
        self._per_client = per_client
        self._clients: Counter[str] = Counter()
        self._sites: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._clients.total()

    async def wait(self, network: str, seconds: float) -> bool:
        """False, at once: too many wait already."""
        site = site_of(network)
        if (
            len(self) >= self._most
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
    """Refused a moment ago, and for how long still: a guesser that goes on asks the database nothing. At most
    `entries`; `clock` is monotonic seconds."""

    def __init__(self, entries: int, clock: Callable[[], float]) -> None:
        self._entries = entries
        self._clock = clock
        self._until: OrderedDict[tuple[int, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def note(self, key: tuple[int, str], seconds: float) -> None:
        self._until[key] = self._clock() + seconds
        self._until.move_to_end(key)
        while len(self._until) > self._entries:
            self._until.popitem(last=False)

    def wait(self, key: tuple[int, str]) -> float:
        """Seconds that are left; 0.0: not refused."""
        left = self._until.get(key, 0.0) - self._clock()
        if left > 0:
            return left
        self._until.pop(key, None)
        return 0.0
