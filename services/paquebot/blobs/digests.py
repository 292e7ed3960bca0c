"""SHA-256 digests from the indexes of packs, for messages whose frames have no checksum: those in packs of older
programs. The last ones read are cached, because readers mostly read the messages of a pack one after another.
"""

import threading

from cachetools import LRUCache

from paquebot.v1.mail_pb2 import PackIndex

_MAX_ENTRIES = 16 * 1024  # about 150 bytes each


class Digests:
    """One for a process; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packs: LRUCache[str, dict[int, bytes]] = LRUCache(_MAX_ENTRIES, _entries)

    def get(self, pack: str) -> dict[int, bytes] | None:
        """SHA-256 by offset; None: not cached."""
        with self._lock:
            return self._packs.get(pack)

    def add(self, index: PackIndex) -> dict[int, bytes]:
        digests = {entry.offset: entry.sha256 for entry in index.entries}
        with self._lock:
            self._packs[index.pack] = digests
        return digests


def _entries(digests: dict[int, bytes]) -> int:
    """One pack always fits, however many entries it has."""
    return min(len(digests), _MAX_ENTRIES)
