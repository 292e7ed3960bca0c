"""Client of `RecipientValidation`: where mail for an address goes, and who may send as whom.

Positive answers are kept for a few seconds: at most `entries` answers of at most `RECIPIENTS_KEPT` recipients
each, so no more than about 1 KiB × entries. An account removed or filled up meanwhile is found out by delivery.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

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

RECIPIENTS_KEPT = 4
CACHE = counter(
    "paquebot_rpc_validation_cache_lookups_total",
    "Forward-paths asked of this process's cache of validations",
    {"result": ("hit", "miss")},
)
_HIT, _MISS = CACHE.labels("hit"), CACHE.labels("miss")


@dataclass(frozen=True, slots=True)
class ValidationCacheSettings:
    time_to_live: Seconds = setting("VALIDATION_CACHE", Seconds(3.0), help="how long a positive answer is kept; 0: not")
    entries: int = setting("VALIDATION_CACHE_ENTRIES", 4096, help="most positive answers kept in a process")


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
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
        self._cache = cache or ValidationCacheSettings()
        self._kept: OrderedDict[tuple[str, bool], _Kept] = OrderedDict()
        self._clock = clock

    async def validate(
        self,
        forward_paths: Sequence[str],
        *,
        reverse_path: str = "",
        may_relay: bool = False,
        size: int = 0,
        trace: str = "",
    ) -> list[Validation]:
        """One Validation a forward-path, in order; each is the caller's own copy, to complete with its orcpt.

        `forward_paths` are text without angle brackets, `size` the declared bytes (0: unknown), `trace` a W3C
        traceparent. One that can be no address of anybody is a BAD_ADDRESS. Raises DirectoryUnavailable, CallFailed,
        and CallRefused where it is not known which of several that is.
        """
        found = {path: self._look(path, may_relay=may_relay, size=size) for path in forward_paths}
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
                self._keep(path, validation, may_relay=may_relay, size=size)
        return [_copy(found[path]) for path in forward_paths]

    async def authorize_sender(self, account_id: int, address: str, *, trace: str = "") -> bool:
        """May the account use `address` as its reverse-path or From address? Raises DirectoryUnavailable,
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
        """Drop every kept answer: the directory has changed (`hint.directory`)."""
        self._kept.clear()

    def _look(self, path: str, *, may_relay: bool, size: int) -> Validation | None:
        kept = self._kept.get((path, may_relay))
        # What was accepted for a size is accepted for a smaller one.
        hit = kept is not None and self._clock() < kept.until and size <= kept.size
        (_HIT if hit else _MISS).inc()
        return kept.validation if kept is not None and hit else None

    def _keep(self, path: str, validation: Validation, *, may_relay: bool, size: int) -> None:
        recipients = len(validation.local) + len(validation.remote)
        if validation.verdict != VERDICT_ACCEPT or recipients > RECIPIENTS_KEPT or not self._cache.time_to_live:
            return
        key = (path, may_relay)
        self._kept[key] = _Kept(self._clock() + self._cache.time_to_live, size, _copy(validation))
        self._kept.move_to_end(key)
        while len(self._kept) > self._cache.entries:
            self._kept.popitem(last=False)


def _copy(validation: Validation | None) -> Validation:
    copy = Validation()
    if validation is not None:
        copy.CopyFrom(validation)
    return copy
