"""How many recipients an account may name: so many at once, and as many in each hour after that.

An account has a rate only when the directory says so at the login. Each process counts for itself, so the account's
bound is its rate times the processes that it finds. What is counted is forward-paths accepted, sent to or not.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_HOUR = 3600.0
_KEPT = 10_000
_LOOK_SECONDS = 60.0


@dataclass(slots=True)
class RecipientRates:
    """Of all accounts of a process. `clock` is monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _spent: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Account id to recipients not yet forgiven, and when that was reckoned."""
    _look_at: float = 0.0
    """Not before is looked again for what can be forgotten: each look is at all of them."""

    def take(self, account_id: int, per_hour: int) -> bool:
        """Count one recipient; False, and nothing counted, when the account has no room. `per_hour` 0: any number."""
        if per_hour <= 0:
            return True
        now = self.clock()
        spent, at = self._spent.get(account_id, (0.0, now))
        spent = max(0.0, spent - (now - at) * per_hour / _HOUR)
        if spent + 1 > per_hour:
            return False
        if len(self._spent) >= _KEPT and now >= self._look_at:
            self._forget(now)
        self._spent[account_id] = (spent + 1, now)
        return True

    def _forget(self, now: float) -> None:
        """Of accounts whose last recipient was more than an hour ago nothing is left to know."""
        self._look_at = now + _LOOK_SECONDS
        self._spent = {account: known for account, known in self._spent.items() if now - known[1] < _HOUR}
