"""The message of an attempt: what must be known of it at MAIL, and its octets while they are needed.

Invariant: an octet in memory is charged, to the process and to its destination, for exactly as long as it is there.
Nothing is read before a host has taken up the conversation; a message over KEEP octets is not held between MAIL and
the 354, for a host may take minutes there. Bare CR and LF never leave (RFC 5321 §2.3.8).
"""

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from paquebot.relay.stream import BLOCK
from paquebot.runtime.limits import OctetBudget, OverBudget
from paquebot.wire.smtp.parameters import Body, MailParameters, RcptParameters, Ret

KEEP = 64 * 1024
_BARE_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Recipient:
    """`forward_path` without angle brackets; `parameters` as the sender gave them."""

    forward_path: str
    parameters: RcptParameters = RcptParameters()


class OctetShares:
    """The octets of messages that a process holds, and what one destination may have of them.

    `limit`: all that `budget` has; `each`: most octets of one destination. One message may go beyond either when it is
    alone there, or it could never go.
    """

    def __init__(self, budget: OctetBudget, limit: int, each: int) -> None:
        self._budget = budget
        self._limit = limit
        self._each = each
        self._held: dict[str, int] = {}

    def take(self, key: str, octets: int) -> int:
        """Charge them; returns what was charged, for `give_back`. Raises OverBudget, having charged nothing."""
        held = self._held.get(key, 0)
        if held and held + octets > self._each:
            raise OverBudget
        charged = min(octets, self._limit)
        self._budget.take(charged)
        self._held[key] = held + octets
        return charged

    def give_back(self, key: str, octets: int) -> None:
        """Undo `take`."""
        left = self._held[key] - octets
        if left:
            self._held[key] = left
        else:
            del self._held[key]
        self._budget.give_back(min(octets, self._limit))


@dataclass(frozen=True, slots=True)
class Facts:
    """`size` in octets; `eight_bit`: not ASCII alone, and `utf8_header`: in its header."""

    size: int
    eight_bit: bool
    utf8_header: bool


class Letter:
    """`read` gives the message of `size` octets; its exceptions pass through. `smtputf8`: it came with SMTPUTF8, so
    that 8-bit octets of its header are UTF-8. Close with `close`."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        size: int,
        shares: OctetShares,
        key: str,
        reverse_path: str,
        *,
        ret: Ret | None = None,
        envid: str = "",
        smtputf8: bool = False,
    ) -> None:
        self._read = read
        self._size = size
        self._shares = shares
        self._key = key
        self._smtputf8 = smtputf8
        self._ret = ret
        self._envid = envid
        self._facts: Facts | None = None
        self._kept: bytes | None = None
        self.reverse_path = reverse_path

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[bytes]:
        """The message with proper line ends, in memory for the time of the block. Raises OverBudget and what reading
        raises."""
        if self._kept is not None:
            yield self._kept
            return
        octets = self._size
        self._shares.take(self._key, octets)
        kept = False
        try:
            raw = crlf_only(await self._read())
            if octets <= KEEP:
                self._kept, kept = raw, True
            yield raw
        finally:
            if not kept:
                self._shares.give_back(self._key, octets)

    async def facts(self) -> Facts:
        """Raises as `opened`."""
        if self._facts is None:
            async with self.opened() as raw:
                header = raw[: raw.find(b"\r\n\r\n")] if b"\r\n\r\n" in raw else raw
                utf8_header = self._smtputf8 and not header.isascii()
                self._facts = Facts(len(raw), not raw.isascii(), utf8_header)
        return self._facts

    def close(self) -> None:
        """Let go of the octets."""
        if self._kept is not None:
            self._kept = None
            self._shares.give_back(self._key, self._size)

    def needs_smtputf8(self, facts: Facts, recipients: Sequence[Recipient]) -> bool:
        """RFC 6531 §3.2: an address or the header is not ASCII. The sender's mere SMTPUTF8 asks for nothing."""
        addresses = (self.reverse_path, *(recipient.forward_path for recipient in recipients))
        return facts.utf8_header or not all(address.isascii() for address in addresses)

    def parameters(self, facts: Facts, *, smtputf8: bool) -> MailParameters:
        body = Body.EIGHT_BIT_MIME if facts.eight_bit else None
        return MailParameters(facts.size, body, smtputf8, self._ret, self._envid)


def crlf_only(raw: bytes) -> bytes:
    """The message with every bare CR or LF made a line end; the same object when there is none."""
    ends = raw.count(b"\r\n")
    if raw.count(b"\n") == ends and raw.count(b"\r") == ends:
        return raw
    return _BARE_LINE_END.sub(b"\r\n", raw)


def dot_stuffed(raw: bytes) -> Iterator[bytes]:
    """RFC 5321 §4.5.2: the message with a dot before each line that begins with one, and with its final dot, in pieces
    of about BLOCK octets, so that no second copy of it is made."""
    start, new_line = 0, True
    while start < len(raw):
        end = _cut(raw, start)
        piece = raw[start:end]
        if new_line and piece.startswith(b"."):
            yield b"."
        yield piece.replace(b"\r\n.", b"\r\n..")
        start, new_line = end, piece.endswith(b"\n")
    yield b".\r\n" if new_line else b"\r\n.\r\n"


def _cut(raw: bytes, start: int) -> int:
    """Where the piece from `start` ends: after its last line end, and never inside one."""
    end = min(start + BLOCK, len(raw))
    if end == len(raw):
        return end
    line_end = raw.rfind(b"\n", start, end) + 1
    return line_end or (end - 1 if raw[end - 1 : end] == b"\r" else end)
