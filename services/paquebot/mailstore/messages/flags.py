"""The system flags (RFC 3501 §2.3.2), and a change of them."""

import enum
from dataclasses import dataclass


class Flag(enum.IntFlag):
    """The system flags that are stored, as the bits of `messages.flags`."""

    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


NO_FLAGS = Flag(0)
ALL_FLAGS = int(sum(Flag))


class FlagOp(enum.Enum):
    """The operation of a change of flags on the named flags."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class FlagChange:
    """One STORE: `unchanged_since` as in RFC 7162 §3.1.3."""

    op: FlagOp
    flags: Flag
    keywords: tuple[str, ...]
    unchanged_since: int | None

    def masks(self) -> tuple[int, int]:
        """The system flags that stay as they are, and those that are set afterwards."""
        match self.op:
            case FlagOp.ADD:
                return ALL_FLAGS, int(self.flags)
            case FlagOp.REMOVE:
                return ALL_FLAGS & ~int(self.flags), 0
            case FlagOp.REPLACE:
                return 0, int(self.flags)
