"""Turns and shares of destinations, of those that have not answered, of senders, and of long attempts."""

from typing import Any

import pytest

from paquebot.relay.outcome import NO_ANSWER, deferred
from paquebot.relay.queue.destinations import AttemptSlot, Destinations
from paquebot.relay.settings import RelayLoadSettings, RetrySettings
from paquebot.runtime.settings import Seconds

WHY = deferred(NO_ANSWER, "connection timed out")


class Turns:
    """Attempts are named by their destination's letter; all have one sender unless a test gives another."""

    def __init__(self, **load: Any) -> None:
        self.now = 1000.0
        retry = RetrySettings(back_off=Seconds(30.0), back_off_max=Seconds(100.0))
        load.setdefault("unproven", load.get("attempts", 100) - 1)
        self.all: Destinations[str] = Destinations(RelayLoadSettings(**load), retry, lambda: self.now)
        self.running: dict[str, AttemptSlot[str]] = {}

    def add(self, *attempts: str, sender: str = "s") -> list[bool]:
        return [self.all.add(attempt[0], sender, attempt) for attempt in attempts]

    def begin(self) -> list[str]:
        begun = []
        while (slot := self.all.next()) is not None:
            begun.append(slot.attempt)
            self.running[slot.attempt] = slot
        return begun

    def done(self, *attempts: str) -> None:
        for attempt in attempts:
            self.all.done(self.running.pop(attempt))

    def prove(self, *keys: str) -> None:
        for key in keys:
            assert self.add(f"{key}0") == [True]
            assert self.begin() == [f"{key}0"]
            self.all.answered(key)
            self.done(f"{key}0")


def test_destinations_take_turns() -> None:
    turns = Turns(attempts=4)
    turns.prove("a", "b", "c")
    turns.add("a1", "a2", "a3", "a4", "b1", "c1")
    assert turns.begin() == ["a1", "b1", "c1", "a2"]
    turns.done("a1")
    assert turns.begin() == ["a3"]
    assert (turns.all.running, turns.all.waiting) == (4, 1)


def test_concurrency_is_bounded_by_destination() -> None:
    turns = Turns(per_destination=3, per_new_destination=2)
    turns.add(*(f"a{n}" for n in range(9)), "b1")
    assert turns.begin() == ["a0", "b1", "a1"], "a few until it has answered"
    turns.all.answered("a")
    assert turns.begin() == ["a2"], "then its share"
    turns.done("a0")
    assert turns.begin() == ["a3"]


def test_any_number_of_unknown_destinations_leaves_slots_to_those_that_answer() -> None:
    turns = Turns(attempts=10, unproven=5)
    turns.prove("a")
    turns.add(*(chr(0x4E00 + n) for n in range(150)))
    assert len(turns.begin()) == 5
    turns.add("a1", "a2")
    assert turns.begin() == ["a1", "a2"]


def test_jobs_for_unknown_destinations_use_a_part_of_the_window() -> None:
    turns = Turns(attempts=2, waiting=20, waiting_per_new_destination=3, waiting_per_sender=1000)
    turns.prove("a")
    assert turns.add(*(f"b{n}" for n in range(7))) == [True] * 5 + [False] * 2, (
        "the only destination may have more than a few"
    )
    assert turns.add(*(f"c{n}" for n in range(7))) == [True] * 3 + [False] * 4, "beside another a few"
    assert turns.add("d1", "d2", "d3") == [True, True, False], "half of the window for those with several"
    accepted = turns.add(*(chr(0x4E00 + n) for n in range(50)))
    assert (sum(accepted), turns.all.unproven_waiting) == (10, 20), "and the rest for the first of each"
    assert turns.add("a1") == [True], "a known destination has a place"


def test_a_few_slow_destinations_leave_room_in_the_window() -> None:
    """They answer at first and become known, and then do not answer; their mail is from many senders."""
    turns = Turns(waiting_per_sender=1000)
    turns.prove(*"abcdefgh")
    for key in "abcdefgh":
        for number in range(100):
            turns.add(f"{key}{number}", sender=f"s{number % 7}")
    turns.begin()
    assert turns.all.waiting <= RelayLoadSettings().waiting * 9 // 10, (
        "otherwise the relay would fetch nothing more for any destination"
    )
    turns.prove("z")
    assert turns.add("z1", "z2", "z3") == [True] * 3


def test_a_slow_attempt_leaves_its_slot() -> None:
    turns = Turns(attempts=3, unproven=2, slow=2)
    turns.add("a1", "b1", "c1", "d1", "e1")
    assert turns.begin() == ["a1", "b1"]
    assert turns.all.slowed(turns.running["a1"])
    assert turns.all.slowed(turns.running["b1"])
    assert turns.begin() == ["c1", "d1"]
    assert not turns.all.slowed(turns.running["c1"]), "slow attempts have a limit too"
    assert (turns.all.running, turns.all.slow) == (2, 2)
    assert turns.all.counts() == {"active": 4, "slow": 2, "resting": 0}
    turns.done("a1")
    assert turns.all.slowed(turns.running["c1"])
    turns.done("b1", "c1", "d1")
    assert turns.begin() == ["e1"]
    turns.done("e1")
    assert (turns.all.running, turns.all.unproven_running, turns.all.slow) == (0, 0, 0)


def test_slow_attempts_count_for_their_destination() -> None:
    turns = Turns(per_new_destination=2)
    turns.add("a1", "a2", "a3")
    assert turns.begin() == ["a1", "a2"]
    assert turns.all.slowed(turns.running["a1"])
    assert turns.begin() == []


def test_senders_take_turns_at_a_destination() -> None:
    turns = Turns(per_destination=1)
    turns.prove("a")
    turns.add(*(f"a{n}" for n in range(1, 50)), sender="many")
    turns.add("a-single", sender="few")
    order = []
    while begun := turns.begin():
        order += begun
        turns.done(*begun)
    assert order[:3] == ["a1", "a-single", "a2"]


def test_a_sender_has_a_part_of_the_window_and_of_the_slots() -> None:
    turns = Turns(attempts=10, per_sender=6, waiting_per_sender=30, waiting_per_destination=20)
    turns.prove("a", "b", "c")
    assert turns.add(*(f"{key}{n}" for key in "abc" for n in range(1, 15)), sender="many").count(True) == 30
    assert len(turns.begin()) == 6
    assert turns.add("a-single", sender="few") == [True]
    assert turns.begin() == ["a-single"]


def test_a_single_message_has_a_place_beside_another_sender_s_many() -> None:
    turns = Turns(waiting_per_destination=3, attempts=2)
    turns.prove("a")
    assert turns.add("a1", "a2", "a3", "a4", sender="many") == [True, True, True, False]
    assert turns.add("a5", sender="few") == [True]


def test_many_jobs_of_a_destination_do_not_fill_the_process() -> None:
    turns = Turns(waiting_per_destination=2)
    turns.prove("a")
    assert turns.add("a0", "a1", "a2") == [True, True, False]
    assert turns.add("b1") == [True]
    waits = [turns.all.crowded_for("a")]
    for _ in range(20_000):
        turns.add("a4")
        waits.append(turns.all.crowded_for("a"))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2.0, 900.0), "the longer the queue, the later, within bounds"


def test_many_jobs_for_an_unknown_destination_are_deferred() -> None:
    turns = Turns(waiting_per_destination=1)
    turns.add(*(f"a{n}" for n in range(100)))
    assert turns.all.crowded_for("a") == 100.0


def test_deferred_jobs_return_at_the_rate_of_their_destination() -> None:
    turns = Turns(per_destination=1, waiting_per_destination=200, waiting=400)
    turns.prove("a")
    turns.add(*(f"a{n}" for n in range(200)))
    for _ in range(150):
        [begun] = turns.begin()
        turns.now += 0.5
        turns.done(begun)
    turns.add(*(f"a{n}" for n in range(300, 550)))
    assert 0.45 * 300 < turns.all.crowded_for("a") < 0.51 * 300


def test_an_unreachable_destination_rests_and_then_gets_one_attempt() -> None:
    turns = Turns(per_destination=3, per_new_destination=3)
    turns.add(*(f"a{n}" for n in range(6)))
    assert turns.begin() == ["a0", "a1", "a2"]
    for work in ("a0", "a1", "a2"):  # the three failed together: one failure
        turns.all.unreachable("a", WHY)
        turns.done(work)
    assert turns.all.resting("a") == (1030.0, WHY)
    for rest, work in ((30.0, "a3"), (60.0, "a4"), (100.0, "a5")):  # twice as long, and at most this
        assert turns.all.resting("a") == (turns.now + rest, WHY)
        turns.now += rest
        assert turns.all.resting("a") is None
        assert turns.begin() == [work], "one attempt"
        if work != "a5":
            turns.all.unreachable("a", WHY)
            turns.done(work)
    turns.all.answered("a")
    assert turns.all.resting("a") is None
    turns.done("a5")
    assert turns.all.counts() == {"active": 0, "slow": 0, "resting": 0}


@pytest.mark.parametrize("trouble", ["unreachable", "hung"])
def test_a_destination_that_stops_answering_is_unproven_again(trouble: str) -> None:
    turns = Turns(attempts=10, unproven=1, per_new_destination=1)
    turns.prove("a")
    turns.add("a1", "a2", "b1")
    assert turns.begin() == ["a1", "b1", "a2"]
    if trouble == "hung":
        turns.all.hung("a")
    else:
        turns.all.unreachable("a", WHY)
    assert not turns.all.is_proven("a")
    turns.done("a1", "a2")
    turns.now += 1000.0
    turns.add("a3")
    assert turns.begin() == [], "the slot for unknown destinations is in use"


def test_a_busy_destination_is_not_idle() -> None:
    turns = Turns()
    assert turns.all.is_idle("a")
    turns.add("a1")
    assert not turns.all.is_idle("a")
    turns.begin()
    turns.all.busy("a", 15.0)
    turns.done("a1")
    assert (turns.all.busy_until("a"), turns.all.is_idle("a")) == (turns.now + 15.0, False)
    turns.now += 15.0
    assert (turns.all.busy_until("a"), turns.all.is_idle("a")) == (0.0, True)


def test_a_waiting_job_can_be_withdrawn() -> None:
    turns = Turns(attempts=2)
    turns.add("a1", "a2", "b1", "c1")
    assert turns.begin() == ["a1"]
    assert sorted(turns.all.take_waiting()) == ["a2", "b1", "c1"]
    assert (turns.all.waiting, turns.all.unproven_waiting) == (0, 0)
