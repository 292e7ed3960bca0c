"""The other side of the relay in tests: an SMTP server that follows a script, with correct or wrong replies.

`on` maps a phase (CONNECT, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA, MESSAGE, RSET, NOOP, QUIT) to its answer: text
(CRLF is added), DROP (close without a reply), RESET (the client sees a reset connection), SILENT (never answer),
KEEP_THEN_DROP, THEN_DROP(text), or a function of the command line that returns one of these or None. Other phases get
the answer of a correct server. `hold` delays a phase until an event. `messages` has the accepted messages.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType


@dataclass(frozen=True)
class Special:
    """An answer that is more than text."""

    text: str = ""
    close: bool = False
    silent: bool = False
    garbage: bool = False
    keeps: bool = False
    reset: bool = False


DROP = Special(close=True)
SILENT = Special(silent=True)
KEEP_THEN_DROP = Special(close=True, keeps=True)
"""For MESSAGE: accept the message and close the connection without a reply."""
RESET = Special(close=True, reset=True)
"""Close the connection with a RST."""
BREAK_TLS = Special("220 2.0.0 Ready", garbage=True)
"""For STARTTLS: a positive reply, then bytes that are not TLS."""


def then_drop(text: str) -> Special:
    return Special(text, close=True)


Answer = str | Special | Callable[[str], "str | Special"]

EXTENSIONS = ("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True)
class Taken:
    """A message that got a 250 reply."""

    mail: str
    rcpt: tuple[str, ...]
    content: bytes
    tls: str
    login: str
    connection: int


@dataclass
class Transcript:
    """One connection: the commands in order, and the number of bytes that were buffered after each."""

    number: int
    lines: list[str] = field(default_factory=list)
    pipelined: list[bool] = field(default_factory=list)
    tls: str = ""
    login: str = ""
    closed: bool = False


class RemoteHost:
    """`async with RemoteHost(...) as host`: listens on `host.port` of 127.0.0.1 (or `address`)."""

    def __init__(
        self,
        on: dict[str, Answer] | None = None,
        *,
        extensions: tuple[str, ...] = EXTENSIONS,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.on = dict(on or {})
        self.extensions = extensions
        self.address = address
        self.port = port
        self.hold: dict[str, asyncio.Event] = {}
        self.messages: list[Taken] = []
        self.connections: list[Transcript] = []
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> RemoteHost:
        self._server = await asyncio.start_server(self._serve, self.address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until the condition holds. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    def commands(self, connection: int = 0) -> list[str]:
        return self.connections[connection].lines

    @property
    def all_commands(self) -> list[str]:
        """The commands of all connections."""
        return [line for connection in self.connections for line in connection.lines]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        transcript = Transcript(len(self.connections))
        self.connections.append(transcript)
        try:
            # Only __aexit__ cancels it; asyncio's callback for the task would report that as an error.
            with contextlib.suppress(OSError, EOFError, ssl.SSLError, asyncio.CancelledError):
                await _Conversation(self, reader, writer, transcript).run()
        finally:
            self._tasks.discard(task)
            transcript.closed = True
            writer.close()
            await self.notify()

    async def notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class _Conversation:
    def __init__(
        self, host: RemoteHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transcript: Transcript
    ) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._transcript = transcript
        self._buffer = b""
        self._mail = ""
        self._rcpt: list[str] = []
        self._content = b""

    async def run(self) -> None:
        await self._say("CONNECT", "", "220 mx.example.net ESMTP")
        while True:
            line = (await self._until(b"\r\n")).decode("utf-8", "surrogateescape")
            self._transcript.lines.append(line)
            self._transcript.pipelined.append(bool(self._buffer))
            await self._host.notify()
            await self._command(line)

    async def _command(self, line: str) -> None:
        verb = line.split(" ")[0].upper()
        match verb:
            case "EHLO":
                extensions = list(self._host.extensions)
                if self._host._tls is not None and not self._transcript.tls:
                    extensions.append("STARTTLS")
                lines = ["mx.example.net greets you", *extensions]
                good = "\r\n".join(f"250{'-' if n < len(lines) - 1 else ' '}{t}" for n, t in enumerate(lines))
                await self._say(verb, line, good)
            case "STARTTLS":
                await self._start_tls(line)
            case "AUTH":
                await self._log_in(line)
            case "MAIL":
                self._mail, self._rcpt = "", []
                if await self._say(verb, line, "250 2.1.0 Ok"):
                    self._mail = line
            case "RCPT":
                if await self._say(verb, line, "250 2.1.5 Ok" if self._mail else "503 5.5.1 MAIL first"):
                    self._rcpt.append(line)
            case "DATA":
                good = "354 Go on" if self._rcpt else "554 5.5.1 No valid recipients"
                if await self._say(verb, line, good):
                    await self._message()
            case "BDAT":
                await self._chunk(line)
            case "QUIT":
                await self._say(verb, line, "221 2.0.0 Bye")
                raise EOFError
            case _:
                await self._say(verb, line, "250 2.0.0 Ok")

    async def _message(self) -> None:
        self._buffer = b"\r\n" + self._buffer  # a final dot on the first line counts too
        data = await self._until(b"\r\n.\r\n") + b"\r\n"
        self._content = data.replace(b"\r\n..", b"\r\n.")[2:]
        if await self._say("MESSAGE", "", "250 2.0.0 Taken"):
            self._keep()
        self._mail, self._rcpt = "", []
        await self._host.notify()

    async def _chunk(self, line: str) -> None:
        """RFC 3030 §2: the bytes follow the command immediately."""
        size = int(line.split(" ")[1])
        while len(self._buffer) < size:
            if not (more := await self._reader.read(65536)):
                raise EOFError
            self._buffer += more
        self._content, self._buffer = self._buffer[:size], self._buffer[size:]
        if await self._say("MESSAGE", line, "250 2.0.0 Taken" if self._rcpt else "503 5.5.1 RCPT first"):
            self._keep()
        self._mail, self._rcpt = "", []
        await self._host.notify()

    def _keep(self) -> None:
        transcript = self._transcript
        self._host.messages.append(
            Taken(self._mail, tuple(self._rcpt), self._content, transcript.tls, transcript.login, transcript.number)
        )

    async def _say(self, phase: str, line: str, good: str) -> bool:
        """Send the answer; return whether it was positive."""
        if (gate := self._host.hold.get(phase)) is not None:
            await gate.wait()
        answer = self._host.on.get(phase, good)
        if callable(answer):
            answer = answer(line) or good
        special = answer if isinstance(answer, Special) else Special(answer)
        if special.silent:
            await self._until(b"never comes")
        if special.text:
            self._writer.write(special.text.encode("utf-8", "surrogateescape") + b"\r\n")
            await self._writer.drain()
        if special.keeps:
            self._keep()
        if special.reset:
            linger = struct.pack("ii", 1, 0)
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if special.close:
            raise EOFError
        return special.text[:1] in ("3" if phase == "DATA" else "2")

    async def _start_tls(self, line: str) -> None:
        answer = self._host.on.get("STARTTLS")
        if not await self._say("STARTTLS", line, "220 2.0.0 Ready"):
            return
        if isinstance(answer, Special) and answer.garbage:
            await self._reader.read(10)
            self._writer.write(b"this is not TLS\r\n")
            raise EOFError
        assert self._host._tls is not None
        await self._writer.start_tls(self._host._tls)
        self._transcript.tls = self._writer.get_extra_info("ssl_object").version()

    async def _log_in(self, line: str) -> None:
        if line.upper().startswith("AUTH PLAIN "):
            _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
        else:
            self._writer.write(b"334 VXNlcm5hbWU6\r\n")
            user = base64.b64decode(await self._until(b"\r\n")).decode()
            self._writer.write(b"334 UGFzc3dvcmQ6\r\n")
            password = base64.b64decode(await self._until(b"\r\n")).decode()
        good = "235 2.7.0 Ok" if password == "secret" else "535 5.7.8 No"
        if await self._say("AUTH", line, good):
            self._transcript.login = user

    async def _until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            more = await self._reader.read(65536)
            if not more:
                raise EOFError
            self._buffer += more
        found, self._buffer = self._buffer[:at], self._buffer[at + len(end) :]
        return found
