"""For any bytes in a POP3 command: a healthy service answers each line, and never with a temporary failure."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest

from paquebot.pop3.server import Pop3Server
from paquebot.wire import pop3
from paquebot.wire.cursor import GrammarError
from paquebot.wire.pop3 import parse_command
from tests.dialogues.dialogue import client_tls
from tests.support.pop3_world import PASSWORD, Pop3Stack, Reader

KEYWORDS = (
    *(b"USER", b"PASS", b"AUTH", b"AUTH PLAIN", b"STLS", b"CAPA", b"STAT", b"LIST", b"RETR", b"DELE", b"NOOP", b"RSET"),
    *(b"TOP", b"TOP 1", b"UIDL", b"APOP", b"UTF8", b"LANG", b"XYZZY", b"", b"list", b" retr", b"QUIT"),
)
ARGUMENTS = (
    *(b"", b"1", b"0001", b"1 ", b" 1", b"0", b"-1", b"+1", b"1.5", b"2", b"99", b"9" * 30, b"9" * 4000, b"1 1"),
    *(
        b"1 99999999999999999999",
        b"1 -1",
        b"\0",
        b"\xff\xfe",
        b"a\0b",
        b"\x01\x02\x1b[2J",
        b"a\rb",
        b"%s%n",
        b"*",
        b"=",
    ),
    *(b"reader@pop3.test", b"\xc3\xa4@pop3.test", b"a" * 320 + b"@pop3.test", b"@", b"a@", b"'; --", b"\xed\xa0\x80"),
    *(b"AHgAeQ==", b"AAAA", b"////", b"AGEAAGI=", b"YQBiAGMAZA==", b"\xe2\x80\xae", b"\t", b"1\t1", b"x" * 4050),
)
MULTI_LINE = (pop3.Retr, pop3.Top, pop3.Capa)


def lines(seed: int, count: int) -> list[bytes]:
    """Keywords with arguments of the list or of any bytes."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        argument = drawn.choice(ARGUMENTS)
        if drawn.random() < 0.4:
            argument = drawn.randbytes(drawn.choice((1, 3, 20, 300))).replace(b"\n", b"")
        found.append(drawn.choice(KEYWORDS) + drawn.choice((b" ", b"", b"  ", b"\t")) + argument)
    return found


@dataclass(slots=True)
class Session:
    """One connection, after the greeting."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, line: bytes) -> bytes:
        """Send a line and read the whole reply; return its status line."""
        self.writer.write(line + b"\r\n")
        async with asyncio.timeout(30):
            status = await self.reader.readline()
            if status.startswith(b"+OK") and is_multi_line(line):
                while await self.reader.readline() != b".\r\n":
                    pass
        return status


def is_multi_line(line: bytes) -> bool:
    command = parse_command(line)
    if isinstance(command, pop3.List | pop3.Uidl):
        return command.number is None
    return isinstance(command, MULTI_LINE) or command == pop3.Auth(None, None)


def is_end(line: bytes) -> bool:
    try:
        return isinstance(parse_command(line.removesuffix(b"\r")), pop3.Quit)
    except GrammarError:
        return False


async def connected(server: Pop3Server) -> Session:
    port = server.port("pop3s")
    session = Session(*await asyncio.open_connection("127.0.0.1", port, ssl=client_tls()))
    assert (await session.reader.readline()).startswith(b"+OK")
    return session


async def logged_in(server: Pop3Server, reader: Reader) -> Session:
    session = await connected(server)
    await session.say(b"USER " + reader.address.encode())
    assert (await session.say(b"PASS " + PASSWORD.encode())).startswith(b"+OK")
    return session


@pytest.mark.parametrize("after_login", [False, True], ids=["before login", "after login"])
async def test_each_line_gets_a_permanent_answer(pop3_stack: Pop3Stack, after_login: bool) -> None:
    reader = await pop3_stack.reader()
    await pop3_stack.deliver(reader, b"Subject: x\r\n\r\n.dots\r\n", b"a: b\n\nno end", b"")
    many = {"PAQUEBOT_POP3_ERRORS": "100000", "PAQUEBOT_POP3_LOGIN_COMMANDS": "100000"}
    async with pop3_stack.serving(**many) as server:

        async def begun() -> Session:
            return await logged_in(server, reader) if after_login else await connected(server)

        session = await begun()
        for line in lines(seed=7 + after_login, count=700):
            status = await session.say(line)
            if status.startswith(b"+ "):  # PLAIN asks for its message
                status = await session.say(line)
            assert status.startswith((b"+OK", b"-ERR")), line
            assert b"[SYS/TEMP]" not in status, line
            assert len(status) <= 512 and status.endswith(b"\r\n") and status.isascii()
            if status.startswith(b"+OK") and is_end(line):
                assert await session.reader.read() == b""
                session = await begun()
        assert (await session.say(b"QUIT")).startswith(b"+OK")
        session.writer.close()
