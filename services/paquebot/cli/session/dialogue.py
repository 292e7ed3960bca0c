"""A transcript as a dialogue file, which the runner of the tests (tests/dialogues/dialogue.py) plays again.

What differs from one server to the next (UIDVALIDITY, dates, ids) is written as `*`; what was left out is made up again
by `fill` or read over by `skip`.
"""

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass

from paquebot.v1.directory_pb2 import TranscriptLine

_LOGIN = {
    "imap": (
        *("connect imaps as {name}", "S: * OK *"),
        *('C: login LOGIN {{account}} "{{password}}"', "S: login OK *"),
    ),
    "pop3": (
        *("connect pop3s as {name}", "S: +OK *"),
        *("C: USER {{account}}", "S: +OK *", "C: PASS {{password}}", "S: +OK *"),
    ),
    "smtp": (
        *("connect submissions as {name}", "S: 220 *", "C: EHLO client.example", "S*: 250 *"),
        *("C: AUTH PLAIN {{plain}}", "S: 235 *"),
    ),
}
_VARIABLE = (
    (re.compile(r"\b(UIDVALIDITY|APPENDUID|COPYUID|HIGHESTMODSEQ) \d+"), r"\1 *"),
    (re.compile(r"\b(MODSEQ|MAILBOXID|EMAILID|THREADID) \([^)]*\)"), r"\1 (*)"),
    (re.compile(r'\bINTERNALDATE "[^"]*"'), 'INTERNALDATE "*"'),
    (re.compile(r"\bqueued as \S+"), "queued as *"),
    (re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b"), "*"),
    (re.compile(r"\b\d+ messages left$"), "* messages left"),
    (re.compile(r"^(\+OK )?(\d+) [0-9a-f]{16}$"), r"\1\2 *"),
)
_OF_MESSAGE = re.compile(r"(?:\bFETCH .*?\b|^ )(?:ENVELOPE|BODYSTRUCTURE|BODY(?= \())")
"""What follows is read from a message: another one, if that was left out. The whole line stands in a comment."""
_DOT = b".\r\n"
_PLAIN = {octet: chr(octet) for octet in range(0x20, 0x7F)} | {ord("\\"): "\\\\", ord("$"): "\\x24"}
"""Bytes of a client's line that are written otherwise than in hexadecimal."""


@dataclass(slots=True)
class _Session:
    name: str
    protocol: str
    verb: str = ""
    """Of the last command."""
    message_left_out: bool = False


class DialogueWriter:
    """`write` takes a line of the file. Lines of sessions at the same time may alternate."""

    def __init__(self, write: Callable[[str], None], account: str) -> None:
        self._write = write
        self._account = account
        self._sessions: dict[str, _Session] = {}
        self._current = ""
        self.lines = 0

    @property
    def sessions(self) -> int:
        """Sessions so far."""
        return len(self._sessions)

    def add(self, line: TranscriptLine) -> None:
        """The next line of the transcript, of whichever session."""
        if line.WhichOneof("what") == "lost":
            self._write(f"# {line.lost} lines are missing here: there were too many at once")
            return
        session = self._sessions.get(line.session_id)
        if session is None:
            session = _Session(f"s{len(self._sessions) + 1}", line.protocol)
            self._sessions[line.session_id] = session
            self._begin(session, line)
        elif self._current != session.name:
            self._write(f"use {session.name}")
        self._current = session.name
        self.lines += 1
        self._add(session, line)

    def _begin(self, session: _Session, line: TranscriptLine) -> None:
        at = datetime.datetime.fromtimestamp(line.at_ms / 1000, datetime.UTC)
        where = f" from {line.begun.client}" if line.begun.client else ""
        self._write(f"# {session.protocol} session {line.session_id}{where}, {at:%Y-%m-%dT%H:%M:%SZ}")
        for step in _LOGIN[session.protocol]:
            self._write(step.format(name=session.name))
        if line.begun.mailbox:
            self._write("# This was selected before.")
            self._write(f'C: select SELECT "{self._client_text(line.begun.mailbox.encode())}"')
            self._write("S*: select OK *")

    def _add(self, session: _Session, line: TranscriptLine) -> None:
        match line.WhichOneof("what"):
            case "client":
                self._client(session, line.client, cut=line.cut)
            case "server":
                self._server(session, line.server, cut=line.cut)
            case "client_left_out":
                self._fill(session, line.client_left_out)
            case "server_left_out" if session.protocol == "imap":
                self._write(f"skip {line.server_left_out}")
            case "server_left_out":
                session.message_left_out = True
            case "ended":
                self._write("closed" if session.verb in ("LOGOUT", "QUIT") else "abort")
                self._current = ""

    def _client(self, session: _Session, octets: bytes, *, cut: bool) -> None:
        words = octets.upper().split(None, 2)
        place = 1 if session.protocol == "imap" else 0
        if len(words) > place:
            session.verb = words[place].decode("ascii", "replace")
        self._write(f"C: {self._client_text(octets)}" + (r"\c" if cut else ""))

    def _client_text(self, octets: bytes) -> str:
        text = "".join(_PLAIN.get(octet) or f"\\x{octet:02x}" for octet in octets)
        if octets.endswith((b"\\", b"\\c", b"\\r", b"\\n")):  # the runner's own at the end of a line
            text = text.replace("\\\\", "\\x5c")
        return text.replace(self._account, "{account}")

    def _server(self, session: _Session, octets: bytes, *, cut: bool) -> None:
        if session.message_left_out:
            session.message_left_out = False
            self._write("S*: .")
            return
        text = "".join(map(_pattern, octets.decode("utf-8", "backslashreplace"))).replace(self._account, "{account}")
        if (made_of_message := _OF_MESSAGE.search(text)) is not None:
            self._write(f"# {text}")
            text = text[: made_of_message.end()] + " *"
        for pattern, general in _VARIABLE:
            text = pattern.sub(general, text)
        if text.startswith(" ") or text.endswith(" "):
            text = re.sub(r"^ | $", r"\\x20", text)
        if text.startswith("\\* "):
            text = text[1:]  # as people write them
        self._write(f"S: {text}" + ("*" if cut else ""))

    def _fill(self, session: _Session, count: int) -> None:
        """The bytes of DATA end with the line of a dot, which is no part of the message."""
        if session.verb == "DATA" and count >= len(_DOT):
            self._write(f"fill {count - len(_DOT)} {{account}}")
            self._write("C: .")
        else:
            self._write(f"fill {count} {{account}}")


def _pattern(character: str) -> str:
    if character in "\\*$":
        return f"\\{character}"
    if character < " " or character == "\x7f":
        return f"\\x{ord(character):02x}"
    return character if character.isprintable() else "*"
