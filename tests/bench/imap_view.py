"""A client's view of its selected mailbox, kept from untagged responses alone, and what is wrong with them.

RFC 3501 §2.3.1.2, §5.2, §5.5, §7.3.1, §7.4.1.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from tests.bench.imap_client import Answer
from tests.bench.imap_response import Fetched, fetched, numbered

_NO_EXPUNGE = frozenset({b"FETCH", b"STORE", b"SEARCH"})


@dataclass(slots=True)
class View:
    """Sequence numbers and UIDs as the server announced them."""

    uids: list[int] = field(default_factory=list)
    """By sequence number minus one; 0: not announced yet."""
    wrong: list[str] = field(default_factory=list)

    def apply(self, name: bytes, answer: Answer) -> list[Fetched]:
        """Take the answer to the command `name`, such as `UID FETCH`; its FETCH responses are returned."""
        found: list[Fetched] = []
        for response in answer.untagged:
            if (one := fetched(response)) is not None:
                self._fetched(one)
                found.append(one)
            elif (number := numbered(response)) is not None:
                self._numbered(name, *number)
        return found

    def _numbered(self, name: bytes, number: int, kind: bytes) -> None:
        if kind == b"EXISTS":
            if number < len(self.uids):
                self.wrong.append(f"{number} EXISTS of {len(self.uids)} without EXPUNGE")
            self.uids.extend([0] * (number - len(self.uids)))
        elif kind == b"EXPUNGE":
            if name in _NO_EXPUNGE:  # RFC 3501 §7.4.1: it would change the numbers that the command speaks of
                self.wrong.append(f"EXPUNGE in the answer to {name.decode()}")
            if 1 <= number <= len(self.uids):
                del self.uids[number - 1]
            else:
                self.wrong.append(f"{number} EXPUNGE of {len(self.uids)}")

    def _fetched(self, one: Fetched) -> None:
        if not 1 <= one.number <= len(self.uids):
            self.wrong.append(f"{one.number} FETCH of {len(self.uids)} messages")
            return
        uid = one.uid
        known = self.uids[one.number - 1]
        if uid and known and uid != known:
            self.wrong.append(f"message {one.number} has UID {uid}, and had {known}")
        self.uids[one.number - 1] = uid or known

    def check_order(self) -> None:
        """UIDs ascend with the sequence numbers (RFC 3501 §2.3.1.1)."""
        shown = [uid for uid in self.uids if uid]
        if any(left >= right for left, right in itertools.pairwise(shown)):
            self.wrong.append(f"UIDs do not ascend: {shown[:50]}")

    def taken(self) -> list[str]:
        """What was wrong since the last call."""
        wrong, self.wrong = self.wrong, []
        return wrong
