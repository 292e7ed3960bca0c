"""The Directory service accepts only calls with the admin token: `authorization: Bearer <token>` (RFC 6750 §2.1).
Without a configured token it accepts none."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServerInterceptor

from paquebot.observability.metrics import counter

_GUARDED = "/paquebot.v1.Directory/"
_SCHEME = "bearer "
REFUSED = counter("paquebot_recipient_validation_refused_admin_calls_total", "Directory calls without the admin token")


class AdminToken(ServerInterceptor):
    """Refuses a call before its request is read."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token) if token else None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        if not handler_call_details.method.startswith(_GUARDED):
            return await continuation(handler_call_details)
        if self._digest is None:
            return _refusal(
                grpc.StatusCode.PERMISSION_DENIED, "administration is disabled: the service has no admin token"
            )
        if not self._has_token(handler_call_details.invocation_metadata or ()):
            return _refusal(grpc.StatusCode.UNAUTHENTICATED, "missing or wrong admin token")
        return await continuation(handler_call_details)

    def _has_token(self, metadata: Any) -> bool:
        assert self._digest is not None
        for key, value in metadata:
            if key == "authorization" and isinstance(value, str) and value.lower().startswith(_SCHEME):
                # Digests have one length, so the comparison does not reveal the length of the token.
                return hmac.compare_digest(_digest(value[len(_SCHEME) :].strip()), self._digest)
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refusal(code: grpc.StatusCode, text: str) -> Any:
    async def refuse(_request: bytes, context: Any) -> None:
        REFUSED.inc()
        await context.abort(code, text)

    return grpc.unary_unary_rpc_method_handler(refuse)
