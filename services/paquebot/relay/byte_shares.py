"""The bytes of messages that relay has in memory, of the process and of each destination (invariant 7)."""

import asyncio

from paquebot.runtime.shares.budget import OverBudget
from paquebot.runtime.shares.gate import ByteGate

_THREADS = 2


class ByteShares:
    """`limit`: all that `budget` has; `per_destination`: the maximum for one destination. One message may exceed
    either when it is alone there, or it could never go. `scanning`: slots of the threads that scan long messages."""

    def __init__(self, budget: ByteGate, limit: int, per_destination: int) -> None:
        self._budget = budget
        self._limit = limit
        self._per_destination = per_destination
        self._reserved: dict[str, int] = {}
        self.scanning = asyncio.Semaphore(_THREADS)

    def reserve(self, destination: str, size: int) -> None:
        """Reserve `size` bytes for a message. Raises OverBudget, with nothing reserved."""
        reserved = self._reserved.get(destination, 0)
        if reserved and reserved + size > self._per_destination:
            raise OverBudget
        if not self._budget.try_reserve(min(size, self._limit)):
            raise OverBudget
        self._reserved[destination] = reserved + size

    def release(self, destination: str, size: int) -> None:
        """Undo `reserve`."""
        left = self._reserved[destination] - size
        if left:
            self._reserved[destination] = left
        else:
            del self._reserved[destination]
        self._budget.release(min(size, self._limit))

    def reserve_edits(self, size: int, message: int) -> int:
        """Reserve what is kept beside a message of which `message` bytes are reserved. Returns how much was reserved,
        for `release_edits`: nothing, where the message is alone and has the whole budget. Raises OverBudget."""
        if self._budget.try_reserve(size):
            return size
        if self._budget.used > min(message, self._limit):
            raise OverBudget
        return 0

    def release_edits(self, reserved: int) -> None:
        """Undo `reserve_edits`."""
        self._budget.release(reserved)
