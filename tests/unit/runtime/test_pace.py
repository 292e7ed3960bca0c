"""The minimum rate of a transfer, on a manual clock."""

import pytest

from paquebot.runtime.net.pace import Pace, PaceSettings
from paquebot.runtime.settings import ByteSize, Seconds


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pace(clock: Clock, *, rate: int = 10, window: float = 60.0, seconds: float = 600.0) -> Pace:
    return Pace(PaceSettings(ByteSize(rate), Seconds(window)), clock, seconds)


def test_silence_has_its_own_bound() -> None:
    clock = Clock()
    assert pace(clock).deadline(5.0) == 1005.0


def test_a_trickle_ends_with_the_window() -> None:
    clock = Clock()
    transfer = pace(clock)
    for _ in range(59):
        clock.now += 1.0
        transfer.came(1)
        assert transfer.deadline(30.0) <= 1060.0
    assert transfer.deadline(30.0) == 1060.0


def test_a_transfer_at_the_minimum_rate_continues() -> None:
    clock = Clock()
    transfer = pace(clock)
    for _ in range(19):
        clock.now += 30.0
        transfer.came(600)
        assert transfer.deadline(60.0) > clock.now
    assert transfer.deadline(60.0) == transfer.last == 1600.0


def test_bytes_sent_early_are_no_credit_for_later() -> None:
    clock = Clock()
    transfer = pace(clock)
    transfer.came(10_000_000)
    assert transfer.deadline(100.0) == 1060.0


def test_time_between_chunks_is_not_counted() -> None:
    clock = Clock()
    transfer = pace(clock)
    clock.now += 20.0
    transfer.pause()
    clock.now += 300.0
    transfer.resume()
    assert transfer.deadline(100.0) == clock.now + 40.0


def test_one_byte_in_each_chunk_is_too_slow() -> None:
    clock = Clock()
    transfer = pace(clock)
    for _ in range(3):
        clock.now += 20.0
        transfer.came(1)
        transfer.pause()
        transfer.resume()
    assert transfer.deadline(100.0) == clock.now


def test_without_a_rate_there_is_no_limit() -> None:
    clock = Clock()
    assert pace(clock, rate=0).deadline(1e9) == 1600.0


def test_invalid_settings() -> None:
    with pytest.raises(ValueError, match="PAQUEBOT_MIN_RATE"):
        PaceSettings(ByteSize(-1))
    with pytest.raises(ValueError, match="PAQUEBOT_MIN_RATE"):
        PaceSettings(window=Seconds(0.0))
