"""Counts that stay true whatever comes and goes."""

import pytest
from prometheus_client import REGISTRY

from paquebot.runtime.limits import ConnectionLimit, OctetBudget, OverBudget


def test_connections_are_bounded_in_total_and_per_client() -> None:
    limit = ConnectionLimit(total=3, per_client=2)
    assert [limit.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert limit.enter("192.0.2.2")
    assert not limit.enter("192.0.2.3")
    limit.leave("192.0.2.1")
    assert limit.enter("192.0.2.3")
    assert limit.now == 3


def test_leaving_of_an_unknown_client_changes_no_count() -> None:
    limit = ConnectionLimit(total=1, per_client=1)
    assert limit.enter("192.0.2.1")
    with pytest.raises(KeyError):
        limit.leave("192.0.2.2")
    assert limit.now == 1
    assert not limit.enter("192.0.2.2")
    limit.leave("192.0.2.1")
    with pytest.raises(KeyError):
        limit.leave("192.0.2.1")
    assert limit.now == 0
    assert limit.enter("192.0.2.1")
    assert not limit.enter("192.0.2.1")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:db8::1", "2001:0DB8:0::2", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("fe80::1%eth0", "fe80::1%eth1", False),
        ("not:an:address", "not:an:address", True),
    ],
)
def test_ipv6_clients_are_counted_per_network(first: str, second: str, same: bool) -> None:
    limit = ConnectionLimit(total=9, per_client=1)
    assert limit.enter(first)
    assert limit.enter(second) is not same
    limit.leave(first)
    assert limit.enter(second) is same


def test_reservation_grows_and_is_given_back_whole() -> None:
    budget = OctetBudget(100)
    with budget.reservation() as one, budget.reservation() as two:
        one.grow_to(60)
        one.grow_to(40)  # no less than before
        two.grow_to(40)
        assert budget.used == REGISTRY.get_sample_value("paquebot_in_flight_bytes") == 100
        with pytest.raises(OverBudget):
            two.grow_to(41)
        assert (one.octets, two.octets, budget.used) == (60, 40, 100)
        one.release()
        one.release()
        two.grow_to(100)
    assert budget.used == REGISTRY.get_sample_value("paquebot_in_flight_bytes") == 0


def test_reservation_is_given_back_after_an_error() -> None:
    budget = OctetBudget(10)

    def one_message() -> None:
        with budget.reservation() as reservation:
            reservation.grow_to(10)
            reservation.grow_to(11)

    with pytest.raises(OverBudget):
        one_message()
    assert budget.used == 0
    budget.take(10)
    with pytest.raises(OverBudget):
        budget.take(1)
    budget.give_back(10)
    assert budget.used == 0
