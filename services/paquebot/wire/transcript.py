"""What a transcript of a session holds: lines of both sides, without passwords and without messages.

A protocol's class is told what is heard and said, in the order in which the server takes it in and answers, and gives
back the pieces to keep. It begins between two commands; what a peer makes it hold is a line.

A client that was refused may go on with what it would have sent: the lines of a message, or a password. So only lines
that begin with a command are kept whole. Of others the first words are kept, and nothing of them while the client may
be astray, which is until the next command.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_SERVER_LINE: Final = 4096
"""Octets that are kept of a line of the server."""
MAX_LITERAL: Final = 1024
"""A literal with more octets is left out, whatever it is."""
LEFT_OUT: Final = b"(left out)"
_TAIL = 80  # octets at a line's end that say whether a literal follows, and of what
_LITERAL = re.compile(rb"~?\{([0-9]{1,20})\+?\}$")
_ANNOUNCED = re.compile(rb"\{[0-9]+\}$")  # a literal for which the client waits to be asked
_MESSAGE_LITERAL = re.compile(rb"(?:\](?:<[0-9]+>)?|RFC822(?:\.[A-Z]+)?|PREVIEW) ~?\{[0-9]+\}$")
_SMTP_COMMANDS = frozenset(b"HELO EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY EXPN HELP STARTTLS".split())
_SMTP_WHOLE = re.compile(rb"(?i)(?:MAIL FROM|RCPT TO):|(?:DATA|RSET|NOOP|QUIT|STARTTLS)[ \t]*$|BDAT [0-9]|EHLO [^ ]+$")
"""Commands for which text is not taken."""
_POP3_COMMANDS = frozenset(
    b"CAPA STLS USER QUIT STAT LIST RETR DELE NOOP RSET TOP UIDL LAST LANG UTF8 XTND RPOP".split()
)
_IMAP_COMMANDS = frozenset(
    b"CAPABILITY NOOP LOGOUT STARTTLS ID ENABLE SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB"
    b" XLIST STATUS NAMESPACE APPEND IDLE CHECK CLOSE UNSELECT EXPUNGE SEARCH FETCH STORE COPY MOVE UID SORT THREAD"
    b" REPLACE GETQUOTA GETQUOTAROOT SETQUOTA GETACL SETACL DELETEACL LISTRIGHTS MYRIGHTS GETMETADATA SETMETADATA"
    b" NOTIFY COMPRESS UNAUTHENTICATE ESEARCH GETJMAPACCESS UIDBATCHES".split()
)
_LONGEST_VERB: Final = 16
_LINE_END: Final = len(b"\r\n")


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


def _first_words(words: list[bytes], count: int, line: bytes) -> Line:
    """So many words of the line, and that there was more."""
    return Line(b" ".join((*words[:count], LEFT_OUT)) if len(words) > count else line)


def _is_verb(word: bytes) -> bool:
    """It may be a command that nobody knows, and says nothing else."""
    return len(word) <= _LONGEST_VERB and word.isalpha()


def _parts(octets: bytes) -> Iterator[bytes]:
    """Lines with their ends, and what is of a line that is not ended."""
    start = 0
    while start < len(octets):
        end = octets.find(b"\n", start) + 1 or len(octets)
        yield octets[start:end]
        start = end


@dataclass(slots=True)
class _ServerLine:
    """The server's line that is not ended yet."""

    kept: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    octets: int = 0

    def add(self, octets: bytes) -> None:
        self.octets += len(octets)
        self.kept += octets[: max(0, MAX_SERVER_LINE - len(self.kept))]
        self.tail = (self.tail + octets[-_TAIL:])[-_TAIL:]

    def take(self) -> Line:
        """The line, and begin the next one."""
        kept = bytes(self.kept)
        line = Line(kept.removesuffix(b"\n").removesuffix(b"\r"), cut=len(kept) < self.octets)
        self.kept.clear()
        self.tail, self.octets = b"", 0
        return line


class SmtpTranscriptFilter:
    """RFC 5321. The content of DATA and BDAT is told to `client_content`."""

    def __init__(self) -> None:
        self._server_line = _ServerLine()
        self._astray = False

    def client_line(self, line: bytes) -> list[Piece]:
        """A command, with or without its line end."""
        line = line.rstrip(b"\r\n")
        words = line.split()
        verb = words[0].upper() if words else b""
        if self._astray and verb != b"AUTH" and not _SMTP_WHOLE.match(line):
            return [LeftOut(len(line) + _LINE_END)]
        self._astray = verb in (b"AUTH", b"DATA", b"BDAT")
        if not words or line.partition(b" ")[0].upper() in _SMTP_COMMANDS:
            return [Line(line)]
        return [_first_words(words, 1, line)] if _is_verb(verb) else [LeftOut(len(line) + _LINE_END)]

    def client_content(self, count: int) -> list[Piece]:
        """Octets that are no line."""
        self._astray = False
        return [LeftOut(count)] if count else []

    def server_data(self, octets: bytes) -> list[Piece]:
        """Some of the answer; lines may be cut anywhere."""
        pieces: list[Piece] = []
        for part in _parts(octets):
            self._server_line.add(part)
            if part.endswith(b"\n"):
                pieces.append(self._server_line.take())
        return pieces


class Pop3TranscriptFilter:
    """RFC 1939. Of a message, RETR's or TOP's, the status line and the dot are kept."""

    def __init__(self) -> None:
        self._server_line = _ServerLine()
        self._message_asked = False
        self._in_message = False
        self._left_out = 0
        self._astray = False

    def client_line(self, line: bytes) -> list[Piece]:
        """A command without its line end."""
        words = line.split()
        verb = words[0].upper() if words else b""
        self._message_asked = verb in (b"RETR", b"TOP")
        self._astray = self._astray and verb not in _POP3_COMMANDS
        if not words or verb in _POP3_COMMANDS:
            return [Line(line)]
        if not _is_verb(verb) or (self._astray and verb != b"AUTH"):
            return [LeftOut(len(line) + _LINE_END)]
        self._astray = verb == b"AUTH"
        return [_first_words(words, 1, line)]

    def server_data(self, octets: bytes) -> list[Piece]:
        """Some of the answer; lines may be cut anywhere."""
        pieces: list[Piece] = []
        for part in _parts(octets):
            self._server_line.add(part)
            if part.endswith(b"\n"):
                pieces += self._ended(self._server_line.octets, self._server_line.take())
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


class ImapTranscriptFilter:
    """RFC 3501. Literals are left out when they are of a message, long, or of more than a line."""

    def __init__(self) -> None:
        self._server_line = _ServerLine()
        self._literal_left = 0
        self._literal: bytearray | None = None
        self._secret = False
        self._announced = False
        self._astray = False

    def client_line(self, line: bytes, *, first: bool = True) -> list[Piece]:
        """A line without its line end; not the `first` one of its command: what follows a literal."""
        if not first:
            self._announced = _ANNOUNCED.search(line) is not None
            return [LeftOut(len(line))] if self._secret else [Line(line)]
        self._astray = self._astray or self._announced  # the literal was not asked for
        self._announced = _ANNOUNCED.search(line) is not None
        words = line.split(None, 2)
        verb = words[1].upper() if len(words) > 1 else b""
        known = verb in _IMAP_COMMANDS or line.upper() == b"DONE"
        self._secret = bool(words) and not known
        self._astray = self._astray and not known
        if not self._secret:
            return [Line(line)]
        if self._astray or not _is_verb(verb):
            return [LeftOut(len(line) + _LINE_END)]
        self._astray = verb == b"AUTHENTICATE"
        named = 1 if words[0].upper() in (b"LOGIN", b"AUTHENTICATE") else 2
        return [_first_words(words, named, line)]

    def client_literal(self, octets: bytes) -> list[Piece]:
        """A literal that is no message; its octets stand before the next line."""
        self._announced = False
        if self._secret or not _is_short(octets):
            return [LeftOut(len(octets))]
        return [Line(octets, cut=True)]

    def client_content(self, count: int) -> list[Piece]:
        """A literal that is a message, or was thrown away."""
        self._announced = False
        return [LeftOut(count)] if count else []

    def server_data(self, octets: bytes) -> list[Piece]:
        """Some of the answer; lines and literals may be cut anywhere."""
        pieces: list[Piece] = []
        start = 0
        while start < len(octets):
            if self._literal_left:
                end = min(len(octets), start + self._literal_left)
                pieces += self._more_of_literal(octets[start:end] if self._literal is not None else b"", end - start)
            else:
                end = octets.find(b"\n", start) + 1 or len(octets)
                self._server_line.add(octets[start:end])
                if octets[end - 1] == 0x0A:
                    pieces += self._line_ended()
            start = end
        return pieces

    def _line_ended(self) -> list[Piece]:
        tail = self._server_line.tail.rstrip(b"\r\n")
        announced = _LITERAL.search(tail)
        line = self._server_line.take()
        if self._astray and line.octets[:1] not in (b"*", b"+"):  # the client's first word comes back as its tag
            line = Line(b"%b %b" % (LEFT_OUT, line.octets.partition(b" ")[2]), line.cut)
        pieces: list[Piece] = [line]
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
        self._server_line.add(literal)
        return []


def _is_short(literal: bytes) -> bool:
    """It can stand in a line of the transcript."""
    return len(literal) <= MAX_LITERAL and b"\n" not in literal and b"\r" not in literal
