"""Dates that PostgreSQL can keep and every program can read again.

PostgreSQL has infinite dates and many thousands of years; Python has the years 1 to 9999. asyncpg writes the first and
the last moment of Python as `-infinity` and `infinity`, without a word, and what a query does with these (a number of
seconds, a date with a zone) fails for all rows of the query. So no such date is written, and none is read as it is.
"""

import datetime

EARLIEST = datetime.datetime(1, 1, 2, tzinfo=datetime.UTC)
LATEST = datetime.datetime(9999, 12, 30, 23, 59, 59, tzinfo=datetime.UTC)
"""The bounds of what is written: in every zone of the world a date with a year of four digits. Programs give the ends
of their own calendars for "no date"; the message is worth more than that, so it gets the nearest date."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST = "'0001-01-01 00:00:00.000001+00'::timestamptz"
_LAST = "'9999-12-31 23:59:59.999998+00'::timestamptz"
IN_RANGE = f"BETWEEN {_FIRST} AND {_LAST}"
"""SQL: whether Python can read the date. Old programs wrote what is between these and the bounds: that stays."""


def storable(moment: datetime.datetime) -> datetime.datetime:
    """The moment in UTC, or the bound that is next to it. Raises ValueError for one without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a date to keep has a zone")
    if moment <= EARLIEST:  # compared with its zone: in UTC it may be outside every calendar
        return EARLIEST
    return LATEST if moment >= LATEST else moment.astimezone(datetime.UTC)


def of_microseconds(microseconds: int) -> datetime.datetime:
    """Of Unix time, without the rounding of a float. What Python cannot read is the bound next to it."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=microseconds)
    except OverflowError:
        return EARLIEST if microseconds < 0 else LATEST


def clamped(column: str) -> str:
    """SQL: the column, or the bound next to it where Python cannot read it."""
    return (
        f"CASE WHEN {column} < {_FIRST} THEN '{EARLIEST.isoformat()}'::timestamptz "
        f"WHEN {column} > {_LAST} THEN '{LATEST.isoformat()}'::timestamptz ELSE {column} END"
    )


def marked(column: str) -> str:
    """SQL: the column, infinite where Python cannot read it: so it can be fetched, and `readable` sees it."""
    return (
        f"CASE WHEN {column} < {_FIRST} THEN '-infinity' WHEN {column} > {_LAST} THEN 'infinity' "
        f"ELSE {column} END AS {column}"
    )


def readable(moment: datetime.datetime) -> tuple[datetime.datetime, bool]:
    """What `marked` gave, or the bound next to it, and whether it was a date: asyncpg reads an infinite one without a
    zone."""
    if moment.tzinfo is not None:
        return moment, True
    return (EARLIEST if moment.year == datetime.MINYEAR else LATEST), False
