"""A cache of good logins, so that a mail client's ten connections do not need ten hashes.

The key is an HMAC, under a random key of this process, over account id, stored hash and password: the cache does not
help to find a password, and a changed hash has another key.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

from cachetools import TTLCache


class LoginCache:
    """`time_to_live` in seconds (0: no cache); at most `entries`; `clock` monotonic."""

    def __init__(self, time_to_live: float, entries: int, clock: Callable[[], float]) -> None:
        self._enabled = time_to_live > 0 and entries > 0
        self._key = secrets.token_bytes(32)
        self._digests: TTLCache[bytes, None] = TTLCache(entries, time_to_live, clock)

    def __len__(self) -> int:
        return len(self._digests)

    def has(self, account_id: int, stored_hash: str, password: str) -> bool:
        return self.digest(account_id, stored_hash, password) in self._digests

    def add(self, account_id: int, stored_hash: str, password: str) -> None:
        """For `time_to_live` from now; uses do not extend it."""
        if self._enabled:
            self._digests[self.digest(account_id, stored_hash, password)] = None

    def digest(self, account_id: int, stored_hash: str, password: str) -> bytes:
        """Identifies the login, and reveals nothing of its password."""
        message = b"\0".join((str(account_id).encode(), stored_hash.encode(), password.encode()))
        return hmac.digest(self._key, message, hashlib.sha256)
