"""The message of an attempt: the facts that MAIL needs, and its content while that is needed.

Invariant: a byte in memory is reserved, for the process and for its destination, for exactly as long as it is there.
Nothing is read before a host has greeted; a message over KEPT_BYTES is not kept between MAIL and the 354, for a host
may take minutes there. Bare CR and LF never leave (RFC 5321 §2.3.8).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from paquebot.message import (
    MAX_LINE,
    ConversionRules,
    Edit,
    Signatures,
    conversion,
    has_long_line,
    is_ascii,
    pieces,
    signatures,
    split_header,
)
from paquebot.relay.byte_shares import ByteShares
from paquebot.wire.address import BadAddress, normal_domain
from paquebot.wire.smtp.parameters import Body, MailParameters, RcptParameters, Ret

T = TypeVar("T")
KEPT_BYTES = 64 * 1024
_SCAN_IN_THREAD = 256 * 1024
_CONVERT_IN_THREAD = 8 * 1024  # converting a byte costs a hundred times what scanning it does
_EDIT_BYTES = 200  # what an edit takes beside its text
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class RelayRecipient:
    """`forward_path` without angle brackets; `parameters` as the sender gave them."""

    forward_path: str
    parameters: RcptParameters = RcptParameters()

    @property
    def address(self) -> str:
        """As it is written on the wire."""
        return with_ascii_domain(self.forward_path)


@dataclass(frozen=True, slots=True)
class OutgoingEnvelope:
    """The arguments of MAIL. `smtputf8`: the message arrived with SMTPUTF8, so 8-bit bytes of its header are UTF-8;
    `submitted`: its client had logged in."""

    reverse_path: str
    ret: Ret | None = None
    envid: str = ""
    smtputf8: bool = False
    submitted: bool = False


@dataclass(frozen=True, slots=True)
class OutgoingFacts:
    """`size` in bytes, with a line end after the last line; `eight_bit`: not only ASCII, and `utf8_header`: in its
    header. `long_header`, `long_body`: lines of more bytes than each host must take."""

    size: int
    eight_bit: bool
    utf8_header: bool
    long_header: bool = False
    long_body: bool = False
    signatures: Signatures = Signatures()


@dataclass(frozen=True, slots=True)
class _Conversion:
    """`reserved`: bytes reserved for the edits."""

    rules: ConversionRules
    edits: list[Edit]
    size: int
    reserved: int


class OutgoingMessage:
    """`read` gives the content of `size` bytes; its exceptions pass through. `line`: the maximum bytes of a line that
    each host takes, 0: any. Close with `close`."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        size: int,
        shares: ByteShares,
        destination: str,
        envelope: OutgoingEnvelope,
        *,
        line: int = MAX_LINE,
    ) -> None:
        self._read = read
        self._size = size
        self._shares = shares
        self._destination = destination
        self._smtputf8 = envelope.smtputf8
        self._ret = envelope.ret
        self._envid = envelope.envid if envelope.envid.isascii() else ""  # RFC 3461 §4.4 has no other
        self._content: bytes | None = None
        self._facts: OutgoingFacts | None = None
        self._conversion: _Conversion | None = None
        self.reverse_path = with_ascii_domain(envelope.reverse_path)
        self.submitted = envelope.submitted
        self.line = line

    @property
    def known(self) -> bool:
        """`facts` needs no reading."""
        return self._facts is not None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[bytes]:
        """The content with proper line ends, in memory for the time of the block; a block inside it reads nothing.
        Raises OverBudget and what reading raises."""
        if self._content is not None:
            yield self._content
            return
        self._shares.reserve(self._destination, self._size)
        try:
            self._content = with_crlf(await self._read())
            yield self._content
        finally:
            if self._content is None or self._size > KEPT_BYTES:
                self._drop()

    def _drop(self) -> None:
        self._content = None
        self._shares.release(self._destination, self._size)

    async def facts(self) -> OutgoingFacts:
        """Raises as `opened`."""
        if self._facts is None:
            async with self.opened() as content:
                self._facts = await self._scan(content, lambda: _facts(content, self.line, utf8=self._smtputf8))
        return self._facts

    async def converted_size(self, rules: ConversionRules) -> int:
        """Bytes of the content as `rules` makes it. The conversion is remembered until other rules. Raises
        Unconvertible, and as `opened`."""
        if self._conversion is None or self._conversion.rules != rules:
            self._forget_conversion()
            async with self.opened() as content:
                found = await self._scan(content, lambda: _conversion(content, rules), _CONVERT_IN_THREAD)
            reserved = self._shares.reserve_edits(found.reserved, self._size if self._content is not None else 0)
            self._conversion = replace(found, reserved=reserved)
        return self._conversion.size

    async def _scan(self, content: bytes, scan: Callable[[], T], in_thread: int = _SCAN_IN_THREAD) -> T:
        """A content of `in_thread` bytes is scanned in a thread: the event loop has other sessions to serve."""
        if len(content) < in_thread:
            return scan()
        async with self._shares.scanning:
            return await asyncio.to_thread(scan)

    def pieces(self, content: bytes, rules: ConversionRules | None) -> Iterator[bytes]:
        """The bytes to send, in pieces that split no line end; `content` is from `opened`. Rules must be the last one
        of `converted_size`."""
        if rules is None:
            return pieces(content, [])
        if self._conversion is None or self._conversion.rules != rules:
            raise ValueError("the message was converted in another way meanwhile")
        return pieces(content, self._conversion.edits)

    def close(self) -> None:
        """Release the memory."""
        self._forget_conversion()
        if self._content is not None:
            self._drop()

    def _forget_conversion(self) -> None:
        if self._conversion is not None:
            self._shares.release_edits(self._conversion.reserved)
            self._conversion = None

    def has_ascii_addresses(self, recipients: Sequence[RelayRecipient]) -> bool:
        return all(address.isascii() for address in (self.reverse_path, *(one.address for one in recipients)))

    def needs_smtputf8(self, facts: OutgoingFacts, recipients: Sequence[RelayRecipient]) -> bool:
        """RFC 6531 §3.2: an address or the header is not ASCII. SMTPUTF8 of the sender alone asks for nothing."""
        return facts.utf8_header or not self.has_ascii_addresses(recipients)

    def parameters(self, size: int, body: Body | None, *, smtputf8: bool) -> MailParameters:
        return MailParameters(size, body, smtputf8, self._ret, self._envid)


def _facts(content: bytes, line: int, *, utf8: bool) -> OutgoingFacts:
    body = split_header(content)
    end = 0 if content.endswith(b"\r\n") else 2
    return OutgoingFacts(
        size=len(content) + end,
        eight_bit=not content.isascii(),
        utf8_header=utf8 and not is_ascii(content, 0, body),
        long_header=bool(line) and has_long_line(content, 0, body, line),
        long_body=bool(line) and has_long_line(content, body, len(content), line),
        signatures=signatures(content),
    )


def _conversion(content: bytes, rules: ConversionRules) -> _Conversion:
    """Raises Unconvertible."""
    edits = conversion(content, rules)
    size = sum(_EDIT_BYTES + len(edit.text) for edit in edits)
    return _Conversion(rules, edits, sum(map(len, pieces(content, edits))), size)


def with_ascii_domain(path: str) -> str:
    """RFC 6531 §3.3: the domain of an address as A-labels, where it has such a form."""
    local, at, domain = path.rpartition("@")
    if domain.isascii():
        return path
    try:
        return f"{local}{at}{normal_domain(domain)}"
    except BadAddress:
        return path


def with_crlf(content: bytes) -> bytes:
    """The content with every bare CR or LF made a line end; the same object when there is none."""
    ends = content.count(b"\r\n")
    if content.count(b"\n") == ends and content.count(b"\r") == ends:
        return content
    return _LINE_END.sub(b"\r\n", content)
