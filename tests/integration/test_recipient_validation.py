"""The verdicts of RCPT, over gRPC and on a real database, with the rights of the service's own role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from paquebot.recipient_validation import validation as validating
from paquebot.rpc import (
    CallFailed,
    CallRefused,
    DirectoryUnavailable,
    InvalidCredentials,
    ValidationCacheSettings,
    ValidationClient,
    open_channel,
)
from paquebot.rpc.health import probe
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import Seconds
from paquebot.v1 import directory_pb2 as pb
from paquebot.v1.recipient_validation_pb2 import (
    VERDICT_ACCEPT,
    VERDICT_ALIAS_LOOP,
    VERDICT_BAD_ADDRESS,
    VERDICT_DISABLED,
    VERDICT_DOMAIN_DISABLED,
    VERDICT_NO_SUCH_ACCOUNT,
    VERDICT_OVER_QUOTA,
    VERDICT_RELAY_DENIED,
    VERDICT_TOO_LARGE,
    Validation,
    Verdict,
)
from tests.support.counted import errors, value
from tests.support.directory_service import DirectoryService, directory_service, running
from tests.support.loopback import free_port


@pytest.fixture
async def service(database: str) -> AsyncIterator[DirectoryService]:
    async with directory_service(database) as running_service:
        yield running_service


async def ask(service: DirectoryService, path: str, *, may_relay: bool = False, size: int = 0) -> Validation:
    (validation,) = await service.validation.validate([path], may_relay=may_relay, size=size)
    return validation


async def verdict(service: DirectoryService, path: str, *, may_relay: bool = False, size: int = 0) -> str:
    return Verdict.Name((await ask(service, path, may_relay=may_relay, size=size)).verdict)


def name(value: Verdict.ValueType) -> str:
    return Verdict.Name(value)


async def test_accounts_by_any_spelling(service: DirectoryService) -> None:
    await service.domain("Example.ORG")
    await service.domain("bücher.example", alias_of="example.org")
    alice = await service.account("Alice@example.org")
    eric = await service.account("E\u0301ric@example.org")
    for path, account_id, address, detail in (
        ("alice@example.org", alice, "alice@example.org", ""),
        ("ALICE@EXAMPLE.ORG", alice, "alice@example.org", ""),
        ('"alice"@example.org', alice, "alice@example.org", ""),
        ("alice+Lists@example.org", alice, "alice@example.org", "Lists"),
        ("alice+a+b@example.org", alice, "alice@example.org", "a+b"),
        ("alice@BÜCHER.example", alice, "alice@example.org", ""),
        ("alice+x@xn--bcher-kva.example", alice, "alice@example.org", "x"),
        ("ÉRIC@example.org", eric, "éric@example.org", ""),
    ):
        validation = await ask(service, path)
        assert validation.verdict == VERDICT_ACCEPT, path
        (local,) = validation.local
        assert (local.account_id, local.address, local.detail) == (account_id, address, detail)
        assert local.forward_path == path
        assert not validation.remote


async def test_refusals(service: DirectoryService) -> None:
    await service.domain("example.org")
    await service.domain("closed.example")
    await service.domain("closed-alias.example", alias_of="closed.example")
    await service.account("alice@example.org")
    await service.account("off@example.org")
    await service.account("bob@closed.example")
    await service.set_account("off@example.org", enabled=False)
    request = pb.UpdateDomainRequest(name="closed.example", enabled=False)
    await service.admin.ask(service.admin.stub.UpdateDomain, request)
    assert await verdict(service, "bob@example.org") == name(VERDICT_NO_SUCH_ACCOUNT)
    assert await verdict(service, "+alice@example.org") == name(VERDICT_NO_SUCH_ACCOUNT)
    assert await verdict(service, '""@example.org') == name(VERDICT_NO_SUCH_ACCOUNT)
    assert await verdict(service, "off@example.org") == name(VERDICT_DISABLED)
    assert await verdict(service, "bob@closed.example") == name(VERDICT_DOMAIN_DISABLED)
    assert await verdict(service, "bob@closed-alias.example") == name(VERDICT_DOMAIN_DISABLED)
    assert await verdict(service, "x@elsewhere.example") == name(VERDICT_RELAY_DENIED)
    assert await verdict(service, "x@[192.0.2.1]") == name(VERDICT_RELAY_DENIED)
    for bad in ("", "alice", "alice@", "a(b)@example.org", "alice@example.org>", "a\0b@example.org"):
        assert await verdict(service, bad) == name(VERDICT_BAD_ADDRESS), bad


async def test_remote_recipients_keep_the_case_of_the_local_part(service: DirectoryService) -> None:
    validation = await ask(service, "Some.One@Bücher.Example", may_relay=True)
    assert validation.verdict == VERDICT_ACCEPT
    (remote,) = validation.remote
    assert remote.forward_path == "Some.One@xn--bcher-kva.example"
    assert remote.domain == "xn--bcher-kva.example"
    assert remote.original == ""
    literal = await ask(service, "x@[IPv6:2001:DB8::1]", may_relay=True)
    assert literal.verdict == VERDICT_DOMAIN_DISABLED


async def test_address_literals_where_they_are_enabled(database: str) -> None:
    async with directory_service(database, PAQUEBOT_RELAY_LITERALS="true") as service:
        literal = await ask(service, "x@[IPv6:2001:DB8::1]", may_relay=True)
        assert literal.remote[0].domain == "[IPv6:2001:db8::1]"


async def test_many_paths_are_answered_in_order(service: DirectoryService) -> None:
    await service.domain("example.org")
    await service.account("alice@example.org")
    paths = ["nobody@example.org", "alice@example.org", "x@b.example", "bad", "alice@example.org"]
    validations = await service.validation.validate(paths)
    assert [validation.verdict for validation in validations] == [
        VERDICT_NO_SUCH_ACCOUNT,
        VERDICT_ACCEPT,
        VERDICT_RELAY_DENIED,
        VERDICT_BAD_ADDRESS,
        VERDICT_ACCEPT,
    ]


async def test_aliases(service: DirectoryService) -> None:
    await service.domain("example.org")
    alice = await service.account("alice@example.org")
    bob = await service.account("bob@example.org")
    await service.alias("Team@example.org", "alice@example.org", "BOB@example.org", "Carol@elsewhere.example")
    await service.alias("all@example.org", "team@example.org", "bob+all@example.org", "gone@example.org")
    team = await ask(service, "team+news@example.org")
    assert [(one.account_id, one.detail) for one in team.local] == [(alice, "news"), (bob, "news")]
    assert [(one.forward_path, one.original) for one in team.remote] == [
        ("Carol@elsewhere.example", "team+news@example.org")
    ]
    everyone = await ask(service, "all@example.org")
    assert sorted(one.account_id for one in everyone.local) == [alice, bob]
    assert len(everyone.remote) == 1
    await service.admin.ask(
        service.admin.stub.UpdateAlias, pb.UpdateAliasRequest(address="team@example.org", enabled=False)
    )
    assert await verdict(service, "team@example.org") == name(VERDICT_DISABLED)


async def test_the_whole_local_part_has_precedence_over_the_subaddress(service: DirectoryService) -> None:
    await service.domain("example.org")
    await service.account("alice@example.org")
    exact = await service.account("alice+shop@example.org")
    (local,) = (await ask(service, "alice+shop@example.org")).local
    assert (local.account_id, local.detail) == (exact, "")


async def test_alias_loops_end(service: DirectoryService) -> None:
    await service.domain("example.org")
    alice = await service.account("alice@example.org")
    await service.alias("a@example.org", "b@example.org")
    await service.alias("b@example.org", "a@example.org")
    assert await verdict(service, "a@example.org") == name(VERDICT_ALIAS_LOOP)
    await service.alias("c@example.org", "a@example.org", "alice@example.org")
    assert [one.account_id for one in (await ask(service, "c@example.org")).local] == [alice]
    for number in range(12):
        await service.alias(f"deep{number}@example.org", f"deep{number + 1}@example.org")
    assert await verdict(service, "deep0@example.org") == name(VERDICT_ALIAS_LOOP)
    for number in range(6):
        targets = [f"x{number}-{index}@elsewhere.example" for index in range(99)]
        await service.alias(f"wide{number}@example.org", f"wide{number + 1}@example.org", *targets)
    assert await verdict(service, "wide0@example.org") == name(VERDICT_ALIAS_LOOP)
    assert await verdict(service, "wide3@example.org") == name(VERDICT_ACCEPT)


async def test_catch_all(service: DirectoryService) -> None:
    await service.domain("example.org", catch_all="sink+caught@example.org")
    sink = await service.account("sink@example.org")
    (local,) = (await ask(service, "whoever@example.org")).local
    assert (local.account_id, local.detail) == (sink, "caught")
    await service.domain("loop.example", catch_all="nobody@loop.example")
    assert await verdict(service, "x@loop.example") == name(VERDICT_ALIAS_LOOP)
    await service.domain("away.example", catch_all="x@elsewhere.example")
    (remote,) = (await ask(service, "y@away.example")).remote
    assert (remote.forward_path, remote.original) == ("x@elsewhere.example", "y@away.example")


async def test_postmaster_always_has_a_recipient(service: DirectoryService) -> None:
    assert await verdict(service, "postmaster") == name(VERDICT_NO_SUCH_ACCOUNT)  # no local domain yet
    await service.domain("example.org")
    await service.domain("empty.example")
    await service.domain("own.example")
    oldest = await service.account("alice@example.org")
    await service.account("bob@example.org")
    own = await service.account("carol@own.example")
    for path, account_id in (
        ("Postmaster", oldest),
        ("postmaster@example.org", oldest),
        ("POSTMASTER@empty.example", oldest),
        ("postmaster@own.example", own),
    ):
        (local,) = (await ask(service, path)).local
        assert local.account_id == account_id, path
    named = await service.account("postmaster@own.example")
    assert [one.account_id for one in (await ask(service, "postmaster@own.example")).local] == [named]
    assert await verdict(service, "hostmaster@own.example") == name(VERDICT_NO_SUCH_ACCOUNT)


async def test_configured_postmaster_default_domain_literals_and_separator(database: str) -> None:
    async with directory_service(
        database,
        PAQUEBOT_POSTMASTER="bob@example.org",
        PAQUEBOT_DEFAULT_DOMAIN="example.org",
        PAQUEBOT_OWN_LITERALS="[192.0.2.1] [IPv6:2001:DB8::1]",
        PAQUEBOT_SUBADDRESS_SEPARATOR="-",
    ) as service:
        await service.domain("first.example")
        await service.domain("example.org")
        alice = await service.account("alice@example.org")
        bob = await service.account("bob@example.org")
        for path, account_id in (
            ("postmaster", bob),
            ("postmaster@first.example", bob),
            ("postmaster@[192.0.2.1]", bob),
            ("alice@[IPv6:2001:db8:0::1]", alice),
            ("alice-x@example.org", alice),
        ):
            assert [one.account_id for one in (await ask(service, path)).local] == [account_id], path
        assert await verdict(service, "alice+x@example.org") == name(VERDICT_NO_SUCH_ACCOUNT)


async def test_an_account_with_the_maximum_of_messages(database: str) -> None:
    """Senders get the refusal at RCPT, whatever the size."""
    async with directory_service(database, PAQUEBOT_ACCOUNT_MESSAGES="3") as service:
        await service.domain("example.org", default_quota_bytes=10**9)
        full, other = await service.account("full@example.org"), await service.account("other@example.org")
        connection = await asyncpg.connect(database)
        for account_id, messages in ((full, 3), (other, 2)):
            await connection.execute(
                "INSERT INTO mailstore.accounts (account_id, octets, messages, last_mailbox_id, last_uid_validity)"
                " VALUES ($1, 10, $2, 0, 1)",
                *(account_id, messages),
            )
        await connection.close()
        assert await verdict(service, "full@example.org") == name(VERDICT_OVER_QUOTA)
        assert await verdict(service, "other@example.org") == name(VERDICT_ACCEPT)


async def test_quota(service: DirectoryService, database: str) -> None:
    await service.domain("example.org", default_quota_bytes=1000)
    alice = await service.account("alice@example.org")
    await service.account("bob@example.org", quota_bytes=0)
    await service.alias("both@example.org", "alice@example.org", "bob@example.org")
    assert (await ask(service, "alice@example.org")).local[0].quota_bytes == 1000
    assert await verdict(service, "alice@example.org", size=1000) == name(VERDICT_ACCEPT)
    assert await verdict(service, "alice@example.org", size=1001) == name(VERDICT_TOO_LARGE)
    assert await verdict(service, "bob@example.org", size=10**12) == name(VERDICT_ACCEPT)
    connection = await asyncpg.connect(database)
    await connection.execute(
        "INSERT INTO mailstore.accounts (account_id, octets, messages, last_mailbox_id, last_uid_validity)"
        " VALUES ($1, 999, 3, 0, 1)",
        alice,
    )
    assert await verdict(service, "alice@example.org") == name(VERDICT_ACCEPT)
    assert await verdict(service, "alice@example.org", size=2) == name(VERDICT_OVER_QUOTA)
    await connection.execute("UPDATE mailstore.accounts SET octets = 1000")
    assert await verdict(service, "alice@example.org") == name(VERDICT_OVER_QUOTA)
    # delivery decides about alice; bob's copy does not wait
    assert len((await ask(service, "both@example.org")).local) == 2
    account = await service.admin.ask(service.admin.stub.GetAccount, pb.GetAccountRequest(address="alice@example.org"))
    assert (account.used_bytes, account.used_messages) == (1000, 3)
    await connection.close()


async def test_authorize_sender(service: DirectoryService) -> None:
    await service.domain("example.org", catch_all="alice@example.org")
    await service.domain("alias.example", alias_of="example.org")
    alice = await service.account("alice@example.org")
    bob = await service.account("bob@example.org")
    await service.alias("sales@example.org", "alice@example.org")
    await service.alias("shop@example.org", "sales@example.org")
    await service.alias("team@example.org", "alice@example.org", "bob@example.org")
    await service.alias("fwd@example.org", "alice@example.org", "x@elsewhere.example")
    await service.alias("half@example.org", "alice@example.org", "gone@off.example")
    await service.domain("off.example")
    for address, allowed in (
        ("", True),  # RFC 8098 §3
        ("alice@example.org", True),
        ("Alice+news@EXAMPLE.org", True),
        ("alice@alias.example", True),
        ("sales@example.org", True),
        ("shop+x@alias.example", True),
        ("bob@example.org", False),
        ("team@example.org", False),
        ("fwd@example.org", False),
        ("half@example.org", False),
        ("unknown@example.org", False),  # the catch-all gives its account the mail, not the right to the name
        ("postmaster@example.org", False),
        ("x@elsewhere.example", False),
        ("not an address", False),
    ):
        assert await service.validation.authorize_sender(alice, address) is allowed, address
    assert await service.validation.authorize_sender(bob, "bob@example.org")


async def test_too_many_paths_are_refused(service: DirectoryService) -> None:
    with pytest.raises(CallRefused):
        await service.validation.validate([f"x{number}@example.org" for number in range(1001)])


async def test_positive_answers_are_cached_for_their_time(service: DirectoryService) -> None:
    await service.domain("example.org", default_quota_bytes=1000)
    now = 100.0
    client = ValidationClient(
        service.channel,
        DirectoryClientSettings(service.target, Seconds(10.0)),
        ValidationCacheSettings(Seconds(3.0), 2),
        clock=lambda: now,
    )

    async def verdict_of(path: str, size: int = 0) -> int:
        return (await client.validate([path], size=size))[0].verdict

    assert await verdict_of("alice@example.org") == VERDICT_NO_SUCH_ACCOUNT
    await service.account("alice@example.org")
    assert await verdict_of("alice@example.org") == VERDICT_ACCEPT  # a refusal was not cached
    await service.set_account("alice@example.org", enabled=False)
    now += 2.9
    kept = (await client.validate(["alice@example.org"]))[0]
    assert kept.verdict == VERDICT_ACCEPT
    kept.local[0].orcpt = "rfc822;changed@example.org"
    assert (await client.validate(["alice@example.org"]))[0].local[0].orcpt == ""  # each has its own copy
    assert await verdict_of("alice@example.org", size=1) == VERDICT_DISABLED  # cached for an unknown size only
    now += 0.1
    assert await verdict_of("alice@example.org") == VERDICT_DISABLED
    await service.set_account("alice@example.org", enabled=True)
    assert await verdict_of("alice@example.org") == VERDICT_ACCEPT
    await service.set_account("alice@example.org", enabled=False)
    client.forget()
    assert await verdict_of("alice@example.org") == VERDICT_DISABLED


async def test_health(service: DirectoryService) -> None:
    stub = health_pb2_grpc.HealthStub(service.channel)
    request = health_pb2.HealthCheckRequest(service="paquebot.v1.Authentication")
    async with asyncio.timeout(10.0):
        async for response in stub.Watch(request):  # type: ignore[attr-defined]
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                break
    await probe(service.channel, "paquebot.v1.Authentication")
    assert await service.context.health.unready() == []


async def test_reflection_can_be_enabled(database: str, service: DirectoryService) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
        await _described(service)
    async with directory_service(database, PAQUEBOT_GRPC_REFLECTION="true") as open_service:
        names = await _described(open_service)
    assert {"paquebot.v1.RecipientValidation", "paquebot.v1.Directory", "grpc.health.v1.Health"} <= names


async def _described(service: DirectoryService) -> set[str]:
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
    reflector: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)  # type: ignore[arg-type]
    return {
        item.name
        async for answer in reflector.ServerReflectionInfo(iter(requests))
        for item in answer.list_services_response.service
    }


async def test_without_its_database_the_service_is_up_not_ready_and_unavailable() -> None:
    async with running(f"postgresql://nobody:hushed@127.0.0.1:{free_port()}/none") as service:
        with pytest.raises(DirectoryUnavailable, match="UNAVAILABLE"):
            await service.validation.validate(["alice@example.org"])
        (reason,) = await service.context.health.unready()
        assert reason.startswith("postgres:")
        assert "hushed" not in reason  # any client of the metrics port may read it
        stub = health_pb2_grpc.HealthStub(service.channel)
        health = await stub.Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(DirectoryUnavailable, match="does not serve"):
            await probe(service.channel, "")


async def test_an_unmigrated_database_is_a_temporary_error_without_details(database: str) -> None:
    async with running(database) as service:
        with pytest.raises(DirectoryUnavailable) as caught:
            await service.validation.validate(["alice@example.org"])
        cause = caught.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert cause.code() is grpc.StatusCode.UNAVAILABLE
        assert cause.details() == "the directory's database does not answer; try again later"
        (reason,) = await service.context.health.unready()
        assert "not yet at version" in reason


async def test_a_fault_of_the_code_is_not_an_outage(service: DirectoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers get an error of the server, without its details."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the engine")

    monkeypatch.setattr(validating.Validation, "_resolve", broken)
    failed = value("paquebot_recipient_validation_unexpected_errors_total") or 0.0
    with pytest.raises(CallFailed) as caught:
        await service.validation.validate(["alice@example.org"])
    cause = caught.value.__cause__
    assert isinstance(cause, grpc.aio.AioRpcError)
    assert cause.code() is grpc.StatusCode.INTERNAL
    assert str(cause.details()).startswith("internal error, incident ")
    assert value("paquebot_recipient_validation_unexpected_errors_total") == failed + 1


async def test_impossible_values_are_not_an_outage(service: DirectoryService) -> None:
    failures = errors("grpc", "validate")
    for path in ("\ud800@example.org", "a\0b@example.org", "x" * 3000 + "@example.org"):
        (validation,) = await service.validation.validate([path])
        assert validation.verdict == VERDICT_BAD_ADDRESS
        assert await service.validation.authorize_sender(1, path) is False
        answer = await service.authentication.authenticate(path, "\ud800\0", "192.0.2.1", "imap")
        assert isinstance(answer, InvalidCredentials)
    assert errors("grpc", "validate") == failures


async def test_clients_find_the_service_again_after_a_restart(database: str) -> None:
    port = free_port()
    settings = DirectoryClientSettings(f"127.0.0.1:{port}", Seconds(5.0))
    channel = open_channel(settings)
    client = ValidationClient(channel, settings, ValidationCacheSettings(Seconds(0.0), 0))
    async with directory_service(database, PAQUEBOT_GRPC_LISTEN=settings.target) as service:
        await service.domain("example.org")
        assert (await client.validate(["x@example.org"]))[0].verdict == VERDICT_NO_SUCH_ACCOUNT
    with pytest.raises(DirectoryUnavailable):
        await client.validate(["x@example.org"])
    async with directory_service(database, PAQUEBOT_GRPC_LISTEN=settings.target):
        await asyncio.wait_for(channel.channel_ready(), 10.0)
        assert (await client.validate(["x@example.org"]))[0].verdict == VERDICT_NO_SUCH_ACCOUNT
    await channel.close()
    with pytest.raises(DirectoryUnavailable):
        await client.validate(["x@example.org"])
