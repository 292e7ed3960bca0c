"""The budget refuses a small holder only when all others hold as little, and takes from large holders for others."""

import contextlib
import random

import pytest

from paquebot.runtime.shares.budget import BudgetGroup, OverBudget, Path, Reservation, SharedBudget
from paquebot.runtime.shares.in_flight import ShareSettings, account, byte_shares, stranger


def budget(limit: int = 100, *, network: int = 100, client: int = 100, guaranteed: int = 60) -> SharedBudget:
    return SharedBudget(
        limit,
        {
            "strangers": BudgetGroup(guaranteed, guaranteed, (network, client)),
            "accounts": BudgetGroup(limit, limit - guaranteed, (limit,)),
        },
    )


def held(shares: SharedBudget, path: Path, amount: int) -> Reservation:
    """Return a revocable holding."""
    holding = shares.reservation(path)
    holding.offer(lambda: None)
    holding.grow_to(amount)
    return holding


def test_strangers_cannot_use_the_reserve_of_accounts() -> None:
    shares = budget()
    held(shares, stranger("192.0.2.1"), 60)
    with pytest.raises(OverBudget):
        held(shares, stranger("192.0.2.1"), 1)
    held(shares, account(1), 40)
    assert shares.used == 100


def test_accounts_return_bytes_that_they_borrowed() -> None:
    shares = budget()
    borrowed = held(shares, account(1), 100)
    held(shares, stranger("192.0.2.1"), 5)
    assert borrowed.revoked
    own = held(shares, account(1), 95)
    with pytest.raises(OverBudget):
        held(shares, account(2), 96)
    assert not own.revoked


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_client_has_a_maximum(first: str, second: str, *, same: bool) -> None:
    shares = budget(client=10)
    held(shares, stranger(first), 10)
    if same:
        with pytest.raises(OverBudget):
            held(shares, stranger(second), 1)
    else:
        held(shares, stranger(second), 10)


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        (["192.0.2.1", "192.0.2.2", "192.0.2.3"], "192.0.3.1"),
        (["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"], "2001:db8:1:1::1"),
    ],
)
def test_network_has_a_maximum(addresses: list[str], other: str) -> None:
    shares = budget(network=20, client=10)
    first, second = (held(shares, stranger(address), 10) for address in addresses[:2])
    with pytest.raises(OverBudget):
        held(shares, stranger(addresses[2]), 10)
    held(shares, stranger(other), 10)
    held(shares, stranger(addresses[2]), 1)  # a client that holds less gets it from another of the network
    assert first.revoked
    assert not second.revoked


def test_refusal_changes_nothing() -> None:
    shares = budget(client=10)
    holding = held(shares, stranger("192.0.2.1"), 4)
    with pytest.raises(OverBudget):
        holding.grow_to(11)
    assert (holding.amount, shares.used) == (4, 4)
    holding.release()
    holding.release()
    assert shares.used == 0
    assert shares.used_by(stranger("192.0.2.1")) == 0


def test_the_largest_gives_to_the_smaller() -> None:
    shares = budget()
    large = held(shares, stranger("192.0.2.1"), 35)
    middle = held(shares, stranger("198.51.100.1"), 25)
    small = held(shares, stranger("203.0.113.1"), 3)
    assert (large.revoked, middle.revoked, small.revoked) == (True, False, False)
    assert shares.used == 28
    with pytest.raises(OverBudget):
        large.grow_to(1)


def test_a_larger_holder_gets_nothing_from_smaller_ones() -> None:
    shares = budget()
    mine = held(shares, stranger("192.0.2.1"), 30)
    other = held(shares, stranger("198.51.100.1"), 30)
    with pytest.raises(OverBudget):
        mine.grow_to(31)
    assert not other.revoked
    assert mine.amount == 30


def test_within_a_network_the_largest_client_gives() -> None:
    shares = budget()
    large = held(shares, stranger("192.0.2.1"), 40)
    small = held(shares, stranger("192.0.2.2"), 20)
    held(shares, stranger("192.0.2.3"), 5)
    assert large.revoked
    assert not small.revoked


def test_a_nearly_finished_holding_is_kept() -> None:
    shares = budget()
    done = held(shares, stranger("192.0.2.1"), 60)
    done.keep()
    with pytest.raises(OverBudget):
        held(shares, stranger("198.51.100.1"), 1)
    done.offer(lambda: None)
    held(shares, stranger("198.51.100.1"), 1)
    assert done.revoked


def test_revoked_holder_releases_immediately() -> None:
    shares = budget()
    kept = bytearray(60)
    holding = shares.reservation(stranger("192.0.2.1"))
    holding.offer(kept.clear)
    holding.grow_to(60)
    held(shares, stranger("198.51.100.1"), 1)
    assert not kept


def test_login_moves_a_holding() -> None:
    shares = budget()
    holding = held(shares, stranger("192.0.2.1"), 10)
    holding.move(account(1))
    assert (shares.used, shares.used_by(account(1)), shares.used_by(stranger("192.0.2.1"))) == (10, 10, 0)


@pytest.mark.parametrize("seed", range(20))
def test_counts_stay_right_and_small_requests_succeed(seed: int) -> None:
    """After 300 random steps of hostile clients, a request below an equal share is never refused."""
    shares, chance = budget(1000, network=1000, client=1000, guaranteed=1000), random.Random(seed)
    holdings: list[Reservation] = []
    for _ in range(300):
        match chance.randrange(4):
            case 0 if holdings:
                holdings.pop(chance.randrange(len(holdings))).release()
            case 1 if holdings:
                holding = chance.choice(holdings)
                with contextlib.suppress(OverBudget):
                    holding.grow_to(holding.amount + chance.randrange(200))
            case _:
                path = stranger(f"192.0.{chance.randrange(8)}.{chance.randrange(3)}")
                with contextlib.suppress(OverBudget):
                    holdings.append(held(shares, path, chance.randrange(300)))
        assert shares.used == sum(holding.amount for holding in holdings) <= 1000
        modest = held(shares, stranger("203.0.113.9"), 1000 // 9)  # of nine networks
        modest.release()


@pytest.mark.parametrize("in_flight", [50, 64, 128, 1000])
def test_lone_peer_can_send_the_longest_message(in_flight: int) -> None:
    shares = byte_shares(in_flight, ShareSettings(), longest=50)
    message = shares.reservation(stranger("192.0.2.1"))
    message.grow_to(50)
    message.release()
    shares.reservation(account(1)).grow_to(50)


def test_account_has_a_maximum() -> None:
    shares = byte_shares(1000, ShareSettings(account=0.3), longest=50)
    shares.reservation(account(1)).grow_to(300)
    with pytest.raises(OverBudget):
        shares.reservation(account(1)).grow_to(1)
    shares.reservation(account(2)).grow_to(300)
