"""Dates within every program's calendar, and rows read one by one when one of them is bad; without I/O."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pytest

from paquebot.janitor.troubles import Stage
from paquebot.mailstore.bad_rows import one_by_one
from paquebot.mailstore.dates import EARLIEST, LATEST, of_microseconds, readable, storable
from paquebot.mailstore.messages.keywords import is_keyword
from paquebot.mailstore.upkeep.troubles import STAGES
from paquebot.runtime.postgres.pool import PostgresTroubled, PostgresUnavailable

UTC = datetime.UTC


@pytest.mark.parametrize("hours", [-23, -1, 0, 1, 23])
def test_the_ends_of_the_calendar_are_brought_inside(hours: int) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=hours))
    assert storable(datetime.datetime.min.replace(tzinfo=zone)) == EARLIEST
    assert storable(datetime.datetime.max.replace(tzinfo=zone)) == LATEST
    day = datetime.datetime(2024, 2, 29, 12, tzinfo=zone)
    assert (storable(day), storable(day).tzinfo) == (day, UTC)


def test_a_date_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        storable(datetime.datetime(2024, 1, 1))


def test_microseconds_beyond_the_calendar() -> None:
    assert of_microseconds(-(2**63)) == EARLIEST
    assert of_microseconds(2**63 - 1) == LATEST
    assert of_microseconds(1_700_000_000_123_456) == datetime.datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)


def test_infinite_dates_as_asyncpg_reads_them() -> None:
    assert readable(datetime.datetime.min) == (EARLIEST, False)
    assert readable(datetime.datetime.max) == (LATEST, False)
    assert readable(EARLIEST) == (EARLIEST, True)


@pytest.mark.parametrize("bad", [set(), {0}, {7}, {3, 4}, set(range(0, 100, 9))])
async def test_only_the_bad_ones_are_left_out(bad: set[int]) -> None:
    asked = 0
    left_out: list[int] = []

    async def read(keys: Sequence[int]) -> list[int]:
        nonlocal asked
        asked += 1
        if bad.intersection(keys):
            raise PostgresTroubled("an invalid page")
        return list(keys)

    keys = list(range(100))
    assert await one_by_one(read, keys, lambda key, _: left_out.append(key)) == [k for k in keys if k not in bad]
    assert left_out == sorted(bad)
    assert asked <= 1 + 14 * len(bad), "halves, down to each bad one"


async def test_an_outage_leaves_no_row_out() -> None:
    async def away(keys: Sequence[int]) -> list[int]:
        raise PostgresUnavailable("away")

    with pytest.raises(PostgresUnavailable):
        await one_by_one(away, [1, 2], lambda *_: None)


async def test_when_all_rows_fail_the_error_is_raised() -> None:
    left_out: list[int] = []

    async def broken(keys: Sequence[int]) -> list[int]:
        raise TypeError("a fault of ours")

    with pytest.raises(TypeError):
        await one_by_one(broken, range(500), lambda key, _: left_out.append(key))
    assert len(left_out) == 16


@pytest.mark.parametrize("word", ["", "a b", "a\0", "x\r\n* BYE", "(", '"', "{3}", "\ud800", "ü", "x" * 1001])
def test_invalid_keywords(word: str) -> None:
    assert not is_keyword(word)


def test_the_stages_of_the_metric_are_the_janitors() -> None:
    assert tuple(stage.value for stage in Stage) == STAGES
