"""The boundary of every call: binds trace ids, and translates errors to gRPC statuses.

A refusal of the directory keeps its sentence; a value that PostgreSQL can never accept is INVALID_ARGUMENT; an engine
that is away is UNAVAILABLE; every unexpected error is INTERNAL with an incident id, which the log has with the
traceback, and which shows callers that a retry does not help (`rpc.channel.CallFailed`). No other exception text leaves
the process.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import AbortError, ServerInterceptor

from paquebot.directory.errors import AlreadyExists, DirectoryError, FailedPrecondition, InvalidValue, NotFound
from paquebot.observability import log, metrics, trace
from paquebot.queue import QueueUnavailable
from paquebot.rpc.channel import INCIDENT, Metadata
from paquebot.runtime.postgres.pool import PostgresRefused, PostgresUnavailable
from paquebot.v1 import authentication_pb2, directory_pb2, recipient_validation_pb2

_METHODS = tuple(
    sorted(
        method.name
        for file in (recipient_validation_pb2, authentication_pb2, directory_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    )
)
_CODE_NAMES = (
    *("OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"),
    *("UNAUTHENTICATED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "OTHER"),
)
CALLS = metrics.counter(
    "paquebot_recipient_validation_calls_total",
    "gRPC calls answered",
    {"method": _METHODS, "code": _CODE_NAMES},
)
UNEXPECTED = metrics.counter(
    "paquebot_recipient_validation_unexpected_errors_total", "Calls that failed with an unexpected error"
)
SECONDS = metrics.histogram(
    "paquebot_recipient_validation_call_seconds", "Time of a gRPC call", {"method": _METHODS}, buckets=metrics.FAST
)

_CODES: dict[type[DirectoryError], grpc.StatusCode] = {
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    NotFound: grpc.StatusCode.NOT_FOUND,
    InvalidValue: grpc.StatusCode.INVALID_ARGUMENT,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
}
_OWN_SERVICES = "/paquebot.v1."

_log = log.Log("paquebot.recipient_validation")


class Overloaded(Exception):
    """Too much work waits already; the same call may succeed later."""


class Boundary(ServerInterceptor):
    """Wraps every call of our own services."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OWN_SERVICES):
            return handler
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(handler.unary_stream, method.rpartition("/")[2]),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guarded(handler.unary_unary, method.rpartition("/")[2]),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guarded(behaviour: Callable[[Any, Any], Awaitable[Any]], method: str) -> Any:
    async def call(request: Any, context: Any) -> Any:
        traceparent = _traceparent(context)
        with (
            SECONDS.labels(method).time(),
            log.ids(**_trace_id(traceparent)),
            trace.span(method, traceparent, kind=trace.Kind.SERVER) as span,
        ):
            try:
                response = await behaviour(request, context)
            except (asyncio.CancelledError, AbortError):
                CALLS.labels(method, _code_name(context)).inc()
                raise
            except Exception as error:  # noqa: BLE001 - the one place where a call's unknown errors end
                code, text, incident = _refusal(error, method)
                CALLS.labels(method, code.name).inc()
                span.fail(code.name)
                return await context.abort(code, text, incident)
            CALLS.labels(method, "OK").inc()
            return response

    return call


def _guarded_stream(behaviour: Callable[[Any, Any], AsyncGenerator[Any, None]], method: str) -> Any:
    """The client decides how long a stream lasts, so it is not in SECONDS."""

    async def stream(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        try:
            async with contextlib.aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
        except (asyncio.CancelledError, AbortError):
            CALLS.labels(method, _code_name(context)).inc()
            raise
        except Exception as error:  # noqa: BLE001 - as for a single answer
            code, text, incident = _refusal(error, method)
            CALLS.labels(method, code.name).inc()
            await context.abort(code, text, incident)
        else:
            CALLS.labels(method, "OK").inc()

    return stream


def _refusal(error: Exception, method: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """Status, text, and trailing metadata, which names a failure of our own code."""
    if isinstance(error, DirectoryError):
        return _CODES[type(error)], str(error), ()
    if isinstance(error, PostgresRefused):
        return grpc.StatusCode.INVALID_ARGUMENT, "a value that cannot be stored", ()
    if isinstance(error, PostgresUnavailable):
        _log.warning("database_unavailable", call=method, statement=str(error), cause=repr(error.__cause__))
        return grpc.StatusCode.UNAVAILABLE, "the directory's database does not answer; try again later", ()
    if isinstance(error, QueueUnavailable):
        return grpc.StatusCode.UNAVAILABLE, "NATS does not answer; try again later", ()
    if isinstance(error, Overloaded):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls are waiting; try again later", ()
    incident = secrets.token_hex(6)
    UNEXPECTED.inc()
    _log.exception("call_failed", call=method, incident=incident)
    return grpc.StatusCode.INTERNAL, f"internal error, incident {incident}", ((INCIDENT, incident),)


def _traceparent(context: Any) -> str:
    """W3C Trace Context §3.2: the header `traceparent`, or empty."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str) and value.count("-") == 3 and len(value) == 55:
            return value
    return ""


def _trace_id(traceparent: str) -> dict[str, str]:
    """For the log."""
    return {"trace_id": traceparent.split("-")[1]} if traceparent else {}


def _code_name(context: Any) -> str:
    code = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else "CANCELLED"
    return name if name in _CODE_NAMES else "OTHER"
