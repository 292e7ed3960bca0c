"""The process: what it opens, when it is ready, how it ends.

`main` opens the pool and the gRPC server at once and stays up while PostgreSQL is away (calls are UNAVAILABLE
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

from paquebot.directory.lookup import Entry, look_up
from paquebot.mailstore.types import Usage
from paquebot.mailstore.usages import usages
from paquebot.observability.log import Log
from paquebot.recipient_validation.admin_token import AdminToken
from paquebot.recipient_validation.administration import Administration
from paquebot.recipient_validation.authentication import Authentication
from paquebot.recipient_validation.boundary import Boundary
from paquebot.recipient_validation.gathering import WORKERS, Gathering
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.recipient_validation.validation import Validation
from paquebot.runtime.health import Health
from paquebot.runtime.migrations import SCHEMAS, applied, code_version
from paquebot.runtime.postgres import Postgres, open_postgres
from paquebot.runtime.service import Context
from paquebot.runtime.settings import Listen
from paquebot.v1 import authentication_pb2_grpc, directory_pb2_grpc, recipient_validation_pb2_grpc
from paquebot.wire.address import Address

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
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),  # else the pings of an idle service's channel end its connection
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_age_ms", 300_000),  # clients look for new pods now and then
    ("grpc.max_connection_age_grace_ms", 30_000),
)

_log = Log("paquebot.recipient_validation")


@dataclass(frozen=True, slots=True)
class _Engines:
    """What the services work with."""

    postgres: Postgres
    hashing: Hashing
    lookups: Gathering[Address, Entry]
    usages: Gathering[int, Usage]


async def main(context: Context, settings: RecipientValidationSettings) -> None:
    async with _engines(settings) as engines:
        needed = {schema.name: code_version(schema) for schema in SCHEMAS if schema.name in ("directory", "mailstore")}
        context.health.depend("postgres", lambda: _schemas_fit(engines.postgres, needed))
        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        server = _server(settings, engines, servicer)
        port = _bind(server, settings.listen)
        await server.start()
        _log.info("listening", address=settings.listen.host, port=port)
        if not settings.admin_token:
            _log.warning("administration_closed", reason="PAQUEBOT_ADMIN_TOKEN is not set")
        context.started()
        await _serve(context, server, servicer, engines, grace=max(1.0, settings.process.drain - 3.0))


async def _serve(
    context: Context, server: Server, servicer: health.aio.HealthServicer, engines: _Engines, *, grace: float
) -> None:
    """Serve until the drain, then finish the calls under way, `grace` seconds at most."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_report_health(servicer, context.health))]
        for _ in range(WORKERS):
            tasks += [group.create_task(engines.lookups.work()), group.create_task(engines.usages.work())]
        try:
            await context.draining.wait()
            await servicer.enter_graceful_shutdown()
        finally:
            await server.stop(grace)
            for task in tasks:
                task.cancel()


@contextlib.asynccontextmanager
async def _engines(settings: RecipientValidationSettings) -> AsyncIterator[_Engines]:
    postgres = await open_postgres(settings.postgres, NAME)
    hashing = Hashing(settings.hashes)
    rules = settings.addresses.rules

    async def entries(addresses: Sequence[Address]) -> Mapping[Address, Entry]:
        return await look_up(postgres, rules, addresses)

    async def usages_of(account_ids: Sequence[int]) -> Mapping[int, Usage]:
        return await usages(postgres, account_ids)

    try:
        yield _Engines(postgres, hashing, Gathering("address", entries), Gathering("usage", usages_of))
    finally:
        hashing.close()
        await postgres.close(timeout=1.0)


def _server(settings: RecipientValidationSettings, engines: _Engines, servicer: health.aio.HealthServicer) -> Server:
    server = grpc_server(
        interceptors=(Boundary(), AdminToken(settings.admin_token)),
        # A second process on the port is an error, unless it is a worker of the same service.
        options=(*_OPTIONS, ("grpc.so_reuseport", int(settings.process.workers > 1))),
        maximum_concurrent_rpcs=_MAX_CALLS,
    )
    addresses = settings.addresses
    recipient_validation_pb2_grpc.add_RecipientValidationServicer_to_server(
        Validation(engines.lookups, addresses.literals, engines.usages, other_literals=addresses.other_literals), server
    )
    authentication_pb2_grpc.add_AuthenticationServicer_to_server(
        Authentication(engines.postgres, engines.hashing, settings.logins, addresses.default_domain), server
    )
    directory_pb2_grpc.add_DirectoryServicer_to_server(
        Administration(engines.postgres, engines.hashing, engines.usages), server
    )
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server


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
