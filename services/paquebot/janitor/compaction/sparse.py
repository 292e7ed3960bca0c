"""Mostly dead packs: what lives in them is worth writing elsewhere, so that they can go.

`sweep` sees every pack's size and what of it is alive, but not how much of the size is the index: packs that may be
sparse by an estimate are collected there, and their indexes tell.
"""

from dataclasses import dataclass, field

from paquebot.blobs import BadPack, BlobMissing
from paquebot.blobs.store import PackInfo
from paquebot.janitor.stores import Stores
from paquebot.janitor.troubles import Troubles
from paquebot.mailstore import PackLiveness
from paquebot.observability.log import Log

_log = Log("paquebot.janitor")

_INDEX_BYTES = 512  # of one entry in most indexes, or less
_GAIN_BYTES = 64 * 1024  # that each new pack must free: one request to write it costs as much as a year of these
_MOST = 1000  # of a run: each costs a request or two


@dataclass(slots=True)
class SparsePacks:
    """Collects candidates during a sweep."""

    live_share: float
    found: int = 0
    _candidates: dict[str, PackInfo] = field(default_factory=dict)

    def consider(self, info: PackInfo, live: PackLiveness) -> None:
        dead = info.size - live.stored_size - live.entries * _INDEX_BYTES
        if dead >= _GAIN_BYTES and dead > (1 - self.live_share) * info.size and len(self._candidates) < _MOST:
            self._candidates[info.pack] = info

    async def by_account(self, stores: Stores, troubles: Troubles) -> dict[int, set[str]]:
        """Account id → mostly dead packs from which its messages should go.
        Raises BlobsUnavailable, PostgresUnavailable."""
        found: dict[int, set[str]] = {}
        for info in self._candidates.values():
            async with troubles.apart(stores, f"pack {info.pack}"):
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
        """The accounts that use a pack of `stored` bytes of messages, when little of it is alive; else none. Each
        account takes a copy of its own."""
        copies: dict[tuple[int, int], int] = {}
        async for use in stores.pack_uses.of_packs([pack]):
            copies[use.account_id, use.blob.offset] = use.blob.length
        accounts = {account_id for account_id, _ in copies}
        octets = sum(copies.values())
        worth = octets < self.live_share * stored and stored - octets >= len(accounts) * _GAIN_BYTES
        return accounts if worth else set()
