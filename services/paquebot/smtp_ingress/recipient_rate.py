"""Rate limit of an account's recipients: its number per hour, which it may also use up at once.

An account has a rate only if the directory returns one at the login. Each process counts separately, so an account's
effective limit is its rate times the number of processes. Every accepted forward-path counts, whether a message follows
or not.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_HOUR = 3600.0
_MAX_ACCOUNTS = 10_000  # remembered before old ones are dropped
_PRUNE_SECONDS = 60.0


@dataclass(slots=True)
class RecipientRates:
    """The rates of all accounts of a process. `clock` is monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _spent: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Account id to the recipients that still count, and when that number was computed."""
    _prune_at: float = 0.0
    """The next time to drop old accounts: it takes a look at all of them."""

    def take(self, account_id: int, per_hour: int) -> bool:
        """Count one recipient. False: the rate is reached and the recipient is not counted. `per_hour` 0: no limit."""
        if per_hour <= 0:
            return True
        now = self.clock()
        spent, at = self._spent.get(account_id, (0.0, now))
        spent = max(0.0, spent - (now - at) * per_hour / _HOUR)
        if spent + 1 > per_hour:
            return False
        if len(self._spent) >= _MAX_ACCOUNTS and now >= self._prune_at:
            self._prune(now)
        self._spent[account_id] = (spent + 1, now)
        return True

    def _prune(self, now: float) -> None:
        """Drop accounts whose last recipient was more than an hour ago: their count is 0 by now."""
        self._prune_at = now + _PRUNE_SECONDS
        self._spent = {account: known for account, known in self._spent.items() if now - known[1] < _HOUR}
