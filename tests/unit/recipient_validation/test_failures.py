"""Token buckets for failed logins, on a clock of the test's own."""

import pytest

from paquebot.recipient_validation.failures import Attempt, Buckets, FailureLimits, client_network


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits(clock: Clock, *, account: int = 3, client: int = 5, entries: int = 100) -> FailureLimits:
    return FailureLimits(account_failures=account, client_failures=client, recovery=10.0, entries=entries, clock=clock)


def begun(attempt: Attempt | int) -> Attempt:
    assert isinstance(attempt, Attempt)
    return attempt


def test_a_bucket_empties_and_fills_with_time(clock: Clock) -> None:
    buckets = Buckets(2, 10.0, 100, clock)
    buckets.take("a")
    assert buckets.wait("a") == 0
    buckets.take("a")
    assert buckets.wait("a") == 10.0
    clock.now += 4
    assert buckets.wait("a") == pytest.approx(6.0)
    clock.now += 6
    assert buckets.wait("a") == 0
    clock.now += 1e6
    for _ in range(2):
        buckets.take("a")
    assert buckets.wait("a") == 10.0  # never more than its capacity


def test_a_token_given_back_leaves_nothing_behind(clock: Clock) -> None:
    buckets = Buckets(2, 10.0, 100, clock)
    buckets.take("a")
    buckets.give_back("a")
    assert len(buckets) == 0
    buckets.give_back("a")
    assert len(buckets) == 0


def test_memory_is_bounded_and_the_longest_untouched_is_forgotten(clock: Clock) -> None:
    buckets = Buckets(1, 10.0, 3, clock)
    for key in ("a", "b", "c", "a", "d"):
        buckets.take(key)
    assert len(buckets) == 3
    assert buckets.wait("b") == 0
    assert buckets.wait("a") > 10


def test_success_gives_the_attempt_back(clock: Clock) -> None:
    limit = limits(clock, account=1)
    for _ in range(5):
        limit.succeeded(begun(limit.begin("alice", "")))
    begun(limit.begin("alice", ""))
    assert limit.begin("alice", "") == 10


def test_an_attempt_without_a_verdict_is_spared(clock: Clock) -> None:
    limit = limits(clock, account=1)
    for _ in range(5):
        limit.spared(begun(limit.begin("alice", "192.0.2.1")))
    begun(limit.begin("alice", "192.0.2.1"))


def test_a_known_pair_has_a_bucket_of_its_own(clock: Clock) -> None:
    limit = limits(clock, account=2)
    limit.succeeded(begun(limit.begin("alice", "192.0.2.1")))
    for number in range(2):
        begun(limit.begin("alice", f"198.51.100.{number}"))
    assert limit.begin("alice", "198.51.100.9") == 10
    for _ in range(2):
        begun(limit.begin("alice", "192.0.2.1"))
    assert limit.begin("alice", "192.0.2.1") == 10
    begun(limit.begin("bob", "192.0.2.1"))  # her failures from there did not use up the client's


def test_a_client_that_tries_many_accounts_is_stopped(clock: Clock) -> None:
    limit = limits(clock, client=2)
    for account in ("a", "b"):
        begun(limit.begin(account, "2001:db8::1"))
    assert limit.begin("c", "2001:db8::2") == 10
    begun(limit.begin("c", "2001:db8:0:1::2"))
    clock.now += 9.5
    assert limit.begin("c", "2001:db8::2") == 1
    clock.now += 0.5
    begun(limit.begin("c", "2001:db8::2"))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_client_network(address: str, network: str) -> None:
    assert client_network(address) == network
