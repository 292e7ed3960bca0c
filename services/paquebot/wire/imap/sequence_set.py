"""Sequence sets: which messages or UIDs a command names, against what a mailbox holds.

`*` is None until a mailbox gives it a value; `$` is the saved search result (RFC 5182). Ranges are kept in
the order and direction the client wrote, so that a set prints as it was read; `resolve` gives sorted,
disjoint ranges. Nothing here walks a range that a client declared: walking is bounded by `maximum`.

RFC 3501 §9 (sequence-set), RFC 9051 §4.1.1, RFC 5182.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeqRange:
    """seq-range or seq-number; None is `*`. A single number has first == last."""

    first: int | None
    last: int | None

    def __str__(self) -> str:
        if self.first == self.last:
            return _number(self.first)
        return f"{_number(self.first)}:{_number(self.last)}"


def _number(value: int | None) -> str:
    return "*" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """A parsed sequence-set; `saved` is `$`, and then `ranges` is empty."""

    ranges: tuple[SeqRange, ...]
    saved: bool = False

    def __str__(self) -> str:
        return "$" if self.saved else ",".join(map(str, self.ranges))

    def resolve(self, maximum: int) -> tuple[tuple[int, int], ...]:
        """Sorted, disjoint, inclusive (low, high) within 1..maximum; `*` is `maximum`.

        A set against an empty mailbox (maximum 0) is empty. `559:*` with a maximum of 500 contains 500
        (RFC 3501 §6.4.8).
        """
        if maximum < 1:
            return ()
        spans = []
        for item in self.ranges:
            a = maximum if item.first is None else item.first
            b = maximum if item.last is None else item.last
            low, high = (a, b) if a <= b else (b, a)
            if low <= maximum:
                spans.append((low, min(high, maximum)))
        return _merged(spans)

    def contains(self, number: int, maximum: int) -> bool:
        """Is `number` in the set, when `*` is `maximum`? For many numbers, `resolve` once instead."""
        for item in self.ranges:
            a = maximum if item.first is None else item.first
            b = maximum if item.last is None else item.last
            if (a <= number <= b) or (b <= number <= a):
                return 1 <= number <= maximum
        return False

    def iterate(self, maximum: int) -> Iterator[int]:
        """Every number of the set within 1..maximum, ascending, once."""
        for low, high in self.resolve(maximum):
            yield from range(low, high + 1)

    def highest(self) -> int:
        """The largest number in the set apart from "*", 0 if there is none: a message sequence number above the
        mailbox's EXISTS is a client error (RFC 3501 §9, seq-number)."""
        top = 0
        for item in self.ranges:
            top = max(top, item.first or 0, item.last or 0)
        return top

    def is_open(self) -> bool:
        """Does each of its ranges end with "*"?"""
        return bool(self.ranges) and all(item.first is None or item.last is None for item in self.ranges)

    def has_star(self) -> bool:
        """Does `*` occur? In an empty mailbox it names nothing (RFC 3501 §9, seq-number)."""
        return any(item.first is None or item.last is None for item in self.ranges)


def inside_of(spans: Sequence[tuple[int, int]]) -> Callable[[int], bool]:
    """A test whether a number is in one of the spans of `resolve`. For many numbers: each costs a binary search."""
    lows = [low for low, _ in spans]

    def check(number: int) -> bool:
        place = bisect_right(lows, number) - 1
        return place >= 0 and number <= spans[place][1]

    return check


SAVED_RESULT = SequenceSet((), saved=True)


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    spans.sort()
    merged: list[tuple[int, int]] = []
    for low, high in spans:
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)


def compress(numbers: Iterable[int]) -> str:
    """Ascending numbers as uid-set text, "1:3,7"; "" for none. Source of COPYUID."""
    return ",".join(compressed(numbers))


def compressed(numbers: Iterable[int]) -> Iterator[str]:
    """Ascending numbers as the parts of a uid-set, "1:3" and "7". Source of ESEARCH ALL."""
    return map(range_text, ranges_of(numbers))


def range_text(span: tuple[int, int]) -> str:
    """A range as a part of a uid-set."""
    low, high = span
    return str(low) if low == high else f"{low}:{high}"


def ranges_of(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as inclusive ranges."""
    low = high = 0
    for number in numbers:
        if low and number == high + 1:
            high = number
            continue
        if low:
            yield low, high
        low = high = number
    if low:
        yield low, high


def set_of(numbers: Iterable[int]) -> SequenceSet:
    """Ascending numbers as a compressed SequenceSet."""
    return SequenceSet(tuple(SeqRange(low, high) for low, high in ranges_of(numbers)))
