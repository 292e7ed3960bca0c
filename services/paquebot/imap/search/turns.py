"""Long work on the event loop in short turns: one at a time, accounts in rotation.

Whoever has done a turn's work waits for the next. In each round of the loop at most one such wait ends, so that between
two turns everything else that is ready runs, and an account with many sessions at work has as many turns as one with a
single session.

Not `runtime.shares.event_loop`, which measures time and lets who used too much of it wait afterwards: there each
session that is ready has a slice in every round of the loop, so a hundred sessions at work are a round of a hundred
slices. A search compares text for minutes; here a hundred of them are a round of one turn. Its time is measured and
charged like any.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class SearchTurns:
    """One for a process."""

    _lines: dict[int, deque[asyncio.Future[None]]] = field(default_factory=dict)
    """By account, in the order of their turns."""
    _handle: asyncio.Handle | None = None

    async def wait(self, account_id: int) -> None:
        """Until it is this account's turn, and ours in it."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(account_id, deque()).append(turn)
        if self._handle is None:
            self._handle = loop.call_soon(self._next)
        await turn

    def _next(self) -> None:
        self._handle = None
        while self._lines:
            account_id, line = next(iter(self._lines.items()))
            del self._lines[account_id]
            turn = line.popleft()
            if line:
                self._lines[account_id] = line  # behind the others
            if not turn.cancelled():
                turn.set_result(None)
                break
        if self._lines:
            self._handle = asyncio.get_running_loop().call_soon(self._next)


@dataclass(slots=True)
class SearchWork:
    """One command's: counts what it does, and lets others have their turns. `limit`: what it may do altogether."""

    turns: SearchTurns
    account_id: int
    turn: int
    """What is done in one go."""
    limit: int
    done: int = 0
    _since: int = 0

    async def begin(self) -> None:
        """Wait for the first turn."""
        await self.turns.wait(self.account_id)

    async def did(self, cost: int) -> None:
        """Count, and wait for another turn when this one is used up. Raises TooMuchWork."""
        self.done += cost
        self._since += cost
        if self.done > self.limit:
            raise TooMuchWork
        if self._since >= self.turn:
            self._since = 0
            await self.turns.wait(self.account_id)


class TooMuchWork(Exception):
    """A command would do more than one may."""
