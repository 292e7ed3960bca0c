"""Client of `Directory`, for administration: `await client.ask(client.stub.GetDomain, GetDomainRequest(...))`."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, TypeVar

import grpc
from grpc.aio import AioRpcError, Channel, UnaryStreamMultiCallable, UnaryUnaryMultiCallable

from paquebot.observability import metrics
from paquebot.rpc.channel import DirectoryUnavailable, fault_of
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.v1.directory_pb2_grpc import DirectoryStub

if TYPE_CHECKING:
    from paquebot.v1.directory_pb2_grpc import DirectoryAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

_REFUSALS = frozenset(
    (
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    )
)


class DirectoryRefused(Exception):
    """The directory refused the request; `str()` is its sentence for the administrator."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class DirectoryClient:
    """`channel` from `open_channel`; `admin_token` as configured in the service."""

    def __init__(self, channel: Channel, settings: DirectoryClientSettings, admin_token: str) -> None:
        self.stub: DirectoryAsyncStub = DirectoryStub(channel)
        self._timeout = settings.timeout
        self._metadata = (("authorization", f"Bearer {admin_token}"),)

    async def ask(self, rpc: UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Raises DirectoryRefused, DirectoryUnavailable."""
        try:
            with metrics.engine_call("grpc", "directory", fault_of):
                return await rpc(request, timeout=self._timeout, metadata=self._metadata)
        except AioRpcError as error:
            raise _translated(error) from error

    async def follow(
        self, rpc: UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncGenerator[Response, None]:
        """Answers as they arrive, until the directory ends the call. Raises DirectoryRefused, DirectoryUnavailable."""
        call = rpc(request, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except AioRpcError as error:
            raise _translated(error) from error
        finally:
            call.cancel()


def _translated(error: AioRpcError) -> DirectoryRefused | DirectoryUnavailable:
    text = error.details() or error.code().name
    return DirectoryRefused(error.code(), text) if error.code() in _REFUSALS else DirectoryUnavailable(text)
