"""What a mailbox must contain while several clients change it at once, by what each of them has been answered.

All clients live in one event loop, so the order in which they see answers is one order of moments. A message is in
the mailbox for certain from the answer to its APPEND until a client asks to mark it \\Deleted; it may be there from
the asking of APPEND until an answer said that it is gone. Every server that is right stays inside these bounds.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

NEVER = 1 << 62

Flags = frozenset[bytes]


@dataclass(slots=True)
class FlagState:
    """Flags a message has, or may have: from the moment they were asked for until the next were confirmed."""

    flags: Flags
    until: int = NEVER


@dataclass(slots=True)
class Message:
    """One message of the load and the moments of its life."""

    name: str
    states: list[FlagState]
    seen: bool
    uid: int = 0
    kept: int = NEVER
    doomed: int = NEVER
    gone: int = NEVER

    @property
    def flags(self) -> Flags:
        """As its owner last had them confirmed, or asked for."""
        return self.states[-1].flags

    def flags_since(self, moment: int) -> set[Flags]:
        """All that another client may see which looked at `moment` or later."""
        return {state.flags for state in self.states if state.until > moment}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a count: right answers lie between."""

    least: int
    most: int

    def hold(self, count: int) -> bool:
        """Is `count` a right answer?"""
        return self.least <= count <= self.most


@dataclass(slots=True)
class MailboxModel:
    """One mailbox. Every method is called at the moment it speaks of."""

    messages: list[Message] = field(default_factory=list)
    by_uid: dict[int, Message] = field(default_factory=dict)
    uid_validity: int = 0
    highest_uid: int = 0
    """Of the answers so far."""
    _moments: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _looking: list[int] = field(default_factory=list)

    def now(self) -> int:
        """A moment later than all before."""
        return next(self._moments)

    @contextlib.contextmanager
    def looking(self) -> Iterator[int]:
        """The moment at which a client asks; what it needs to be judged is kept for the time of the block."""
        asked = self.now()
        self._looking.append(asked)
        try:
            yield asked
        finally:
            self._looking.remove(asked)
            self._forget(min(self._looking, default=NEVER - 1))

    def _forget(self, moment: int) -> None:
        """Drop what was gone before `moment`."""
        if any(message.gone < moment for message in self.messages):
            for message in self.messages:
                if message.gone < moment:
                    self.by_uid.pop(message.uid, None)
            self.messages = [message for message in self.messages if message.gone >= moment]

    # --- what clients do ---------------------------------------------------------------------------------

    def appending(self, name: str, flags: Flags) -> Message:
        """APPEND is asked for."""
        message = Message(name, [FlagState(flags)], b"\\Seen" in flags)
        self.messages.append(message)
        return message

    def appended(self, message: Message, uid: int, floor: int) -> str:
        """APPENDUID was answered. Returns what is wrong with it, or nothing: a UID is used once, and one that is
        given later is greater (RFC 3501 §2.3.1.1); `floor` is `highest_uid` when the APPEND was asked for."""
        message.uid, message.kept = uid, self.now()
        wrong = ""
        if uid in self.by_uid:
            wrong = f"APPENDUID {uid} was given to another message before"
        elif uid <= floor:
            wrong = f"APPENDUID {uid} is not above {floor}, which was answered before the APPEND began"
        self.by_uid[uid] = message
        self.highest_uid = max(self.highest_uid, uid)
        return wrong

    def flagging(self, message: Message, flags: Flags) -> None:
        """A STORE of these flags is asked for."""
        message.states.append(FlagState(flags))
        if b"\\Deleted" in flags:
            message.doomed = min(message.doomed, self.now())

    def flagged(self, message: Message) -> None:
        """The STORE was answered."""
        now = self.now()
        for state in message.states[:-1]:
            state.until = min(state.until, now)
        del message.states[:-8]

    def expunged(self, message: Message) -> None:
        """An answer says that it is gone."""
        message.gone = self.now()

    # --- what right answers are --------------------------------------------------------------------------

    def count(self, asked: int, *, unseen: bool = False) -> Bounds:
        """How many messages an answer may show that was asked for at `asked` and came now."""
        least = most = 0
        for message in self.messages:
            if unseen and message.seen:
                continue
            least += message.kept < asked and message.doomed == NEVER
            most += message.gone > asked
        return Bounds(least, most)

    def in_flight(self) -> int:
        """Messages that may be there with a UID that no answer has shown."""
        return sum(message.kept == NEVER for message in self.messages)

    def undecided(self) -> int:
        """Messages that may be there or not, since an APPEND or an expunge was not answered."""
        return sum(
            message.gone == NEVER and (message.kept == NEVER or message.doomed < NEVER) for message in self.messages
        )

    def certain(self, asked: int) -> Iterator[Message]:
        """Messages that an answer asked for at `asked` must know."""
        return (one for one in self.messages if one.kept < asked and one.doomed == NEVER)
