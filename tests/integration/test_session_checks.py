"""Sessions end when their password changes or their account is disabled, in every process; other sessions stay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from grpc.aio import server as grpc_server

from paquebot.cli.engines.nats import NatsEngine
from paquebot.queue import Queue
from paquebot.queue.hints import DirectoryHint
from paquebot.rpc import (
    AuthenticationClient,
    Credential,
    DirectoryUnavailable,
    Identity,
    LoginEnd,
    Logins,
    SessionLogin,
    open_channel,
)
from paquebot.rpc.sessions import ENDED, SessionCheckSettings
from paquebot.runtime.engine_settings import DirectoryClientSettings, NatsSettings
from paquebot.runtime.settings import Seconds, load
from paquebot.smtp_ingress.state import Role
from paquebot.v1 import directory_pb2 as pb
from tests.dialogues.dialogue import client_tls
from tests.support.directory_service import DirectoryService, directory_service, nats_login
from tests.support.imap_wire import connected
from tests.support.imap_world import PASSWORD, ImapStack
from tests.support.smtp_world import PASSWORD as SUBMISSION_PASSWORD
from tests.support.smtp_world import SmtpStack

ALICE = "alice@example.org"
SECONDS = 60.0


@pytest.fixture
async def service(database: str, nats_engine: NatsEngine) -> AsyncIterator[DirectoryService]:
    async with directory_service(database, **nats_login(nats_engine)) as running:
        await running.domain("example.org")
        yield running


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counted(AuthenticationClient):
    """Counts the calls, and can simulate an outage of the directory."""

    asked = 0
    away = False

    async def check_sessions(self, sessions, **options):  # type: ignore[no-untyped-def]
        self.asked += 1
        if self.away:
            raise DirectoryUnavailable("as if")
        return await super().check_sessions(sessions, **options)


class World:
    """A process with sessions and a manual clock."""

    def __init__(self, service: DirectoryService) -> None:
        self.clock = Clock()
        self.client = Counted(service.channel, service.authentication_settings)
        self.logins = Logins(self.client, SessionCheckSettings(), clock=self.clock)
        self.ended = asyncio.Event()

    async def login(self, service: DirectoryService, password: str = "secret") -> SessionLogin:
        identity = await service.authentication.authenticate(ALICE, password, "192.0.2.1", "imap")
        assert isinstance(identity, Identity)
        return self.logins.enter(identity, self.ended.set)


async def test_a_command_checks_when_the_last_check_is_old(service: DirectoryService) -> None:
    await service.account(ALICE)
    world = World(service)
    login = await world.login(service)
    await service.disable_without_hint(ALICE)
    world.clock.now += 29.9
    assert await world.logins.check(login) is None
    assert world.client.asked == 0
    world.clock.now += 0.1
    assert await world.logins.check(login) is LoginEnd.DISABLED
    assert world.ended.is_set()
    assert world.client.asked == 1
    assert await world.logins.check(login) is LoginEnd.DISABLED  # permanently


async def test_many_sessions_are_checked_in_one_call(service: DirectoryService) -> None:
    await service.account(ALICE)
    world = World(service)
    logins = [await world.login(service) for _ in range(30)]
    world.clock.now += 25.0
    await world.logins.check_all()
    assert world.client.asked == 1
    world.clock.now += 29.0
    for login in logins:
        assert await world.logins.check(login) is None
    assert world.client.asked == 1


async def test_sessions_continue_during_an_outage_of_the_directory_within_a_limit(service: DirectoryService) -> None:
    await service.account(ALICE)
    world = World(service)
    login = await world.login(service)
    world.client.away = True
    world.clock.now += 31.0
    for _ in range(5):
        assert await world.logins.check(login) is None
    assert world.client.asked == 1  # not every command waits for an unavailable directory
    world.clock.now += 900.0
    assert await world.logins.check(login) is LoginEnd.UNCHECKED


async def test_a_change_during_the_login_is_not_missed(service: DirectoryService) -> None:
    account_id = await service.account(ALICE)
    world = World(service)
    identity = await service.authentication.authenticate(ALICE, "secret", "192.0.2.1", "imap")
    assert isinstance(identity, Identity)
    await service.set_account(ALICE, enabled=False)
    world.logins.on_hint(DirectoryHint(frozenset((account_id,))))
    world.logins.enter(identity, world.ended.set)
    await asyncio.wait_for(world.ended.wait(), SECONDS)


async def test_a_hint_alone_ends_no_session(service: DirectoryService) -> None:
    account_id = await service.account(ALICE)
    world = World(service)
    login = await world.login(service)
    world.logins.on_hint(DirectoryHint(frozenset((account_id,)), "removed"))
    await world.logins.check_all()
    assert login.end is None


async def test_each_password_has_its_own_sessions(service: DirectoryService) -> None:
    account_id = await service.account(ALICE)
    world = World(service)
    phone_id, phone_password = await service.app_password(ALICE, "phone")
    _, tablet_password = await service.app_password(ALICE, "tablet")
    own = await world.login(service)
    phone, tablet = [await world.login(service, password) for password in (phone_password, tablet_password)]
    unsaid = world.logins.enter(Identity(account_id, ALICE, 0, credential=Credential()), world.ended.set)

    await service.set_account(ALICE, display_name="Alice")
    await world.logins.check_all()
    assert [one.end for one in (own, phone, tablet, unsaid)] == [None] * 4

    delete = pb.DeleteAppPasswordRequest(address=ALICE, app_password_id=phone_id)
    await service.admin.ask(service.admin.stub.DeleteAppPassword, delete)
    await world.logins.check_all()
    assert [one.end for one in (own, phone, tablet, unsaid)] == [None, LoginEnd.REVOKED, None, None]

    await service.set_account(ALICE, password="another secret")
    await world.logins.check_all()
    assert [one.end for one in (own, tablet, unsaid)] == [LoginEnd.REVOKED, None, None]

    request = pb.UpdateDomainRequest(name="example.org", enabled=False)
    await service.admin.ask(service.admin.stub.UpdateDomain, request)
    await world.logins.check_all()
    assert [one.end for one in (tablet, unsaid)] == [LoginEnd.DISABLED] * 2


async def test_a_session_that_ended_is_not_checked(service: DirectoryService) -> None:
    await service.account(ALICE)
    world = World(service)
    login = await world.login(service)
    world.logins.leave(login)
    world.logins.leave(login)
    await world.logins.check_all()
    assert world.client.asked == 0


async def test_each_change_publishes_a_hint_with_the_account_only(
    service: DirectoryService, nats_engine: NatsEngine
) -> None:
    queue = await Queue.open(load(NatsSettings, nats_login(nats_engine)), "test")
    hints: asyncio.Queue[DirectoryHint] = asyncio.Queue()
    await queue.subscribe_directory(hints.put_nowait)
    try:
        account_id = await service.account(ALICE)
        only = frozenset((account_id,))
        made, _ = await service.app_password(ALICE, "phone")
        await service.set_account(ALICE, display_name="Alice")  # ends no session
        await service.set_account(ALICE, password="another secret")
        await service.set_account(ALICE, enabled=False)
        delete = pb.DeleteAppPasswordRequest(address=ALICE, app_password_id=made)
        await service.admin.ask(service.admin.stub.DeleteAppPassword, delete)
        await service.remove(ALICE)
        request = pb.UpdateDomainRequest(name="example.org", enabled=False)
        await service.admin.ask(service.admin.stub.UpdateDomain, request)
        found = [await asyncio.wait_for(hints.get(), SECONDS) for _ in range(5)]
        assert found == [
            DirectoryHint(only, "password"),
            DirectoryHint(only, "enabled"),
            DirectoryHint(only, "app_password"),
            DirectoryHint(only, "removed"),
            DirectoryHint(None, "domain"),
        ]
    finally:
        await queue.close()


async def test_sessions_end_in_every_process_and_only_those_of_the_password(imap_stack: ImapStack) -> None:
    reader = await imap_stack.reader()
    made, phone_password = await imap_stack.directory.app_password(reader.address, "phone")
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(imap_stack.serving()) for _ in range(2)]
        clients = {}
        for number, server in enumerate(servers):
            for password in (PASSWORD, phone_password):
                client = await stack.enter_async_context(connected(server.port("imaps")))
                await client.ok(f'LOGIN {reader.address} "{password}"')
                clients[number, password] = client
        delete = pb.DeleteAppPasswordRequest(address=reader.address, app_password_id=made)
        await imap_stack.directory.admin.ask(imap_stack.directory.admin.stub.DeleteAppPassword, delete)
        for number in range(2):
            assert b"* BYE [EXPIRED]" in await clients[number, phone_password].line()
            await clients[number, PASSWORD].ok("NOOP")


async def test_a_service_of_an_older_version_ends_no_session() -> None:
    server = grpc_server()  # without a service, as without the method
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = DirectoryClientSettings(f"127.0.0.1:{port}", Seconds(SECONDS))
    channel = open_channel(settings)
    logins = Logins(AuthenticationClient(channel, settings), SessionCheckSettings())
    login = logins.enter(Identity(1, ALICE, 0), lambda: None)
    try:
        assert await logins.check(login, again=True) is None
        assert login.checked > 0
    finally:
        await channel.close()
        await server.stop(0)


async def test_a_message_read_whole_before_its_password_was_changed_is_not_accepted(smtp_stack: SmtpStack) -> None:
    address, alias = "judy@paquebot.test", "judy.alias@paquebot.test"
    await smtp_stack.directory.account(address, SUBMISSION_PASSWORD)
    await smtp_stack.directory.alias(alias, address)
    after = await smtp_stack.last_sequence()
    plain = base64.b64encode(f"\0{address}\0{SUBMISSION_PASSWORD}".encode()).decode()
    database = await asyncpg.connect(smtp_stack.directory.admin_dsn)
    async with smtp_stack.serving() as server:
        port = server.ports(Role.SUBMISSIONS)[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls())

        async def answer(*lines: str) -> bytes:
            writer.writelines(f"{line}\r\n".encode() for line in lines)
            while (reply := await asyncio.wait_for(reader.readline(), SECONDS))[3:4] == b"-":
                pass
            return reply

        assert (await answer()).startswith(b"220")
        for lines in (["EHLO client.example"], [f"AUTH PLAIN {plain}"], [f"MAIL FROM:<{address}>"]):
            assert (await answer(*lines)).startswith(b"2")
        assert (await answer("RCPT TO:<bob@paquebot.test>")).startswith(b"250")
        assert (await answer("DATA")).startswith(b"354")
        ended = next(iter(ENDED.labels("revoked").collect())).samples[0].value
        async with database.transaction():
            # The session waits for the lookup of the author's address.
            await database.execute("LOCK TABLE directory.aliases IN ACCESS EXCLUSIVE MODE")
            decision = asyncio.ensure_future(answer(f"From: {alias}", "", "text", "."))
            await smtp_stack.directory.set_account(address, password="another of tests")
            async with asyncio.timeout(SECONDS):
                while next(iter(ENDED.labels("revoked").collect())).samples[0].value == ended:
                    await asyncio.sleep(0.01)
        assert (await decision).startswith(b"421 4.7.0")
        writer.close()
    await database.close()
    assert not await smtp_stack.queued(after)
