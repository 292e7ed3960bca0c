"""Logins over gRPC on a real database: who gets in, what a refusal tells, and what it costs."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator

import asyncpg
import pytest

from directory_service import DirectoryService, directory_service, role_dsn
from paquebot.directory.passwords import Argon2Parameters, Hasher, new_app_password
from paquebot.recipient_validation.authentication import Authentication
from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.hashing import HASH_SECONDS, HASHES_WAITING, Hashing
from paquebot.recipient_validation.settings import HashSettings, LoginSettings
from paquebot.rpc import AccountDisabled, Identity, InvalidCredentials, RateLimited
from paquebot.runtime.engines import PostgresSettings
from paquebot.runtime.postgres import Postgres, open_postgres
from paquebot.runtime.settings import Octets, Seconds, Secret
from paquebot.v1 import authentication_pb2 as auth_pb
from paquebot.v1 import directory_pb2 as pb

CHEAP = HashSettings(passes=1, memory=Octets(64 * 1024), lanes=1, threads=1, waiting=64)
PATIENT = LoginSettings(account_failures=1000, client_failures=1000)


@pytest.fixture
async def service(database: str) -> AsyncIterator[DirectoryService]:
    async with directory_service(database) as running_service:
        await running_service.domain("example.org", default_quota_bytes=5000)
        yield running_service


@pytest.fixture
async def postgres(service: DirectoryService, database: str) -> AsyncIterator[Postgres]:
    opened = await open_postgres(PostgresSettings(Secret(role_dsn(database))), "test")
    yield opened
    await opened.close()


async def login(
    service: DirectoryService, name: str, password: str, client: str = "192.0.2.1"
) -> Identity | InvalidCredentials | AccountDisabled | RateLimited:
    return await service.authentication.authenticate(name, password, client, "imap")


def verifications() -> float:
    """Hashes that were verified in this process so far."""
    samples = HASH_SECONDS.labels("verify").collect()[0].samples
    return next(sample.value for sample in samples if sample.name.endswith("_count"))


async def test_logins_by_any_spelling(service: DirectoryService) -> None:
    await service.domain("alias.example", alias_of="example.org")
    alice = await service.account("alice@example.org", "pässword 1")
    identity = Identity(alice, "alice@example.org", 5000)
    assert await login(service, "alice@example.org", "pässword 1") == identity
    assert await login(service, "ALICE@Example.Org", "pässword 1") == identity
    assert await login(service, "alice@alias.example", "pässword 1") == identity
    assert await login(service, "alice@example.org", "pa\u0308ssword\u00a01") == identity  # RFC 8265 §4.2
    for name, password in (
        ("alice@example.org", "Pässword 1"),
        ("alice@example.org", "pässword 1 "),
        ("alice@example.org", ""),
        ("alice@example.org", "a\0b"),
        ("alice@example.org", "x" * 100_000),
        ("alice+x@example.org", "pässword 1"),
        ("alice", "pässword 1"),
        ("bob@example.org", "pässword 1"),
        ("alice@elsewhere.example", "pässword 1"),
        ("", "pässword 1"),
        ("x" * 100_000, "pässword 1"),
        ("a\0lice@example.org", "pässword 1"),
    ):
        assert await login(service, name, password, "") == InvalidCredentials(), name[:40]


async def test_a_default_domain_completes_a_login(database: str) -> None:
    async with directory_service(database, PAQUEBOT_DEFAULT_DOMAIN="example.org") as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        assert await login(service, "Alice", "secret") == Identity(alice, "alice@example.org", 0)


async def test_disabled_is_told_only_to_who_knows_the_password(service: DirectoryService) -> None:
    await service.account("alice@example.org", "secret")
    await service.set_account("alice@example.org", enabled=False)
    assert await login(service, "alice@example.org", "wrong") == InvalidCredentials()
    assert await login(service, "alice@example.org", "secret") == AccountDisabled()
    await service.set_account("alice@example.org", enabled=True)
    request = pb.UpdateDomainRequest(name="example.org", enabled=False)
    await service.admin.ask(service.admin.stub.UpdateDomain, request)
    assert await login(service, "alice@example.org", "secret") == AccountDisabled()


async def test_app_passwords(service: DirectoryService, database: str) -> None:
    alice = await service.account("alice@example.org", "secret")
    await service.account("bob@example.org", "secret")
    stub = service.admin.stub
    create = pb.CreateAppPasswordRequest(address="alice@example.org", name="phone")
    made = await service.admin.ask(stub.CreateAppPassword, create)
    identity = Identity(alice, "alice@example.org", 5000)
    before = verifications()
    assert await login(service, "alice@example.org", made.password) == identity
    assert await login(service, "alice@example.org", made.password.replace("-", "").upper()) == identity
    assert verifications() == before  # 100 random bits need no slow hash
    assert await login(service, "bob@example.org", made.password) == InvalidCredentials()
    assert await login(service, "alice@example.org", new_app_password()) == InvalidCredentials()
    (listed,) = (
        await service.admin.ask(stub.ListAppPasswords, pb.ListAppPasswordsRequest(address="alice@example.org"))
    ).app_passwords
    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert listed.name == "phone"
    assert listed.last_used_at_ms in (today.timestamp() * 1000, (today.timestamp() - 86400) * 1000)
    connection = await asyncpg.connect(database)
    row = await connection.fetchrow("SELECT * FROM directory.app_passwords")
    assert made.password.replace("-", "") not in str(dict(row))
    await connection.close()
    delete = pb.DeleteAppPasswordRequest(address="alice@example.org", app_password_id=listed.app_password_id)
    await service.admin.ask(stub.DeleteAppPassword, delete)
    assert await login(service, "alice@example.org", made.password) == InvalidCredentials()
    assert await login(service, "alice@example.org", "secret") == identity


async def test_a_good_login_costs_one_hash_and_a_changed_password_counts_at_once(
    service: DirectoryService,
) -> None:
    alice = await service.account("alice@example.org", "secret")
    before = verifications()
    for _ in range(5):
        assert await login(service, "alice@example.org", "secret") == Identity(alice, "alice@example.org", 5000)
    assert verifications() == before + 1
    assert await login(service, "alice@example.org", "wrong") == InvalidCredentials()
    assert verifications() == before + 2
    await service.set_account("alice@example.org", password="other")
    assert await login(service, "alice@example.org", "secret") == InvalidCredentials()
    assert await login(service, "alice@example.org", "other") == Identity(alice, "alice@example.org", 5000)
    await service.set_account("alice@example.org", enabled=False)
    assert await login(service, "alice@example.org", "other") == AccountDisabled()


async def test_an_unknown_account_costs_a_hash_too(service: DirectoryService) -> None:
    await service.account("alice@example.org", "secret")
    for name in ("alice@example.org", "nobody@example.org", "not an address", "x@elsewhere.example"):
        before = verifications()
        assert await login(service, name, "wrong") == InvalidCredentials()
        assert verifications() == before + 1, name


async def test_failures_are_limited_per_account_and_the_owner_still_gets_in(database: str) -> None:
    async with directory_service(
        database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="3", PAQUEBOT_LOGIN_FAILURE_RECOVERY="1h"
    ) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        identity = Identity(alice, "alice@example.org", 0)
        assert await login(service, "alice@example.org", "secret", "192.0.2.1") == identity
        for number in range(3):
            assert await login(service, "alice@example.org", "guess", f"198.51.100.{number}") == InvalidCredentials()
        refused = await login(service, "ALICE@example.org", "secret", "203.0.113.1")
        assert isinstance(refused, RateLimited)
        assert 3500 < refused.retry_after <= 3600
        assert await login(service, "alice@example.org", "secret", "192.0.2.1") == identity  # known from there
        for _ in range(3):
            assert await login(service, "alice@example.org", "guess", "192.0.2.1") == InvalidCredentials()
        assert isinstance(await login(service, "alice@example.org", "secret", "192.0.2.1"), RateLimited)


async def test_failures_are_limited_per_client(database: str) -> None:
    async with directory_service(
        database, PAQUEBOT_LOGIN_FAILURES_CLIENT="3", PAQUEBOT_LOGIN_FAILURE_RECOVERY="1h"
    ) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        for number in range(3):
            name = f"guess{number}@example.org"
            assert await login(service, name, "x", f"2001:db8:0:1::{number}") == InvalidCredentials()
        assert isinstance(await login(service, "alice@example.org", "secret", "2001:db8:0:1::9"), RateLimited)
        other = await login(service, "alice@example.org", "secret", "2001:db8:0:2::1")
        assert other == Identity(alice, "alice@example.org", 0)


async def test_guesses_side_by_side_do_not_pass_the_limit(database: str) -> None:
    async with directory_service(
        database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="4", PAQUEBOT_LOGIN_FAILURE_RECOVERY="1h"
    ) as service:
        await service.domain("example.org")
        await service.account("alice@example.org", "secret")
        guesses = (login(service, "alice@example.org", f"guess {number}") for number in range(20))
        answers = await asyncio.gather(*guesses)
        assert answers.count(InvalidCredentials()) == 4
        assert sum(isinstance(answer, RateLimited) for answer in answers) == 16


def request(password: str) -> auth_pb.AuthenticateRequest:
    return auth_pb.AuthenticateRequest(
        login="alice@example.org", password=password, client_address="192.0.2.1", protocol="smtp"
    )


async def test_hashes_are_strengthened_when_the_parameters_grow(
    service: DirectoryService, postgres: Postgres, database: str
) -> None:
    await service.account("alice@example.org", "secret")
    connection = await asyncpg.connect(database)

    async def stored() -> str:
        return str(await connection.fetchval("SELECT password_hash FROM directory.accounts"))

    async def authenticate(settings: HashSettings, password: str) -> int:
        hashing = Hashing(settings)
        authentication = Authentication(postgres, hashing, PATIENT, "")
        result = (await authentication._authenticate(request(password))).result
        hashing.close()
        return result

    weak = await stored()
    assert "m=64,t=1,p=1" in weak
    stronger = HashSettings(passes=2, memory=Octets(128 * 1024), lanes=1, threads=1)
    assert await authenticate(stronger, "wrong") == auth_pb.AUTHENTICATE_RESULT_INVALID
    assert await stored() == weak
    assert await authenticate(stronger, "secret") == auth_pb.AUTHENTICATE_RESULT_OK
    strong = await stored()
    assert "m=128,t=2,p=1" in strong
    assert await authenticate(CHEAP, "secret") == auth_pb.AUTHENTICATE_RESULT_OK
    assert await stored() == strong
    await connection.close()


async def test_remembered_logins_end_with_their_time(service: DirectoryService, postgres: Postgres) -> None:
    await service.account("alice@example.org", "secret")
    now = 50.0
    hashing = Hashing(CHEAP)
    settings = LoginSettings(cache=Seconds(10.0), account_failures=1000, client_failures=1000)
    authentication = Authentication(postgres, hashing, settings, "", clock=lambda: now)
    before = verifications()
    for at, hashes in ((50.0, 1), (59.9, 1), (60.0, 2), (69.9, 2), (70.0, 3)):
        now = at
        response = await authentication._authenticate(request("secret"))
        assert response.result == auth_pb.AUTHENTICATE_RESULT_OK
        assert verifications() == before + hashes, at
    hashing.close()


async def test_the_event_loop_lives_while_hashes_wait_and_their_queue_is_bounded() -> None:
    hashing = Hashing(HashSettings(passes=3, memory=Octets(64 * 2**20), lanes=1, threads=1, waiting=2))
    stored = Hasher(Argon2Parameters(1, 64, 1)).hash("secret")
    first = [asyncio.ensure_future(hashing.hash("secret")) for _ in range(3)]
    turns = 0
    while not first[0].done():  # the loop turns while the thread hashes
        await asyncio.sleep(0)
        turns += 1
        if turns == 1:
            with pytest.raises(Overloaded):
                await hashing.verify(stored, "secret")
            first[2].cancel()  # a caller that goes away makes no room
            with pytest.raises(Overloaded):
                await hashing.verify(stored, "secret")
    assert turns > 10
    await asyncio.gather(*first, return_exceptions=True)
    assert not first[1].cancelled()
    assert await hashing.verify(stored, "secret")  # there is room again, behind the abandoned hash
    hashing.close()


async def test_a_damaged_hash_fits_no_password(service: DirectoryService, database: str) -> None:
    await service.account("alice@example.org", "secret")
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE directory.accounts SET password_hash = 'damaged'")
    await connection.close()
    assert await login(service, "alice@example.org", "secret") == InvalidCredentials()


async def test_a_drain_finishes_the_calls_under_way(database: str) -> None:
    slow = {"PAQUEBOT_ARGON2_PASSES": "4", "PAQUEBOT_ARGON2_MEMORY": "64MiB"}
    async with directory_service(database, **slow) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        before = HASHES_WAITING.collect()[0].samples[0].value
        under_way = asyncio.ensure_future(login(service, "alice@example.org", "secret"))
        async with asyncio.timeout(10.0):
            while HASHES_WAITING.collect()[0].samples[0].value == before:
                await asyncio.sleep(0)
        service.context.draining.set()
        assert await under_way == Identity(alice, "alice@example.org", 0)
