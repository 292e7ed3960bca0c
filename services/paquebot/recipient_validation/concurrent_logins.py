"""Equal logins at the same time: the same password for the same account, from a mail program's ten connections.

The first one has its password hashed; the others wait, and then find a right password in the cache: they need no hash
and do not count as guesses. After a wrong password each of them is checked, and counts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Check:
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


class ConcurrentLogins:
    """At most `maximum` calls wait for one login."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._under_way: dict[bytes, _Check] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    @contextlib.asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[None]:
        """Inside, no call with the same key is being checked, or one just was."""
        first = self._under_way.get(key)
        if first is None:
            mine = self._under_way[key] = _Check()
            try:
                yield
            finally:
                del self._under_way[key]
                mine.ended.set()
            return
        if first.waiting < self._maximum:
            first.waiting += 1
            await first.ended.wait()
        yield
