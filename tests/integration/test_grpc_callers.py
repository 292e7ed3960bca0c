"""Only services of this installation reach recipient_validation, and each may make only its own calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Channel, insecure_channel, secure_channel
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from paquebot.recipient_validation.callers import RIGHTS
from paquebot.rpc import (
    AuthenticationClient,
    DirectoryClient,
    DirectoryRefused,
    DirectoryUnavailable,
    Identity,
    ValidationCacheSettings,
    ValidationClient,
    open_channel,
)
from paquebot.rpc.credentials import ServerIdentity
from paquebot.rpc.health import probe
from paquebot.runtime.engine_settings import DirectoryClientSettings, GrpcTlsSettings
from paquebot.runtime.settings import Seconds, load
from paquebot.v1 import authentication_pb2, directory_pb2, recipient_validation_pb2
from tests.cluster.probes import stranger
from tests.support.directory_service import ADMIN_TOKEN, DirectoryService, directory_service, running
from tests.support.grpc_certificates import DOMAIN, Authority
from tests.support.loopback import free_port

SERVER_NAME = f"recipient-validation.{DOMAIN}"
NOWHERE = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
METHODS = {
    f"/{service.full_name}/{method.name}": service.name
    for file in (authentication_pb2, directory_pb2, recipient_validation_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def client_settings(target: str, environ: dict[str, str]) -> DirectoryClientSettings:
    return DirectoryClientSettings(target, Seconds(10.0), load(GrpcTlsSettings, environ))


@contextlib.asynccontextmanager
async def channel_of(target: str, environ: dict[str, str]) -> AsyncIterator[Channel]:
    channel = open_channel(client_settings(target, environ))
    try:
        yield channel
    finally:
        await channel.close()


@pytest.fixture
def authority() -> Authority:
    return Authority.make()


@pytest.fixture
async def service(database: str, authority: Authority, tmp_path: Path) -> AsyncIterator[DirectoryService]:
    environ = authority.service(tmp_path / "server", "recipient-validation")
    async with directory_service(database, **environ) as running_service:
        yield running_service


@pytest.fixture
async def without_database(authority: Authority, tmp_path: Path) -> AsyncIterator[DirectoryService]:
    """Run the service without a database, which is enough to test refusals."""
    environ = authority.service(tmp_path / "server", "recipient-validation")
    async with running(NOWHERE, **environ, PAQUEBOT_GRPC_CALLS_PER_CLIENT="2") as running_service:
        yield running_service


async def code_of(channel: Channel, method: str) -> grpc.StatusCode:
    """Return the status code of an empty request."""
    try:
        ask: Any = channel.unary_unary(method)
        await ask(b"", timeout=10.0)
    except AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def refused(caller: str, reason: str = "rights") -> float:
    name = "paquebot_recipient_validation_refused_calls_total"
    return REGISTRY.get_sample_value(name, {"caller": caller, "reason": reason}) or 0.0


async def test_a_client_without_a_certificate_gets_no_connection(
    without_database: DirectoryService, tmp_path: Path
) -> None:
    target = without_database.target
    trusted = (tmp_path / "server" / "ca.crt").read_bytes()  # the client trusts the server, but not the other way round
    other = Authority.make("another").service(tmp_path / "other", "smtp-ingress", trusted=trusted)
    nameless = secure_channel(target, grpc.ssl_channel_credentials(trusted))
    for channel in (insecure_channel(target), nameless, open_channel(client_settings(target, other))):
        for method in METHODS:
            assert await code_of(channel, method) is grpc.StatusCode.UNAVAILABLE
        await channel.close()
    host, _, port = target.rpartition(":")
    assert await asyncio.to_thread(stranger.TRIES["grpc"], host, int(port)) == []  # as from another pod of a cluster


async def test_a_client_sends_no_password_to_another_server(authority: Authority, tmp_path: Path) -> None:
    """The other servers: `imap` of the same installation; the service of another installation, with the same authority
    and the right address; and a server of another authority."""
    own = authority.service(tmp_path / "client", "smtp-ingress")
    elsewhere = "recipient-validation.mail.other.paquebot.internal"
    servers = [
        authority.service(tmp_path / "imap", "imap"),
        authority.issue(tmp_path / "elsewhere", elsewhere, "localhost", "127.0.0.1"),
        Authority.make("another").service(tmp_path / "other", "recipient-validation"),
    ]
    for environ in servers:
        identity = ServerIdentity(load(GrpcTlsSettings, environ))
        server = grpc.aio.server()
        target = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', identity.credentials())}"
        await server.start()
        async with channel_of(target, own) as channel:
            client = AuthenticationClient(channel, client_settings(target, own))
            with pytest.raises(DirectoryUnavailable, match="UNAVAILABLE"):
                await client.authenticate("alice@example.org", "secret", "192.0.2.1", "imap")
        await server.stop(0)


EXPECTED = {
    "smtp-ingress": {"RecipientValidation", "Authentication"},
    "imap": {"Authentication"},
    "pop3": {"Authentication"},
    "delivery": {"/paquebot.v1.RecipientValidation/Validate"},
    "relay": {"/paquebot.v1.RecipientValidation/Validate"},
    "admin": {"Directory"},
    "recipient-validation": {"Directory"},
    "janitor": set(),
}


@pytest.mark.parametrize("caller", EXPECTED)
async def test_each_caller_may_make_its_own_calls_and_no_others(
    without_database: DirectoryService, authority: Authority, tmp_path: Path, caller: str
) -> None:
    async with channel_of(without_database.target, authority.service(tmp_path / "client", caller)) as channel:
        codes = {method: await code_of(channel, method) for method in METHODS}
    permitted = {method for method, code in codes.items() if code is not grpc.StatusCode.PERMISSION_DENIED}

    assert permitted == {
        method for method, service in METHODS.items() if service in EXPECTED[caller] or method in EXPECTED[caller]
    }


def test_this_file_tests_every_caller_with_rights() -> None:
    assert set(RIGHTS) - {"plain", "local"} <= set(EXPECTED)


@pytest.mark.parametrize(
    "names",
    [
        ("imap.other.post.paquebot.internal",),
        ("imap",),
        (f"x.imap.{DOMAIN}",),
        (DOMAIN,),
        (f"local.{DOMAIN}", f"plain.{DOMAIN}"),
        (f"unknown.{DOMAIN}",),
    ],
    ids=lambda names: names[0],
)
async def test_a_certificate_with_another_name_has_no_rights(
    without_database: DirectoryService, authority: Authority, tmp_path: Path, names: tuple[str, ...]
) -> None:
    before = refused("unknown")
    async with channel_of(without_database.target, authority.issue(tmp_path / "client", *names)) as channel:
        for method in (*METHODS, "/grpc.health.v1.Health/Check"):
            assert await code_of(channel, method) is grpc.StatusCode.PERMISSION_DENIED
    assert refused("unknown") == before + len(METHODS) + 1


async def test_imap_logs_users_in_and_does_not_administrate(
    service: DirectoryService, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await service.domain("example.org")
    await service.account("alice@example.org")
    environ = authority.service(tmp_path / "client", "imap")
    settings = client_settings(service.target, environ)
    before = refused("imap")
    async with channel_of(service.target, environ) as channel:
        authentication = AuthenticationClient(channel, settings)
        answer = await authentication.authenticate("alice@example.org", "secret", "192.0.2.1", "imap")
        assert isinstance(answer, Identity)
        await probe(channel, "")
        thief = DirectoryClient(channel, settings, ADMIN_TOKEN)
        request = directory_pb2.CreateAccountRequest(address="mallory@example.org", password="secret")
        with pytest.raises(DirectoryRefused) as caught:
            await thief.ask(thief.stub.CreateAccount, request)
    assert (caught.value.code, str(caught.value)) == (grpc.StatusCode.PERMISSION_DENIED, "not permitted")
    assert refused("imap") == before + 1
    assert "call_not_permitted" in [record.message for record in caplog.records]
    domain = await service.admin.ask(service.admin.stub.GetDomain, directory_pb2.GetDomainRequest(name="example.org"))
    assert domain.accounts == 1


async def test_smtp_ingress_validates_and_logs_in(
    service: DirectoryService, authority: Authority, tmp_path: Path
) -> None:
    await service.domain("example.org")
    account_id = await service.account("alice@example.org")
    environ = authority.service(tmp_path / "client", "smtp-ingress")
    settings = client_settings(service.target, environ)
    async with channel_of(service.target, environ) as channel:
        validation = ValidationClient(channel, settings, ValidationCacheSettings(Seconds(0.0), 0))
        (verdict,) = await validation.validate(["alice@example.org"])
        assert verdict.verdict == recipient_validation_pb2.VERDICT_ACCEPT
        assert await validation.authorize_sender(account_id, "alice@example.org")
        authentication = AuthenticationClient(channel, settings)
        answer = await authentication.authenticate("alice@example.org", "secret", "192.0.2.1", "smtp")
        assert isinstance(answer, Identity)


async def paquebot(*arguments: str, **environ: str) -> tuple[int, str]:
    """Run the command; return its exit code and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "paquebot", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "PAQUEBOT_ADMIN_TOKEN": ADMIN_TOKEN, **environ},
    )
    async with asyncio.timeout(60.0):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_command_line_in_the_pod_of_the_service_administrates(
    service: DirectoryService, authority: Authority, tmp_path: Path
) -> None:
    await service.domain("example.org")
    here = authority.service(tmp_path / "server", "recipient-validation")
    code, output = await paquebot("domain", "list", PAQUEBOT_GRPC_LISTEN=service.target, **here)
    assert (code, "example.org" in output) == (0, True), output
    elsewhere = authority.service(tmp_path / "client", "imap")
    code, output = await paquebot("domain", "list", PAQUEBOT_RECIPIENT_VALIDATION=service.target, **elsewhere)
    assert (code, output) == (1, "paquebot: not permitted\n")
    (tmp_path / "client" / "tls.key").write_text("no PEM")
    code, output = await paquebot("domain", "list", PAQUEBOT_RECIPIENT_VALIDATION=service.target, **elsewhere)
    assert code == 2
    assert "PAQUEBOT_GRPC_TLS_KEY" in output
    assert "Traceback" not in output


async def presented(target: str, environ: dict[str, str]) -> bytes:
    """Return the certificate that the server presents in a new handshake, in PEM."""
    context = ssl.create_default_context(cafile=environ["PAQUEBOT_GRPC_TLS_CA"])
    context.load_cert_chain(environ["PAQUEBOT_GRPC_TLS_CERTIFICATE"], environ["PAQUEBOT_GRPC_TLS_KEY"])
    context.set_alpn_protocols(["h2"])
    host, _, port = target.rpartition(":")
    async with asyncio.timeout(10.0):
        _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=SERVER_NAME)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
    return ssl.DER_cert_to_PEM_cert(der).encode()


async def test_certificates_and_authority_are_renewed_without_a_restart(
    without_database: DirectoryService, authority: Authority, tmp_path: Path
) -> None:
    target = without_database.target
    server, client = tmp_path / "server", tmp_path / "client"
    environ = authority.service(client, "imap")
    new = Authority.make("the next")
    both = authority.pem + new.pem
    async with channel_of(target, environ) as lasting, channel_of(target, environ) as other:
        await _healthy(lasting)
        await _healthy(other)
        old_connection = lasting.current()  # type: ignore[attr-defined]
        # First all trust both authorities, then the server and one client get certificates of the new authority.
        (server / "ca.crt").write_bytes(both)
        (client / "ca.crt").write_bytes(both)
        new.service(server, "recipient-validation", trusted=both)
        assert await presented(target, environ) == (server / "tls.crt").read_bytes()
        await _healthy(old_connection)
        new.service(client, "imap", trusted=both)
        await _healthy_with_new_files(other)
        assert other.current() is not old_connection  # type: ignore[attr-defined]
        # At last the old authority is not trusted, and clients with only an old certificate are refused.
        (server / "ca.crt").write_bytes(new.pem)
        (client / "ca.crt").write_bytes(new.pem)
        async with channel_of(target, environ) as late:
            await _healthy(late)
        late_comer = authority.service(tmp_path / "old", "imap", trusted=both)
        async with channel_of(target, late_comer) as stale:
            assert await code_of(stale, "/grpc.health.v1.Health/Check") is grpc.StatusCode.UNAVAILABLE
        await _healthy(lasting)


async def _healthy(channel: Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=10.0)  # type: ignore[attr-defined]


async def _healthy_with_new_files(channel: Channel) -> None:
    """Clients check their files once a second."""
    before = channel._channel  # type: ignore[attr-defined]
    async with asyncio.timeout(20.0):
        while channel._channel is before:  # type: ignore[attr-defined]
            await _healthy(channel)


async def test_a_bad_pair_is_not_used(
    without_database: DirectoryService, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = authority.service(tmp_path / "client", "imap")
    good = (tmp_path / "server" / "tls.crt").read_bytes()
    authority.service(tmp_path / "next", "recipient-validation")
    (tmp_path / "server" / "tls.crt").write_bytes(
        (tmp_path / "next" / "tls.crt").read_bytes()
    )  # the certificate of another key
    assert await presented(without_database.target, environ) == good
    assert await presented(without_database.target, environ) == good
    assert [record.message for record in caplog.records].count("certificate_not_loaded") == 1
    (tmp_path / "server" / "tls.key").write_bytes((tmp_path / "next" / "tls.key").read_bytes())
    assert await presented(without_database.target, environ) == (tmp_path / "next" / "tls.crt").read_bytes()


async def test_a_client_with_many_channels_has_only_its_share(
    without_database: DirectoryService, authority: Authority, tmp_path: Path
) -> None:
    """PAQUEBOT_GRPC_CALLS_PER_CLIENT is 2 here; a health watch is a call that stays open."""
    target = without_database.target
    greedy = authority.service(tmp_path / "greedy", "imap")
    before = refused("imap", "share")
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel_of(target, greedy)) for _ in range(3)]
        stubs: list[Any] = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for stub in stubs[:2]]
        for watch in watches:
            await watch.read()
        assert await code_of(channels[2], "/grpc.health.v1.Health/Check") is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused("imap", "share") == before + 1
        async with channel_of(target, authority.service(tmp_path / "other", "pop3")) as other:
            await _healthy(other)
        watches[0].cancel()
        async with asyncio.timeout(10.0):
            while await code_of(channels[2], "/grpc.health.v1.Health/Check") is grpc.StatusCode.RESOURCE_EXHAUSTED:
                pass


async def test_silent_connections_are_limited_and_closed(authority: Authority, tmp_path: Path) -> None:
    environ = authority.service(tmp_path / "server", "recipient-validation")
    limits = {"PAQUEBOT_GRPC_CONNECTIONS": "3", "PAQUEBOT_GRPC_HANDSHAKE_TIMEOUT": "500ms"}
    async with running(NOWHERE, **environ, **limits) as service:  # one connection is this client's
        host, _, port = service.target.rpartition(":")
        async with asyncio.timeout(20.0):
            silent = [await asyncio.open_connection(host, int(port)) for _ in range(10)]
            await _healthy(service.channel)
            for reader, writer in silent:
                assert await reader.read(1) == b""  # the server closed it
                writer.close()
            async with channel_of(service.target, authority.service(tmp_path / "client", "imap")) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=10.0, wait_for_ready=True)  # type: ignore[attr-defined]


async def test_a_second_listener_without_tls_is_not_for_administration(
    database: str, authority: Authority, tmp_path: Path
) -> None:
    """Pods of an earlier version have no certificates; `internalTls.acceptPlain` accepts them during the upgrade."""
    environ = authority.service(tmp_path / "server", "recipient-validation")
    plain = f"127.0.0.1:{free_port()}"
    async with directory_service(database, **environ, PAQUEBOT_GRPC_PLAIN_LISTEN=plain) as service:
        await service.domain("example.org")
        await service.account("alice@example.org")
        settings = DirectoryClientSettings(plain, Seconds(10.0))
        channel = open_channel(settings)
        authentication = AuthenticationClient(channel, settings)
        answer = await authentication.authenticate("alice@example.org", "secret", "192.0.2.1", "imap")
        assert isinstance(answer, Identity)
        admin = DirectoryClient(channel, settings, ADMIN_TOKEN)
        with pytest.raises(DirectoryRefused, match="not permitted"):
            await admin.ask(admin.stub.GetDomain, directory_pb2.GetDomainRequest(name="example.org"))
        await channel.close()
        host, _, port = plain.rpartition(":")
        assert await asyncio.to_thread(stranger.TRIES["grpc"], host, int(port))  # therefore it is not the default


@pytest.mark.parametrize("folder", ["run", "a name with % and #"])
async def test_all_services_work_over_a_unix_socket(database: str, tmp_path: Path, folder: str) -> None:
    directory = tmp_path / folder
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as left:  # the socket file of a killed process is replaced
        left.bind(str(directory / "grpc.sock"))
    async with directory_service(database, PAQUEBOT_GRPC_LISTEN=f"unix:{directory}/grpc.sock") as service:
        await service.domain("example.org")
        await service.account("alice@example.org")
        answer = await service.authentication.authenticate("alice@example.org", "secret", "192.0.2.1", "imap")
        assert isinstance(answer, Identity)
        (validation,) = await service.validation.validate(["alice@example.org"])
        assert validation.verdict == recipient_validation_pb2.VERDICT_ACCEPT
        settings = DirectoryClientSettings(service.target, Seconds(10.0))
        wrong = DirectoryClient(service.channel, settings, "another token!")
        with pytest.raises(DirectoryRefused, match="missing or wrong admin token"):
            await wrong.ask(wrong.stub.GetDomain, directory_pb2.GetDomainRequest(name="example.org"))
    assert not (directory / "grpc.sock").exists()
