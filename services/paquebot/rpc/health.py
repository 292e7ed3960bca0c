"""A readiness probe for the clients of recipient_validation, by grpc.health.v1."""

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paquebot.rpc.channel import DirectoryUnavailable

_TIMEOUT_SECONDS = 1.5  # shorter than the timeout of a readiness probe


async def probe(channel: aio.Channel, service: str) -> None:
    """Raises DirectoryUnavailable unless `service` is SERVING."""
    stub = health_pb2_grpc.HealthStub(channel)  # its type has no methods
    try:
        answer = await stub.Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_SECONDS
        )
    except (grpc.RpcError, aio.UsageError) as error:
        raise DirectoryUnavailable(f"{service} does not answer") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise DirectoryUnavailable(f"{service} does not serve")
