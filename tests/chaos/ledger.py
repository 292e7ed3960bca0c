"""What was sent and how each attempt ended: the sender's side of the promise.

Every attempt has a number of its own, also the retry of an attempt that failed, so the mailboxes show which attempts
arrived, and the judgement needs no tolerance: 250 is once, refused is never, an ambiguous end is at most once.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

MARK = b"X-Chaos: "
"""The field whose value is the attempt's number; it and all after it is what is compared with what arrived."""
_NUMBER = re.compile(rb"^X-Chaos: (\S+)\r\n", re.MULTILINE)


class End(enum.Enum):
    """How an attempt ended, and so what may be in a mailbox."""

    ACCEPTED = "accepted"  # 250: exactly once
    REFUSED = "refused"  # 5yz: never
    UNSENT = "unsent"  # it broke before the message's last byte: never
    AMBIGUOUS = "ambiguous"  # 4yz to the whole message, or no reply: at most once (RFC 1047, RFC 5321 §4.5.4.1)


@dataclass(slots=True)
class Attempt:
    """One message over one transaction."""

    number: str
    message: str
    """The same for an attempt and its retries."""
    reverse_path: str
    digest: bytes
    accounts: frozenset[str] = frozenset()
    """Addresses of the accounts behind the recipients that got 250 to RCPT."""
    remote: frozenset[str] = frozenset()
    end: End = End.UNSENT
    code: int = 0
    at: float = 0.0
    """When it ended, by the monotonic clock."""
    submitted: bool = False


def number_of(content: bytes) -> str:
    """The first attempt's number in a message; empty: none."""
    found = _NUMBER.search(content)
    return found[1].decode() if found else ""


def is_report(content: bytes) -> bool:
    """Whether this is a DSN about one of our messages: its bytes are not known before."""
    header, _, body = content.partition(b"\r\n\r\n")
    return b"multipart/report" in header and MARK in body


def digest_of(content: bytes) -> bytes:
    """Of the numbered field and everything after it."""
    return hashlib.sha256(content[content.index(MARK) :]).digest()


@dataclass(slots=True)
class Ledger:
    """All attempts, and sentences on what should never have happened. `changed` wakes at every news."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    ends: Counter[End] = field(default_factory=Counter)
    replies: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    seen: dict[str, float] = field(default_factory=dict)
    """Numbers that a reader saw in a mailbox, and when first."""
    taken: dict[str, float] = field(default_factory=dict)
    """Numbers that the remote host took, and when first."""
    in_order: list[Attempt] = field(default_factory=list)
    """Those with 250, as they ended."""
    compared: Counter[str] = field(default_factory=Counter)
    """Messages that a client or host was given and that were compared with what was sent, by the way they came."""
    compared_under_lies: Counter[str] = field(default_factory=Counter)
    """Of them, those that came while S3 lied."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Of all, those that had other bytes."""
    under_lies: bool = False
    longest_wait: float = 0.0
    """Seconds from a message's end to its reply."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def ended(self, attempt: Attempt, end: End, code: int, at: float) -> None:
        attempt.end, attempt.code, attempt.at = end, code, at
        self.ends[end] += 1
        if end is End.ACCEPTED:
            self.in_order.append(attempt)
        if code:
            self.replies[code] += 1
        self.notify()

    def compare(self, way: str, where: str, content: bytes) -> None:
        """A message that a client or host was given: its bytes are those that were sent, or that is a finding."""
        if is_report(content):
            return
        self.compared[way] += 1
        self.compared_under_lies[way] += self.under_lies
        number = number_of(content)
        attempt = self.attempts.get(number)
        if attempt is None or MARK not in content.partition(b"\r\n\r\n")[0]:
            self.wrong[way] += 1
            self.find(f"{where}: a message that no client sent: {content[:300]!r}")
        elif digest_of(content) != attempt.digest:
            self.wrong[way] += 1
            self.find(f"{where}: {number} has other bytes than were sent")

    def find(self, text: str) -> None:
        """Note what should never have happened, once."""
        if text not in self.findings:
            self.findings.append(text)
            self.notify()

    def notify(self) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for what the ledger will show; False: not within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def flows_since(self, moment: float) -> str:
        """What does not flow yet of what was begun after that moment; empty: all does."""
        since: list[Attempt] = []
        for attempt in reversed(self.in_order):
            if attempt.at < moment:
                break
            since.append(attempt)
        flows = {
            "mx": any(not attempt.submitted for attempt in since),
            "submission": any(attempt.submitted for attempt in since),
            "delivery": any(attempt.number in self.seen for attempt in since),
            "relay": any(attempt.number in self.taken for attempt in since),
        }
        return ", ".join(name for name, does in flows.items() if not does)
