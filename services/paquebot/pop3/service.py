"""The POP3 process: what it opens, when it is ready, how it shuts down.

It listens at once and stays up while an engine is away: commands that need it are answered -ERR [SYS/TEMP].
"""

import contextlib
from collections.abc import AsyncIterator

from grpc.aio import Channel

from paquebot.blobs import BlobStore
from paquebot.mailstore import SCHEMA, Accounts, MailboxReader, Maildrops, Messages
from paquebot.pop3.context import ServerContext
from paquebot.pop3.server import Pop3Server
from paquebot.pop3.settings import Pop3Settings
from paquebot.queue import Queue
from paquebot.rpc import AuthenticationClient, Logins, Recordings, open_channel
from paquebot.rpc.health import probe
from paquebot.runtime.net.tls import ServerTls
from paquebot.runtime.postgres.migrations import check_reached
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.process.health import Health
from paquebot.runtime.process.service import Context
from paquebot.runtime.process.tasks import in_background
from paquebot.runtime.shares.account_shares import AccountShares
from paquebot.runtime.shares.event_loop import LoopShares
from paquebot.runtime.shares.in_flight import IN_FLIGHT

__all__ = ["Pop3Settings", "main", "open_server"]

NAME = "pop3"


async def main(context: Context, settings: Pop3Settings) -> None:
    """Serve until `context.draining`."""
    async with open_server(settings, context.health) as server:
        context.started()
        await server.run(context.draining)


@contextlib.asynccontextmanager
async def open_server(settings: Pop3Settings, health: Health) -> AsyncIterator[Pop3Server]:
    """A listening server with all it needs, for the time of the block; call its `run`."""
    # First: report a bad certificate even while no engine answers. Raises SettingsError.
    tls = ServerTls(settings.tls) if settings.tls.certificate is not None else None
    async with contextlib.AsyncExitStack() as stack:
        queue = await Queue.open(settings.nats, NAME)
        stack.push_async_callback(queue.close)
        blobs = BlobStore(settings.s3)
        stack.push_async_callback(blobs.close)
        postgres = await open_postgres(settings.postgres, NAME)
        stack.push_async_callback(postgres.close)
        channel = open_channel(settings.directory)
        stack.push_async_callback(channel.close)
        authentication = AuthenticationClient(channel, settings.directory)
        logins = Logins(authentication, settings.checks)
        await logins.listen(queue)
        recordings = Recordings(queue, NAME)
        await recordings.listen()
        context = ServerContext(
            settings=settings,
            maildrops=Maildrops(postgres, Accounts(postgres)),
            mailbox_reader=MailboxReader(postgres),
            messages=Messages(postgres),
            blobs=blobs,
            queue=queue,
            authentication=authentication,
            logins=logins,
            recordings=recordings,
            shares=AccountShares.of_readers(
                settings.process.in_flight, settings.maildrop.reading_per_account, IN_FLIGHT
            ),
            loop_shares=LoopShares(settings.fairness),
            tls=tls,
        )
        _depend(health, blobs, postgres, channel)
        server = Pop3Server(context)
        stack.push_async_callback(server.close)
        server.listen()
        tasks = {"session_checks": context.logins.run(), "recordings": context.recordings.run()}
        if tls is not None:
            tasks["certificates"] = tls.watch()
        async with in_background(**tasks):
            yield server


def _depend(health: Health, blobs: BlobStore, postgres: Postgres, channel: Channel) -> None:
    """Ready while clients can log in and read. Without NATS only hints are missing: they speed things up, no more."""
    health.depend("postgres", lambda: check_reached(postgres, SCHEMA))
    health.depend("s3", blobs.probe)
    health.depend("recipient_validation", lambda: probe(channel, "paquebot.v1.Authentication"))
