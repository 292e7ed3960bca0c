"""ULIDs: 48 bits of Unix milliseconds and 80 random bits in 26 characters that sort by time.

Within one millisecond the random part counts up, so ids of one process are unique and ordered.
"""

import os
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -10, -10)  # 13 pairs of characters, 10 bits each
_RANDOM_BITS = 80
_RANDOM_BYTES = 10
_IDS_AT_ONCE = 100  # whose random bytes are asked of the system at once: a call for each costs as much as the rest


class _Generator:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = -1
        self._random = 0
        self._unused = b""

    def next(self, now_ms: int) -> int:
        with self._lock:
            if now_ms > self._last_ms:
                self._last_ms = now_ms
                if not self._unused:
                    self._unused = os.urandom(_RANDOM_BYTES * _IDS_AT_ONCE)
                taken, self._unused = self._unused[:_RANDOM_BYTES], self._unused[_RANDOM_BYTES:]
                # The top bit is left free, so that counting up cannot overflow.
                self._random = int.from_bytes(taken, "big") >> 1
            else:
                self._random += 1
            return (self._last_ms << _RANDOM_BITS) | self._random


_generator = _Generator()


def _begin_anew() -> None:
    """In a worker: its parent and its siblings have the same random bytes."""
    global _generator
    _generator = _Generator()


os.register_at_fork(after_in_child=_begin_anew)


def new_ulid() -> str:
    """A new id, 26 characters."""
    return _encode(_generator.next(time.time_ns() // 1_000_000))


def ulid_at(time_ms: int) -> str:
    """The smallest id of that millisecond: a lower bound for comparisons."""
    return _encode(time_ms << _RANDOM_BITS)


def ulid_time_ms(ulid: str) -> int:
    """Unix milliseconds at which `ulid` was made. Raises ValueError for anything else."""
    if len(ulid) != 26 or not _VALUES.keys() >= set(ulid) or ulid[0] > "7":  # 26 characters hold 130 bits, a ULID 128
        raise ValueError(f"{ulid!r} is not a ULID")
    value = 0
    for character in ulid[:10]:
        value = (value << 5) | _VALUES[character]
    return value


def is_ulid(text: str) -> bool:
    try:
        ulid_time_ms(text)
    except ValueError:
        return False
    return True


def _encode(value: int) -> str:
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])
