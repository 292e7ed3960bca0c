"""When the next commit starts. The tests choose the times, in seconds."""

from __future__ import annotations

import pytest

from paquebot.spool.commit_timing import MAX_LINGERS, CommitTiming

LINGER = 0.005
SLOW = 0.03


def new_timing(max_messages: int = 500) -> CommitTiming:
    return CommitTiming(LINGER, SLOW, max_messages)


def test_a_lone_message_does_not_wait() -> None:
    timing = new_timing()
    for number in range(3):
        now = 10.0 + number
        timing.transaction_began(now)
        timing.message_arrived(now, 1)
        assert timing.pause(now, 1, writers=1) <= 0
        timing.commit_ended(now + 0.004, 1, 0, 0.004)


def test_the_first_of_several_messages_waits_for_the_others() -> None:
    timing = new_timing()
    timing.message_arrived(1.0, 1)
    assert timing.pause(1.0, 1, writers=3) == pytest.approx(LINGER)
    timing.message_arrived(1.001, 2)
    assert timing.pause(1.001, 2, writers=3) > 0
    timing.message_arrived(1.002, 3)
    assert timing.pause(1.002, 3, writers=3) <= 0


def test_the_wait_ends_without_activity() -> None:
    timing = new_timing()
    timing.message_arrived(1.0, 1)
    timing.message_arrived(1.004, 2)
    assert timing.pause(1.006, 2, writers=9) == pytest.approx(1.004 + LINGER - 1.006)
    timing.transaction_began(1.008)
    assert timing.pause(1.012, 2, writers=9) > 0
    assert timing.pause(1.008 + LINGER + 0.0001, 2, writers=9) <= 0


def test_the_wait_ends_however_many_messages_arrive() -> None:
    timing = new_timing()
    waiting, now = 0, 1.0
    while waiting == 0 or timing.pause(now, waiting, writers=1000) > 0:
        waiting += 1
        timing.message_arrived(now, waiting)
        now += LINGER / 2
    assert now - 1.0 == pytest.approx(MAX_LINGERS * LINGER, abs=LINGER)


def test_a_full_pack_is_committed_at_once() -> None:
    timing = new_timing(max_messages=2)
    timing.message_arrived(1.0, 1)
    timing.message_arrived(1.0, 2)
    assert timing.pause(1.0, 2, writers=50) <= 0


def test_messages_that_waited_for_a_commit_wait_for_its_senders() -> None:
    timing = new_timing()
    for number in range(8):
        timing.message_arrived(1.0 + number / 10_000, number + 1)  # these arrived while another 12 were committed
    timing.commit_ended(1.01, 12, 8, 0.01)
    assert timing.pause(1.01, 8, writers=8) == pytest.approx(LINGER)
    for number in range(8, 20):
        assert timing.pause(1.012, number, writers=number) > 0
        timing.message_arrived(1.012, number + 1)
    assert timing.pause(1.012, 20, writers=20) <= 0


def test_a_round_expires() -> None:
    timing = new_timing()
    timing.commit_ended(1.0, 50, 0, 0.004)
    timing.message_arrived(1.1, 1)
    assert timing.pause(1.1, 1, writers=1) > 0
    timing.commit_ended(1.11, 1, 0, 0.004)  # the next one, alone, does not wait again
    timing.message_arrived(1.2, 1)
    assert timing.pause(1.2, 1, writers=1) <= 0
    timing.commit_ended(1.3, 50, 0, 0.004)
    timing.message_arrived(60.0, 1)
    assert timing.pause(60.0, 1, writers=1) <= 0


def test_what_is_slow_depends_on_the_usual_time() -> None:
    timing = new_timing()
    assert timing.slow == SLOW
    for _ in range(50):
        timing.commit_ended(1.0, 1, 0, 0.004)
    assert timing.slow == SLOW
    for _ in range(50):
        timing.commit_ended(1.0, 1, 0, 0.06)
    assert timing.slow == pytest.approx(0.12, rel=0.01)


def test_a_message_waits_longer_where_commits_take_long() -> None:
    timing = new_timing()
    for _ in range(50):
        timing.commit_ended(1.0, 1, 0, 0.03)
    timing.message_arrived(60.0, 1)
    assert timing.pause(60.0, 1, writers=2) == pytest.approx(0.015, rel=0.01)
    timing.message_arrived(60.1, 2)
    assert timing.pause(60.1, 2, writers=3) <= 0  # 0.1 s is longer than any wait


def test_one_very_slow_commit_does_not_make_messages_wait_long() -> None:
    timing = new_timing()
    timing.commit_ended(1.0, 1, 0, 10.0)
    timing.message_arrived(60.0, 1)
    assert timing.pause(60.0, 1, writers=2) == pytest.approx(0.02)
    assert timing.slow <= 0.25
