"""The process: what it opens, when it is ready, how it shuts down.

It opens the pool and the gRPC server at once and stays up while PostgreSQL is away (calls are UNAVAILABLE meanwhile).
It is ready, by HTTP and by grpc.health.v1, once the schemas have this code's version.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from paquebot.directory.lookup import DirectoryEntry, look_up
from paquebot.mailstore import Accounts
from paquebot.observability.log import Log
from paquebot.queue import Queue
from paquebot.recipient_validation.context import ServerContext
from paquebot.recipient_validation.hashing import Hashing
from paquebot.recipient_validation.lookups import lookup_batcher
from paquebot.recipient_validation.server import DirectoryServer, read_credentials
from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.runtime.postgres.migrations import SCHEMAS, applied, code_version
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.wire.address import Address

NAME = "recipient_validation"
_log = Log("paquebot.recipient_validation")


async def main(context: Context, settings: RecipientValidationSettings) -> None:
    """Serve until `context.draining`."""
    async with open_server(settings, context.health) as server:
        context.started()
        await server.run(context.draining)


@contextlib.asynccontextmanager
async def open_server(settings: RecipientValidationSettings, health: Health) -> AsyncIterator[DirectoryServer]:
    """A listening server with all it needs, for the time of the block; call its `run`."""
    # First: report a bad certificate even while no engine answers. Raises SettingsError.
    credentials = read_credentials(settings.grpc)
    async with _open_context(settings) as context:
        needed = {schema.name: code_version(schema) for schema in SCHEMAS if schema.name in ("directory", "mailstore")}
        health.depend("postgres", lambda: _check_schemas(context.postgres, needed))
        server = DirectoryServer(context, health)
        await server.start(credentials)
        if not settings.admin_token:
            _log.warning("administration_disabled", reason="PAQUEBOT_ADMIN_TOKEN is not set")
        try:
            yield server
        finally:
            await server.close()


@contextlib.asynccontextmanager
async def _open_context(settings: RecipientValidationSettings) -> AsyncIterator[ServerContext]:
    postgres = await open_postgres(settings.postgres, NAME)
    hashing = Hashing(settings.hashes)
    rules = settings.addresses.rules
    usages = lookup_batcher("usage", Accounts(postgres).usages)

    async def entries(addresses: Sequence[Address]) -> Mapping[Address, DirectoryEntry]:
        return await look_up(postgres, rules, addresses)

    # For hints only: no call waits for it, and readiness does not depend on it (invariant 4).
    queue = Queue.begin(settings.nats, NAME)
    try:
        yield ServerContext(settings, postgres, hashing, lookup_batcher("address", entries), usages, queue)
    finally:
        await queue.close()
        hashing.close()
        await postgres.close(timeout=1.0)


async def _check_schemas(postgres: Postgres, needed: Mapping[str, int]) -> None:
    """The readiness probe: PostgreSQL answers, and its schemas and this code are compatible."""
    for name, code in needed.items():
        found = await applied(postgres, name)
        if found is None or found.version < code:
            raise RuntimeError(f"schema {name} is not yet at version {code}")
        if found.floor > code:
            raise RuntimeError(f"schema {name} needs code of version {found.floor}, this is {code}")
