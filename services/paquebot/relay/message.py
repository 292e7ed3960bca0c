"""The message of an attempt: what must be known of it at MAIL, and its bytes while they are needed.

Invariant: a byte in memory is charged, to the process and to its destination, for exactly as long as it is there.
Nothing is read before a host has taken up the conversation; a message over KEEP bytes is not held between MAIL and
the 354, for a host may take minutes there. Bare CR and LF never leave (RFC 5321 §2.3.8).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from paquebot.message import (
    MAX_LINE,
    Edit,
    Signatures,
    Wish,
    conversion,
    has_long_line,
    is_ascii,
    pieces,
    signatures,
    split_header,
)
from paquebot.runtime.shares.budget import OverBudget
from paquebot.runtime.shares.gate import ByteGate
from paquebot.wire.address import BadAddress, normal_domain
from paquebot.wire.smtp.parameters import Body, MailParameters, RcptParameters, Ret

T = TypeVar("T")
KEPT_BYTES = 64 * 1024
_OFF_THE_LOOP = 256 * 1024
_REWRITTEN_OFF_THE_LOOP = 8 * 1024  # a byte that is rewritten costs a hundred times one that is looked at
_THREADS = 2
_EDIT_BYTES = 200  # what an edit takes beside its text
_BARE_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class RelayRecipient:
    """`forward_path` without angle brackets; `parameters` as the sender gave them."""

    forward_path: str
    parameters: RcptParameters = RcptParameters()

    @property
    def address(self) -> str:
        """As it is written on the wire."""
        return with_ascii_domain(self.forward_path)


class ByteShares:
    """The bytes of messages that a process holds, and what one destination may have of them.

    `limit`: all that `budget` has; `each`: most bytes of one destination. One message may go beyond either when it is
    alone there, or it could never go. `looking`: turns of those who look through a long message, in a thread.
    """

    def __init__(self, budget: ByteGate, limit: int, each: int) -> None:
        self._budget = budget
        self._limit = limit
        self._each = each
        self._held: dict[str, int] = {}
        self.looking = asyncio.Semaphore(_THREADS)

    def take(self, key: str, octets: int) -> int:
        """Charge them; returns what was charged, for `give_back`. Raises OverBudget, having charged nothing."""
        held = self._held.get(key, 0)
        if held and held + octets > self._each:
            raise OverBudget
        charged = min(octets, self._limit)
        if not self._budget.try_reserve(charged):
            raise OverBudget
        self._held[key] = held + octets
        return charged

    def give_back(self, key: str, octets: int) -> None:
        """Undo `take`."""
        left = self._held[key] - octets
        if left:
            self._held[key] = left
        else:
            del self._held[key]
        self._budget.release(octets)

    def take_beside(self, octets: int, message: int) -> int:
        """Charge what is kept beside a message of which `message` bytes are charged; returns what was charged, for
        `give_back_beside`: nothing, where the message is alone and has all there is. Raises OverBudget."""
        if self._budget.try_reserve(octets):
            return octets
        if self._budget.used > min(message, self._limit):
            raise OverBudget
        return 0

    def give_back_beside(self, charged: int) -> None:
        """Undo `take_beside`."""
        self._budget.release(charged)


@dataclass(frozen=True, slots=True)
class OutgoingFacts:
    """`size` in bytes, with a line end behind the last line; `eight_bit`: not ASCII alone, and `utf8_header`: in its
    header. `long_header`, `long_body`: lines of more bytes than a host need take."""

    size: int
    eight_bit: bool
    utf8_header: bool
    long_header: bool = False
    long_body: bool = False
    signatures: Signatures = Signatures()


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """`cost`: bytes that the edits are charged with."""

    wish: Wish
    edits: list[Edit]
    size: int
    cost: int


class OutgoingMessage:
    """`read` gives the message of `size` bytes; its exceptions pass through. `smtputf8`: it came with SMTPUTF8, so
    that 8-bit bytes of its header are UTF-8; `submitted`: by somebody who logged in; `line`: most bytes of a line
    that each host takes, 0: any. Close with `close`."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        size: int,
        shares: ByteShares,
        key: str,
        reverse_path: str,
        *,
        ret: Ret | None = None,
        envid: str = "",
        smtputf8: bool = False,
        submitted: bool = False,
        line: int = MAX_LINE,
    ) -> None:
        self._read = read
        self._size = size
        self._shares = shares
        self._key = key
        self._smtputf8 = smtputf8
        self._ret = ret
        self._envid = envid if envid.isascii() else ""  # RFC 3461 §4.4 knows no other
        self._facts: OutgoingFacts | None = None
        self._raw: bytes | None = None
        self._rewritten: _Rewritten | None = None
        self.reverse_path = with_ascii_domain(reverse_path)
        self.submitted = submitted
        self.line = line

    @property
    def known(self) -> bool:
        """`facts` needs no reading."""
        return self._facts is not None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[bytes]:
        """The message with proper line ends, in memory for the time of the block; a block inside it reads nothing.
        Raises OverBudget and what reading raises."""
        if self._raw is not None:
            yield self._raw
            return
        self._shares.take(self._key, self._size)
        try:
            self._raw = with_crlf(await self._read())
            yield self._raw
        finally:
            if self._raw is None or self._size > KEPT_BYTES:
                self._let_go()

    def _let_go(self) -> None:
        self._raw = None
        self._shares.give_back(self._key, self._size)

    async def facts(self) -> OutgoingFacts:
        """Raises as `opened`."""
        if self._facts is None:
            async with self.opened() as raw:
                self._facts = await self._look(raw, lambda: _facts(raw, self.line, utf8=self._smtputf8))
        return self._facts

    async def rewritten_size(self, wish: Wish) -> int:
        """Bytes of the message as `wish` makes it; how is remembered until another wish. Raises Unconvertible, and as
        `opened`."""
        if self._rewritten is None or self._rewritten.wish != wish:
            self._forget_edits()
            async with self.opened() as raw:
                found = await self._look(raw, lambda: _rewriting(raw, wish), _REWRITTEN_OFF_THE_LOOP)
            charged = self._shares.take_beside(found.cost, self._size if self._raw is not None else 0)
            self._rewritten = replace(found, cost=charged)
        return self._rewritten.size

    async def _look(self, raw: bytes, look: Callable[[], T], shortest: int = _OFF_THE_LOOP) -> T:
        """Looking through a message of `shortest` bytes takes a while, in which the event loop has others to serve."""
        if len(raw) < shortest:
            return look()
        async with self._shares.looking:
            return await asyncio.to_thread(look)

    def contents(self, raw: bytes, wish: Wish | None) -> Iterator[bytes]:
        """What is sent, in pieces that end inside no line end; `raw` is from `opened`. A wish must be the last one of
        `rewritten_size`."""
        if wish is None:
            return pieces(raw, [])
        if self._rewritten is None or self._rewritten.wish != wish:
            raise ValueError("another wish was made meanwhile")
        return pieces(raw, self._rewritten.edits)

    def close(self) -> None:
        """Let go of the bytes."""
        self._forget_edits()
        if self._raw is not None:
            self._let_go()

    def _forget_edits(self) -> None:
        if self._rewritten is not None:
            self._shares.give_back_beside(self._rewritten.cost)
            self._rewritten = None

    def ascii_addresses(self, recipients: Sequence[RelayRecipient]) -> bool:
        return all(address.isascii() for address in (self.reverse_path, *(one.address for one in recipients)))

    def needs_smtputf8(self, facts: OutgoingFacts, recipients: Sequence[RelayRecipient]) -> bool:
        """RFC 6531 §3.2: an address or the header is not ASCII. The sender's mere SMTPUTF8 asks for nothing."""
        return facts.utf8_header or not self.ascii_addresses(recipients)

    def parameters(self, size: int, body: Body | None, *, smtputf8: bool) -> MailParameters:
        return MailParameters(size, body, smtputf8, self._ret, self._envid)


def _facts(raw: bytes, line: int, *, utf8: bool) -> OutgoingFacts:
    body = split_header(raw)
    end = 0 if raw.endswith(b"\r\n") else 2
    return OutgoingFacts(
        size=len(raw) + end,
        eight_bit=not raw.isascii(),
        utf8_header=utf8 and not is_ascii(raw, 0, body),
        long_header=bool(line) and has_long_line(raw, 0, body, line),
        long_body=bool(line) and has_long_line(raw, body, len(raw), line),
        signatures=signatures(raw),
    )


def _rewriting(raw: bytes, wish: Wish) -> _Rewritten:
    """Raises Unconvertible."""
    edits = conversion(raw, wish)
    cost = sum(_EDIT_BYTES + len(edit.text) for edit in edits)
    return _Rewritten(wish, edits, sum(map(len, pieces(raw, edits))), cost)


def with_ascii_domain(path: str) -> str:
    """RFC 6531 §3.3: the domain of an address as A-labels, where it has such a form."""
    local, at, domain = path.rpartition("@")
    if domain.isascii():
        return path
    try:
        return f"{local}{at}{normal_domain(domain)}"
    except BadAddress:
        return path


def with_crlf(raw: bytes) -> bytes:
    """The message with every bare CR or LF made a line end; the same object when there is none."""
    ends = raw.count(b"\r\n")
    if raw.count(b"\n") == ends and raw.count(b"\r") == ends:
        return raw
    return _BARE_LINE_END.sub(b"\r\n", raw)
