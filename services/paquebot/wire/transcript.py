"""What a transcript of a session holds: lines of both sides, without passwords and without messages.

A protocol's class is told what is heard and said, in the order in which the server takes it in and answers, and gives
back the pieces to keep. It begins between two commands; what a peer makes it hold is a line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_SAID: Final = 4096
"""Octets that are kept of a line of the server."""
MAX_LITERAL: Final = 1024
"""A literal with more octets is left out, whatever it is."""
LEFT_OUT: Final = b"(left out)"
_TAIL = 80  # octets at a line's end that say whether a literal follows, and of what
_LITERAL = re.compile(rb"~?\{([0-9]{1,20})\+?\}$")
_MESSAGE_LITERAL = re.compile(rb"(?:\](?:<[0-9]+>)?|RFC822(?:\.[A-Z]+)?|PREVIEW) ~?\{[0-9]+\}$")


@dataclass(frozen=True, slots=True)
class Line:
    """Without its CRLF. `cut`: more followed that was not kept."""

    octets: bytes
    cut: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Octets of a message, of a long literal, or of what may be a password."""

    octets: int


Piece = Line | LeftOut


def _parts(octets: bytes) -> Iterator[bytes]:
    """Lines with their ends, and what is of a line that is not ended."""
    start = 0
    while start < len(octets):
        end = octets.find(b"\n", start) + 1 or len(octets)
        yield octets[start:end]
        start = end


@dataclass(slots=True)
class _SaidLine:
    """The server's line that is not ended yet."""

    kept: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    octets: int = 0

    def add(self, octets: bytes) -> None:
        self.octets += len(octets)
        self.kept += octets[: max(0, MAX_SAID - len(self.kept))]
        self.tail = (self.tail + octets[-_TAIL:])[-_TAIL:]

    def take(self) -> Line:
        """The line, and begin the next one."""
        kept = bytes(self.kept)
        line = Line(kept.removesuffix(b"\n").removesuffix(b"\r"), cut=len(kept) < self.octets)
        self.kept.clear()
        self.tail, self.octets = b"", 0
        return line


class SmtpTranscript:
    """RFC 5321. The content of DATA and BDAT is told to `heard_octets`."""

    def __init__(self) -> None:
        self._said = _SaidLine()

    def heard(self, line: bytes) -> list[Piece]:
        """A command, with or without its line end."""
        line = line.rstrip(b"\r\n")
        verb, space, _ = line.partition(b" ")
        return [Line(verb + b" " + LEFT_OUT if space and self._is_secret(verb.upper()) else line)]

    def _is_secret(self, verb: bytes) -> bool:
        return verb == b"AUTH"

    def heard_octets(self, count: int) -> list[Piece]:
        """Octets that are no line."""
        return [LeftOut(count)] if count else []

    def said(self, octets: bytes) -> list[Piece]:
        """Some of the answer; lines may be cut anywhere."""
        pieces: list[Piece] = []
        for part in _parts(octets):
            self._said.add(part)
            if part.endswith(b"\n"):
                pieces.append(self._said.take())
        return pieces


class Pop3Transcript:
    """RFC 1939. Of a message, RETR's or TOP's, the status line and the dot are kept."""

    def __init__(self) -> None:
        self._said = _SaidLine()
        self._message_asked = False
        self._in_message = False
        self._left_out = 0

    def heard(self, line: bytes) -> list[Piece]:
        """A command without its line end."""
        verb, space, _ = line.partition(b" ")
        self._message_asked = verb.upper() in (b"RETR", b"TOP")
        secret = space and verb.upper() in (b"PASS", b"APOP", b"AUTH")
        return [Line(verb + b" " + LEFT_OUT if secret else line)]

    def said(self, octets: bytes) -> list[Piece]:
        """Some of the answer; lines may be cut anywhere."""
        pieces: list[Piece] = []
        for part in _parts(octets):
            self._said.add(part)
            if part.endswith(b"\n"):
                pieces += self._ended(self._said.octets, self._said.take())
        return pieces

    def _ended(self, octets: int, line: Line) -> list[Piece]:
        if not self._in_message:
            self._in_message = self._message_asked and line.octets.startswith(b"+OK")
            self._message_asked = False
            return [line]
        if line.octets != b".":
            self._left_out += octets
            return []
        self._in_message, left_out, self._left_out = False, self._left_out, 0
        return [LeftOut(left_out), line]


class ImapTranscript:
    """RFC 3501. Literals are left out when they are of a message, long, or of more than a line."""

    def __init__(self) -> None:
        self._said = _SaidLine()
        self._literal_left = 0
        self._literal: bytearray | None = None
        self._secret = False

    def heard(self, line: bytes, *, first: bool = True) -> list[Piece]:
        """A line without its line end; not the `first` one of its command: what follows a literal."""
        if first:
            words = line.split(None, 2)
            self._secret = len(words) > 1 and words[1].upper() in (b"LOGIN", b"AUTHENTICATE")
            if self._secret:
                return [Line(b" ".join((*words[:2], LEFT_OUT)))]
        return [LeftOut(len(line))] if self._secret else [Line(line)]

    def heard_literal(self, octets: bytes) -> list[Piece]:
        """A literal that is no message; its octets stand before the next line."""
        if self._secret or not _is_short(octets):
            return [LeftOut(len(octets))]
        return [Line(octets, cut=True)]

    def heard_octets(self, count: int) -> list[Piece]:
        """A literal that is a message, or was thrown away."""
        return [LeftOut(count)] if count else []

    def said(self, octets: bytes) -> list[Piece]:
        """Some of the answer; lines and literals may be cut anywhere."""
        pieces: list[Piece] = []
        start = 0
        while start < len(octets):
            if self._literal_left:
                end = min(len(octets), start + self._literal_left)
                pieces += self._more_of_literal(octets[start:end] if self._literal is not None else b"", end - start)
            else:
                end = octets.find(b"\n", start) + 1 or len(octets)
                self._said.add(octets[start:end])
                if octets[end - 1] == 0x0A:
                    pieces += self._line_ended()
            start = end
        return pieces

    def _line_ended(self) -> list[Piece]:
        tail = self._said.tail.rstrip(b"\r\n")
        announced = _LITERAL.search(tail)
        pieces: list[Piece] = [self._said.take()]
        if announced and (size := int(announced[1])):
            self._literal_left = size
            keep = size <= MAX_LITERAL and not _MESSAGE_LITERAL.search(tail)
            self._literal = bytearray() if keep else None
            if not keep:
                pieces.append(LeftOut(size))
        return pieces

    def _more_of_literal(self, octets: bytes, count: int) -> list[Piece]:
        self._literal_left -= count
        if self._literal is None:
            return []
        self._literal += octets
        if self._literal_left:
            return []
        literal, self._literal = bytes(self._literal), None
        if not _is_short(literal):
            return [LeftOut(len(literal))]
        self._said.add(literal)
        return []


def _is_short(literal: bytes) -> bool:
    """It can stand in a line of the transcript."""
    return len(literal) <= MAX_LITERAL and b"\n" not in literal and b"\r" not in literal
