"""Client of `RecipientValidation`: where mail for an address goes, and whether an account may send as an address.

Positive answers are cached for a few seconds: at most `entries` answers of at most `MAX_CACHED_RECIPIENTS` recipients
each, so at most about 1 KiB × entries. Delivery notices an account that was removed or filled up meanwhile.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cachetools import TTLCache
from grpc.aio import Channel

from paquebot.observability import trace as tracing
from paquebot.observability.metrics import counter
from paquebot.rpc.channel import CallRefused, call, trace_metadata
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import Seconds, setting
from paquebot.v1.recipient_validation_pb2 import (
    VERDICT_ACCEPT,
    VERDICT_BAD_ADDRESS,
    AuthorizeSenderRequest,
    AuthorizeSenderResponse,
    ValidateRequest,
    ValidateResponse,
    Validation,
)
from paquebot.v1.recipient_validation_pb2_grpc import RecipientValidationStub

MAX_CACHED_RECIPIENTS = 4
CACHE = counter(
    "paquebot_rpc_validation_cache_lookups_total",
    "Lookups of forward-paths in this process's cache of validations",
    {"result": ("hit", "miss")},
)
_HIT, _MISS = CACHE.labels("hit"), CACHE.labels("miss")


@dataclass(frozen=True, slots=True)
class ValidationCacheSettings:
    time_to_live: Seconds = setting(
        "VALIDATION_CACHE", Seconds(3.0), help="how long a positive answer is cached; 0: never"
    )
    entries: int = setting("VALIDATION_CACHE_ENTRIES", 4096, help="maximum of cached positive answers in a process")


@dataclass(frozen=True, slots=True)
class _Cached:
    size: int
    validation: Validation


class ValidationClient:
    """One for a process; `channel` from `open_channel`, `clock` monotonic seconds."""

    def __init__(
        self,
        channel: Channel,
        settings: DirectoryClientSettings,
        cache: ValidationCacheSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stub = RecipientValidationStub(channel)
        self._timeout = settings.timeout
        cache = cache or ValidationCacheSettings()
        self._caches = cache.time_to_live > 0 and cache.entries > 0
        self._cache: TTLCache[tuple[str, bool], _Cached] = TTLCache(cache.entries, cache.time_to_live, clock)

    async def validate(
        self,
        forward_paths: Sequence[str],
        *,
        reverse_path: str = "",
        may_relay: bool = False,
        size: int = 0,
        trace: str = "",
    ) -> list[Validation]:
        """A Validation for each forward-path, in order; each is the caller's own copy, to which it adds the ORCPT.

        `forward_paths` are text without angle brackets, `size` the declared bytes (0: unknown), `trace` a W3C
        traceparent. A forward-path that no request can carry is BAD_ADDRESS. Raises DirectoryUnavailable, CallFailed,
        and CallRefused where one of several forward-paths is such a one.
        """
        found = {path: self._cached(path, may_relay=may_relay, size=size) for path in forward_paths}
        asked = [path for path, validation in found.items() if validation is None]
        if asked:
            with tracing.span("Validate", trace, kind=tracing.Kind.CLIENT) as span:
                metadata = trace_metadata(span.traceparent)

                def ask() -> Awaitable[ValidateResponse]:
                    request = ValidateRequest(
                        forward_paths=asked, reverse_path=reverse_path, may_relay=may_relay, size=size
                    )
                    return self._stub.Validate(request, timeout=self._timeout, metadata=metadata)

                try:
                    response = await call("validate", ask)
                except CallRefused:
                    if len(asked) > 1:
                        raise
                    response = ValidateResponse(results=[Validation(verdict=VERDICT_BAD_ADDRESS)])
            for path, validation in zip(asked, response.results, strict=True):
                found[path] = validation
                self._store(path, validation, may_relay=may_relay, size=size)
        return [_copy(found[path]) for path in forward_paths]

    async def authorize_sender(self, account_id: int, address: str, *, trace: str = "") -> bool:
        """Whether the account may use `address` as its reverse-path or From address. Raises DirectoryUnavailable,
        CallFailed."""
        with tracing.span("AuthorizeSender", trace, kind=tracing.Kind.CLIENT) as span:
            metadata = trace_metadata(span.traceparent)

            def ask() -> Awaitable[AuthorizeSenderResponse]:
                request = AuthorizeSenderRequest(account_id=account_id, address=address)
                return self._stub.AuthorizeSender(request, timeout=self._timeout, metadata=metadata)

            try:
                response = await call("authorize_sender", ask)
            except CallRefused:
                return False
        return response.allowed

    def forget(self) -> None:
        """Drop every cached answer: the directory has changed (`hint.directory`)."""
        self._cache.clear()

    def _cached(self, path: str, *, may_relay: bool, size: int) -> Validation | None:
        cached = self._cache.get((path, may_relay))
        if cached is None or size > cached.size:  # a path accepted for a size is accepted for a smaller one
            _MISS.inc()
            return None
        _HIT.inc()
        return cached.validation

    def _store(self, path: str, validation: Validation, *, may_relay: bool, size: int) -> None:
        recipients = len(validation.local) + len(validation.remote)
        if self._caches and validation.verdict == VERDICT_ACCEPT and recipients <= MAX_CACHED_RECIPIENTS:
            self._cache[path, may_relay] = _Cached(size, _copy(validation))


def _copy(validation: Validation | None) -> Validation:
    copy = Validation()
    if validation is not None:
        copy.CopyFrom(validation)
    return copy
