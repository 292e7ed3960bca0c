"""Logins that come together: the same password for the same account, from a mail program's ten connections.

One of them has the password looked at; the others wait for it, and then find a right one in the cache: they cost no
hash, and are no guesses. After a wrong one each is on its own, and counts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _UnderWay:
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


class ConcurrentLogins:
    """At most `most` wait for one login: they are calls that are held."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: dict[bytes, _UnderWay] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    @contextlib.asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[None]:
        """Inside, nobody with the same key looks at the password, or somebody just did."""
        first = self._under_way.get(key)
        if first is None:
            mine = self._under_way[key] = _UnderWay()
            try:
                yield
            finally:
                del self._under_way[key]
                mine.ended.set()
            return
        if first.waiting < self._most:
            first.waiting += 1
            await first.ended.wait()
        yield
