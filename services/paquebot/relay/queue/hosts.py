"""The share of one address, whatever domains lead to it: concurrent attempts, and a rest when they time out.

Many domains may share one host as their exchanger: they are many destinations and one address. An address
that has not replied yet gets few attempts; one that let an attempt hang until it failed rests, first
for as long as a destination does, and then gets a single attempt. A quick refusal costs nothing and is not remembered.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paquebot.relay.outcome import Host, HostUnusable, RelayOutcome
from paquebot.relay.settings import RelayLoadSettings, RetrySettings

_MAX_KNOWN = 20_000
_MAX_FAILURES = 16


class HostBusy(Exception):
    """The address has its maximum of attempts; nothing was attempted."""


@dataclass(slots=True)
class _Address:
    attempts: int = 0
    proven: bool = False
    failures: int = 0
    rests_until: float = 0.0
    last: RelayOutcome | None = None


class HostShares:
    """One for a process. `clock`: seconds."""

    def __init__(self, load: RelayLoadSettings, retry: RetrySettings, clock: Callable[[], float]) -> None:
        self._load = load
        self._retry = retry
        self._clock = clock
        self._known: OrderedDict[str, _Address] = OrderedDict()

    @contextlib.contextmanager
    def attempt(self, host: Host) -> Iterator[None]:
        """`with`: an attempt at the host. Raises HostBusy; HostUnusable while the address rests."""
        found = self._known.setdefault(host.address, _Address())
        self._known.move_to_end(host.address)
        if found.last is not None and self._clock() < found.rests_until:
            raise HostUnusable(host, found.last)
        if found.attempts >= self._limit(found):
            raise HostBusy
        found.attempts += 1
        try:
            yield
        finally:
            found.attempts -= 1
            self._forget()

    def _limit(self, found: _Address) -> int:
        if found.failures:
            return 1
        return self._load.per_host if found.proven else self._load.per_new_host

    def answered(self, host: Host) -> None:
        """The host has replied to a recipient."""
        found = self._known[host.address]
        found.proven, found.failures, found.rests_until, found.last = True, 0, 0.0, None

    def hung(self, host: Host, why: RelayOutcome) -> None:
        """An attempt got no reply to any recipient, and took long. Attempts that hung together count as one."""
        found = self._known[host.address]
        if self._clock() < found.rests_until:
            return
        found.proven = False
        found.failures = min(found.failures + 1, _MAX_FAILURES)
        rest = min(self._retry.back_off * 2 ** (found.failures - 1), self._retry.back_off_max)
        found.rests_until = self._clock() + rest
        found.last = why

    def _forget(self) -> None:
        """Forget the longest unused above the bound; never one with an attempt under way, which the limit counts."""
        while len(self._known) > _MAX_KNOWN:
            address, found = next(iter(self._known.items()))
            if found.attempts:
                self._known.move_to_end(address)
                return
            del self._known[address]
