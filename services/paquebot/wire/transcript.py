"""Filters for transcripts of sessions: they keep the lines of both sides, without passwords and without messages.

A protocol's filter gets what the client and the server send, in the order in which the server reads and answers it, and
returns the pieces to keep. It begins between two commands, and holds at most a line in memory.

A client that was refused may still send the lines of a message, or a password. So only lines that begin with a known
command are kept whole. Of other lines the first words are kept, or nothing while the client may be out of step, which
is until its next command.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_SERVER_LINE: Final = 4096
"""Octets kept of a line of the server."""
MAX_LITERAL: Final = 1024
"""A literal with more octets is always left out."""
LEFT_OUT: Final = b"(left out)"
_TAIL = 80  # octets at the end of a line, which show whether a literal follows, and of what
_LITERAL = re.compile(rb"~?\{([0-9]{1,20})\+?\}$")
_ANNOUNCED = re.compile(rb"\{[0-9]+\}$")  # a synchronizing literal: the client waits for a continuation request
_MESSAGE_LITERAL = re.compile(rb"(?:\](?:<[0-9]+>)?|RFC822(?:\.[A-Z]+)?|PREVIEW) ~?\{[0-9]+\}$")
_SMTP_COMMANDS = frozenset(b"HELO EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY EXPN HELP STARTTLS".split())
_SMTP_WHOLE = re.compile(rb"(?i)(?:MAIL FROM|RCPT TO):|(?:DATA|RSET|NOOP|QUIT|STARTTLS)[ \t]*$|BDAT [0-9]|EHLO [^ ]+$")
"""Commands that no line of text is taken for."""
_POP3_COMMANDS = frozenset(
    b"CAPA STLS USER QUIT STAT LIST RETR DELE NOOP RSET TOP UIDL LAST LANG UTF8 XTND RPOP".split()
)
_IMAP_COMMANDS = frozenset(
    b"CAPABILITY NOOP LOGOUT STARTTLS ID ENABLE SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB"
    b" XLIST STATUS NAMESPACE APPEND IDLE CHECK CLOSE UNSELECT EXPUNGE SEARCH FETCH STORE COPY MOVE UID SORT THREAD"
    b" REPLACE GETQUOTA GETQUOTAROOT SETQUOTA GETACL SETACL DELETEACL LISTRIGHTS MYRIGHTS GETMETADATA SETMETADATA"
    b" NOTIFY COMPRESS UNAUTHENTICATE ESEARCH GETJMAPACCESS UIDBATCHES".split()
)
_MAX_VERB: Final = 16
_LINE_END: Final = len(b"\r\n")


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its CRLF. `cut`: only its beginning was kept."""

    data: bytes
    cut: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A message, a long literal, or what may be a password: the number of its octets."""

    count: int


Piece = Line | LeftOut


def _first_words(words: list[bytes], count: int, line: bytes) -> Line:
    """The first `count` words of the line, and a mark if more followed."""
    return Line(b" ".join((*words[:count], LEFT_OUT)) if len(words) > count else line)


def _is_verb(word: bytes) -> bool:
    """May it be an unknown command? Such a word can be kept."""
    return len(word) <= _MAX_VERB and word.isalpha()


def _parts(data: bytes) -> Iterator[bytes]:
    """Lines with their ends; the last may be the beginning of a line."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end


@dataclass(slots=True)
class _ServerLine:
    """The line that the server is sending."""

    kept: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    size: int = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.kept += data[: max(0, MAX_SERVER_LINE - len(self.kept))]
        self.tail = (self.tail + data[-_TAIL:])[-_TAIL:]

    def take(self) -> Line:
        """Return the line, and begin the next one."""
        kept = bytes(self.kept)
        line = Line(kept.removesuffix(b"\n").removesuffix(b"\r"), cut=len(kept) < self.size)
        self.kept.clear()
        self.tail, self.size = b"", 0
        return line


class SmtpTranscriptFilter:
    """RFC 5321. `client_content` takes the size of what follows DATA and BDAT."""

    def __init__(self) -> None:
        self._server_line = _ServerLine()
        self._out_of_step = False

    def client_line(self, line: bytes) -> list[Piece]:
        """A command, with or without its line end."""
        line = line.rstrip(b"\r\n")
        words = line.split()
        verb = words[0].upper() if words else b""
        if self._out_of_step and verb != b"AUTH" and not _SMTP_WHOLE.match(line):
            return [LeftOut(len(line) + _LINE_END)]
        self._out_of_step = verb in (b"AUTH", b"DATA", b"BDAT")
        if not words or line.partition(b" ")[0].upper() in _SMTP_COMMANDS:
            return [Line(line)]
        return [_first_words(words, 1, line)] if _is_verb(verb) else [LeftOut(len(line) + _LINE_END)]

    def client_content(self, count: int) -> list[Piece]:
        """Content of `count` octets, after DATA or BDAT."""
        self._out_of_step = False
        return [LeftOut(count)] if count else []

    def server_data(self, data: bytes) -> list[Piece]:
        """A part of the replies, cut anywhere."""
        pieces: list[Piece] = []
        for part in _parts(data):
            self._server_line.add(part)
            if part.endswith(b"\n"):
                pieces.append(self._server_line.take())
        return pieces


class Pop3TranscriptFilter:
    """RFC 1939. Of the response to RETR or TOP, the status line and the final dot are kept."""

    def __init__(self) -> None:
        self._server_line = _ServerLine()
        self._message_requested = False
        self._in_message = False
        self._left_out = 0
        self._out_of_step = False

    def client_line(self, line: bytes) -> list[Piece]:
        """A command without its line end."""
        words = line.split()
        verb = words[0].upper() if words else b""
        self._message_requested = verb in (b"RETR", b"TOP")
        self._out_of_step = self._out_of_step and verb not in _POP3_COMMANDS
        if not words or verb in _POP3_COMMANDS:
            return [Line(line)]
        if not _is_verb(verb) or (self._out_of_step and verb != b"AUTH"):
            return [LeftOut(len(line) + _LINE_END)]
        self._out_of_step = verb == b"AUTH"
        return [_first_words(words, 1, line)]

    def server_data(self, data: bytes) -> list[Piece]:
        """A part of the replies, cut anywhere."""
        pieces: list[Piece] = []
        for part in _parts(data):
            self._server_line.add(part)
            if part.endswith(b"\n"):
                pieces += self._line_ended(self._server_line.size, self._server_line.take())
        return pieces

    def _line_ended(self, size: int, line: Line) -> list[Piece]:
        if not self._in_message:
            self._in_message = self._message_requested and line.data.startswith(b"+OK")
            self._message_requested = False
            return [line]
        if line.data != b".":
            self._left_out += size
            return []
        self._in_message, left_out, self._left_out = False, self._left_out, 0
        return [LeftOut(left_out), line]


class ImapTranscriptFilter:
    """RFC 3501. Literals are left out if they hold a message, are long, or have line ends."""

    def __init__(self) -> None:
        self._server_line = _ServerLine()
        self._literal_left = 0
        self._literal: bytearray | None = None
        self._secret = False
        self._announced = False
        self._out_of_step = False

    def client_line(self, line: bytes, *, first: bool = True) -> list[Piece]:
        """A line without its line end. `first`: of its command; otherwise it follows a literal."""
        if not first:
            self._announced = _ANNOUNCED.search(line) is not None
            return [LeftOut(len(line))] if self._secret else [Line(line)]
        self._out_of_step = self._out_of_step or self._announced  # the server did not request the literal
        self._announced = _ANNOUNCED.search(line) is not None
        words = line.split(None, 2)
        verb = words[1].upper() if len(words) > 1 else b""
        known = verb in _IMAP_COMMANDS or line.upper() == b"DONE"
        self._secret = bool(words) and not known
        self._out_of_step = self._out_of_step and not known
        if not self._secret:
            return [Line(line)]
        if self._out_of_step or not _is_verb(verb):
            return [LeftOut(len(line) + _LINE_END)]
        self._out_of_step = verb == b"AUTHENTICATE"
        named = 1 if words[0].upper() in (b"LOGIN", b"AUTHENTICATE") else 2
        return [_first_words(words, named, line)]

    def client_literal(self, literal: bytes) -> list[Piece]:
        """A literal that is not a message; it stands before the next line."""
        self._announced = False
        if self._secret or not _is_short(literal):
            return [LeftOut(len(literal))]
        return [Line(literal, cut=True)]

    def client_content(self, count: int) -> list[Piece]:
        """A literal of `count` octets that is a message, or was discarded."""
        self._announced = False
        return [LeftOut(count)] if count else []

    def server_data(self, data: bytes) -> list[Piece]:
        """A part of the responses, cut anywhere, also within literals."""
        pieces: list[Piece] = []
        start = 0
        while start < len(data):
            if self._literal_left:
                end = min(len(data), start + self._literal_left)
                pieces += self._more_of_literal(data[start:end] if self._literal is not None else b"", end - start)
            else:
                end = data.find(b"\n", start) + 1 or len(data)
                self._server_line.add(data[start:end])
                if data[end - 1] == 0x0A:
                    pieces += self._line_ended()
            start = end
        return pieces

    def _line_ended(self) -> list[Piece]:
        tail = self._server_line.tail.rstrip(b"\r\n")
        announced = _LITERAL.search(tail)
        line = self._server_line.take()
        if self._out_of_step and line.data[:1] not in (
            b"*",
            b"+",
        ):  # its tag repeats the client's word
            line = Line(b"%b %b" % (LEFT_OUT, line.data.partition(b" ")[2]), line.cut)
        pieces: list[Piece] = [line]
        if announced and (size := int(announced[1])):
            self._literal_left = size
            keep = size <= MAX_LITERAL and not _MESSAGE_LITERAL.search(tail)
            self._literal = bytearray() if keep else None
            if not keep:
                pieces.append(LeftOut(size))
        return pieces

    def _more_of_literal(self, data: bytes, count: int) -> list[Piece]:
        self._literal_left -= count
        if self._literal is None:
            return []
        self._literal += data
        if self._literal_left:
            return []
        literal, self._literal = bytes(self._literal), None
        if not _is_short(literal):
            return [LeftOut(len(literal))]
        self._server_line.add(literal)
        return []


def _is_short(literal: bytes) -> bool:
    """Does it fit into a line of the transcript?"""
    return len(literal) <= MAX_LITERAL and b"\n" not in literal and b"\r" not in literal
