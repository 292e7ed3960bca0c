"""Mostly dead packs: compaction moves their live messages elsewhere, so that `sweep` can delete them.

`sweep` knows the size of every pack and of its live messages, but not of its index. It collects the packs that are
sparse by an estimate, and compaction then reads their indexes.
"""

from dataclasses import dataclass, field

from paquebot.blobs import BadPack, BlobMissing
from paquebot.blobs.store import PackInfo
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import Troubles
from paquebot.mailstore import PackLiveness
from paquebot.observability.log import Log

_log = Log("paquebot.janitor")

_INDEX_BYTES = 512  # maximum of one entry in most indexes
_GAIN_BYTES = 64 * 1024  # a new pack must free this much: the request that writes it costs as much as storing it a year
_MAX_CANDIDATES = 1000  # of a run: each costs a request or two


@dataclass(slots=True)
class SparsePacks:
    """Collects candidates during a sweep."""

    live_share: float
    found: int = 0
    _candidates: dict[str, PackInfo] = field(default_factory=dict)

    def consider(self, info: PackInfo, live: PackLiveness) -> None:
        dead = info.size - live.stored_size - live.entries * _INDEX_BYTES
        if dead >= _GAIN_BYTES and dead > (1 - self.live_share) * info.size and len(self._candidates) < _MAX_CANDIDATES:
            self._candidates[info.pack] = info

    async def by_account(self, stores: Stores, troubles: Troubles) -> dict[int, set[str]]:
        """Account id → mostly dead packs that its messages should leave. Raises BlobsUnavailable,
        PostgresUnavailable."""
        found: dict[int, set[str]] = {}
        for info in self._candidates.values():
            async with troubles.skipping(stores, f"pack {info.pack}"):
                for account_id in await self._accounts(stores, info):
                    found.setdefault(account_id, set()).add(info.pack)
        return found

    async def _accounts(self, stores: Stores, info: PackInfo) -> set[int]:
        try:
            index = await stores.blobs.read_index(info)
        except (BlobMissing, BadPack) as error:
            _log.error("pack_unreadable", pack=info.pack, reason=str(error))
            return set()
        stored = sum(entry.length for entry in index.entries)
        accounts = await self._leaving(stores, info.pack, stored)
        self.found += bool(accounts)
        return accounts

    async def _leaving(self, stores: Stores, pack: str, stored: int) -> set[int]:
        """The accounts that use a pack with `stored` bytes of messages, when few of these are live; else none. Each
        account gets its own copy."""
        copies: dict[tuple[int, int], int] = {}
        async for use in stores.pack_uses.of_packs([pack]):
            copies[use.account_id, use.blob.offset] = use.blob.length
        accounts = {account_id for account_id, _ in copies}
        size = sum(copies.values())
        is_worth_it = size < self.live_share * stored and stored - size >= len(accounts) * _GAIN_BYTES
        return accounts if is_worth_it else set()
