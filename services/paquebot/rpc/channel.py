"""The gRPC channel to recipient_validation: keepalive, deadlines, reconnection, and three ways to fail.

A failure of the network, or of an engine behind the service, becomes `DirectoryUnavailable`, which is temporary: the
caller answers 451, `NO [UNAVAILABLE]` or `-ERR [SYS/TEMP]`. Values that can never be answered are `CallRefused`, and a
fault in the service's own code `CallFailed`: trying again helps with neither. The channel reconnects by itself, at most
two seconds after the service is back. Over TCP it proves its service by a certificate where `PAQUEBOT_GRPC_TLS_*` name
one; a UNIX socket is guarded by its directory.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc.aio import AioRpcError, Channel, UsageError, insecure_channel, secure_channel

from paquebot.observability import metrics
from paquebot.observability.log import Log
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.errors import EngineRefused, EngineUnavailable
from paquebot.runtime.settings import SocketPath

Response = TypeVar("Response")
Metadata = tuple[tuple[str, str], ...]

_log = Log("paquebot.rpc")

# Asking again is safe: these change nothing, but that a login whose answer was lost counts as a failure until it is
# forgiven.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": "paquebot.v1.RecipientValidation"},
                {"service": "paquebot.v1.Authentication"},
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),  # new pods behind a headless service are seen soon
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


SERVER = "recipient-validation"
"""Whose certificate, of the installation's domain, the server must show."""
_FAULTS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: metrics.Fault.TIMEOUT,
    grpc.StatusCode.UNAVAILABLE: metrics.Fault.CONNECTION,
}
_CALLS = ("validate", "authorize_sender", "authenticate", "check_sessions")


class DirectoryUnavailable(EngineUnavailable):
    """recipient_validation did not answer as it should. Temporary; the cause is never for the peer."""


class CallRefused(EngineRefused):
    """recipient_validation can never answer this call: a value in it is at fault."""


class CallFailed(Exception):
    """The code of recipient_validation failed at this call; its log has the cause."""


INCIDENT = "paquebot-incident"
"""The key of the trailing metadata by which the service says that its own code failed: gRPC has INTERNAL also for
troubles of the network."""


def open_channel(settings: DirectoryClientSettings) -> Channel:
    """A channel to `settings.target`; connects on the first call. Close it with `await channel.close()`.

    Raises SettingsError when there are certificates that cannot be used.
    """
    metrics.know_calls(metrics.EngineLabel.GRPC, _CALLS)
    target = settings.target
    if target.startswith("unix:"):
        return insecure_channel(SocketPath(Path(target.removeprefix("unix:"))).uri, options=_OPTIONS)
    if not settings.tls.enabled:
        return insecure_channel(target, options=_OPTIONS)
    # Here, so that only processes with certificates hold the module that reads them.
    from paquebot.rpc.credentials import reloaded_pems
    from paquebot.rpc.renewed import RenewedChannel

    pems = reloaded_pems(settings.tls)
    # Not the host of `target`: the same name of a Service may stand for another installation's elsewhere.
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", f"{SERVER}.{settings.tls.domain}"))
    return RenewedChannel(pems, lambda credentials: secure_channel(target, credentials, options=options))


def trace_metadata(trace: str) -> Metadata:
    """W3C Trace Context §3.2: the `traceparent` header; empty: none."""
    return (("traceparent", trace),) if trace else ()


def fault_of(error: BaseException) -> metrics.Fault:
    """For the metric of failed calls."""
    if isinstance(error, AioRpcError):
        return _FAULTS.get(error.code(), metrics.Fault.REFUSED)
    return metrics.Fault.CONNECTION if isinstance(error, grpc.RpcError | UsageError) else metrics.fault_of(error)


async def call(name: str, rpc: Callable[[], Awaitable[Response]]) -> Response:
    """The answer of one call, timed as `name`; `rpc` also makes the request. Raises DirectoryUnavailable, CallRefused,
    CallFailed."""
    try:
        with metrics.engine_call("grpc", name, fault_of):
            try:
                return await rpc()
            except UnicodeError as error:  # text with half of a surrogate pair, which no request can carry
                refused: Exception = error
            except AioRpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                refused = error  # an answer about values, not an engine's error: it is raised where it is not counted
    except AioRpcError as error:
        _log.warning("directory call failed", call=name, code=error.code().name, details=error.details())
        if any(key == INCIDENT for key, _ in error.trailing_metadata() or ()):
            raise CallFailed(name) from error
        raise DirectoryUnavailable(f"{name}: {error.code().name}") from error
    except grpc.RpcError as error:  # the channel was closed under the call
        raise DirectoryUnavailable(name) from error
    except UsageError as error:
        raise DirectoryUnavailable(f"{name}: the channel is closed") from error
    _log.warning("directory call refused", call=name)
    raise CallRefused(name) from refused
