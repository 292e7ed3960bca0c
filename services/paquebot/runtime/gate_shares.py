"""A gate whose room accounts share: none may hold, or wait for, more than its share, however many sessions it has.

So in the gate's line at most a share of each account stands before anybody, and an account that holds much waits for
itself alone.
"""

import asyncio
import weakref
from dataclasses import dataclass, field

from prometheus_client import Gauge

from paquebot.runtime.gate import OctetGate
from paquebot.runtime.limits import OverBudget


@dataclass(slots=True, weakref_slot=True, eq=False)
class Share:
    """One account's."""

    _own: OctetGate
    _all: OctetGate
    _limits: tuple[int, int]

    @property
    def used(self) -> int:
        return self._own.used

    async def take(self, octets: int, seconds: float | None = None) -> "Hold":
        """Reserve, after those of the account, and then of all, who asked before. Raises OverBudget after `seconds`.

        Who waits in the second line holds nothing there, and who holds waits for nobody: no two wait for each other, as
        long as a reader asks for a second reservation only by `try_take`.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._own.take(octets)
                try:
                    await self._all.take(octets)
                except BaseException:
                    self._own.give_back(octets)
                    raise
        except TimeoutError:
            raise OverBudget from None
        return Hold(self, octets)

    def try_take(self, octets: int) -> "Hold | None":
        """Reserve now, or not at all."""
        if not self._own.try_take(octets):
            return None
        if not self._all.try_take(octets):
            self._own.give_back(octets)
            return None
        return Hold(self, octets)

    def give_back(self, before: int, after: int) -> None:
        """A reservation of `before` octets becomes one of `after`. What is longer than a limit counts there as it."""
        for gate, limit in zip((self._own, self._all), self._limits, strict=True):
            gate.give_back(min(before, limit) - min(after, limit))


@dataclass(slots=True)
class Hold:
    """Octets that a reader has reserved; its share lives as long as it does."""

    _share: Share
    octets: int

    def shrink(self, octets: int) -> None:
        """Keep this many of them at most."""
        before, self.octets = self.octets, min(self.octets, octets)
        self._share.give_back(before, self.octets)

    def release(self) -> None:
        """Give back all; idempotent."""
        self.shrink(0)


@dataclass(slots=True)
class Shares:
    """Of one process: `limit` octets for all, of which an account may hold `share`."""

    limit: int
    share: int
    gauge: Gauge | None = None
    """Shows what is held."""
    gate: OctetGate = field(init=False)
    _accounts: weakref.WeakValueDictionary[int, Share] = field(default_factory=weakref.WeakValueDictionary)

    def __post_init__(self) -> None:
        self.gate = OctetGate(self.limit, gauge=self.gauge)

    def of(self, account_id: int) -> Share:
        """The share of an account: one for all that hold of it, or wait for it, now."""
        share = self._accounts.get(account_id)
        if share is None:
            own = min(self.share, self.limit)
            share = self._accounts[account_id] = Share(OctetGate(own), self.gate, (own, self.limit))
        return share
