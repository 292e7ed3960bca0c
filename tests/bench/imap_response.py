"""The bytes of an IMAP server, cut into responses, and the values inside them. Pure; made for load.

A literal's bytes stand beside its response's text, in order; the text keeps `{size}` in their place.
RFC 3501 §7, §9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LITERAL = re.compile(rb"\{(\d+)\}$")
_TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*"'  # quoted
    rb"|\{\d+\}"  # a literal's place
    rb"|[()]"
    rb"|(?:BODY|BINARY)\[[^\]]*\](?:<\d+>)?"  # the name of a section, which may hold a list
    rb'|[^ ()"]+'
)
_ESCAPE = re.compile(rb"\\(.)")
_FETCH = re.compile(rb"\* (\d+) FETCH \(")
_NUMBERED = re.compile(rb"\* (\d+) (EXISTS|RECENT|EXPUNGE)$")

Value = bytes | list["Value"] | None
"""A string, number or atom as bytes, NIL, or a parenthesised list."""


class BadResponse(Exception):
    """What came is no response of IMAP."""


@dataclass(slots=True)
class Response:
    """One response: untagged, tagged, or a continuation."""

    text: bytes
    literals: list[bytes] = field(default_factory=list)


class ResponseStream:
    """Feed bytes as they come; take whole responses."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._pieces: list[bytes] = []
        self._literals: list[bytes] = []
        self._wanted = -1

    def feed(self, data: bytes) -> list[Response]:
        """Every response that is whole now."""
        buffer = self._buffer
        buffer += data
        done: list[Response] = []
        position = 0
        while True:
            if self._wanted >= 0:
                if len(buffer) - position < self._wanted:
                    break
                self._literals.append(bytes(memoryview(buffer)[position : position + self._wanted]))
                position += self._wanted
                self._wanted = -1
            end = buffer.find(b"\r\n", max(position, self._scanned))
            if end < 0:
                self._scanned = max(position, len(buffer) - 1)
                break
            line = bytes(memoryview(buffer)[position:end])
            position = end + 2
            self._pieces.append(line)
            if line.endswith(b"}") and (literal := _LITERAL.search(line)):
                self._wanted = int(literal[1])
                continue
            done.append(Response(b"".join(self._pieces), self._literals))
            self._pieces, self._literals = [], []
        del buffer[:position]
        self._scanned = max(0, self._scanned - position)
        return done


def values(response: Response, start: int = 0) -> list[Value]:
    """The values of a response's text from `start` on. Raises BadResponse."""
    literals = iter(response.literals)
    top: list[Value] = []
    stack = [top]
    for token in _TOKEN.findall(response.text, start):
        first = token[0]
        if first == 0x28:  # (
            inner: list[Value] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif first == 0x29:  # )
            stack.pop()
            if not stack:
                raise BadResponse(f"a parenthesis too many: {response.text[:200]!r}")
        elif first == 0x22:  # "
            text = token[1:-1]
            stack[-1].append(_ESCAPE.sub(rb"\1", text) if b"\\" in text else text)
        elif first == 0x7B:  # {
            stack[-1].append(next(literals, None))
        else:
            stack[-1].append(None if token == b"NIL" else token)
    if len(stack) != 1:
        raise BadResponse(f"a parenthesis is not closed: {response.text[:200]!r}")
    return top


def numbered(response: Response) -> tuple[int, bytes] | None:
    """The number and name of `* n EXISTS`, `RECENT` or `EXPUNGE`."""
    match = _NUMBERED.match(response.text)
    return (int(match[1]), match[2]) if match else None


@dataclass(slots=True)
class Fetched:
    """One FETCH response (RFC 3501 §7.4.2): its sequence number and its items by name."""

    number: int
    items: dict[bytes, Value]

    @property
    def uid(self) -> int:
        """0: not sent."""
        return int(self.value(b"UID") or 0)

    @property
    def flags(self) -> frozenset[bytes] | None:
        """Without \\Recent, which is the server's own; None: not sent."""
        shown = self.items.get(b"FLAGS")
        if not isinstance(shown, list):
            return None
        return frozenset(flag for flag in shown if isinstance(flag, bytes) and flag != b"\\Recent")

    def value(self, name: bytes) -> bytes | None:
        """The value of an item that is a string or a number."""
        value = self.items.get(name)
        return value if isinstance(value, bytes) else None


def fetched(response: Response) -> Fetched | None:
    """The FETCH response, if it is one. Raises BadResponse."""
    match = _FETCH.match(response.text)
    if match is None:
        return None
    found = values(response, match.end() - 1)
    if len(found) != 1 or not isinstance(found[0], list) or len(found[0]) % 2:
        raise BadResponse(f"not pairs of name and value: {response.text[:200]!r}")
    pairs = found[0]
    items = {bytes(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True) if isinstance(name, bytes)}
    if len(items) * 2 != len(pairs):
        raise BadResponse(f"an item twice, or without a name: {response.text[:200]!r}")
    return Fetched(int(match[1]), items)
