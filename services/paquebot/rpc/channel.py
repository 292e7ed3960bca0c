"""The gRPC channel to recipient_validation: keepalive, timeouts, reconnection, and three kinds of failure.

A failure of the network, or of an engine behind the service, becomes `DirectoryUnavailable`, which is temporary: the
caller replies 451, `NO [UNAVAILABLE]` or `-ERR [SYS/TEMP]`. A call with values that the service can never accept is
`CallRefused`, and a fault in the service's own code is `CallFailed`: a retry helps with neither. The channel reconnects
by itself, at most two seconds after the service is back. Over TCP it authenticates with a certificate where
`PAQUEBOT_GRPC_TLS_*` name one; a UNIX socket is protected by its directory.
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

# A retry is safe: these calls change nothing, except that a login whose answer was lost counts as a failure until that
# expires.
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
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),  # finds new pods behind a headless service soon
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


SERVER = "recipient-validation"
"""The name, in the installation's domain, of the certificate that the server must have."""
_FAULTS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: metrics.Fault.TIMEOUT,
    grpc.StatusCode.UNAVAILABLE: metrics.Fault.CONNECTION,
}
_CALLS = ("validate", "authorize_sender", "authenticate", "check_sessions")


class DirectoryUnavailable(EngineUnavailable):
    """recipient_validation did not answer, or not as it should. Temporary; clients never see the cause."""


class CallRefused(EngineRefused):
    """recipient_validation can never answer this call: it has an invalid value."""


class CallFailed(Exception):
    """The code of recipient_validation failed in this call; its log has the cause."""


INCIDENT = "paquebot-incident"
"""The key of the trailing metadata with which the service reports a failure of its own code: gRPC uses INTERNAL for
network errors too."""


def open_channel(settings: DirectoryClientSettings) -> Channel:
    """A channel to `settings.target`; connects on the first call. Close it with `await channel.close()`.

    Raises SettingsError when the configured certificates cannot be used.
    """
    metrics.know_calls(metrics.EngineLabel.GRPC, _CALLS)
    target = settings.target
    if target.startswith("unix:"):
        return insecure_channel(SocketPath(Path(target.removeprefix("unix:"))).uri, options=_OPTIONS)
    if not settings.tls.enabled:
        return insecure_channel(target, options=_OPTIONS)
    # Imported here, so that only processes with certificates load the module that reads them.
    from paquebot.rpc.credentials import reloaded_pems
    from paquebot.rpc.renewed import RenewedChannel

    pems = reloaded_pems(settings.tls)
    # Not the host of `target`: another installation may have a Service of the same name.
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
                refused = error  # an answer about values, not an error of an engine: raised outside of `engine_call`
    except AioRpcError as error:
        _log.warning("directory_call_failed", call=name, code=error.code().name, details=error.details())
        if any(key == INCIDENT for key, _ in error.trailing_metadata() or ()):
            raise CallFailed(name) from error
        raise DirectoryUnavailable(f"{name}: {error.code().name}") from error
    except grpc.RpcError as error:  # the channel was closed under the call
        raise DirectoryUnavailable(name) from error
    except UsageError as error:
        raise DirectoryUnavailable(f"{name}: the channel is closed") from error
    _log.warning("directory_call_refused", call=name)
    raise CallRefused(name) from refused
