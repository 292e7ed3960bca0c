"""When the messages that wait for a commit have waited long enough. Times are seconds that the tests choose."""

from __future__ import annotations

import pytest

from paquebot.spool.commit_timing import PATIENCE, CommitTiming

LINGER = 0.005
SLOW = 0.03


def gathering(most: int = 500) -> CommitTiming:
    return CommitTiming(LINGER, SLOW, most)


def test_a_lone_sender_waits_for_nobody() -> None:
    found = gathering()
    for number in range(3):
        now = 10.0 + number
        found.stirred(now)
        found.arrived(now, 1)
        assert found.pause(now, 1, writers=1) <= 0
        found.committed(now + 0.004, 1, 0, 0.004)


def test_the_first_of_several_waits_until_all_have_come() -> None:
    found = gathering()
    found.arrived(1.0, 1)
    assert found.pause(1.0, 1, writers=3) == pytest.approx(LINGER)
    found.arrived(1.001, 2)
    assert found.pause(1.001, 2, writers=3) > 0
    found.arrived(1.002, 3)
    assert found.pause(1.002, 3, writers=3) <= 0


def test_it_ends_when_nothing_stirs_any_more() -> None:
    found = gathering()
    found.arrived(1.0, 1)
    found.arrived(1.004, 2)
    assert found.pause(1.006, 2, writers=9) == pytest.approx(1.004 + LINGER - 1.006)
    found.stirred(1.008)
    assert found.pause(1.012, 2, writers=9) > 0
    assert found.pause(1.008 + LINGER + 0.0001, 2, writers=9) <= 0


def test_it_ends_however_many_go_on_coming() -> None:
    found = gathering()
    waiting, now = 0, 1.0
    while waiting == 0 or found.pause(now, waiting, writers=1000) > 0:
        waiting += 1
        found.arrived(now, waiting)
        now += LINGER / 2
    assert now - 1.0 == pytest.approx(PATIENCE * LINGER, abs=LINGER)


def test_a_full_pack_goes_at_once() -> None:
    found = gathering(most=2)
    found.arrived(1.0, 1)
    found.arrived(1.0, 2)
    assert found.pause(1.0, 2, writers=50) <= 0


def test_who_waited_for_a_commit_goes_with_those_it_set_free() -> None:
    found = gathering()
    for number in range(8):
        found.arrived(1.0 + number / 10_000, number + 1)  # these came while another 12 were committed
    found.committed(1.01, 12, 8, 0.01)
    assert found.pause(1.01, 8, writers=8) == pytest.approx(LINGER)
    for number in range(8, 20):
        assert found.pause(1.012, number, writers=number) > 0
        found.arrived(1.012, number + 1)
    assert found.pause(1.012, 20, writers=20) <= 0


def test_a_round_is_forgotten() -> None:
    found = gathering()
    found.committed(1.0, 50, 0, 0.004)
    found.arrived(1.1, 1)
    assert found.pause(1.1, 1, writers=1) > 0
    found.committed(1.11, 1, 0, 0.004)  # the next alone is not kept waiting again
    found.arrived(1.2, 1)
    assert found.pause(1.2, 1, writers=1) <= 0
    found.committed(1.3, 50, 0, 0.004)
    found.arrived(60.0, 1)
    assert found.pause(60.0, 1, writers=1) <= 0


def test_what_is_slow_depends_on_what_is_usual() -> None:
    found = gathering()
    assert found.slow == SLOW
    for _ in range(50):
        found.committed(1.0, 1, 0, 0.004)
    assert found.slow == SLOW
    for _ in range(50):
        found.committed(1.0, 1, 0, 0.06)
    assert found.slow == pytest.approx(0.12, rel=0.01)


def test_where_commits_take_long_a_message_waits_longer() -> None:
    found = gathering()
    for _ in range(50):
        found.committed(1.0, 1, 0, 0.03)
    found.arrived(60.0, 1)
    assert found.pause(60.0, 1, writers=2) == pytest.approx(0.015, rel=0.01)
    found.arrived(60.1, 2)
    assert found.pause(60.1, 2, writers=3) <= 0  # 0.1 s are more than any waits


def test_a_sick_engine_does_not_make_them_wait_long_when_it_is_well_again() -> None:
    found = gathering()
    found.committed(1.0, 1, 0, 10.0)
    found.arrived(60.0, 1)
    assert found.pause(60.0, 1, writers=2) == pytest.approx(0.02)
    assert found.slow <= 0.25
