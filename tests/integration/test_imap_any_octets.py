"""On a healthy platform no bytes of a client, in any argument of any command, cause a temporary failure or a fault.

The server refuses the impossible permanently, because a client retries a temporary failure for ever, and the session
continues.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import HealthCheck, given, settings

from paquebot.imap.metrics import UNEXPECTED
from paquebot.imap.server import ImapServer
from tests.support.imap_conversations import ANY_STATE, OF_MAILBOXES, OF_MESSAGES, Command, Literal, conversations
from tests.support.imap_wire import WireClient, connected
from tests.support.imap_world import ImapStack, Reader

MESSAGE = b"From: Alice <alice@example.org>\r\nSubject: one\r\n\r\nbody\r\n"
NEVER = (b"[UNAVAILABLE]", b"[SERVERBUG]", b"Temporary", b"* BYE")
UNBOUNDED = {"PAQUEBOT_IMAP_LOGIN_COMMANDS": "100000", "PAQUEBOT_IMAP_ERRORS": "100000"}
WAYS = {
    "authenticated": (b"NOOP",),
    "selected": (b"SELECT INBOX",),
    "read-only": (b"EXAMINE INBOX",),
    "QRESYNC": (b"ENABLE QRESYNC", b"SELECT INBOX"),
}


@pytest.fixture(scope="module")
async def server(imap_stack: ImapStack) -> AsyncIterator[ImapServer]:
    async with imap_stack.serving(**UNBOUNDED) as server:
        yield server


@pytest.fixture(scope="module")
async def reader(imap_stack: ImapStack) -> Reader:
    return await imap_stack.reader()


class Talker:
    """One connection, and all lines that the server sent on it."""

    def __init__(self, client: WireClient) -> None:
        self.client = client
        self.count = 0

    async def say(self, command: Command) -> None:
        """Send the command, and a NOOP that shows that the session continues. Raises AssertionError."""
        self.count += 1
        tag = b"c%d" % self.count
        before = UNEXPECTED._value.get()
        await self._write(tag, [tag + b" ", *command, b"\r\n"])
        await self.client.say(b"n%b NOOP\r\n" % tag)
        while not (line := await self.line()).startswith(b"n%b " % tag):
            assert not any(words in line for words in NEVER), (command, line)
        assert line == b"n%b OK NOOP completed\r\n" % tag, (command, line)
        assert UNEXPECTED._value.get() == before, command

    async def line(self) -> bytes:
        return await self.client.line()

    async def _write(self, tag: bytes, pieces: Iterable[bytes | Literal]) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                await self.client.say(piece)
                continue
            await self.client.say(piece.head)
            if piece.waits and not await self._accepts_literal(tag):
                return
            await self.client.say(piece.payload)

    async def _accepts_literal(self, tag: bytes) -> bool:
        """Return whether the server accepts the literal; otherwise it has refused the command."""
        while True:
            line = await self.line()
            assert not any(words in line for words in NEVER), line
            if line.startswith((b"+", tag + b" ", b"* BAD")):
                return line.startswith(b"+")


async def play(server: ImapServer, reader: Reader | None, way: Iterable[bytes], commands: Iterable[Command]) -> None:
    async with connected(server.port("imaps"), reader) as client:
        talker = Talker(client)
        for before in way:
            await talker.say([before])
        for command in commands:
            await talker.say(command)
        if reader is not None:  # no command has damaged the mailbox
            for after in (
                'LIST "" *',
                'LSUB "" *',
                "SELECT INBOX",
                "UID FETCH 1:* (FULL SAVEDATE)",
                "SEARCH SINCE 1-Jan-2000",
            ):
                await client.ok(after)


def is_short(command: Command) -> bool:
    """Before login the server closes the connection at a longer command."""
    return all(len(piece if isinstance(piece, bytes) else piece.payload) <= 1000 for piece in command)


pytestmark = pytest.mark.timeout(600)  # a hundred sessions, each with real engines

own_time = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@own_time
@given(commands=conversations(*ANY_STATE, *OF_MAILBOXES, *OF_MESSAGES))
async def test_before_login(server: ImapServer, commands: list[Command]) -> None:
    await play(server, None, (), filter(is_short, commands))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@own_time
@given(commands=conversations(*ANY_STATE, *OF_MAILBOXES, *OF_MESSAGES))
async def test_after_login(
    imap_stack: ImapStack, server: ImapServer, reader: Reader, way: tuple[bytes, ...], commands: list[Command]
) -> None:
    inbox = await imap_stack.mailstore.mailboxes.find(reader.account_id, "INBOX")
    if inbox.messages < 3:
        await imap_stack.deliver(reader, MESSAGE, MESSAGE, MESSAGE)
    await play(server, reader, way, commands)
