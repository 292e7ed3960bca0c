"""The real recipient_validation on a real database, in this process, with clients connected to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from grpc.aio import Channel

from paquebot.cli.engines.nats import NatsEngine
from paquebot.recipient_validation.service import NAME, main
from paquebot.recipient_validation.settings import RecipientValidationSettings
from paquebot.rpc import AuthenticationClient, DirectoryClient, ValidationClient, open_channel
from paquebot.rpc.validation import ValidationCacheSettings
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.postgres.migrations import migrate
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.settings import Seconds, load
from paquebot.v1 import directory_pb2 as pb
from tests.support import roles
from tests.support.loopback import free_port

ADMIN_TOKEN = "the admin token of tests"
ROLE = "paquebot_recipient_validation"

CHEAP_HASHES = {
    "PAQUEBOT_ARGON2_PASSES": "1",
    "PAQUEBOT_ARGON2_MEMORY": "64KiB",
    "PAQUEBOT_HASH_THREADS": "1",
    "PAQUEBOT_PASSWORD_MIN_LENGTH": "6",
}


@dataclass(slots=True, frozen=True)
class DirectoryService:
    """`validation` caches no answers."""

    target: str
    context: Context
    channel: Channel
    admin: DirectoryClient
    validation: ValidationClient
    authentication: AuthenticationClient
    admin_dsn: str = ""

    @property
    def authentication_settings(self) -> DirectoryClientSettings:
        """Settings for a client on `channel`."""
        return DirectoryClientSettings(self.target, Seconds(10.0))

    async def domain(self, name: str, **fields: Any) -> pb.Domain:
        return await self.admin.ask(self.admin.stub.CreateDomain, pb.CreateDomainRequest(name=name, **fields))

    async def account(self, address: str, password: str = "secret", **fields: Any) -> int:
        request = pb.CreateAccountRequest(address=address, password=password, **fields)
        return (await self.admin.ask(self.admin.stub.CreateAccount, request)).account_id

    async def alias(self, address: str, *targets: str) -> None:
        request = pb.CreateAliasRequest(address=address, targets=targets)
        await self.admin.ask(self.admin.stub.CreateAlias, request)

    async def set_account(self, address: str, **fields: Any) -> None:
        request = pb.UpdateAccountRequest(address=address, **fields)
        await self.admin.ask(self.admin.stub.UpdateAccount, request)

    async def app_password(self, address: str, name: str) -> tuple[str, str]:
        """Create an app password; return its id and the password."""
        request = pb.CreateAppPasswordRequest(address=address, name=name)
        made = await self.admin.ask(self.admin.stub.CreateAppPassword, request)
        return made.app_password.app_password_id, made.password

    async def remove(self, address: str) -> None:
        await self.admin.ask(self.admin.stub.DeleteAccount, pb.DeleteAccountRequest(address=address))

    async def change(self, what: Sequence[str], address: str) -> bool:
        """Run a step of a dialogue; return False for an unknown step."""
        match what:
            case ["disable"]:
                await self.set_account(address, enabled=False)
            case ["disable", "unannounced"]:
                await self.disable_without_hint(address)
            case ["remove"]:
                await self.remove(address)
            case ["change", "password"]:
                await self.set_account(address, password="another of tests")
            case _:
                return False
        return True

    async def disable_without_hint(self, address: str) -> None:
        """Disable the account without a hint, as if the hint were lost."""
        local, _, domain = address.partition("@")
        connection = await asyncpg.connect(self.admin_dsn)
        sql = "UPDATE directory.accounts SET enabled = false WHERE local_part = $1 AND domain = $2"
        await connection.execute(sql, local, domain)
        await connection.close()


def nats_login(nats: NatsEngine) -> dict[str, str]:
    """The settings of a service that logs in as the operator."""
    login = nats.accesses[0]
    return {
        "PAQUEBOT_NATS_URL": nats.url,
        "PAQUEBOT_NATS_USER": login.name,
        "PAQUEBOT_NATS_PASSWORD": login.password,
    }


def role_dsn(admin_dsn: str) -> str:
    """The DSN of the service's own role, with only the rights of that role."""
    return roles.role_dsn(admin_dsn, ROLE)


@contextlib.asynccontextmanager
async def directory_service(admin_dsn: str, **environ: str) -> AsyncIterator[DirectoryService]:
    """Migrate the database, run the service as `paquebot recipient-validation` does, and end it by its drain."""
    await roles.let_roles_log_in(admin_dsn, ROLE)
    await migrate(admin_dsn)
    async with running(role_dsn(admin_dsn), **environ) as service:
        yield dataclasses.replace(service, admin_dsn=admin_dsn)


@contextlib.asynccontextmanager
async def running(dsn: str, **environ: str) -> AsyncIterator[DirectoryService]:
    """Run the service alone, on any database. With certificates for gRPC, the clients here use the same ones."""
    target = environ.pop("PAQUEBOT_GRPC_LISTEN", f"127.0.0.1:{free_port()}")
    settings = load(
        RecipientValidationSettings,
        {
            "PAQUEBOT_POSTGRES_DSN": dsn,
            "PAQUEBOT_GRPC_LISTEN": target,
            "PAQUEBOT_ADMIN_TOKEN": ADMIN_TOKEN,
            "PAQUEBOT_NATS_URL": "nats://127.0.0.1:1",  # unavailable unless a test sets one
            **CHEAP_HASHES,
            **environ,
        },
    )
    context = Context(NAME, Health(), asyncio.Event())
    client = DirectoryClientSettings(target, Seconds(10.0), settings.grpc.tls)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(main(context, settings))
        channel = open_channel(client)
        try:
            await asyncio.wait_for(channel.channel_ready(), 10.0)
            yield DirectoryService(
                target,
                context,
                channel,
                DirectoryClient(channel, client, ADMIN_TOKEN),
                ValidationClient(channel, client, ValidationCacheSettings(Seconds(0.0), 0)),
                AuthenticationClient(channel, client),
            )
        finally:
            await channel.close()
            context.draining.set()
            await asyncio.wait_for(task, 10.0)
