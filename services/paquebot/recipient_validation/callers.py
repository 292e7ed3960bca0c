"""The rights of each caller: a table, checked before a request is read.

A caller is the service that its certificate names (`imap.<PAQUEBOT_GRPC_TLS_DOMAIN>`). Without TLS the listener is a
UNIX socket or loopback; its callers are on this machine and have all rights. A listener without TLS beside one with TLS
is for pods of the previous version, which validate and log in. Administration needs its token in any case.
"""

import contextlib
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServerInterceptor, ServicerContext

from paquebot.observability.log import Log
from paquebot.observability.metrics import counter
from paquebot.recipient_validation.settings import GrpcSettings

_VALIDATION = "/paquebot.v1.RecipientValidation/"
_VALIDATE = "/paquebot.v1.RecipientValidation/Validate"
_AUTHENTICATION = "/paquebot.v1.Authentication/"
_DIRECTORY = "/paquebot.v1.Directory/"
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."

RIGHTS = {
    "smtp-ingress": (_VALIDATION, _AUTHENTICATION, _HEALTH),
    "delivery": (_VALIDATE, _HEALTH),
    "relay": (_VALIDATE, _HEALTH),
    "imap": (_AUTHENTICATION, _HEALTH),
    "pop3": (_AUTHENTICATION, _HEALTH),
    # The command line in the service's own pod, and in jobs.
    "recipient-validation": (_DIRECTORY, _HEALTH, _REFLECTION),
    "admin": (_DIRECTORY, _HEALTH, _REFLECTION),
    "plain": (_VALIDATION, _AUTHENTICATION, _HEALTH),
    "local": ("/",),
}
"""By caller, the beginnings of the methods that it may call. `plain` and `local` are callers without a certificate; a
certificate with another name has no rights."""

_CERTIFIED = frozenset(RIGHTS) - {"plain", "local"}
_UNKNOWN = "unknown"
REFUSED = counter(
    "paquebot_recipient_validation_refused_calls_total",
    "Calls refused before they were read: rights: the caller may not make it; share: too many of one client at once",
    {"caller": (*RIGHTS, _UNKNOWN), "reason": ("rights", "share")},
)

_log = Log("paquebot.recipient_validation")

Context = ServicerContext[Any, Any]


class Callers(ServerInterceptor):
    """The first interceptor: refuses calls that a caller may not make, and more calls at once than a client's share."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._suffix = f".{settings.tls.domain.lower()}"
        self._tls = settings.secure
        self._share = settings.calls_per_client
        self._under_way: Counter[tuple[str, str]] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Any, method: str) -> Any:
        """The handler with a check of its caller; the request is parsed after the check."""
        if handler.unary_unary is not None:
            behaviour = handler.unary_unary

            async def call(request: bytes, context: Context) -> Any:
                async with self._admitted(context, method):
                    return await behaviour(_read(handler, request), context)

            return grpc.unary_unary_rpc_method_handler(call, response_serializer=handler.response_serializer)
        behaviour = handler.unary_stream or handler.stream_stream

        async def stream(request: Any, context: Context) -> None:
            async with self._admitted(context, method):
                await _write(behaviour(request, context), context)

        wrap = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
        return wrap(stream, handler.request_deserializer, handler.response_serializer)

    @contextlib.asynccontextmanager
    async def _admitted(self, context: Context, method: str) -> AsyncIterator[None]:
        """Aborts the call unless its caller may make it now."""
        caller = self._caller(context)
        if not method.startswith(RIGHTS.get(caller, ())):
            REFUSED.labels(caller, "rights").inc()
            names = _names(context)
            _log.warning("call_not_permitted", caller=caller, client=context.peer(), names=names, call=method)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not permitted")
        client = caller, context.peer().rpartition(":")[0]
        if self._under_way[client] >= self._share and not _by_socket(context):
            REFUSED.labels(caller, "share").inc()
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of this client are under way")
        self._under_way[client] += 1
        try:
            yield
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    def _caller(self, context: Context) -> str:
        if context.auth_context().get("transport_security_type") != [b"ssl"]:
            return "plain" if self._tls and not _by_socket(context) else "local"
        for name in _names(context):
            service = name.removesuffix(self._suffix)
            if service != name and service in _CERTIFIED:
                return service
        return _UNKNOWN


def _names(context: Context) -> list[str]:
    """The names in the client's certificate (RFC 5280 §4.2.1.6), whose chain gRPC has verified."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return [bytes(name).decode("ascii", "replace").lower() for name in names]


def _by_socket(context: Context) -> bool:
    """All callers over the UNIX socket have the same address, so they have no shares."""
    return context.peer().startswith("unix:")


def _read(handler: Any, request: bytes) -> Any:
    return handler.request_deserializer(request) if handler.request_deserializer is not None else request


async def _write(answers: Any, context: Context) -> None:
    """A generator yields the answers, or a coroutine writes them itself."""
    if not inspect.isasyncgen(answers):
        await answers
        return
    async for answer in answers:
        await context.write(answer)
