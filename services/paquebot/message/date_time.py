"""The date of a message as a point in time.

Tolerant of what senders write: comments, missing weekday or seconds, two-digit years, zone names, asctime().
RFC 5322 §3.3 and §4.3 (obsolete zones and years).
"""

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from paquebot.message.addresses.address_list import skip_comment

_MONTHS: Final = {
    month: number
    for number, month in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
# RFC 5322 §4.3; hours. Military letters were defined with the wrong sign, so they count as unknown (-0000).
_ZONES: Final = {
    b"ut": 0, b"utc": 0, b"gmt": 0, b"z": 0, b"est": -5, b"edt": -4, b"cst": -6, b"cdt": -5, b"mst": -7,
    b"mdt": -6, b"pst": -8, b"pdt": -7, b"bst": 1, b"cet": 1, b"cest": 2, b"met": 1, b"eet": 2, b"eest": 3,
    b"jst": 9,
}  # fmt: skip
_MAX_DATE: Final = 256


def parse_date(value: bytes) -> datetime | None:
    """The date-time of an unfolded Date value in its own zone (UTC when unknown), or None."""
    words = _words(value[:_MAX_DATE])
    if words and words[0][:3].lower() in _WEEKDAYS:
        words = words[1:]
    if len(words) < 3:
        return None
    if words[0][:3].lower() in _MONTHS:
        words = _from_asctime(words)
    return _date_time(words)


_WEEKDAYS: Final = frozenset((b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"))


def _words(value: bytes) -> list[bytes]:
    """The words without comments, commas and the hyphens of 1-Jan-2000."""
    kept = bytearray()
    pos = 0
    while pos < len(value):
        if value[pos] == 0x28:
            pos = skip_comment(value, pos)
            kept += b" "
        else:
            kept.append(value[pos])
            pos += 1
    words = bytes(kept).replace(b",", b" ").split()
    for place, word in enumerate(words[:2]):
        if word.count(b"-") == 2:
            return [*words[:place], *word.split(b"-"), *words[place + 1 :]]
    return words


def _from_asctime(words: list[bytes]) -> list[bytes]:
    """Jan 2 15:04:05 2006 [zone], or Jan 2 2006 15:04:05 [zone]"""
    if len(words) >= 4 and b":" in words[2]:
        year = next((word for word in words[3:] if len(word) == 4 and word.isdigit()), b"")
        zone = [word for word in words[3:] if word != year]
        return [words[1], words[0], year, words[2], *zone]
    return [words[1], words[0], *words[2:]]


def _date_time(words: list[bytes]) -> datetime | None:
    """[day, month, year, hour ":" minute [":" second], zone]"""
    month = _MONTHS.get(words[1][:3].lower())
    year = _year(words[2])
    clock = _clock(words[3] if len(words) > 3 else b"0:0")
    if month is None or year is None or clock is None or not _digits(words[0], 2):
        return None
    try:
        zone = timezone(_zone(words[4] if len(words) > 4 else b""))
        found = datetime(year, month, int(words[0]), *clock, tzinfo=zone)
        found.astimezone(UTC)  # years 1 and 9999 may leave the calendar
    except (ValueError, OverflowError):
        return None
    return found


def _digits(word: bytes, limit: int) -> bool:
    return word.isdigit() and len(word) <= limit


def _year(word: bytes) -> int | None:
    """RFC 5322 §4.3: 00 to 49 are of this century; other two-digit and three-digit years count from 1900."""
    if not _digits(word, 4):
        return None
    year = int(word)
    if len(word) <= 2:
        return year + 2000 if year < 50 else year + 1900
    return year + 1900 if len(word) == 3 else year


def _clock(word: bytes) -> tuple[int, int, int] | None:
    """time-of-day = hour ":" minute [ ":" second ]; a leap second becomes the one before it."""
    parts = word.replace(b".", b":").split(b":")[:3]
    if len(parts) < 2 or not all(_digits(part, 2) for part in parts):
        return None
    hour, minute, second = (*map(int, parts), 0)[:3]
    return hour, minute, min(second, 59)


def _zone(word: bytes) -> timedelta:
    sign, digits = word[:1], word[1:].replace(b":", b"")
    if sign in (b"+", b"-") and len(digits) == 4 and digits.isdigit():
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        if offset < timedelta(hours=24):
            return -offset if sign == b"-" else offset
        return timedelta(0)
    return timedelta(hours=_ZONES.get(word.lower(), 0))
