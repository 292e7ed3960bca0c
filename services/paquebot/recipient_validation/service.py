"""The process: what it opens, when it is ready, how it ends.

`main` opens the pool and the gRPC server at once and stays up while PostgreSQL is away (calls are UNAVAILABLE
meanwhile); it is ready, by HTTP and by grpc.health.v1, once the schemas have this code's version.
"""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from grpc import ServerCredentials
from grpc.aio import Server
from grpc.aio import server as grpc_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paquebot.directory.login_limits import delete_old
from paquebot.directory.lookup import DirectoryEntry, look_up
from paquebot.mailstore import Accounts, Usage
from paquebot.observability.log import Log
from paquebot.queue import Queue
from paquebot.recipient_validation.admin_token import AdminToken
from paquebot.recipient_validation.administration import Administration
from paquebot.recipient_validation.authentication import Authentication
from paquebot.recipient_validation.boundary import Boundary
from paquebot.recipient_validation.callers import Callers
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.lookups import lookup_batcher
from paquebot.recipient_validation.settings import GrpcSettings, LoginSettings, RecipientValidationSettings
from paquebot.recipient_validation.validation import Validation
from paquebot.runtime.batching import Batcher
from paquebot.runtime.postgres.migrations import SCHEMAS, applied, code_version
from paquebot.runtime.postgres.pool import Postgres, PostgresUnavailable, open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.settings import Listen, ListenOrSocket, SocketPath
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
_FORGET_SECONDS = 60.0
_MAX_REQUEST = 1024 * 1024

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
    lookups: Batcher[Sequence[Address], Mapping[Address, DirectoryEntry]]
    usages: Batcher[Sequence[int], Mapping[int, Usage]]
    queue: Queue


async def main(context: Context, settings: RecipientValidationSettings) -> None:
    # First: a bad certificate is to be told even while no engine answers. Raises SettingsError.
    credentials = _credentials(settings.grpc)
    async with _engines(settings) as engines:
        needed = {schema.name: code_version(schema) for schema in SCHEMAS if schema.name in ("directory", "mailstore")}
        context.health.depend("postgres", lambda: _schemas_fit(engines.postgres, needed))
        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        server = _server(settings, engines, servicer)
        _listen(server, settings.grpc, credentials)
        await server.start()
        if not settings.admin_token:
            _log.warning("administration_closed", reason="PAQUEBOT_ADMIN_TOKEN is not set")
        context.started()
        grace = max(1.0, settings.process.drain - 3.0)
        await _serve(context, server, servicer, engines, settings.logins, grace=grace)


async def _serve(
    context: Context,
    server: Server,
    servicer: health.aio.HealthServicer,
    engines: _Engines,
    logins: LoginSettings,
    *,
    grace: float,
) -> None:
    """Serve until the drain, then finish the calls under way, `grace` seconds at most."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_report_health(servicer, context.health)),
            group.create_task(_forget_failures(engines.postgres, logins)),
        ]
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
    usages = lookup_batcher("usage", Accounts(postgres).usages)

    async def entries(addresses: Sequence[Address]) -> Mapping[Address, DirectoryEntry]:
        return await look_up(postgres, rules, addresses)

    # Only for hints: nothing waits for it, and readiness does not depend on it (invariant 4).
    queue = Queue.begin(settings.nats, NAME)
    try:
        yield _Engines(postgres, hashing, lookup_batcher("address", entries), usages, queue)
    finally:
        await queue.close()
        hashing.close()
        await postgres.close(timeout=1.0)


def _server(settings: RecipientValidationSettings, engines: _Engines, servicer: health.aio.HealthServicer) -> Server:
    server = grpc_server(
        interceptors=(Callers(settings.grpc), Boundary(), AdminToken(settings.admin_token)),
        options=(
            *_OPTIONS,
            # A second process on the port is an error, unless it is a worker of the same service.
            ("grpc.so_reuseport", int(settings.process.workers > 1)),
            # A client's channel waits with further calls; only a client with many channels is refused its share.
            ("grpc.max_concurrent_streams", settings.grpc.calls_per_client),
            ("grpc.server_handshake_timeout_ms", round(settings.grpc.handshake * 1000)),
            ("grpc.max_allowed_incoming_connections", settings.grpc.connections),
        ),
        maximum_concurrent_rpcs=settings.grpc.calls,
    )
    addresses = settings.addresses
    recipient_validation_pb2_grpc.add_RecipientValidationServicer_to_server(
        Validation(
            engines.lookups.ask,
            addresses.literals,
            engines.usages.ask,
            settings.account.messages,
            other_literals=addresses.other_literals,
        ),
        server,
    )
    authentication_pb2_grpc.add_AuthenticationServicer_to_server(
        Authentication(
            engines.postgres, engines.hashing, settings.logins, addresses.default_domain, guests=settings.guests
        ),
        server,
    )
    directory_pb2_grpc.add_DirectoryServicer_to_server(
        Administration(
            engines.postgres,
            engines.hashing,
            engines.usages.ask,
            engines.queue,
            quota_bytes=settings.quota,
            shortest_password=settings.hashes.shortest,
        ),
        server,
    )
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if settings.grpc.reflection:
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def _credentials(settings: GrpcSettings) -> ServerCredentials | None:
    """None: without TLS. Raises SettingsError."""
    if not settings.secure:
        return None
    # Here, so that only a process with certificates holds the module that reads them.
    from paquebot.rpc.credentials import ServerIdentity

    return ServerIdentity(settings.tls).credentials()


def _listen(server: Server, settings: GrpcSettings, credentials: ServerCredentials | None) -> None:
    """Raises OSError for an address that cannot be had."""
    if credentials is not None:
        _bind(settings.listen, lambda address: server.add_secure_port(address, credentials), tls=True)
    else:
        _bind(settings.listen, server.add_insecure_port, tls=False)
    _bind(settings.plain_listen, server.add_insecure_port, tls=False)


def _bind(listen: ListenOrSocket, add: Callable[[str], int], *, tls: bool) -> None:
    """gRPC takes clients of both families at `[::]` in any case, so an IPv4 listener beside it has nothing to do."""
    if isinstance(listen, SocketPath):
        _bind_one(listen, add, tls=tls)
        return
    for place in listen:
        if place.host != "0.0.0.0" or Listen("::", place.port) not in listen:  # noqa: S104 - asked for, not set
            _bind_one(place, add, tls=tls)


def _bind_one(listen: Listen | SocketPath, add: Callable[[str], int], *, tls: bool) -> None:
    try:
        port = add(listen.uri if isinstance(listen, SocketPath) else str(listen))
    except RuntimeError as error:  # gRPC tells no reason
        raise OSError(f"cannot listen on {listen} for gRPC: the port is taken or the address is not ours") from error
    where = {"address": listen.host, "port": port} if isinstance(listen, Listen) else {"address": str(listen)}
    _log.info("listening", **where, tls=tls)


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


async def _forget_failures(postgres: Postgres, logins: LoginSettings) -> None:
    """Keep the directory's memory of failed logins small."""
    while True:
        known_since = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=logins.known_days)
        try:
            await delete_old(postgres, logins.limits, logins.limit_entries, known_since)
        except PostgresUnavailable:
            pass  # readiness tells
        except Exception:  # noqa: BLE001 - the schema is not there yet, or whatever: the next time it may go
            _log.exception("failures_not_forgotten")
        await asyncio.sleep(_FORGET_SECONDS)
