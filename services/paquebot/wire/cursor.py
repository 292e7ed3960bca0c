"""A left-to-right cursor over octets: all grammars in `wire` read with it.

Invariants: the position only grows, except through `back_to`; an error states what was expected and at which octet;
nothing is read past the end. Case is folded for US-ASCII letters only.
"""

from __future__ import annotations

import functools
import re

CR, LF, SP, DQUOTE, BACKSLASH = 0x0D, 0x0A, 0x20, 0x22, 0x5C
DIGITS = frozenset(b"0123456789")
ALPHA = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
END = -1  # `peek` returns it at the end


@functools.cache
def _run_of(allowed: frozenset[int]) -> re.Pattern[bytes]:
    """Matches the longest run, perhaps empty, of one character class; possessive, so that it never backtracks."""
    octets = b"".join(b"\\x%02x" % octet for octet in sorted(allowed))
    return re.compile(b"[%b]*+" % octets if octets else b"")


class GrammarError(Exception):
    """The octets do not follow the grammar: `expected` (fixed text, no input in it) at octet `position`."""

    def __init__(self, expected: str, position: int) -> None:
        super().__init__(f"expected {expected} at octet {position}")
        self.expected = expected
        self.position = position


class Cursor:
    """Octets and a position in them."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def at_end(self) -> bool:
        return self.position >= len(self.data)

    def peek(self) -> int:
        """The next octet, or END."""
        return self.data[self.position] if self.position < len(self.data) else END

    def failure(self, expected: str, at: int | None = None) -> GrammarError:
        """The error to raise, here or `at` the start of the wrong part."""
        return GrammarError(expected, self.position if at is None else at)

    def back_to(self, position: int) -> None:
        """Go back to an earlier position."""
        self.position = position

    def at(self, octets: bytes) -> bool:
        """Are exactly these octets next? Does not pass over them."""
        return self.data.startswith(octets, self.position)

    def take(self, octets: bytes) -> bool:
        """Pass over exactly these octets, if they are next."""
        if self.data.startswith(octets, self.position):
            self.position += len(octets)
            return True
        return False

    def take_word(self, word: bytes) -> bool:
        """Pass over `word` (given in upper case) in any case, if it is next."""
        end = self.position + len(word)
        if self.data[self.position : end].upper() == word:
            self.position = end
            return True
        return False

    def expect(self, octets: bytes, expected: str) -> None:
        if not self.take(octets):
            raise self.failure(expected)

    def expect_word(self, word: bytes, expected: str) -> None:
        if not self.take_word(word):
            raise self.failure(expected)

    def space(self) -> None:
        """SP, exactly one."""
        if self.peek() != SP:
            raise self.failure("a space")
        self.position += 1

    def end(self, expected: str = "end of line") -> None:
        if self.position < len(self.data):
            raise self.failure(expected)

    def run(self, allowed: frozenset[int]) -> bytes:
        """The longest run of allowed octets from here, perhaps empty."""
        start = self.position
        self.position = _run_of(allowed).match(self.data, start).end()  # type: ignore[union-attr]
        return self.data[start : self.position]

    def run1(self, allowed: frozenset[int], expected: str) -> bytes:
        """A run of at least one allowed octet."""
        found = self.run(allowed)
        if not found:
            raise self.failure(expected)
        return found

    def fixed(self, allowed: frozenset[int], count: int, expected: str) -> bytes:
        """Exactly `count` allowed octets."""
        found = self.data[self.position : self.position + count]
        if len(found) != count or not allowed.issuperset(found):
            raise self.failure(expected)
        self.position += count
        return found

    def number(self, expected: str, *, low: int = 0, high: int = 0xFFFF_FFFF) -> int:
        """Decimal digits whose value lies within low..high; leading zeros are allowed."""
        start = self.position
        digits = self.run(DIGITS)
        # Limit before converting: no value in any of the grammars needs more than 20 digits.
        if not digits or len(digits) > 20 or not low <= int(digits) <= high:
            raise self.failure(expected, at=start)
        return int(digits)

    def rest(self) -> bytes:
        """Everything from here to the end."""
        found = self.data[self.position :]
        self.position = len(self.data)
        return found
