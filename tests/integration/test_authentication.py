"""Logins over gRPC on a real database: which logins succeed, what a refusal reveals, and what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import AsyncIterator

import asyncpg
import pytest

from paquebot.directory.login_limits import (
    NETWORKS_KEPT,
    AttemptRefused,
    LimitPolicy,
    LoginAttempt,
    count_attempt,
    delete_old,
    record_network,
    uncount_attempt,
)
from paquebot.directory.passwords import Argon2Parameters, Hasher, new_app_password
from paquebot.observability.metrics import ENGINE_SECONDS
from paquebot.recipient_validation.authentication import Authentication
from paquebot.recipient_validation.boundary import Overloaded
from paquebot.recipient_validation.hashing import HASH_SECONDS, HASHES_WAITING, Hashing
from paquebot.recipient_validation.settings import HashSettings, LoginSettings
from paquebot.rpc import AccountDisabled, Identity, InvalidCredentials, RateLimited
from paquebot.runtime.engine_settings import PostgresSettings
from paquebot.runtime.postgres.pool import Postgres, open_postgres
from paquebot.runtime.settings import ByteSize, Seconds, Secret
from paquebot.v1 import authentication_pb2 as auth_pb
from paquebot.v1 import directory_pb2 as pb
from tests.support.directory_service import DirectoryService, directory_service, role_dsn

CHEAP = HashSettings(passes=1, memory=ByteSize(64 * 1024), lanes=1, threads=1, waiting=64)
PATIENT = LoginSettings(account_failures=1000, client_failures=1000, max_delay=Seconds(0.0))


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
    """Return how many hashes this process has verified."""
    (metric,) = HASH_SECONDS.labels("verify").collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))


def statements(call: str) -> float:
    """Return how often this process has run the statement."""
    (metric,) = ENGINE_SECONDS.labels("postgres", call).collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))


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
    async with directory_service(
        database, PAQUEBOT_DEFAULT_DOMAIN="example.org", PAQUEBOT_ACCOUNT_QUOTA="0"
    ) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        assert await login(service, "Alice", "secret") == Identity(alice, "alice@example.org", 0)


async def test_only_the_right_password_reveals_a_disabled_account(service: DirectoryService) -> None:
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
    assert verifications() == before  # a password of 100 random bits needs no slow hash
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
    assert row is not None
    assert made.password.replace("-", "") not in str(dict(row))
    await connection.close()
    delete = pb.DeleteAppPasswordRequest(address="alice@example.org", app_password_id=listed.app_password_id)
    await service.admin.ask(stub.DeleteAppPassword, delete)
    assert await login(service, "alice@example.org", made.password) == InvalidCredentials()
    assert await login(service, "alice@example.org", "secret") == identity


async def test_a_good_login_needs_one_hash_and_a_changed_password_applies_at_once(
    service: DirectoryService,
) -> None:
    alice = await service.account("alice@example.org", "secret")
    before = verifications()
    for _ in range(5):
        assert await login(service, "alice@example.org", "secret") == Identity(alice, "alice@example.org", 5000)
    assert verifications() == before + 1
    assert await login(service, "alice@example.org", "wrong") == InvalidCredentials()
    assert verifications() == before + 2
    await service.set_account("alice@example.org", password="others")
    assert await login(service, "alice@example.org", "secret") == InvalidCredentials()
    assert await login(service, "alice@example.org", "others") == Identity(alice, "alice@example.org", 5000)
    await service.set_account("alice@example.org", enabled=False)
    assert await login(service, "alice@example.org", "others") == AccountDisabled()


async def test_an_unknown_account_needs_a_hash_too(service: DirectoryService) -> None:
    await service.account("alice@example.org", "secret")
    for name in ("alice@example.org", "nobody@example.org", "not an address", "x@elsewhere.example"):
        before = verifications()
        assert await login(service, name, "wrong") == InvalidCredentials()
        assert verifications() == before + 1, name


QUICK = {"PAQUEBOT_LOGIN_DELAY": "0s", "PAQUEBOT_LOGIN_FAILURE_RECOVERY": "1h", "PAQUEBOT_ACCOUNT_QUOTA": "0"}


async def test_attackers_do_not_lock_the_owner_out(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="3", **QUICK) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        for number in range(20):
            guessed = await login(service, "alice@example.org", "guess", f"198.51.100.{number}")
            assert guessed == InvalidCredentials()
        identity = Identity(alice, "alice@example.org", 0)
        assert await login(service, "alice@example.org", "secret", "203.0.113.1") == identity


async def test_an_alias_domain_does_not_bypass_the_limit(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="3", **QUICK) as service:
        await service.domain("example.org")
        await service.domain("alias.example", alias_of="example.org")
        await service.account("alice@example.org", "secret")
        for name in ("alice@example.org", "alice@alias.example", "ALICE@example.org"):
            assert await login(service, name, "guess") == InvalidCredentials()
        for name in ("alice@example.org", "alice@alias.example"):
            refused = await login(service, name, "guess")
            assert isinstance(refused, RateLimited)
            assert 3500 < refused.retry_after <= 3600


async def test_failures_are_shared_by_replicas_and_survive_a_restart(database: str) -> None:
    limits = {"PAQUEBOT_LOGIN_FAILURES_ACCOUNT": "2", **QUICK}
    async with directory_service(database, **limits) as first:
        await first.domain("example.org")
        await first.account("alice@example.org", "secret")
        assert await login(first, "alice@example.org", "guess") == InvalidCredentials()
        async with directory_service(database, **limits) as second:
            assert await login(second, "alice@example.org", "guess") == InvalidCredentials()
            assert isinstance(await login(first, "alice@example.org", "guess"), RateLimited)
    async with directory_service(database, **limits) as restarted:
        assert isinstance(await login(restarted, "alice@example.org", "guess"), RateLimited)


async def test_failures_of_others_do_not_count_in_a_known_network(database: str) -> None:
    async with directory_service(
        database,
        PAQUEBOT_LOGIN_FAILURES_ACCOUNT="2",
        PAQUEBOT_LOGIN_FAILURES_CLIENT="3",
        PAQUEBOT_LOGIN_CACHE="0s",
        **QUICK,
    ) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        bob = await service.account("bob@example.org", "secret")
        assert await login(service, "alice@example.org", "secret") == Identity(alice, "alice@example.org", 0)
        for number in range(3):
            assert await login(service, f"guess{number}@example.org", "x") == InvalidCredentials()
        assert isinstance(await login(service, "bob@example.org", "secret"), RateLimited)  # the client's limit
        assert await login(service, "alice@example.org", "secret") == Identity(alice, "alice@example.org", 0)
        for _ in range(2):
            assert await login(service, "alice@example.org", "guess") == InvalidCredentials()
        assert isinstance(await login(service, "alice@example.org", "secret"), RateLimited)
        assert await login(service, "bob@example.org", "secret", "192.0.2.2") == Identity(bob, "bob@example.org", 0)


async def test_app_passwords_are_accepted_where_guesses_are_refused(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="1", **QUICK) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        create = pb.CreateAppPasswordRequest(address="alice@example.org", name="phone")
        made = await service.admin.ask(service.admin.stub.CreateAppPassword, create)
        assert await login(service, "alice@example.org", "guess") == InvalidCredentials()
        assert isinstance(await login(service, "alice@example.org", "secret"), RateLimited)
        assert await login(service, "alice@example.org", made.password) == Identity(alice, "alice@example.org", 0)


async def test_an_unknown_login_is_limited_like_a_known_one(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="2", **QUICK) as service:
        await service.domain("example.org")
        await service.account("alice@example.org", "secret")
        for name, client in (
            ("alice@example.org", "192.0.2.1"),
            ("nobody@example.org", "192.0.2.2"),
            ("x", "192.0.2.3"),
        ):
            answers = [await login(service, name, "guess", client) for _ in range(3)]
            assert answers[:2] == [InvalidCredentials()] * 2
            assert isinstance(answers[2], RateLimited), name


async def test_impossible_logins_are_refused_and_do_not_count(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="2", **QUICK) as service:
        await service.domain("example.org")
        await service.account("alice@example.org", "secret")
        before = verifications()
        for name, password in (
            ("alice\x01@example.org", "secret"),
            ("a\0b", "secret"),
            ("\x80", "secret"),
            ("x" * 2000, "secret"),
            ("alice@example.org", "a\x01b"),
            ("alice@example.org", ""),
        ):
            answers = {await login(service, name, password) for _ in range(4)}
            assert answers == {InvalidCredentials()}, name
        assert verifications() == before
        assert not isinstance(await login(service, "alice@example.org", "secret"), InvalidCredentials | RateLimited)


async def test_failures_are_limited_per_client(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_CLIENT="3", **QUICK) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        for number in range(3):
            name = f"guess{number}@example.org"
            assert await login(service, name, "x", f"2001:db8:0:1::{number}") == InvalidCredentials()
        assert isinstance(await login(service, "alice@example.org", "secret", "2001:db8:0:1::9"), RateLimited)
        other = await login(service, "alice@example.org", "secret", "2001:db8:0:2::1")
        assert other == Identity(alice, "alice@example.org", 0)


async def test_an_ipv6_48_is_limited_too(database: str) -> None:
    """Each guess comes from its own network; another /48 and a known network pass."""
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_CLIENT="3", **QUICK) as service:
        await service.domain("example.org")
        alice = Identity(await service.account("alice@example.org", "secret"), "alice@example.org", 0)
        assert await login(service, "alice@example.org", "secret", "2001:db8:0:ffff::1") == alice
        answers = [
            await login(service, f"guess{number}@example.org", "x", f"2001:db8:0:{number:x}::1") for number in range(30)
        ]
        assert answers.count(InvalidCredentials()) == 24
        assert all(isinstance(answer, RateLimited) for answer in answers[24:])
        assert isinstance(await login(service, "alice@example.org", "secret", "2001:db8:0:eeee::1"), Identity)
        assert await login(service, "alice@example.org", "guess", "2001:db8:0:ffff::1") == InvalidCredentials()
        assert await login(service, "guess@example.org", "x", "2001:db8:1::1") == InvalidCredentials()


async def test_parallel_guesses_do_not_pass_the_limit(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="4", **QUICK) as service:
        await service.domain("example.org")
        await service.account("alice@example.org", "secret")
        guesses = (login(service, "alice@example.org", f"guess {number}") for number in range(20))
        answers = await asyncio.gather(*guesses)
        assert answers.count(InvalidCredentials()) == 4
        assert sum(isinstance(answer, RateLimited) for answer in answers) == 16


async def test_parallel_logins_of_one_mail_program_are_not_guesses(database: str) -> None:
    """After a restart a program logs in on many connections with the right password: more than the failure limit."""
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="4", **QUICK) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        before = verifications()
        answers = await asyncio.gather(*(login(service, "alice@example.org", "secret") for _ in range(40)))
        assert answers == [Identity(alice, "alice@example.org", 0)] * 40
        assert verifications() == before + 1


async def test_equal_parallel_guesses_all_count(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="4", **QUICK) as service:
        await service.domain("example.org")
        await service.account("alice@example.org", "secret")
        answers = await asyncio.gather(*(login(service, "alice@example.org", "guess") for _ in range(20)))
        assert answers.count(InvalidCredentials()) == 4
        assert sum(isinstance(answer, RateLimited) for answer in answers) == 16


async def test_a_refused_client_needs_no_hash_and_few_queries(database: str) -> None:
    async with directory_service(database, PAQUEBOT_LOGIN_FAILURES_ACCOUNT="1", **QUICK) as service:
        await service.domain("example.org")
        await service.account("alice@example.org", "secret")
        assert await login(service, "alice@example.org", "guess") == InvalidCredentials()
        assert isinstance(await login(service, "alice@example.org", "guess"), RateLimited)
        hashes, counted = verifications(), statements("take_login")
        for number in range(20):
            assert isinstance(await login(service, "alice@example.org", f"guess {number}"), RateLimited)
        assert (verifications(), statements("take_login")) == (hashes, counted)


async def test_failures_expire_and_are_limited(service: DirectoryService, postgres: Postgres) -> None:
    policy = LimitPolicy(pair=3, client=3, login=3, recovery=30.0)
    for number in range(1, 6):
        await count_attempt(postgres, policy, number, f"192.0.2.{number}", known=False)
    rows = "SELECT count(*) FROM directory.login_failures"
    assert await postgres.fetchval("test", rows) == 15
    yesterday = datetime.datetime.now(datetime.UTC).date()
    await delete_old(postgres, policy, 6, yesterday)
    assert 6 <= await postgres.fetchval("test", rows) <= 9  # failures of one statement may have the same time
    await postgres.execute("test", "UPDATE directory.login_failures SET at = at - interval '1 day'")
    await delete_old(postgres, policy, 6, yesterday)
    assert await postgres.fetchval("test", rows) == 0


async def test_a_level_falls_with_time(service: DirectoryService, postgres: Postgres) -> None:
    policy = LimitPolicy(pair=2, client=99, login=99, recovery=30.0)
    for _ in range(2):
        assert isinstance(await count_attempt(postgres, policy, 1, "192.0.2.1", known=False), LoginAttempt)
    refused = await count_attempt(postgres, policy, 1, "192.0.2.1", known=False)
    assert isinstance(refused, AttemptRefused)
    assert 0 < refused.seconds <= 30
    await postgres.execute("test", "UPDATE directory.login_failures SET at = at - interval '30 seconds'")
    attempt = await count_attempt(postgres, policy, 1, "192.0.2.1", known=False)
    assert isinstance(attempt, LoginAttempt)
    await uncount_attempt(postgres, attempt.keys)
    assert isinstance(await count_attempt(postgres, policy, 1, "192.0.2.1", known=False), LoginAttempt)


async def test_networks_of_an_account_are_limited(service: DirectoryService, postgres: Postgres) -> None:
    alice = await service.account("alice@example.org", "secret")
    today = datetime.datetime.now(datetime.UTC).date()
    await record_network(postgres, alice, "203.0.113.1", today - datetime.timedelta(days=1))
    for number in range(NETWORKS_KEPT):
        await record_network(postgres, alice, f"192.0.2.{number}", today)
    kept = [row["network"] for row in await postgres.fetch("test", "SELECT network FROM directory.login_networks")]
    assert len(kept) == NETWORKS_KEPT
    assert "203.0.113.1" not in kept


async def test_each_failure_is_logged_without_unknown_logins(
    service: DirectoryService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    alice = await service.account("alice@example.org", "secret")
    await login(service, "alice@example.org", "guess", "192.0.2.1")
    await login(service, "my secret password", "alice@example.org", "192.0.2.2")
    await login(service, "my@secret password", "alice@example.org", "192.0.2.2")
    lines = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "login_failed"]
    assert [line["client"] for line in lines] == ["192.0.2.1", "192.0.2.2", "192.0.2.2"]
    assert lines[0]["account_id"] == alice
    assert {line["result"] for line in lines} == {"invalid"}
    assert lines[1]["unknown_login"] != lines[2]["unknown_login"]
    assert "secret" not in str(lines)


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
    stronger = HashSettings(passes=2, memory=ByteSize(128 * 1024), lanes=1, threads=1)
    assert await authenticate(stronger, "wrong") == auth_pb.AUTHENTICATE_RESULT_INVALID
    assert await stored() == weak
    assert await authenticate(stronger, "secret") == auth_pb.AUTHENTICATE_RESULT_OK
    strong = await stored()
    assert "m=128,t=2,p=1" in strong
    assert await authenticate(CHEAP, "secret") == auth_pb.AUTHENTICATE_RESULT_OK
    assert await stored() == strong
    await connection.close()


async def test_cached_logins_expire(service: DirectoryService, postgres: Postgres) -> None:
    await service.account("alice@example.org", "secret")
    now = 50.0
    hashing = Hashing(CHEAP)
    settings = dataclasses.replace(PATIENT, cache=Seconds(10.0))
    authentication = Authentication(postgres, hashing, settings, "", clock=lambda: now)
    before = verifications()
    for at, hashes in ((50.0, 1), (59.9, 1), (60.0, 2), (69.9, 2), (70.0, 3)):
        now = at
        response = await authentication._authenticate(request("secret"))
        assert response.result == auth_pb.AUTHENTICATE_RESULT_OK
        assert verifications() == before + hashes, at
    hashing.close()


async def test_hashes_do_not_block_the_event_loop_and_their_queue_is_limited() -> None:
    hashing = Hashing(HashSettings(passes=3, memory=ByteSize(64 * 2**20), lanes=1, threads=1, waiting=2))
    stored = Hasher(Argon2Parameters(1, 64, 1)).hash("secret")
    first = [asyncio.ensure_future(hashing.hash("secret")) for _ in range(3)]
    turns = 0
    while not first[0].done():  # the event loop runs while the thread hashes
        await asyncio.sleep(0)
        turns += 1
        if turns == 1:
            with pytest.raises(Overloaded):
                await hashing.verify(stored, "secret")
            first[2].cancel()  # a cancelled call frees no slot
            with pytest.raises(Overloaded):
                await hashing.verify(stored, "secret")
    assert turns > 10
    await asyncio.gather(*first, return_exceptions=True)
    assert not first[1].cancelled()
    assert await hashing.verify(stored, "secret")  # a slot is free after the abandoned hash
    hashing.close()


async def test_a_damaged_hash_matches_no_password(service: DirectoryService, database: str) -> None:
    await service.account("alice@example.org", "secret")
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE directory.accounts SET password_hash = 'damaged'")
    await connection.close()
    assert await login(service, "alice@example.org", "secret") == InvalidCredentials()


async def test_a_drain_finishes_the_calls_under_way(database: str) -> None:
    slow = {"PAQUEBOT_ARGON2_PASSES": "4", "PAQUEBOT_ARGON2_MEMORY": "64MiB", "PAQUEBOT_ACCOUNT_QUOTA": "0"}
    async with directory_service(database, **slow) as service:
        await service.domain("example.org")
        alice = await service.account("alice@example.org", "secret")
        before = next(iter(HASHES_WAITING.collect())).samples[0].value
        under_way = asyncio.ensure_future(login(service, "alice@example.org", "secret"))
        async with asyncio.timeout(10.0):
            while next(iter(HASHES_WAITING.collect())).samples[0].value == before:
                await asyncio.sleep(0)
        service.context.draining.set()
        assert await under_way == Identity(alice, "alice@example.org", 0)
