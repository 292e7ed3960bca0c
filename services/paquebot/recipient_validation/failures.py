"""Patience with failed logins: token buckets per account, per client address, and per pair of both.

An attempt takes a token before the password is looked at, so that guesses side by side cannot pass the limit; a
success gives it back. A client address from which the account logged in lately has a bucket of its own, so that
others' failures, for the account or from the same network, do not lock its owner out. Memory is bounded: the
bucket longest untouched is forgotten first.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """Token buckets by key: `capacity` tokens each, one more every `recovery` seconds, at most `entries` kept."""

    def __init__(self, capacity: int, recovery: float, entries: int, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._recovery = recovery
        self._entries = entries
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: str) -> float:
        """Seconds until a token is there; 0: now."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0.0
        return max(0.0, (1.0 - self._level(bucket)) * self._recovery)

    def take(self, key: str) -> None:
        bucket = self._buckets.pop(key, None) or _Bucket(self._capacity, self._clock())
        self._buckets[key] = _Bucket(self._level(bucket) - 1.0, self._clock())
        while len(self._buckets) > self._entries:
            self._buckets.popitem(last=False)

    def give_back(self, key: str) -> None:
        """Undo a `take`."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.tokens, bucket.at = min(self._capacity, self._level(bucket) + 1.0), self._clock()
            if bucket.tokens >= self._capacity:
                del self._buckets[key]

    def _level(self, bucket: _Bucket) -> float:
        return min(self._capacity, bucket.tokens + (self._clock() - bucket.at) / self._recovery)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The buckets that an attempt drew from."""

    account: str
    client: str
    pair: str
    known: bool


class FailureLimits:
    """`begin` an attempt, then `succeeded` or nothing."""

    def __init__(
        self,
        *,
        account_failures: int,
        client_failures: int,
        recovery: float,
        entries: int,
        clock: Callable[[], float],
    ) -> None:
        self._accounts = Buckets(account_failures, recovery, entries, clock)
        self._clients = Buckets(client_failures, recovery, entries, clock)
        self._pairs = Buckets(account_failures, recovery, entries, clock)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._entries = entries

    def begin(self, account: str, client_address: str) -> Attempt | int:
        """Take the tokens of one attempt; or the seconds to wait, at least 1."""
        client = client_network(client_address)
        pair = f"{account} {client}"
        attempt = Attempt(account, client, pair, pair in self._known)
        wait = max(buckets.wait(key) for buckets, key in self._drawn(attempt))
        if wait > 0:
            return max(1, math.ceil(wait))
        for buckets, key in self._drawn(attempt):
            buckets.take(key)
        return attempt

    def succeeded(self, attempt: Attempt) -> None:
        self.spared(attempt)
        if attempt.client:
            self._known[attempt.pair] = None
            self._known.move_to_end(attempt.pair)
            while len(self._known) > self._entries:
                self._known.popitem(last=False)

    def spared(self, attempt: Attempt) -> None:
        """The attempt came to no verdict: give its tokens back."""
        for buckets, key in self._drawn(attempt):
            buckets.give_back(key)

    def _drawn(self, attempt: Attempt) -> list[tuple[Buckets, str]]:
        if attempt.known:
            return [(self._pairs, attempt.pair)]
        drawn = [(self._accounts, attempt.account)]
        if attempt.client:
            drawn.append((self._clients, attempt.client))
        return drawn


def client_network(address: str) -> str:
    """What one client can easily have: an IPv4 address, an IPv6 /64 (RFC 6177); empty when it is neither."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
        ip = ip.ipv4_mapped
    return str(ip)
