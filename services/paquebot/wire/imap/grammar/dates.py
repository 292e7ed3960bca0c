"""Dates of SEARCH and APPEND (RFC 3501 §9: date, date-time), and other forms that clients send.

After login these are accepted too: days and hours of one digit, full names of months, dates in the form of a Date field
(RFC 5322 §3.3) or of ISO 8601, and a missing zone, which is UTC. A message is worth more than the form of its date.
"""

from __future__ import annotations

import datetime

from paquebot.wire.cursor import ALPHA, DIGITS
from paquebot.wire.imap.grammar.tokens import CommandCursor

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NAMES = (
    *(b"JANUARY", b"FEBRUARY", b"MARCH", b"APRIL", b"MAY", b"JUNE", b"JULY", b"AUGUST"),
    *(b"SEPTEMBER", b"OCTOBER", b"NOVEMBER", b"DECEMBER"),
)
_MONTH_NUMBERS = {name[:size]: n for n, name in enumerate(_MONTH_NAMES, 1) for size in range(3, len(name) + 1)}
_TIME_CHARS = DIGITS | frozenset(b" :+-")
_COMMENT_CHARS = ALPHA | DIGITS | frozenset(b" +-:/_")
_UTC_NAMES = (b"UTC", b"GMT", b"UT", b"Z")
_AMERICAN_ZONES = {b"EDT": 4, b"EST": 5, b"CDT": 5, b"CST": 6, b"MDT": 6, b"MST": 7, b"PDT": 7, b"PST": 8}
"""Hours behind UTC; RFC 5322 §4.3."""


def date(cur: CommandCursor) -> datetime.date:
    """date = date-text / DQUOTE date-text DQUOTE; date-text = 1*2DIGIT "-" date-month "-" 4DIGIT

    Also in the form of ISO 8601, and with a time after it in the quotes, which is ignored (RFC 3501 §6.4.4).
    """
    start = cur.position
    in_quotes = cur.take(b'"')
    if in_quotes:
        cur.pass_spaces()
    year, month, day = _day(cur, spaces=False)
    if in_quotes:
        if cur.liberal and cur.at(b" "):
            cur.run(_TIME_CHARS)
        cur.expect(b'"', 'a closing "')
    try:
        return datetime.date(year, month, day)
    except ValueError:
        raise cur.failure("a day of the calendar", at=start) from None


def date_time(cur: CommandCursor) -> datetime.datetime | None:
    """date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE

    None for an empty string.
    """
    start = cur.position
    cur.expect(b'"', "a date and time in quotes")
    if cur.take(b'"'):
        return None
    cur.pass_spaces()
    name = cur.position
    if cur.liberal and cur.run(ALPHA):  # "Mon, ", RFC 5322
        if not (cur.take(b",") or cur.at(b" ")):
            raise cur.failure("a day of two places", at=name)
        cur.pass_spaces()
    year, month, day = _day(cur, spaces=True)
    if not (cur.liberal and cur.take(b"T")):
        cur.space()
    hour, minute, second = _time(cur)
    zone = _zone(cur)
    cur.expect(b'"', 'a closing "')
    try:
        # A leap second becomes the second before it: datetime has none.
        return datetime.datetime(year, month, day, hour, minute, 59 if second == 60 else second, 0, zone)
    except ValueError:
        raise cur.failure("a date and time of the calendar", at=start) from None


def _day(cur: CommandCursor, *, spaces: bool) -> tuple[int, int, int]:
    """Year, month and day: date-day "-" date-month "-" date-year, or as ISO 8601; `spaces`: or between them."""
    start = cur.position
    first = cur.run1(DIGITS, "a day of two places")
    if cur.liberal and len(first) == 4:
        cur.expect(b"-", "- after the year")
        month = int(cur.fixed(DIGITS, 2, "a month of two digits"))
        cur.expect(b"-", "- after the month")
        return int(first), month, int(cur.fixed(DIGITS, 2, "a day of two digits"))
    if len(first) > 2:
        raise cur.failure("a day of two places", at=start)
    _hyphen(cur, "- after the day", spaces=spaces)
    month = _month(cur)
    _hyphen(cur, "- after the month", spaces=spaces)
    return int(cur.fixed(DIGITS, 4, "a year of four digits")), month, int(first)


def _hyphen(cur: CommandCursor, expected: str, *, spaces: bool) -> None:
    if spaces and cur.liberal and cur.at(b" "):
        cur.pass_spaces()
    else:
        cur.expect(b"-", expected)


def _month(cur: CommandCursor) -> int:
    start = cur.position
    month = _MONTH_NUMBERS.get(cur.run1(ALPHA, "a month such as Feb").upper())
    if month is None:
        raise cur.failure("a month such as Feb", at=start)
    return month


def _time(cur: CommandCursor) -> tuple[int, int, int]:
    """time = 2DIGIT ":" 2DIGIT ":" 2DIGIT; hours of one digit too, without seconds, or with their fractions"""
    start = cur.position
    hours = cur.run1(DIGITS, "hours of two digits")
    if len(hours) > 2:
        raise cur.failure("hours of two digits", at=start)
    cur.expect(b":", ": after the hours")
    minutes = int(cur.fixed(DIGITS, 2, "minutes of two digits"))
    if cur.liberal and not cur.at(b":"):
        return int(hours), minutes, 0
    cur.expect(b":", ": after the minutes")
    seconds = int(cur.fixed(DIGITS, 2, "seconds of two digits"))
    if cur.liberal and cur.take(b"."):
        cur.run(DIGITS)
    return int(hours), minutes, seconds


def _zone(cur: CommandCursor) -> datetime.timezone:
    """SP zone; zone = ("+" / "-") 4DIGIT; also with a colon, by name, with a comment after it, or missing"""
    if not cur.liberal:
        cur.space()
        return _offset(cur)
    cur.pass_spaces()
    zone = datetime.UTC if cur.at(b'"') else _named_zone(cur) or _offset(cur)
    cur.pass_spaces()
    if cur.take(b"("):
        cur.run(_COMMENT_CHARS)
        cur.expect(b")", ") after the zone's name")
        cur.pass_spaces()
    return zone


def _named_zone(cur: CommandCursor) -> datetime.timezone | None:
    if any(cur.take_word(name) for name in _UTC_NAMES):
        return datetime.UTC
    hours = next((hours for name, hours in _AMERICAN_ZONES.items() if cur.take_word(name)), None)
    return datetime.timezone(-datetime.timedelta(hours=hours)) if hours is not None else None


def _offset(cur: CommandCursor) -> datetime.timezone:
    negative = cur.take(b"-")
    if not negative:
        cur.expect(b"+", "a zone such as +0100")
    start = cur.position
    hours = int(cur.fixed(DIGITS, 2, "a zone of four digits"))
    cur.take(b":")
    minutes = int(cur.fixed(DIGITS, 2, "a zone of four digits"))
    if hours > 23 or minutes > 59:
        raise cur.failure("a zone below 24 hours", at=start)
    offset = datetime.timedelta(hours=hours, minutes=minutes)
    return datetime.timezone(-offset if negative else offset)
