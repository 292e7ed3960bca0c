"""Administration over gRPC on a real database, with the rights of the service's own role."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.message import Message

from paquebot.directory import lookup
from paquebot.rpc import DirectoryClient, DirectoryRefused
from paquebot.runtime.engine_settings import DirectoryClientSettings
from paquebot.runtime.settings import Seconds
from paquebot.v1 import directory_pb2 as pb
from tests.support.directory_service import ADMIN_TOKEN, DirectoryService, directory_service

ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
async def service(database: str) -> AsyncIterator[DirectoryService]:
    async with directory_service(database) as running_service:
        yield running_service


async def refused(service: DirectoryService, rpc: Any, request: Message) -> grpc.StatusCode:
    with pytest.raises(DirectoryRefused) as caught:
        await service.admin.ask(rpc, request)
    assert "postgres" not in str(caught.value).lower()
    return caught.value.code


async def test_domains_are_created_changed_and_deleted(service: DirectoryService) -> None:
    ask, stub = service.admin.ask, service.admin.stub
    made = await service.domain("Bücher.Example", catch_all="Sink@Bücher.Example", default_quota_bytes=5)
    assert made.name == "xn--bcher-kva.example"
    assert made.catch_all == "Sink@xn--bcher-kva.example"
    assert made.enabled
    assert made.created_at_ms > 1_600_000_000_000
    assert await ask(stub.GetDomain, pb.GetDomainRequest(name="BÜCHER.example")) == made
    changed = await ask(
        stub.UpdateDomain,
        pb.UpdateDomainRequest(name=made.name, catch_all="", enabled=False, default_quota_bytes=0),
    )
    assert (changed.catch_all, changed.enabled, changed.default_quota_bytes) == ("", False, 0)
    untouched = await ask(stub.UpdateDomain, pb.UpdateDomainRequest(name=made.name))
    assert untouched == changed
    await ask(stub.DeleteDomain, pb.DeleteDomainRequest(name=made.name))
    assert await refused(service, stub.GetDomain, pb.GetDomainRequest(name=made.name)) is NOT_FOUND


async def test_refused_changes_of_domains(service: DirectoryService) -> None:
    stub = service.admin.stub
    await service.domain("example.org")
    await service.domain("alias.example", alias_of="example.org")
    await service.account("alice@example.org")
    create, update, delete = pb.CreateDomainRequest, pb.UpdateDomainRequest, pb.DeleteDomainRequest
    for rpc, request, code in (
        (stub.CreateDomain, create(name="EXAMPLE.org"), ALREADY_EXISTS),
        (stub.CreateDomain, create(name=""), INVALID),
        (stub.CreateDomain, create(name="a b"), INVALID),
        (stub.CreateDomain, create(name="[192.0.2.1]"), INVALID),
        (stub.CreateDomain, create(name="x.example", catch_all="nobody"), INVALID),
        (stub.CreateDomain, create(name="x.example", default_quota_bytes=-1), INVALID),
        (stub.CreateDomain, create(name="x.example", alias_of="none.example"), PRECONDITION),
        (stub.CreateDomain, create(name="x.example", alias_of="alias.example"), PRECONDITION),
        (stub.CreateDomain, create(name="x.example", alias_of="x.example"), INVALID),
        (stub.UpdateDomain, update(name="none.example", enabled=True), NOT_FOUND),
        (stub.UpdateDomain, update(name="example.org", alias_of="alias.example"), PRECONDITION),
        (stub.DeleteDomain, delete(name="example.org"), PRECONDITION),
        (stub.DeleteDomain, delete(name="none.example"), NOT_FOUND),
    ):
        assert await refused(service, rpc, request) is code, request
    await service.domain("other.example")
    target_of_another = update(name="example.org", alias_of="other.example")
    assert await refused(service, stub.UpdateDomain, target_of_another) is PRECONDITION
    await service.admin.ask(stub.UpdateDomain, update(name="alias.example", alias_of=""))
    await service.account("bob@alias.example")  # now a domain with its own accounts


async def test_account_ids_are_never_used_again(service: DirectoryService) -> None:
    stub = service.admin.stub
    await service.domain("example.org")
    first = await service.account("alice@example.org")
    gone = await service.admin.ask(stub.DeleteAccount, pb.DeleteAccountRequest(address="ALICE@example.org"))
    assert gone.account_id == first
    assert await service.account("alice@example.org") > first


async def test_a_new_account_has_a_quota(database: str) -> None:
    """The request's quota, or its domain's, or the setting's; none when the request asks for none."""
    async with directory_service(database, PAQUEBOT_ACCOUNT_QUOTA="5MiB") as service:
        await service.domain("example.org")
        await service.domain("small.example", default_quota_bytes=7)
        await service.account("a@example.org")
        await service.account("b@example.org", quota_bytes=0)
        await service.account("c@small.example")
        for address, size in (("a@example.org", 5 * 2**20), ("b@example.org", 0), ("c@small.example", 7)):
            account = await service.admin.ask(service.admin.stub.GetAccount, pb.GetAccountRequest(address=address))
            assert account.quota_bytes == size, address


async def test_accounts(service: DirectoryService) -> None:
    ask, stub = service.admin.ask, service.admin.stub
    await service.domain("example.org", default_quota_bytes=7)
    await service.domain("alias.example", alias_of="example.org")
    await service.account("alice@example.org", display_name="Alice 💌")
    await service.account("bob@example.org", quota_bytes=0)
    await service.alias("team@example.org", "alice@example.org")
    alice = await ask(stub.GetAccount, pb.GetAccountRequest(address="Alice@example.org"))
    assert (alice.address, alice.display_name, alice.quota_bytes) == ("alice@example.org", "Alice 💌", 7)
    assert (await ask(stub.GetAccount, pb.GetAccountRequest(address="bob@example.org"))).quota_bytes == 0
    changed = await ask(
        stub.UpdateAccount,
        pb.UpdateAccountRequest(address="alice@example.org", display_name="", quota_bytes=9, enabled=False),
    )
    assert (changed.display_name, changed.quota_bytes, changed.enabled) == ("", 9, False)
    create, update = pb.CreateAccountRequest, pb.UpdateAccountRequest
    for rpc, request, code in (
        (stub.CreateAccount, create(address="ALICE@example.org", password="x"), ALREADY_EXISTS),
        (stub.CreateAccount, create(address="team@example.org", password="secret"), ALREADY_EXISTS),
        (stub.CreateAccount, create(address="x@none.example", password="secret"), NOT_FOUND),
        (stub.CreateAccount, create(address="x@alias.example", password="secret"), PRECONDITION),
        (stub.CreateAccount, create(address="x", password="x"), INVALID),
        (stub.CreateAccount, create(address="x@example.org", password="x"), INVALID),
        (stub.CreateAccount, create(address="x@example.org", password=""), INVALID),
        (stub.CreateAccount, create(address="x@example.org", password="a\nb"), INVALID),
        (stub.CreateAccount, create(address="x@example.org", password="secret", quota_bytes=-1), INVALID),
        (stub.CreateAccount, create(address="x@example.org", password="secret", display_name="a\nb"), INVALID),
        (stub.UpdateAccount, update(address="x@example.org", enabled=True), NOT_FOUND),
        (stub.UpdateAccount, update(address="alice@example.org", password=""), INVALID),
        (stub.UpdateAccount, update(address="alice@example.org", password="x"), INVALID),
        (stub.UpdateAccount, update(address="alice@example.org", password="Alice2026"), INVALID),
        (stub.GetAccount, pb.GetAccountRequest(address="x@example.org"), NOT_FOUND),
        (stub.DeleteAccount, pb.DeleteAccountRequest(address="x@example.org"), NOT_FOUND),
        (stub.CreateAlias, pb.CreateAliasRequest(address="bob@example.org", targets=["x@y.z"]), ALREADY_EXISTS),
        (stub.ListAccounts, pb.ListAccountsRequest(page_token="no token of ours"), INVALID),
        (stub.ListAccounts, pb.ListAccountsRequest(page_token="WzFd"), INVALID),
    ):
        assert await refused(service, rpc, request) is code, request


async def test_aliases(service: DirectoryService) -> None:
    ask, stub = service.admin.ask, service.admin.stub
    await service.domain("example.org")
    await service.alias("Team@example.org", "alice@example.org", "Bob@Elsewhere.Example", "alice@example.org")
    alias = await ask(stub.GetAlias, pb.GetAliasRequest(address="team@example.org"))
    assert list(alias.targets) == ["alice@example.org", "Bob@elsewhere.example"]
    changed = await ask(
        stub.UpdateAlias, pb.UpdateAliasRequest(address="team@example.org", targets=["x@y.z"], enabled=False)
    )
    assert (list(changed.targets), changed.enabled) == (["x@y.z"], False)
    kept = await ask(stub.UpdateAlias, pb.UpdateAliasRequest(address="team@example.org", enabled=True))
    assert (list(kept.targets), kept.enabled) == (["x@y.z"], True)
    create = pb.CreateAliasRequest
    for rpc, request, code in (
        (stub.CreateAlias, create(address="team@example.org", targets=["x@y.z"]), ALREADY_EXISTS),
        (stub.CreateAlias, create(address="a@example.org", targets=[]), INVALID),
        (stub.CreateAlias, create(address="a@example.org", targets=["nobody"]), INVALID),
        (stub.CreateAlias, create(address="a@example.org", targets=["A@Example.org"]), INVALID),
        (stub.CreateAlias, create(address="a@example.org", targets=[f"x{n}@y.z" for n in range(101)]), INVALID),
        (stub.CreateAlias, create(address="a@none.example", targets=["x@y.z"]), NOT_FOUND),
        (stub.UpdateAlias, pb.UpdateAliasRequest(address="a@example.org", enabled=True), NOT_FOUND),
        (stub.DeleteAlias, pb.DeleteAliasRequest(address="a@example.org"), NOT_FOUND),
    ):
        assert await refused(service, rpc, request) is code, request
    await ask(stub.DeleteAlias, pb.DeleteAliasRequest(address="TEAM@example.org"))
    assert await refused(service, stub.GetAlias, pb.GetAliasRequest(address="team@example.org")) is NOT_FOUND


async def test_app_passwords_refuse(service: DirectoryService) -> None:
    stub = service.admin.stub
    await service.domain("example.org")
    await service.account("alice@example.org")
    create, delete = pb.CreateAppPasswordRequest, pb.DeleteAppPasswordRequest
    await service.admin.ask(stub.CreateAppPassword, create(address="alice@example.org", name="phone"))
    for rpc, request, code in (
        (stub.CreateAppPassword, create(address="alice@example.org", name="phone"), ALREADY_EXISTS),
        (stub.CreateAppPassword, create(address="alice@example.org", name=""), INVALID),
        (stub.CreateAppPassword, create(address="bob@example.org", name="phone"), NOT_FOUND),
        (stub.DeleteAppPassword, delete(address="alice@example.org", app_password_id="x"), INVALID),
        (stub.DeleteAppPassword, delete(address="alice@example.org", app_password_id="999"), NOT_FOUND),
        (stub.ListAppPasswords, pb.ListAppPasswordsRequest(address="bob@example.org"), NOT_FOUND),
    ):
        assert await refused(service, rpc, request) is code, request
    for number in range(49):
        await service.admin.ask(stub.CreateAppPassword, create(address="alice@example.org", name=str(number)))
    one_more = create(address="alice@example.org", name="one more")
    assert await refused(service, stub.CreateAppPassword, one_more) is PRECONDITION


async def test_pages_have_each_entry_once(service: DirectoryService) -> None:
    ask, stub = service.admin.ask, service.admin.stub
    await service.domain("a.example")
    await service.domain("b.example")
    names = [f"{local}@{domain}" for domain in ("a.example", "b.example") for local in ("x", "y", "é")]
    for name in names:
        await service.account(name)
        await service.alias(f"also-{name}", name)
    accounts: list[str] = []
    aliases: list[str] = []
    domains: list[str] = []
    token = "first"
    while token:
        asked = pb.ListAccountsRequest(page_token=token.replace("first", ""), page_size=4)
        page = await ask(stub.ListAccounts, asked)
        accounts += [account.address for account in page.accounts]
        token = page.next_page_token
    token = "first"
    while token:
        alias_page = await ask(
            stub.ListAliases,
            pb.ListAliasesRequest(domain="B.example", page_token=token.replace("first", ""), page_size=1),
        )
        aliases += [alias.address for alias in alias_page.aliases]
        token = alias_page.next_page_token
    token = "first"
    while token:
        domain_page = await ask(
            stub.ListDomains, pb.ListDomainsRequest(page_token=token.replace("first", ""), page_size=1)
        )
        domains += [f"{domain.name} {domain.accounts} {domain.aliases}" for domain in domain_page.domains]
        token = domain_page.next_page_token
    assert sorted(accounts) == sorted(names)
    assert sorted(aliases) == sorted(f"also-{name}" for name in names if name.endswith("b.example"))
    assert domains == ["a.example 3 3", "b.example 3 3"]


async def test_an_address_is_an_account_or_an_alias_under_concurrency(service: DirectoryService) -> None:
    await service.domain("example.org")
    for number in range(10):
        address = f"x{number}@example.org"
        results = await asyncio.gather(
            service.account(address), service.alias(address, "y@example.org"), return_exceptions=True
        )
        (failed,) = [result for result in results if isinstance(result, BaseException)]
        assert isinstance(failed, DirectoryRefused)
        assert failed.code is ALREADY_EXISTS


async def test_the_directory_needs_the_admin_token(service: DirectoryService, database: str) -> None:
    settings = DirectoryClientSettings(service.target, Seconds(10.0))
    for wrong in ("", "wrong", ADMIN_TOKEN + "x", ADMIN_TOKEN[:-1]):
        client = DirectoryClient(service.channel, settings, wrong)
        with pytest.raises(DirectoryRefused) as caught:
            await client.ask(client.stub.ListDomains, pb.ListDomainsRequest())
        assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as bare:
        await service.admin.stub.ListDomains(pb.ListDomainsRequest())
    assert bare.value.code() is grpc.StatusCode.UNAUTHENTICATED
    await service.admin.ask(service.admin.stub.ListDomains, pb.ListDomainsRequest())


async def test_without_a_configured_token_the_directory_is_disabled(database: str) -> None:
    async with directory_service(database, PAQUEBOT_ADMIN_TOKEN="") as service:
        for token in ("", ADMIN_TOKEN):
            client = DirectoryClient(service.channel, DirectoryClientSettings(service.target, Seconds(10.0)), token)
            with pytest.raises(DirectoryRefused) as caught:
                await client.ask(client.stub.ListDomains, pb.ListDomainsRequest())
            assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_plan_made_for_few_accounts_searches_many_by_index(migrated_database: str) -> None:
    """A session keeps a plan until the next ANALYZE, while thousands of accounts may be imported."""
    connection = await asyncpg.connect(migrated_database, server_settings={"plan_cache_mode": "force_generic_plan"})
    await connection.execute("INSERT INTO directory.domains (name) VALUES ('x.test')")
    await connection.execute(f"PREPARE search AS {lookup._LOOK_UP}")
    explain = "EXPLAIN EXECUTE search (ARRAY[0], ARRAY['x.test'], ARRAY['u1'], ARRAY['u1'])"
    for accounts in (2, 2000):
        await connection.execute(
            "INSERT INTO directory.accounts (domain, local_part, password_hash)"
            f" SELECT 'x.test', 'u' || n, '' FROM generate_series(1, {accounts}) n ON CONFLICT DO NOTHING"
        )
        plan = "\n".join(row[0] for row in await connection.fetch(explain))
        for table in ("accounts", "aliases"):
            assert f"Seq Scan on {table}" not in plan
        assert plan.count("Index Cond: ((domain = asked.domain) AND (local_part = asked.whole))") == 2
    await connection.close()
