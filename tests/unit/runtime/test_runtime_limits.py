"""A count that stays true whatever comes and goes."""

import pytest
from prometheus_client import REGISTRY

from paquebot.runtime.shares.in_flight import ByteBudget, OverBudget


def test_reservation_grows_and_is_given_back_whole() -> None:
    budget = ByteBudget(100)
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
    budget = ByteBudget(10)

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
