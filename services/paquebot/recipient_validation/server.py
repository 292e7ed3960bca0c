"""The gRPC server: its listeners, its services, and grpc.health.v1."""

import asyncio
import datetime
from collections.abc import Callable

from grpc import ServerCredentials
from grpc.aio import Server
from grpc.aio import server as grpc_server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from paquebot.directory.login_limits import delete_old
from paquebot.observability.log import Log
from paquebot.recipient_validation.admin_token import AdminToken
from paquebot.recipient_validation.administration import Administration
from paquebot.recipient_validation.authentication import Authentication
from paquebot.recipient_validation.boundary import Boundary
from paquebot.recipient_validation.callers import Callers
from paquebot.recipient_validation.context import ServerContext
from paquebot.recipient_validation.settings import GrpcSettings, LoginSettings
from paquebot.recipient_validation.validation import Validation
from paquebot.runtime.postgres.pool import Postgres, PostgresUnavailable
from paquebot.runtime.process.health import Health
from paquebot.runtime.settings import Listen, ListenOrSocket, SocketPath
from paquebot.v1 import authentication_pb2_grpc, directory_pb2_grpc, recipient_validation_pb2_grpc

SERVICES = (
    "paquebot.v1.RecipientValidation",
    "paquebot.v1.Authentication",
    "paquebot.v1.Directory",
)
_HEALTH_SECONDS = 2.0
_START_SECONDS = 0.2  # while not ready
_FORGET_SECONDS = 60.0
_MAX_REQUEST = 1024 * 1024

_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_REQUEST),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),  # else the pings of an idle service's channel end its connection
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_age_ms", 300_000),  # clients then connect to new pods too
    ("grpc.max_connection_age_grace_ms", 30_000),
)

_log = Log("paquebot.recipient_validation")


class DirectoryServer:
    """Call `start`, then `run`, then `close`."""

    def __init__(self, context: ServerContext, health_of_process: Health) -> None:
        self._context = context
        self._health = health_of_process
        self._servicer = health.aio.HealthServicer()
        self._server = _grpc_server(context, self._servicer)

    async def start(self, credentials: ServerCredentials | None) -> None:
        """Listen, and report NOT_SERVING until `run`. Raises OSError for an address that cannot be bound."""
        await self._servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        _listen(self._server, self._context.settings.grpc, credentials)
        await self._server.start()

    async def run(self, draining: asyncio.Event) -> None:
        """Serve until the drain, then finish the calls under way."""
        async with asyncio.TaskGroup() as group:
            tasks = (
                group.create_task(_report_health(self._servicer, self._health)),
                group.create_task(_forget_failures(self._context.postgres, self._context.settings.logins)),
            )
            try:
                await draining.wait()
                await self._servicer.enter_graceful_shutdown()
            finally:
                await self.close()
                for task in tasks:
                    task.cancel()

    async def close(self) -> None:
        """Wait for the calls under way, within the time of the drain. Idempotent."""
        await self._server.stop(max(1.0, self._context.settings.process.drain - 3.0))


def _grpc_server(context: ServerContext, servicer: health.aio.HealthServicer) -> Server:
    settings = context.settings
    server = grpc_server(
        interceptors=(Callers(settings.grpc), Boundary(), AdminToken(settings.admin_token)),
        options=(
            *_OPTIONS,
            # A second process on the port is an error, unless it is a worker of the same service.
            ("grpc.so_reuseport", int(settings.process.workers > 1)),
            # The channel of a client queues further calls; so only a client with many channels exceeds its share.
            ("grpc.max_concurrent_streams", settings.grpc.calls_per_client),
            ("grpc.server_handshake_timeout_ms", round(settings.grpc.handshake * 1000)),
            ("grpc.max_allowed_incoming_connections", settings.grpc.connections),
        ),
        maximum_concurrent_rpcs=settings.grpc.calls,
    )
    addresses = settings.addresses
    recipient_validation_pb2_grpc.add_RecipientValidationServicer_to_server(
        Validation(
            context.lookups.ask,
            addresses.literals,
            context.usages.ask,
            settings.account.messages,
            other_literals=addresses.other_literals,
        ),
        server,
    )
    authentication_pb2_grpc.add_AuthenticationServicer_to_server(
        Authentication(
            context.postgres, context.hashing, settings.logins, addresses.default_domain, guests=settings.guests
        ),
        server,
    )
    directory_pb2_grpc.add_DirectoryServicer_to_server(
        Administration(
            context.postgres,
            context.hashing,
            context.usages.ask,
            context.queue,
            quota_bytes=settings.quota,
            min_password_length=settings.hashes.min_length,
        ),
        server,
    )
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if settings.grpc.reflection:
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def read_credentials(settings: GrpcSettings) -> ServerCredentials | None:
    """None: without TLS. Raises SettingsError."""
    if not settings.secure:
        return None
    # Imported here, so that only a process with certificates loads the module that reads them.
    from paquebot.rpc.credentials import ServerIdentity

    return ServerIdentity(settings.tls).credentials()


def _listen(server: Server, settings: GrpcSettings, credentials: ServerCredentials | None) -> None:
    """Raises OSError for an address that cannot be bound."""
    if credentials is not None:
        _bind(settings.listen, lambda address: server.add_secure_port(address, credentials), tls=True)
    else:
        _bind(settings.listen, server.add_insecure_port, tls=False)
    _bind(settings.plain_listen, server.add_insecure_port, tls=False)


def _bind(listen: ListenOrSocket, add: Callable[[str], int], *, tls: bool) -> None:
    """At `[::]` gRPC accepts clients of both address families, so an IPv4 listener on the same port is not bound."""
    if isinstance(listen, SocketPath):
        _bind_one(listen, add, tls=tls)
        return
    for place in listen:
        if place.host != "0.0.0.0" or Listen("::", place.port) not in listen:  # noqa: S104 - compared, not bound
            _bind_one(place, add, tls=tls)


def _bind_one(listen: Listen | SocketPath, add: Callable[[str], int], *, tls: bool) -> None:
    try:
        port = add(listen.uri if isinstance(listen, SocketPath) else str(listen))
    except RuntimeError as error:  # gRPC gives no reason
        raise OSError(f"cannot listen on {listen} for gRPC: the port is taken or the address is not ours") from error
    where = {"address": listen.host, "port": port} if isinstance(listen, Listen) else {"address": str(listen)}
    _log.info("listener_opened", **where, tls=tls)


async def _report_health(servicer: health.aio.HealthServicer, health_of_process: Health) -> None:
    """Make grpc.health.v1 report the same as /readyz."""
    serving = health_pb2.HealthCheckResponse.SERVING
    while True:
        reasons = await health_of_process.unready()
        status = health_pb2.HealthCheckResponse.NOT_SERVING if reasons else serving
        for name in ("", *SERVICES):
            await servicer.set(name, status)
        await asyncio.sleep(_START_SECONDS if reasons else _HEALTH_SECONDS)


async def _forget_failures(postgres: Postgres, logins: LoginSettings) -> None:
    """Delete old failures and networks from the directory, again and again."""
    while True:
        known_since = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=logins.known_days)
        try:
            await delete_old(postgres, logins.limits, logins.limit_entries, known_since)
        except PostgresUnavailable:
            pass  # readiness shows it
        except Exception:  # noqa: BLE001 - the schema may not exist yet: the next time may succeed
            _log.exception("old_failures_not_deleted")
        await asyncio.sleep(_FORGET_SECONDS)
