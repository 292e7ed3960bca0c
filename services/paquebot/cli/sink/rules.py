"""Which recipients a sink refuses, for good or for a time."""

import math
import time
from collections.abc import Callable, Collection

from cachetools import LRUCache

_MAX_GREYLISTED = 100_000  # pairs of reverse-path and recipient; the one unused for longest is forgotten


def folded(address: str) -> str:
    """As addresses are compared. A server may hold local parts apart by case (RFC 5321 §2.4); this one does not."""
    return address.casefold()


class RecipientRules:
    """The reply to RCPT, by reverse-path and recipient."""

    def __init__(
        self,
        *,
        domains: Collection[str] = (),
        refused: Collection[str] = (),
        deferred: Collection[str] = (),
        greylist: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`domains`: the only ones with recipients here; none: every domain. `greylist`: seconds; 0: no greylisting."""
        self._domains = {folded(domain) for domain in domains}
        self._refused = {folded(address) for address in refused}
        self._deferred = {folded(address) for address in deferred}
        self._greylist = greylist
        self._now = now
        self._first_seen: LRUCache[tuple[str, str], float] = LRUCache(_MAX_GREYLISTED)

    def refusal(self, reverse_path: str, recipient: str) -> str | None:
        """The reply, without addresses (RFC 5321 §4.2.3, RFC 3463 §3); None: the recipient is accepted."""
        address = folded(recipient)
        if self._domains and address.rpartition("@")[2] not in self._domains:
            return "550 5.7.1 No mail for this domain here"
        if address in self._refused:
            return "550 5.1.1 No such mailbox"
        if address in self._deferred:
            return "451 4.2.0 Mailbox not available now, try again later"
        left = self._wait(folded(reverse_path), address)
        return f"451 4.7.1 Greylisted, try again in {math.ceil(left)} s" if left > 0 else None

    def _wait(self, reverse_path: str, recipient: str) -> float:
        """Seconds until the pair is accepted, from its first try on. RFC 6647 §2.4, without the client's address."""
        if not self._greylist:
            return 0.0
        now = self._now()
        first: float = self._first_seen.setdefault((reverse_path, recipient), now)
        return first + self._greylist - now
