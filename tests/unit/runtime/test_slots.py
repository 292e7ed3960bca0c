"""Unauthenticated clients leave slots for logins, and the largest network gives one to a client of another."""

import itertools

import pytest

from paquebot.runtime.net.slots import LOGIN, MAIL, ConnectionSlot, ConnectionSlots, SlotLimits


def limits(
    total: int = 8, *, reserved: float = 0.0, client: int = 99, network: int = 99, account: int = 9
) -> SlotLimits:
    return SlotLimits(total, reserved, client, network, account)


def acquired(
    slots: ConnectionSlots, address: str, kind: str = LOGIN, *, ends: list[str] | None = None
) -> ConnectionSlot:
    """Acquire a slot whose session can be displaced, which `ends` records."""
    slot = slots.acquire(address, kind)
    assert slot is not None
    slot.offer(lambda: None if ends is None else ends.append(address))
    return slot


def test_total_and_clients_are_bounded() -> None:
    slots = ConnectionSlots.of_logins(limits(3, client=2))
    one = [slots.acquire("192.0.2.1") for _ in range(3)]
    assert [slot is not None for slot in one] == [True, True, False]
    assert slots.acquire("192.0.2.2")
    assert slots.acquire("198.51.100.3") is None
    assert one[0] is not None
    one[0].release()
    one[0].release()
    assert slots.acquire("198.51.100.3")
    assert slots.used == 3


@pytest.mark.parametrize("prefix", ["192.0.2.", "2001:db8:7:{}::"])
def test_networks_are_bounded(prefix: str) -> None:
    slots = ConnectionSlots.of_logins(limits(99, client=1, network=3))
    found = [slots.acquire(prefix.format(number) + f"{number}") for number in range(1, 6)]
    assert sum(slot is not None for slot in found) == 3


def test_a_client_in_many_networks_is_one_too_many_only_there() -> None:
    slots = ConnectionSlots.of_logins(limits(99, client=1, network=1))
    assert all(slots.acquire(f"2001:db8:{number:x}::1") for number in range(1, 9))


def test_strangers_leave_the_reserve() -> None:
    slots = ConnectionSlots.of_logins(limits(8, reserved=0.25))
    strangers = [acquired(slots, "192.0.2.1") for _ in range(6)]
    assert slots.acquire("192.0.2.1") is None
    assert strangers[0].log_in(7)
    assert acquired(slots, "192.0.2.1")
    assert slots.used == 7


def test_login_counts_for_the_account_alone() -> None:
    slots = ConnectionSlots.of_logins(limits(client=1, account=2))
    for _ in range(2):
        assert acquired(slots, "192.0.2.1").log_in(7)
    third = acquired(slots, "192.0.2.1")
    assert not third.log_in(7)
    assert slots.acquire("192.0.2.1") is None  # the slot stayed with its client
    assert third.log_in(8)
    third.release()
    assert slots.used == 2


def test_a_revoked_slot_is_not_logged_in() -> None:
    """The login of a client may succeed while its connection is being closed."""
    slots = ConnectionSlots.of_logins(limits(2))
    two = [acquired(slots, "192.0.2.1") for _ in range(2)]
    assert acquired(slots, "198.51.100.1")
    assert sorted(slot.log_in(7) for slot in two) == [False, True]
    assert slots.used == 2


def test_the_largest_network_gives_a_slot() -> None:
    ends: list[str] = []
    slots = ConnectionSlots.of_logins(limits(8))
    for number in range(6):
        acquired(slots, f"192.0.2.{number}", ends=ends)
    for number in range(2):
        acquired(slots, f"198.51.100.{number}", ends=ends)
    assert acquired(slots, "203.0.113.1")
    assert len(ends) == 1
    assert ends[0].startswith("192.0.2.")
    assert slots.used == 8


def test_sessions_with_a_login_are_never_displaced() -> None:
    slots = ConnectionSlots.of_logins(limits(3))
    ends: list[str] = []
    for number in range(3):
        assert acquired(slots, "192.0.2.1", ends=ends).log_in(number)
    assert slots.acquire("203.0.113.1") is None
    assert ends == []


def test_mail_hosts_leave_slots_for_clients_that_log_in() -> None:
    slots = ConnectionSlots.of_mail_and_logins(limits(8, reserved=0.25))
    addresses = (f"192.0.{number}.1" for number in itertools.count())
    mail = [slots.acquire(next(addresses), MAIL) for _ in range(9)]
    assert sum(slot is not None for slot in mail) == 6
    logged_in = acquired(slots, "203.0.113.1")
    assert logged_in.log_in(1)
    assert acquired(slots, "203.0.113.1").log_in(1)


def test_clients_about_to_log_in_leave_room_for_mail() -> None:
    ends: list[str] = []
    slots = ConnectionSlots.of_mail_and_logins(limits(8, reserved=0.25))
    about = [acquired(slots, f"192.0.{number}.1", ends=ends) for number in range(7)]
    assert slots.acquire("192.0.9.1") is None  # each network has one slot: none has more than this one would
    assert len(about) == 7
    for number in range(6):
        assert slots.acquire(f"198.51.{number}.1", MAIL)
    assert len(ends) == 5
