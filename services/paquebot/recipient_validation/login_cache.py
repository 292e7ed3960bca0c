"""Good logins remembered for a while, so that a mail client's ten connections don't cost ten hashes.

The key is an HMAC, under a random key of this process, over account id, stored hash and password: nothing that
is kept helps to find a password, and a changed hash is another key.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable


class LoginCache:
    """`time_to_live` in seconds (0: remembers nothing); at most `entries`; `clock` monotonic."""

    def __init__(self, time_to_live: float, entries: int, clock: Callable[[], float]) -> None:
        self._time_to_live = time_to_live
        self._entries = entries
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def knows(self, account_id: int, stored_hash: str, password: str) -> bool:
        until = self._until.get(self.digest(account_id, stored_hash, password))
        return until is not None and self._clock() < until

    def remember(self, account_id: int, stored_hash: str, password: str) -> None:
        """From now for `time_to_live`: a login in use does not extend its own time."""
        if self._time_to_live <= 0:
            return
        digest = self.digest(account_id, stored_hash, password)
        self._until[digest] = self._clock() + self._time_to_live
        self._until.move_to_end(digest)
        while len(self._until) > self._entries:
            self._until.popitem(last=False)

    def digest(self, account_id: int, stored_hash: str, password: str) -> bytes:
        """Tells a login from others, and nothing of its password."""
        message = b"\0".join((str(account_id).encode(), stored_hash.encode(), password.encode()))
        return hmac.digest(self._key, message, hashlib.sha256)
