"""Strangers leave seats for those who log in, and a network that has many gives one to a client of another."""

import itertools

import pytest

from paquebot.runtime.net.slots import LOGIN, MAIL, ConnectionSlot, ConnectionSlots, SlotLimits


def limits(
    total: int = 8, *, reserved: float = 0.0, client: int = 99, network: int = 99, account: int = 9
) -> SlotLimits:
    return SlotLimits(total, reserved, client, network, account)


def entered(
    seats: ConnectionSlots, address: str, door: str = LOGIN, *, ends: list[str] | None = None
) -> ConnectionSlot:
    """A seat whose session can be displaced; it notes that in `ends`."""
    seat = seats.enter(address, door)
    assert seat is not None
    seat.offer(lambda: None if ends is None else ends.append(address))
    return seat


def test_total_and_clients_are_bounded() -> None:
    seats = ConnectionSlots.of_logins(limits(3, client=2))
    one = [seats.enter("192.0.2.1") for _ in range(3)]
    assert [seat is not None for seat in one] == [True, True, False]
    assert seats.enter("192.0.2.2")
    assert seats.enter("198.51.100.3") is None
    assert one[0] is not None
    one[0].leave()
    one[0].leave()
    assert seats.enter("198.51.100.3")
    assert seats.now == 3


@pytest.mark.parametrize("prefix", ["192.0.2.", "2001:db8:7:{}::"])
def test_networks_are_bounded(prefix: str) -> None:
    seats = ConnectionSlots.of_logins(limits(99, client=1, network=3))
    found = [seats.enter(prefix.format(number) + f"{number}") for number in range(1, 6)]
    assert sum(seat is not None for seat in found) == 3


def test_a_client_in_many_networks_is_one_too_many_only_there() -> None:
    seats = ConnectionSlots.of_logins(limits(99, client=1, network=1))
    assert all(seats.enter(f"2001:db8:{number:x}::1") for number in range(1, 9))


def test_strangers_leave_the_reserve() -> None:
    seats = ConnectionSlots.of_logins(limits(8, reserved=0.25))
    strangers = [entered(seats, "192.0.2.1") for _ in range(6)]
    assert seats.enter("192.0.2.1") is None
    assert strangers[0].log_in(7)
    assert entered(seats, "192.0.2.1")
    assert seats.now == 7


def test_login_counts_for_the_account_alone() -> None:
    seats = ConnectionSlots.of_logins(limits(client=1, account=2))
    for _ in range(2):
        assert entered(seats, "192.0.2.1").log_in(7)
    third = entered(seats, "192.0.2.1")
    assert not third.log_in(7)
    assert seats.enter("192.0.2.1") is None  # it stayed with its client
    assert third.log_in(8)
    third.leave()
    assert seats.now == 2


def test_a_seat_that_was_given_away_is_not_logged_in() -> None:
    """Its connection ends; in the meantime its client may prove who it is."""
    seats = ConnectionSlots.of_logins(limits(2))
    two = [entered(seats, "192.0.2.1") for _ in range(2)]
    assert entered(seats, "198.51.100.1")
    assert sorted(seat.log_in(7) for seat in two) == [False, True]
    assert seats.now == 2


def test_the_largest_network_gives_a_seat() -> None:
    ends: list[str] = []
    seats = ConnectionSlots.of_logins(limits(8))
    for number in range(6):
        entered(seats, f"192.0.2.{number}", ends=ends)
    for number in range(2):
        entered(seats, f"198.51.100.{number}", ends=ends)
    assert entered(seats, "203.0.113.1")
    assert len(ends) == 1
    assert ends[0].startswith("192.0.2.")
    assert seats.now == 8


def test_those_who_logged_in_are_never_displaced() -> None:
    seats = ConnectionSlots.of_logins(limits(3))
    ends: list[str] = []
    for number in range(3):
        assert entered(seats, "192.0.2.1", ends=ends).log_in(number)
    assert seats.enter("203.0.113.1") is None
    assert ends == []


def test_mail_hosts_leave_a_way_in_for_clients_that_log_in() -> None:
    seats = ConnectionSlots.of_mail_and_logins(limits(8, reserved=0.25))
    addresses = (f"192.0.{number}.1" for number in itertools.count())
    mail = [seats.enter(next(addresses), MAIL) for _ in range(9)]
    assert sum(seat is not None for seat in mail) == 6
    logged_in = entered(seats, "203.0.113.1")
    assert logged_in.log_in(1)
    assert entered(seats, "203.0.113.1").log_in(1)


def test_clients_about_to_log_in_leave_room_for_mail() -> None:
    ends: list[str] = []
    seats = ConnectionSlots.of_mail_and_logins(limits(8, reserved=0.25))
    about = [entered(seats, f"192.0.{number}.1", ends=ends) for number in range(7)]
    assert seats.enter("192.0.9.1") is None  # each network has one: nobody has more than this one would
    assert len(about) == 7
    for number in range(6):
        assert seats.enter(f"198.51.{number}.1", MAIL)
    assert len(ends) == 5
