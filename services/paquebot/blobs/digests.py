"""What the indexes of packs say of their messages' SHA-256, for messages whose frames have no checksum: the packs of
older programs. What was asked for last is kept within a bound: neighbours of a pack are mostly read one after another.
"""

import threading
from collections import OrderedDict

from paquebot.v1.mail_pb2 import PackIndex

_MOST_ENTRIES = 16 * 1024  # about 150 bytes each


class Digests:
    """One for a process; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packs: OrderedDict[str, dict[int, bytes]] = OrderedDict()
        self._entries = 0

    def of(self, pack: str) -> dict[int, bytes] | None:
        """SHA-256 by offset; None: not known here."""
        with self._lock:
            found = self._packs.get(pack)
            if found is not None:
                self._packs.move_to_end(pack)
            return found

    def keep(self, index: PackIndex) -> dict[int, bytes]:
        digests = {entry.offset: entry.sha256 for entry in index.entries}
        with self._lock:
            if index.pack not in self._packs:
                self._packs[index.pack] = digests
                self._entries += len(digests)
            while self._entries > _MOST_ENTRIES and len(self._packs) > 1:
                self._entries -= len(self._packs.popitem(last=False)[1])
        return digests
