r"""Plays a dialogue file with a real server; a failure names the line of the script.

A script is a text file, one step a line; empty lines and lines that begin with `#` are comments.

    set PAQUEBOT_SMTP_MAX_SIZE 1KiB   a setting of the service for this script; before the first step
    connect mx                        open a connection to the listener `mx`; it becomes the current one
    connect mx as second              the same, with a name for the connection (default: the listener's name)
    connect mx as third from 127.0.0.2    from that local address
    use mx                            make another open connection the current one
    C: EHLO client.example            send the line with CRLF. Consecutive `C:`, `repeat` and `fill` lines are one write
    C: one\ntwo\r\n                   escapes \r \n \t \0 \\ \xHH; a text that ends with \r or \n gets no CRLF
    C: partial\c                      \c at the end: no CRLF is added
    repeat 1000 0123456789\r\n        send that text 1000 times; no CRLF is added
    fill 120 a@example.org            send a made-up message of 120 bytes from that address; no CRLF is added
    S: 250 2.1.0 *                    the next line must match; * is any run of characters, \* a star
    S: 250 2.0.0 Ok: queued as $(id)  $(name) captures a run; later, also in C:, it stands for the captured text
    S~: * FLAGS *                     consecutive S~ lines match the next lines in any order
    S*: a1 OK *                       skip lines until one matches
    skip 120                          read and ignore 120 bytes
    starttls                          do the TLS handshake on the current connection
    closed                            the server must close the current connection and send nothing more
    half-close                        close our direction of the current connection
    abort                             abort the current connection

Every other line goes to the world, e.g. `assert queued 1` or `do drain`. Lines of the server must end with CRLF.
After the last step no connection may have an unread line.

A test makes the world and plays:

    @pytest.mark.parametrize("script", scripts(Path(__file__).parent / "smtp"))
    async def test_smtp_dialogue(script: Script, ...) -> None:
        async with smtp_world(script.settings, ...) as world:
            await play(script, world)
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from paquebot.wire.sasl import Credentials, print_plain

MAX_LINE = 2**20
_SENDING = ("C:", "repeat ", "fill ")
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\", "*": "*", "$": "$"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of a listener; `tls`: the handshake comes first (implicit TLS)."""

    host: str
    port: int
    tls: bool = False


class World(Protocol):
    """The server and its state that a script acts on."""

    def endpoint(self, listener: str) -> Endpoint:
        """Return the endpoint of the listener with that name in scripts. Raises KeyError."""

    async def perform(self, step: str) -> None:
        """Perform a step that the runner does not know. Raises AssertionError when an assertion of the step fails."""


class DialogueFailed(AssertionError):
    """The text begins with `file:line:` of the step and ends with the dialogue so far."""


@dataclass(frozen=True, slots=True)
class Step:
    number: int  # line in the file, from 1
    text: str


@dataclass(frozen=True, slots=True)
class Script:
    path: Path
    settings: dict[str, str]
    steps: tuple[Step, ...]


def load(path: Path) -> Script:
    """The script in a file."""
    settings: dict[str, str] = {}
    steps: list[Step] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("set "):
            assert not steps, f"{path}:{number}: `set` comes before the first step"
            _, name, value = line.split(" ", 2)
            settings[name] = value.strip()
        else:
            steps.append(Step(number, line.strip() if not line.startswith(("C:", "S", "repeat ")) else line))
    assert steps, f"{path}: no steps"
    return Script(path, settings, tuple(steps))


def with_login(script: Script, address: str, password: str) -> Script:
    """Replace `{account}` and `{password}` in the script, and `{plain}` with their SASL PLAIN."""
    plain = print_plain(Credentials(address, password)).decode()

    def filled(text: str) -> str:
        return text.replace("{account}", address).replace("{password}", password).replace("{plain}", plain)

    return replace(script, steps=tuple(Step(step.number, filled(step.text)) for step in script.steps))


def scripts(folder: Path) -> list[Any]:
    """Every `*.txt` of `folder` as a pytest parameter."""
    found = [pytest.param(load(path), id=path.stem) for path in sorted(folder.glob("*.txt"))]
    assert found, f"no scripts in {folder}"
    return found


def client_tls() -> ssl.SSLContext:
    """TLS for tests' clients: the server's certificate is self-signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def play(script: Script, world: World, *, deadline: float = 20.0) -> None:
    """Play `script`; each wait for the server lasts at most `deadline` seconds. Raises DialogueFailed."""
    player = _Player(world, deadline)
    step = script.steps[0]
    try:
        for index, step in enumerate(script.steps):
            following = script.steps[index + 1].text if index + 1 < len(script.steps) else ""
            await player.step(step.text, following)
        player.transcript.append("(end of the script)")
        await player.finish()
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            reason = f"nothing came within {deadline:g} s"
        conversation = "\n    ".join(player.transcript[-40:])
        raise DialogueFailed(f"{script.path}:{step.number}: {reason}\n  in: {step.text}\n    {conversation}") from error
    finally:
        player.close()


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def line(self) -> str:
        """The next line without CRLF. EOFError at the end."""
        try:
            line = await self.reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            raise AssertionError(f"the server closed the connection after {error.partial!r}") from None
        except ConnectionError as error:
            raise AssertionError(f"the connection broke: {type(error).__name__}") from None
        assert line.endswith(b"\r\n"), f"a line of the server ends with a bare LF: {line!r}"
        return line[:-2].decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class _Player:
    world: World
    deadline: float
    connections: dict[str, _Connection] = field(default_factory=dict)
    current: str = ""
    captured: dict[str, str] = field(default_factory=dict)
    transcript: list[str] = field(default_factory=list)
    _to_send: list[bytes] = field(default_factory=list)
    _any_order: list[str] = field(default_factory=list)

    async def step(self, text: str, following: str) -> None:
        """Perform one step; `following` is the next step's text, which shows where a write or a group ends."""
        async with asyncio.timeout(self.deadline):
            if text.startswith(_SENDING):
                self._to_send.append(self._bytes_of(text))
                if not following.startswith(_SENDING):
                    await self._send()
            elif text.startswith("S~:"):
                self._any_order.append(text[3:].strip())
                if not following.startswith("S~:"):
                    await self._expect_any_order()
            elif text.startswith("S*:"):
                await self._skip_to(text[3:].strip())
            elif text.startswith("S:"):
                await self._expect(text[2:].strip())
            else:
                await self._directive(text)

    # --- sending ---

    def _bytes_of(self, text: str) -> bytes:
        if text.startswith("fill "):
            _, count, address = text.split()
            return made_up(int(count), address)
        return self._repeated(text) if text.startswith("repeat ") else self._line(text)

    def _line(self, text: str) -> bytes:
        body = self._substituted(text[2:].removeprefix(" "))
        if body.endswith("\\c"):
            return unescaped(body[:-2]).encode("utf-8", "surrogateescape")
        data = unescaped(body).encode("utf-8", "surrogateescape")
        ends_itself = body.endswith(("\\r", "\\n")) and not body.endswith(("\\\\r", "\\\\n"))
        return data if ends_itself else data + b"\r\n"

    def _repeated(self, text: str) -> bytes:
        _, count, body = text.split(" ", 2)
        return unescaped(self._substituted(body)).encode("utf-8", "surrogateescape") * int(count)

    def _substituted(self, text: str) -> str:
        return re.sub(r"\$\((\w+)\)", lambda match: self.captured[match[1]], text)

    async def _send(self) -> None:
        data = b"".join(self._to_send)
        self._to_send.clear()
        self._note("C", data.decode("utf-8", "backslashreplace"))
        connection = self._connection()
        try:
            connection.writer.write(data)
            await connection.writer.drain()
        except ConnectionError:
            pass  # the server may close while we send; the test still reads what it sent before

    # --- expecting ---

    async def _expect(self, pattern: str) -> None:
        self._match(pattern, await self._read())

    async def _expect_any_order(self) -> None:
        patterns, self._any_order = self._any_order, []
        for _ in range(len(patterns)):
            line = await self._read()
            fitting = next((item for item in patterns if self._pattern(item).fullmatch(line)), None)
            assert fitting is not None, f"expected one of {patterns}, got {line!r}"
            self._match(fitting, line)
            patterns.remove(fitting)

    async def _skip_to(self, pattern: str) -> None:
        line = await self._read()
        while not self._pattern(pattern).fullmatch(line):
            line = await self._read()
        self._match(pattern, line)

    async def _read(self) -> str:
        line = await self._connection().line()
        self._note("S", line)
        return line

    def _match(self, pattern: str, line: str) -> None:
        match = self._pattern(pattern).fullmatch(line)
        assert match, f"expected {pattern!r}, got {line!r}"
        self.captured.update(match.groupdict())

    def _pattern(self, pattern: str) -> re.Pattern[str]:
        parts = re.split(r"(\$\(\w+\)|\\x[0-9a-fA-F]{2}|\\.|\*)", pattern)
        return re.compile("".join(self._part(part) for part in parts), re.DOTALL)

    def _part(self, part: str) -> str:
        if part == "*":
            return ".*"
        if part.startswith("$("):
            name = part[2:-1]
            return re.escape(self.captured[name]) if name in self.captured else f"(?P<{name}>.+?)"
        return re.escape(unescaped(part) if part.startswith("\\") else part)

    # --- directives ---

    async def _directive(self, text: str) -> None:
        words = text.split()
        simple: dict[str, Callable[[], Any]] = {
            "starttls": self._starttls,
            "closed": self._closed,
            "half-close": self._half_close,
            "abort": self._abort,
        }
        self.transcript.append(f"-- {text}")
        if words[0] == "connect":
            await self._connect(words[1:])
        elif words[0] == "skip":
            await self._connection().reader.readexactly(int(words[1]))
        elif words[0] == "use":
            assert words[1] in self.connections, f"no connection {words[1]!r}"
            self.current = words[1]
        elif text in simple:
            await simple[text]()
        else:
            await self.world.perform(self._substituted(text))

    async def _connect(self, words: Sequence[str]) -> None:
        options = dict(zip(words[1::2], words[2::2], strict=True))
        name = options.get("as", words[0])
        assert name not in self.connections, f"the connection {name!r} is open already"
        endpoint = self.world.endpoint(words[0])
        local = (options["from"], 0) if "from" in options else None
        reader, writer = await asyncio.open_connection(
            endpoint.host,
            endpoint.port,
            ssl=client_tls() if endpoint.tls else None,
            local_addr=local,
            limit=MAX_LINE,
        )
        self.connections[name] = _Connection(reader, writer)
        self.current = name

    async def _starttls(self) -> None:
        await self._connection().writer.start_tls(client_tls())

    async def _closed(self) -> None:
        try:
            rest = await self._connection().reader.read(MAX_LINE)
        except ConnectionError:
            rest = b""
        assert not rest, f"expected the end of the connection, got {rest!r}"
        self._forget()

    async def _half_close(self) -> None:
        self._connection().writer.write_eof()

    async def _abort(self) -> None:
        self._connection().writer.transport.abort()
        self._forget()

    def _forget(self) -> None:
        self._connection().writer.close()
        del self.connections[self.current]

    def _connection(self) -> _Connection:
        assert self.current in self.connections, "no connection is open"
        return self.connections[self.current]

    def _note(self, side: str, text: str) -> None:
        shown = text if len(text) <= 400 else f"{text[:200]} ... {len(text)} characters ... {text[-100:]}"
        self.transcript.append(f"{side} {self.current}: {shown.encode('unicode_escape').decode()}")

    async def finish(self) -> None:
        """Check that no connection has an unread line."""
        for name, connection in self.connections.items():
            try:
                async with asyncio.timeout(0):
                    rest = await connection.reader.read(MAX_LINE)
            except (TimeoutError, ConnectionError):
                continue
            assert not rest, f"unread from {name!r}: {rest!r}"

    def close(self) -> None:
        for connection in self.connections.values():
            connection.writer.close()


def made_up(size: int, address: str) -> bytes:
    """Return a message of `size` bytes in lines; without a header when it is too short for one."""
    header = f"From: <{address}>\r\nSubject: made up\r\n\r\n".encode()
    head = header if size >= len(header) else b""
    left = size - len(head)
    lines, rest = divmod(left, 72)
    return head + (b"x" * 70 + b"\r\n") * lines + (b"x" * (rest - 2) + b"\r\n" if rest >= 2 else b"x" * rest)


def unescaped(text: str) -> str:
    r"""Text with its escapes replaced; `\xHH` above 7F is that octet (a surrogate escape until it is encoded)."""

    def replaced(match: re.Match[str]) -> str:
        if match[1]:
            value = int(match[1], 16)
            return chr(value) if value < 0x80 else chr(0xDC00 + value)
        assert match[2] in _ESCAPES, f"unknown escape \\{match[2]}"
        return _ESCAPES[match[2]]

    return re.sub(r"\\(?:x([0-9a-fA-F]{2})|(.))", replaced, text)
