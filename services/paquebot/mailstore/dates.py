"""Dates that PostgreSQL can keep and every program can read again.

PostgreSQL has infinite dates and many thousands of years; Python has the years 1 to 9999. asyncpg writes the first and
the last moment of Python as `-infinity` and `infinity` without an error, and a query that computes with these (a number
of seconds, a date with a zone) fails for all its rows. So no such date is written, and none is read as it is.
"""

import datetime

EARLIEST = datetime.datetime(1, 1, 2, tzinfo=datetime.UTC)
LATEST = datetime.datetime(9999, 12, 30, 23, 59, 59, tzinfo=datetime.UTC)
"""The bounds of what is written: in every zone of the world a date with a year of four digits. Some programs write the
end of their own calendar for "no date"; such a message is kept, with the nearest bound as its date."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST = "'0001-01-01 00:00:00.000001+00'::timestamptz"
_LAST = "'9999-12-31 23:59:59.999998+00'::timestamptz"
IN_RANGE = f"BETWEEN {_FIRST} AND {_LAST}"
"""SQL: whether Python can read the date. Old versions wrote dates between these and the bounds: those stay."""


def storable(moment: datetime.datetime) -> datetime.datetime:
    """The moment in UTC, or the nearest bound. Raises ValueError for one without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a date must have a zone")
    if moment <= EARLIEST:  # compared with its zone: in UTC it may be outside every calendar
        return EARLIEST
    return LATEST if moment >= LATEST else moment.astimezone(datetime.UTC)


def of_microseconds(microseconds: int) -> datetime.datetime:
    """Of Unix time, without the rounding of a float. The nearest bound where Python cannot read the date."""
    try:
        return _EPOCH + datetime.timedelta(microseconds=microseconds)
    except OverflowError:
        return EARLIEST if microseconds < 0 else LATEST


def clamped(column: str) -> str:
    """SQL: the column, or the nearest bound where Python cannot read it."""
    return (
        f"CASE WHEN {column} < {_FIRST} THEN '{EARLIEST.isoformat()}'::timestamptz "
        f"WHEN {column} > {_LAST} THEN '{LATEST.isoformat()}'::timestamptz ELSE {column} END"
    )


def marked(column: str) -> str:
    """SQL: the column, infinite where Python cannot read it, so that it can be fetched and `readable` recognizes it."""
    return (
        f"CASE WHEN {column} < {_FIRST} THEN '-infinity' WHEN {column} > {_LAST} THEN 'infinity' "
        f"ELSE {column} END AS {column}"
    )


def readable(moment: datetime.datetime) -> tuple[datetime.datetime, bool]:
    """The date that `marked` gave, or the nearest bound, and whether it was a date: asyncpg reads an infinite one
    without a zone."""
    if moment.tzinfo is not None:
        return moment, True
    return (EARLIEST if moment.year == datetime.MINYEAR else LATEST), False
