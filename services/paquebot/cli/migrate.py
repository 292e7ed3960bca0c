"""`paquebot migrate`: bring database, stream and bucket to what this version needs, as soon as they answer.

It may run beside old pods and beside another `paquebot migrate`: every step can be repeated. It waits for the three
engines and works on them concurrently, so that pods that need only one of them start early.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, fields

import asyncpg
import typer
from minio.error import S3Error

from paquebot.blobs import BlobStore, BlobsUnavailable
from paquebot.cli.admin.connection import DataOption, client_environment, exit_for_settings
from paquebot.cli.waiting import CommandFailed, RetryUntil, TemporaryFailure, TemporaryRefusal, WaitOption
from paquebot.observability import log
from paquebot.queue import Queue, QueueRefused, QueueUnavailable
from paquebot.queue.stream import ensure_stream
from paquebot.runtime.engine_settings import NatsSettings, PostgresSettings, S3Settings
from paquebot.runtime.postgres.migrations import MigrationError, bootstrap_roles, make_database, migrate
from paquebot.runtime.postgres.pool import dsn_of
from paquebot.runtime.settings import Secret, SettingsError, load, setting

_NO_SUCH_LOGIN = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied")
_NOT_NOW = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server is starting or stopping
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that became a standby
    asyncpg.DeadlockDetectedError,  # with statements of running pods; each file is one transaction
    asyncpg.LockNotAvailableError,
)


@dataclass(frozen=True, slots=True)
class RolePasswords:
    """The password of each service's database role; empty: `migrate` does not change it."""

    delivery: Secret = setting("ROLE_PASSWORD_DELIVERY", Secret(""), help="password to give to paquebot_delivery")
    imap: Secret = setting("ROLE_PASSWORD_IMAP", Secret(""), help="password to give to paquebot_imap")
    pop3: Secret = setting("ROLE_PASSWORD_POP3", Secret(""), help="password to give to paquebot_pop3")
    janitor: Secret = setting("ROLE_PASSWORD_JANITOR", Secret(""), help="password to give to paquebot_janitor")
    recipient_validation: Secret = setting(
        "ROLE_PASSWORD_RECIPIENT_VALIDATION", Secret(""), help="password to give to paquebot_recipient_validation"
    )
    relay: Secret = setting("ROLE_PASSWORD_RELAY", Secret(""), help="password to give to paquebot_relay")

    def given(self) -> dict[str, str]:
        """By the role's name in the database."""
        values = {f"paquebot_{item.name}": str(getattr(self, item.name)) for item in fields(self)}
        return {role: password for role, password in values.items() if password}


@dataclass(frozen=True, slots=True)
class MigrateSettings:
    nats: NatsSettings
    s3: S3Settings
    postgres: PostgresSettings
    roles: RolePasswords

    def __post_init__(self) -> None:
        if not self.postgres.dsn:
            raise ValueError("PAQUEBOT_POSTGRES_DSN must be set: postgresql://owner@host:port/database")


def migrate_command(wait: WaitOption = "10m", data: DataOption = None) -> None:  # type: ignore[assignment]
    """Bring the database schemas, the stream and the bucket to what this version needs. Safe to repeat.

    Waits for engines that do not answer yet. Creates the database when it is missing and the login of
    PAQUEBOT_POSTGRES_DSN has the right to. Sets the password of each role with a PAQUEBOT_ROLE_PASSWORD_<ROLE>.
    """
    log.set_up("migrate", level="error", stream=sys.stderr)  # stdout is for the result
    try:
        settings = load(MigrateSettings, client_environment(data, os.environ))
    except SettingsError as error:
        exit_for_settings(data, error)
    retries = RetryUntil(wait, lambda text: typer.echo(text, err=True))
    sentences: list[str] = []
    try:
        asyncio.run(_bring_up_to_date(settings, retries))
    except* (CommandFailed, MigrationError) as faults:
        sentences = [str(fault) for fault in faults.exceptions]
    for sentence in sentences:
        typer.echo(f"paquebot: {sentence}", err=True)
    raise typer.Exit(1 if sentences else 0)


async def _bring_up_to_date(settings: MigrateSettings, retries: RetryUntil) -> None:
    """Raises a group of CommandFailed and MigrationError."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_database(settings, retries))
        group.create_task(_stream(settings.nats, retries))
        group.create_task(_bucket(settings.s3, retries))


async def _database(settings: MigrateSettings, retries: RetryUntil) -> None:
    dsn, passwords = dsn_of(settings.postgres), settings.roles.given()

    async def work() -> Mapping[str, int]:
        if made := await make_database(dsn):
            typer.echo(f"database {made} created")
        # First the logins: pods wait for them.
        await bootstrap_roles(dsn, passwords)
        return await migrate(dsn)

    versions = await retries.call("PostgreSQL", lambda: _judged(work()))
    for role in passwords:
        typer.echo(f"role {role} can log in")
    for schema, version in versions.items():
        typer.echo(f"schema {schema} is at version {version}")


async def _judged(work: Awaitable[Mapping[str, int]]) -> Mapping[str, int]:
    """The result of `work`. Raises PostgreSQL's errors as TemporaryFailure, TemporaryRefusal or CommandFailed."""
    try:
        return await work
    except asyncpg.InvalidAuthorizationSpecificationError as error:  # a wrong password is one, too
        raise TemporaryRefusal(f"PostgreSQL refuses the login: {error}") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise CommandFailed(f"PostgreSQL: the login of PAQUEBOT_POSTGRES_DSN lacks the right: {error}") from error
    except _NOT_NOW as error:
        raise TemporaryFailure(_why(error)) from error
    except ValueError as error:  # asyncpg raises it for a malformed DSN
        raise CommandFailed(f"PAQUEBOT_POSTGRES_DSN: {error}") from error


async def _stream(settings: NatsSettings, retries: RetryUntil) -> None:
    queue = await Queue.open(settings, "paquebot migrate")

    async def work() -> None:
        try:
            await ensure_stream(queue)
        except QueueRefused as error:
            if error.code and not str(error).startswith("503"):  # 503: JetStream has not started yet
                raise CommandFailed(f"NATS refuses the configuration of stream {settings.stream}: {error}") from error
            raise TemporaryFailure(str(error)) from error
        except QueueUnavailable as error:
            raise TemporaryFailure(f"{error} (are PAQUEBOT_NATS_URL and the login right?)") from error

    try:
        await retries.call("NATS", work)
    finally:
        await queue.close()
    typer.echo(f"stream {settings.stream} is up to date")


async def _bucket(settings: S3Settings, retries: RetryUntil) -> None:
    blobs = BlobStore(settings)

    async def work() -> None:
        try:
            await blobs.make_bucket()
        except BlobsUnavailable as error:
            code = error.__cause__.code if isinstance(error.__cause__, S3Error) else ""
            if code in _NO_SUCH_LOGIN:
                text = f"S3 refuses our key ({error}): it needs the right to see or create the bucket {settings.bucket}"
                raise TemporaryRefusal(text) from error
            raise TemporaryFailure(str(error)) from error

    try:
        await retries.call("S3", work)
    finally:
        await blobs.close()
    typer.echo(f"bucket {settings.bucket} is ready")


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
