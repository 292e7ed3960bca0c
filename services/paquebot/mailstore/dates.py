"""Dates that PostgreSQL can keep and Python can read again.

PostgreSQL has infinite dates and many thousands of years; Python has the years 1 to 9999. asyncpg writes the first and
the last moment of Python as `-infinity` and `infinity`, without a word, and what a query does with these (a number of
seconds, a date with a zone) fails for all rows of the query. So no such date is written, and none is read as it is.
"""

import datetime

_STEP = datetime.timedelta(microseconds=1)
EARLIEST = datetime.datetime.min.replace(tzinfo=datetime.UTC) + _STEP
LATEST = datetime.datetime.max.replace(tzinfo=datetime.UTC) - _STEP
"""The bounds of what is kept: to the second, the first and the last moment that IMAP can name (RFC 3501 §9)."""

SQL_EARLIEST = "'0001-01-01 00:00:00.000001+00'::timestamptz"
SQL_LATEST = "'9999-12-31 23:59:59.999998+00'::timestamptz"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def storable(moment: datetime.datetime) -> datetime.datetime:
    """The moment in UTC, or the bound that is next to it. Raises ValueError for one without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a date to keep has a zone")
    try:
        return min(max(moment.astimezone(datetime.UTC), EARLIEST), LATEST)
    except OverflowError:  # in UTC it is before year 1, or after 9999
        return EARLIEST if moment.year == datetime.MINYEAR else LATEST


def of_microseconds(microseconds: int) -> datetime.datetime:
    """Of Unix time, without the rounding of a float, within the bounds."""
    try:
        return storable(_EPOCH + datetime.timedelta(microseconds=microseconds))
    except OverflowError:
        return EARLIEST if microseconds < 0 else LATEST


def clamped(column: str) -> str:
    """SQL: the column within the bounds."""
    return f"least(greatest({column}, {SQL_EARLIEST}), {SQL_LATEST})"


def marked(column: str) -> str:
    """SQL: the column, infinite where it is out of the bounds: so it can be read, and `readable` sees it."""
    return (
        f"CASE WHEN {column} < {SQL_EARLIEST} THEN '-infinity' WHEN {column} > {SQL_LATEST} THEN 'infinity' "
        f"ELSE {column} END AS {column}"
    )


def readable(moment: datetime.datetime) -> tuple[datetime.datetime, bool]:
    """What `marked` gave, within the bounds, and whether it was so: asyncpg reads an infinite date without a zone."""
    if moment.tzinfo is not None:
        return moment, True
    return (EARLIEST if moment.year == datetime.MINYEAR else LATEST), False
