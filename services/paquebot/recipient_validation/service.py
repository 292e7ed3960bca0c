"""The process: what it opens, when it is ready, how it ends.

`serve` opens the pool and the gRPC server at once and stays up while PostgreSQL is away (calls are UNAVAILABLE
meanwhile); it is ready, by HTTP and by grpc.health.v1, once the schemas have this code's version.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from grpc.aio import Server
from grpc.aio import server as grpc_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paquebot.mailstore.types import Usage
from paquebot.mailstore.usages import usages
from paquebot.observability.log import Log
from paquebot.recipient_validation.admin_token import AdminToken
from paquebot.recipient_validation.administration import Administration
from paquebot.recipient_validation.authentication import Authentication
from paquebot.recipient_validation.boundary import Boundary
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.recipient_validation.validation import Validation
from paquebot.runtime.health import Health
from paquebot.runtime.migrations import SCHEMAS, applied, code_version
from paquebot.runtime.postgres import Postgres, open_postgres
from paquebot.runtime.service import Context
from paquebot.runtime.settings import Listen
from paquebot.v1 import authentication_pb2_grpc, directory_pb2_grpc, recipient_validation_pb2_grpc

NAME = "recipient_validation"
SERVICES = (
    "paquebot.v1.RecipientValidation",
    "paquebot.v1.Authentication",
    "paquebot.v1.Directory",
)
_HEALTH_SECONDS = 2.0
_START_SECONDS = 0.2
_MAX_REQUEST = 1024 * 1024
_MAX_CALLS = 1000  # under way at once; above, RESOURCE_EXHAUSTED

_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_REQUEST),
    ("grpc.so_reuseport", 0),  # a second process on the port is an error, not a partner
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_age_ms", 300_000),  # clients look for new pods now and then
    ("grpc.max_connection_age_grace_ms", 30_000),
)

_log = Log("paquebot.recipient_validation")


@dataclass(frozen=True, slots=True)
class Running:
    """`port` is where gRPC listens."""

    port: int
    postgres: Postgres


async def main(context: Context, settings: RecipientValidationSettings) -> None:
    async with serve(settings, context.health) as running:
        _log.info("listening", address=settings.listen.host, port=running.port)
        if not settings.admin_token:
            _log.warning("administration_closed", reason="PAQUEBOT_ADMIN_TOKEN is not set")
        context.started()
        await context.draining.wait()


@contextlib.asynccontextmanager
async def serve(settings: RecipientValidationSettings, health_of_process: Health) -> AsyncIterator[Running]:
    """All services, for the time of the block; at its end calls under way are finished, then all is closed."""
    postgres = await open_postgres(settings.postgres, NAME)
    hashing = Hashing(settings.hashes)
    needed = {schema.name: code_version(schema) for schema in SCHEMAS if schema.name in ("directory", "mailstore")}
    health_of_process.depend("postgres", lambda: _schemas_fit(postgres, needed))
    server = grpc_server(
        interceptors=(Boundary(), AdminToken(settings.admin_token)),
        options=_OPTIONS,
        maximum_concurrent_rpcs=_MAX_CALLS,
    )
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    _add_services(server, settings, postgres, hashing, servicer)
    try:
        port = _bind(server, settings.listen)
        await server.start()
        async with asyncio.TaskGroup() as group:
            reporter = group.create_task(_report_health(servicer, health_of_process))
            try:
                yield Running(port, postgres)
            finally:
                reporter.cancel()
                await servicer.enter_graceful_shutdown()
    finally:
        await server.stop(max(1.0, settings.process.drain - 3.0))
        hashing.close()
        await postgres.close(timeout=1.0)


def _add_services(
    server: Server,
    settings: RecipientValidationSettings,
    postgres: Postgres,
    hashing: Hashing,
    servicer: health.aio.HealthServicer,
) -> None:
    async def usage_of(account_ids: Sequence[int]) -> dict[int, Usage]:
        return await usages(postgres, account_ids)

    addresses = settings.addresses
    recipient_validation_pb2_grpc.add_RecipientValidationServicer_to_server(
        Validation(postgres, addresses.rules, addresses.literals, usage_of), server
    )
    authentication_pb2_grpc.add_AuthenticationServicer_to_server(
        Authentication(postgres, hashing, settings.logins, addresses.default_domain), server
    )
    directory_pb2_grpc.add_DirectoryServicer_to_server(Administration(postgres, hashing, usage_of), server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


def _bind(server: Server, listen: Listen) -> int:
    try:
        return server.add_insecure_port(str(listen))
    except RuntimeError as error:  # gRPC tells no reason
        raise OSError(f"cannot listen on {listen} for gRPC: the port is taken or the address is not ours") from error


async def _schemas_fit(postgres: Postgres, needed: Mapping[str, int]) -> None:
    """The probe of readiness: PostgreSQL answers, and its schemas suit this code's versions of them."""
    for name, code in needed.items():
        found = await applied(postgres, name)
        if found is None or found.version < code:
            raise RuntimeError(f"schema {name} is not yet at version {code}")
        if found.floor > code:
            raise RuntimeError(f"schema {name} needs code of version {found.floor}, this is {code}")


async def _report_health(servicer: health.aio.HealthServicer, health_of_process: Health) -> None:
    """Keep grpc.health.v1 at what /readyz says."""
    serving = health_pb2.HealthCheckResponse.SERVING
    while True:
        reasons = await health_of_process.unready()
        status = health_pb2.HealthCheckResponse.NOT_SERVING if reasons else serving
        for name in ("", *SERVICES):
            await servicer.set(name, status)
        await asyncio.sleep(_START_SECONDS if reasons else _HEALTH_SECONDS)
