"""Long work on the event loop in short turns: one turn at a time, accounts in rotation.

After each turn a search waits for the next. In each round of the loop at most one such wait ends, so that between two
turns all other ready tasks run, and an account with many searches has as many turns as one with a single search.

Not `runtime.shares.event_loop`, which measures time and delays clients that used too much: there each ready session
has a slice in every round of the loop, so a hundred busy sessions make a round of a hundred slices. A search compares
text for minutes; here a hundred of them make a round of one turn. Its time is measured and charged like any.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class SearchTurns:
    """One for a process."""

    _queues: dict[int, deque[asyncio.Future[None]]] = field(default_factory=dict)
    """By account, in the order of their turns."""
    _handle: asyncio.Handle | None = None

    async def wait(self, account_id: int) -> None:
        """Wait for the next turn of this search."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queues.setdefault(account_id, deque()).append(turn)
        if self._handle is None:
            self._handle = loop.call_soon(self._next)
        await turn

    def _next(self) -> None:
        self._handle = None
        while self._queues:
            account_id, queue = next(iter(self._queues.items()))
            del self._queues[account_id]
            turn = queue.popleft()
            if queue:
                self._queues[account_id] = queue  # after the other accounts
            if not turn.cancelled():
                turn.set_result(None)
                break
        if self._queues:
            self._handle = asyncio.get_running_loop().call_soon(self._next)


@dataclass(slots=True)
class SearchWork:
    """The work of one command: counts its cost, and gives others their turns. `limit`: its maximum cost."""

    turns: SearchTurns
    account_id: int
    turn: int
    """The cost of one turn."""
    limit: int
    done: int = 0
    _in_turn: int = 0

    async def begin(self) -> None:
        """Wait for the first turn."""
        await self.turns.wait(self.account_id)

    async def spend(self, cost: int) -> None:
        """Count the cost, and wait for another turn if this one is used up. Raises TooMuchWork."""
        self.done += cost
        self._in_turn += cost
        if self.done > self.limit:
            raise TooMuchWork
        if self._in_turn >= self.turn:
            self._in_turn = 0
            await self.turns.wait(self.account_id)


class TooMuchWork(Exception):
    """A command has reached its maximum cost."""
